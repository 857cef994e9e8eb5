"""The label a latent has before anything has explained it."""

from collections import Counter


def vocabulary_label(promoted: list[str], most: int = 3) -> str:
    """``promotes Paris, London, Rome``: the promoted tokens, trimmed, each once whatever its case."""
    seen: dict[str, str] = {}
    for token in promoted:
        shown = token.strip() or repr(token)[1:-1]
        seen.setdefault(shown.casefold(), shown)
    return "promotes " + ", ".join(list(seen.values())[:most])


def peak_label(tokens: list[str], most: int = 3) -> str:
    """``own, its``: the tokens on which the top contexts peak, the most frequent first, whatever their case.

    Once a token holds half of the peaks, those that peak only once are left out. Empty for a dead latent.
    """
    shown: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for token in tokens:
        text = token.strip() or repr(token)[1:-1]
        shown.setdefault(text.casefold(), text)
        counts[text.casefold()] += 1
    ranked = counts.most_common(most)
    if ranked and 2 * ranked[0][1] >= len(tokens):
        ranked = [ranked[0], *((text, count) for text, count in ranked[1:] if count > 1)]
    return ", ".join(shown[text] for text, _ in ranked)
