"""The label a latent has before anything has explained it."""


def vocabulary_label(promoted: list[str], most: int = 3) -> str:
    """``promotes Paris, London, Rome``: the promoted tokens, trimmed, each once whatever its case."""
    seen: dict[str, str] = {}
    for token in promoted:
        shown = token.strip() or repr(token)[1:-1]
        seen.setdefault(shown.casefold(), shown)
    return "promotes " + ", ".join(list(seen.values())[:most])
