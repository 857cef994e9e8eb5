"""What a subject itself would list for a query: the next words after a list's name and a colon, against any list's."""

from copy import deepcopy
from inspect import signature
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from app.live.jobs import ListAnswer, Listed
from app.live.prompt_ids import prompt_ids
from app.subject.last import last
from app.subject.load import Subject
from app.subject.tokens import Vocabulary

SHOTS = (
    "colors: red, blue, green, yellow, white, black, brown\n"
    "animals: dog, cat, horse, cow, sheep, lion, mouse\n"
    "verbs of motion: go, come, run, walk, move, fly, travel\n"
    "pronouns: he, she, it, they, we, you, them\n"
)
GENERIC = ("words", "things", "other words", "names")
MOST = 100  # words of a list
LEAST = 1e-4  # of the probability
RAREST = 1e-9  # what a word is taken to have after the generic queries at least
Doubles = npt.NDArray[np.float64]


class Forms(NamedTuple):
    """What tokens read as, stripped and casefolded, where that is letters and more than one. of: [tokens] int64, a
    place in ``texts``, or their number for tokens that read as nothing such."""

    of: npt.NDArray[np.int64]
    texts: list[str]

    @classmethod
    def among(cls, vocabulary: Vocabulary) -> "Forms":
        places: dict[str, int] = {}
        read = [vocabulary.text(token).strip().casefold() for token in range(len(vocabulary))]
        found = [places.setdefault(x, len(places)) if len(x) > 1 and x.isalpha() else -1 for x in read]
        of = np.array(found, np.int64)
        of[of < 0] = len(places)
        return cls(of, list(places))

    def total(self, probability: Doubles) -> Doubles:
        """[tokens] -> [forms]: what the tokens of each have together. Ids that the vocabulary does not name, which
        padded embeddings have, count for none."""
        n = min(len(self.of), len(probability))
        found: Doubles = np.bincount(self.of[:n], probability[:n], len(self.texts) + 1)[:-1].astype(np.float64)
        return found


class _Start(NamedTuple):
    """What every prompt begins with, and the subject's keys and values of that."""

    ids: list[int]
    cache: Any


class _Usual(NamedTuple):
    """A subject's forms, their mean probability after the generic queries ([forms]), and the prompts' beginning where
    it is no use to read it again."""

    forms: Forms
    generic: Doubles
    start: _Start | None


_usual: WeakKeyDictionary[Subject, _Usual] = WeakKeyDictionary()  # only the engine's own thread is here


def listing(subject: Subject, query: str) -> ListAnswer:
    """The words that ``subject`` expects first in a list called ``query``, more than in others.

    A word's weight is log(p / p_generic), in nats: p the probability that the next token reads as it, p_generic the
    mean of that after ``GENERIC``. Kept are the ``MOST`` of greatest weight, of those with p > ``LEAST`` and a weight
    above 0.

    Raises:
        EmptyText, TextTooLong: there is no query, or the subject does not read so much.
    """
    ids = _ids(subject, query)
    usual = _usual.get(subject)
    if usual is None:
        usual = _usual[subject] = _learn(subject)
    forms = usual.forms
    p = forms.total(_next(subject, ids, usual.start))
    weight = weights(p, usual.generic)
    best = np.flatnonzero(weight)
    best = best[np.argsort(-weight[best], kind="stable")]
    place = np.full(len(forms.texts) + 1, -1)
    place[best] = np.arange(len(best))
    tokens: list[list[int]] = [[] for _ in best]
    for token in np.flatnonzero(place[forms.of] >= 0).tolist():
        tokens[place[forms.of[token]]].append(token)
    items = [
        Listed(forms.texts[form], float(weight[form]), float(p[form]), some)
        for form, some in zip(best.tolist(), tokens, strict=True)
    ]
    return ListAnswer(items, len(ids))


def weights(p: Doubles, generic: Doubles) -> Doubles:
    """[forms] each -> [forms]: log(p / generic) of those that are kept, 0 of the others."""
    told = np.log(np.maximum(p, 1e-12) / np.maximum(generic, RAREST))
    kept = np.flatnonzero((p > LEAST) & (told > 0))
    kept = kept[np.argsort(-told[kept], kind="stable")[:MOST]]
    found = np.zeros(len(p))
    found[kept] = told[kept]
    return found


def _learn(subject: Subject) -> _Usual:
    forms, start = Forms.among(subject.vocabulary), _begin(subject)
    generic = [forms.total(_next(subject, _ids(subject, one), start)) for one in GENERIC]
    return _Usual(forms, np.mean(generic, axis=0), start)


def _ids(subject: Subject, query: str) -> list[int]:
    """The prompt is not the reader's, so only what the subject reads bounds it."""
    asked = " ".join(query.split())
    text = f"{SHOTS}{asked}:" if asked else ""
    return prompt_ids(subject, text, chat=False, reply=False, limit=subject.max_context)


@torch.inference_mode()
def _begin(subject: Subject) -> _Start | None:
    """None where the subject keeps no keys and values, but a state that cannot be gone on from twice."""
    from transformers import DynamicCache

    model: Any = subject.model
    if getattr(model, "_is_stateful", False) or "past_key_values" not in signature(model.forward).parameters:
        return None
    ids = prompt_ids(subject, SHOTS, chat=False, reply=False, limit=subject.max_context)
    cache = DynamicCache(config=model.config)
    tokens = torch.tensor([ids], device=subject.device)
    model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=last(tokens))
    return _Start(ids, cache) if cache.get_seq_length() == len(ids) else None


@torch.inference_mode()
def _next(subject: Subject, ids: list[int], start: _Start | None) -> Doubles:
    """[vocabulary]: the next token's probabilities, from a softmax in fp32."""
    model: Any = subject.model
    given: dict[str, Any] = {"use_cache": False}
    if start is not None and len(ids) > len(start.ids) and ids[: len(start.ids)] == start.ids:
        ids = ids[len(start.ids) :]
        given = {"use_cache": True, "past_key_values": deepcopy(start.cache)}
    tokens = torch.tensor([ids], device=subject.device)
    logits = model(input_ids=tokens, logits_to_keep=last(tokens), **given).logits[0, -1]
    found: Doubles = torch.softmax(logits.float(), dim=0).cpu().double().numpy()
    return found
