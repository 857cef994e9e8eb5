"""Prompts of a task: a positive one, which the subject can complete, and a negative one beside it, of the same template
and length, in which nothing says how to go on."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.errors import SubjectUnfit
from app.subject.load import Subject

TRIES = 50  # draws for a pair before a task is given up


@dataclass(frozen=True)
class Prompt:
    """``ids`` begin with BOS, where there is one. ``right`` and ``wrong`` are next tokens: of a positive prompt, the
    ones that complete it and those that complete it wrongly; a negative one has its positive's."""

    template: int
    text: str
    ids: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]


class Pair(NamedTuple):
    positive: Prompt
    negative: Prompt


class Drawn(NamedTuple):
    """Texts of a pair, and the continuations of the positive one that are right and wrong."""

    template: int
    positive: str
    negative: str
    right: Sequence[str]
    wrong: Sequence[str]


Task = Callable[["Words", random.Random], Iterator[Drawn]]


class Words:
    """Word lists as the subject's tokenizer has them: those that are one token behind a space."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def single(self, words: Sequence[str], least: int, kind: str) -> list[str]:
        """
        Raises:
            SubjectUnfit: fewer than ``least`` of them are one token.
        """
        kept = [word for word in words if len(self.subject.encode(f" {word}")) == 1]
        if len(kept) < least:
            raise SubjectUnfit(
                f"Only {len(kept)} of the {len(words)} {kind} of this task are one token for {self.subject.name}, and "
                f"it needs {least}; take another subject or task.",
                subject=self.subject.name, found=len(kept), least=least,
            )  # fmt: skip
        return kept


def pairs(task: Task, subject: Subject, count: int, seed: int) -> list[Pair]:
    """``count`` pairs of a task, each template as often as any other.

    Raises:
        SubjectUnfit: the subject's tokenizer makes no such prompts.
    """
    lengths: dict[int, int] = {}
    found: list[Pair] = []
    failed = 0
    for drawn in task(Words(subject), random.Random(seed)):
        pair = _pair(subject, drawn)
        length = None if pair is None else lengths.setdefault(drawn.template, len(pair.positive.ids))
        if pair is None or {len(pair.positive.ids), len(pair.negative.ids)} != {length}:
            failed += 1
            if failed > TRIES + len(found):
                raise SubjectUnfit(
                    f"{subject.name}'s tokenizer cuts this task's prompts in different lengths or its answers in "
                    "several tokens; take another subject or task.",
                    subject=subject.name,
                )
            continue
        found.append(pair)
        if len(found) == count:
            break
    return found


def _pair(subject: Subject, drawn: Drawn) -> Pair | None:
    """None where an answer is no token behind the prompt."""
    positive, negative = subject.encode(drawn.positive), subject.encode(drawn.negative)
    right, wrong = (
        [next_token(subject, drawn.positive, positive, text) for text in texts] for texts in (drawn.right, drawn.wrong)
    )
    if None in right or None in wrong:
        return None
    # A token that begins right and wrong answers alike says nothing.
    rights, wrongs = {i for i in right if i is not None}, {i for i in wrong if i is not None}
    answers = tuple(sorted(rights - wrongs)), tuple(sorted(wrongs - rights))
    if not answers[0] or not answers[1]:
        return None
    bos = () if subject.bos_id is None else (subject.bos_id,)
    return Pair(
        Prompt(drawn.template, drawn.positive, (*bos, *positive), *answers),
        Prompt(drawn.template, drawn.negative, (*bos, *negative), *answers),
    )


def next_token(subject: Subject, text: str, ids: list[int], answer: str) -> int | None:
    """The token after ``text`` where ``answer`` follows; None where the two are not cut there."""
    whole = subject.encode(text + answer)
    return whole[len(ids)] if whole[: len(ids)] == ids and len(whole) > len(ids) else None
