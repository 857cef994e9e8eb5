"""What a region is about: the words its latents share and others do not."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from app.atlas.arrays import Ints

NAMED = 3  # terms in a name
KEPT = 8  # terms kept of a group
COMMON = 0.02  # the share of a group that has a term, at least
NAMELESS = "no common words"
TOKEN_SOURCES = ("top-tokens", "vocab-projection", "position")  # labels that nobody wrote

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PROSE = frozenset(
    _WORD.findall(
        """
    a about after all also an and another any are as at be because been before being between both but by can context
    contexts could describing do does e each especially etc feature features fires firing for from g had has have he
    her his how i if in indicating into is it its itself just like many may mentions more most mostly my no not of
    often on one or other our out over particularly phrases references related s she so some specific specifically
    such text than that the their them then there these they this those through to token tokens up used usually
    various was we well were what when where which who will with within word words would you your
        """
    )
)


class Terms(NamedTuple):
    """Which terms a latent has, each once: latent: [pairs]; term: [pairs], numbers into ``words``."""

    latent: Ints
    term: Ints
    words: list[str]


class Named(NamedTuple):
    """terms: the strongest first, with their c-TF-IDF."""

    name: str
    terms: list[str]
    scores: list[float]


def token_term(text: str) -> str | None:
    """A token as a term: without case and space around it, ``-ing`` for a piece that continues a word; signs stand for
    themselves. None for space alone, for pieces of one or two letters and for pieces of characters."""
    word = text.strip().casefold()
    if not word.isprintable() or not word or "\\x" in word or "\ufffd" in word:
        return None
    if text[:1].isspace() or not word.isalpha():
        return word
    piece = text[:1].islower()
    if word.isascii() and len(word) < (3 if piece else 2):
        return None
    return f"-{word}" if piece else word


def terms(n: int, tokens: Ints, counts: Ints, texts: Sequence[str], labels: Sequence[tuple[str, str]]) -> Terms:
    """tokens: [sum of counts], each latent's top tokens' ids; counts: [n]; texts: the vocabulary; labels: (label,
    source) of each latent. A label of tokens counts as those, any other by its words, but for those of every
    description."""
    words: dict[str, int] = {}
    used = np.unique(tokens)
    of_token = np.full(int(used.max(initial=-1)) + 1, -1)
    whole = {word for word in (token_term(text) for text in texts) if word is not None}
    for token in used.tolist():
        word = token_term(texts[token]) if 0 <= token < len(texts) else None
        if word is not None and word.startswith("-") and word[1:] in whole:
            word = word[1:]  # it is a word of its own as well
        if word is not None:
            of_token[token] = words.setdefault(word, len(words))
    term = of_token[tokens] if len(tokens) else np.empty(0, np.int64)
    latent = np.repeat(np.arange(n), counts)
    more = [
        (i, words.setdefault(word, len(words)))
        for i, (label, source) in enumerate(labels)
        for word in label_words(label, source)
    ]
    latent = np.concatenate([latent[term >= 0], np.array([i for i, _ in more], np.int64)])
    term = np.concatenate([term[term >= 0], np.array([word for _, word in more], np.int64)])
    pairs = np.unique(latent * max(len(words), 1) + term)
    return Terms(pairs // max(len(words), 1), pairs % max(len(words), 1), list(words))


def label_words(label: str, source: str) -> list[str]:
    if source in TOKEN_SOURCES:
        parts = label.removeprefix("promotes ").split(", ")
        return [word for part in parts if (word := token_term(f" {part}"))]
    found = (word.casefold() for word in _WORD.findall(label))
    return [word for word in found if word not in _PROSE and len(word) > 1]


def named(found: Terms, groups: Ints, n_groups: int) -> list[Named]:
    """A name for each group by c-TF-IDF (Grootendorst 2022, BERTopic): tf log(1 + A / f), where tf is the share of the
    group's latents that have the term, f the number of latents that have it in any group or none, and A the mean number
    of terms a group has. Only terms of two latents or more, and of 2% of the group; in the name those at
    least half as strong as the first.

    groups: [n], -1 for none.
    """
    n_words = max(len(found.words), 1)
    group = groups[found.latent]
    everywhere = np.bincount(found.term, minlength=n_words)
    pairs, times = np.unique(group[group >= 0] * n_words + found.term[group >= 0], return_counts=True)
    of_group, term = pairs // n_words, pairs % n_words
    sizes = np.maximum(np.bincount(groups[groups >= 0], minlength=n_groups), 1)
    a = len(found.term) / max(n_groups, 1)
    weight = times / sizes[of_group] * np.log1p(a / everywhere[term])
    weight[times < np.maximum(2, COMMON * sizes[of_group])] = 0
    order = np.lexsort((term, -weight, of_group))
    order = order[weight[order] > 0]
    begins = np.searchsorted(of_group[order], np.arange(n_groups + 1))
    return [
        _named([(found.words[term[i]], float(weight[i])) for i in order[begin : min(begin + KEPT, end)]])
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True)
    ]


def mixed(names: Sequence[Named], parents: Sequence[int], groups: Sequence[Named]) -> list[Named]:
    """``groups`` with names for those that have none: ``mixed:`` and the first terms of the largest three of their
    parts. names, parents: of the parts, the largest first, and the groups they are in."""
    out = []
    for number, group in enumerate(groups):
        inside = [one.terms[0] for one, parent in zip(names, parents, strict=True) if parent == number and one.terms]
        first = list(dict.fromkeys(inside))[:NAMED]
        out.append(group._replace(name=f"mixed: {', '.join(first)}") if not group.terms and len(first) > 1 else group)
    return out


def _named(strongest: list[tuple[str, float]]) -> Named:
    if not strongest:
        return Named(NAMELESS, [], [])
    least = strongest[0][1] / 2
    name = " · ".join(word for word, weight in strongest[:NAMED] if weight >= least)
    return Named(name, [word for word, _ in strongest], [weight for _, weight in strongest])
