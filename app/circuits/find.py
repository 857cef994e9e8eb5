"""A search for a task's circuit, from prompts to a ranking and what it is worth."""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.circuits.ablation import Ablated, ablate
from app.circuits.dictionary import SILENT, Dictionary
from app.circuits.heads import Answered, Heads
from app.circuits.prompts import Pair, pairs
from app.circuits.record import CircuitPrompt, CircuitRun, CircuitSpread
from app.circuits.scores import (
    Codes,
    Floats,
    Spread,
    apart,
    counts,
    roc_auc,
    shuffled_examples,
    shuffled_truth,
    spearman,
)
from app.circuits.tasks import TASKS
from app.errors import BadRequest
from app.subject.identity import fingerprint
from app.subject.load import Subject

SHOWN = 8  # pairs of prompts that are kept with a run
DRAWS = 200  # shuffles
MOST_EXAMPLES = 10_000


@dataclass(frozen=True)
class Search:
    """``examples`` pairs give the codes; the SAE of ``latents`` latents is trained on ``learned_from`` of their
    prompts, half of them positive. A head is in the circuit if its ablation changes the mean logit difference over
    ``ablated_on`` positive prompts by more than ``threshold`` of it."""

    task: str
    examples: int = 250
    learned_from: int = 10
    latents: int = 200
    steps: int = 500
    l1: float = 0.02
    seed: int = 0
    ablated_on: int = 16
    threshold: float = 0.05

    def check(self) -> None:
        """
        Raises:
            BadRequest: a task that is not known, too few examples or too many.
        """
        if self.task not in TASKS:
            raise BadRequest(
                f"There is no task {self.task[:40]!r}; there are: {', '.join(TASKS)}.", task=self.task[:40]
            )
        if self.learned_from < 2 or self.learned_from % 2:
            raise BadRequest(f"The SAE learns from an even number of prompts, 2 or more, not {self.learned_from}.")
        least = max(5, self.learned_from // 2)
        if self.examples < least:
            raise BadRequest(
                f"{self.examples} examples are too few: give {least} or more, for the SAE learns from "
                f"{self.learned_from} prompts, half of them positive, and codes of fewer than 5 say nothing."
            )
        if self.examples > MOST_EXAMPLES:
            raise BadRequest(f"{self.examples:,} examples are too many: give {MOST_EXAMPLES:,} or fewer.")
        if self.ablated_on < 1:
            raise BadRequest(f"Ablation needs 1 prompt or more, not {self.ablated_on}.")


class Watch(NamedTuple):
    """Told what is done."""

    doing: Callable[[str], None] = lambda _stage: None
    step: Callable[[int, int], None] = lambda _done, _total: None


class Found(NamedTuple):
    """All that a search finds out."""

    pairs: list[Pair]
    positive: Answered
    negative: Answered
    coded: "Coded"
    apart: Floats
    ablated: Ablated


class Coded(NamedTuple):
    """codes, untrained: [examples, layers * heads] of the trained SAE and of the same one before training."""

    codes: Codes
    untrained: Codes


def find_circuit(subject: Subject, search: Search, known: Path | None = None, watch: Watch | None = None) -> CircuitRun:
    """
    Raises:
        BadRequest: see ``Search.check``.
        SubjectUnfit: the subject's tokenizer makes no such prompts, or its heads cannot be read.
    """
    search.check()
    told, begun = watch or Watch(), time.monotonic()
    heads = Heads(subject)
    made = pairs(TASKS[search.task], subject, search.examples, search.seed)
    positives, negatives = [pair.positive for pair in made], [pair.negative for pair in made]
    told.doing("Reading the heads")
    on, off = heads.survey(subject, positives), heads.survey(subject, negatives)
    x = heads.written(subject.model, torch.cat([on.means, off.means]))
    told.doing("Training the SAE")
    coded = code(x, search, told.step)
    told.doing("Ablating every head")
    ablated = ablate(subject, heads, positives[: search.ablated_on], off.by_template, told.step)
    sha256 = fingerprint(subject, known)
    return record(
        subject,
        search,
        Found(made, on.answered, off.answered, coded, apart(x), ablated),
        sha256,
        time.monotonic() - begun,
    )


def record(subject: Subject, search: Search, found: "Found", sha256: str, seconds: float) -> CircuitRun:
    """What was found, as it is kept."""
    clean, effect = found.ablated
    difference = float(clean.difference.mean())
    truth = (effect.flatten().abs() > search.threshold * abs(difference)).numpy()
    grid = tuple(effect.shape)
    positive = np.arange(2 * search.examples) < search.examples
    coded = found.coded
    after, before = counts(coded.codes, positive), counts(coded.untrained, positive)
    return CircuitRun(
        name=name(subject, search),
        task=search.task,
        subject=subject.name,
        subject_sha256=sha256,
        dtype=str(subject.dtype).removeprefix("torch."),
        made=datetime.now(UTC),
        seconds=round(seconds, 1),
        examples=search.examples,
        learned_from=search.learned_from,
        latents=search.latents,
        steps=search.steps,
        l1=search.l1,
        seed=search.seed,
        ablated_on=min(search.ablated_on, search.examples),
        threshold=search.threshold,
        difference=float(found.positive.difference.mean()),
        ablated_difference=difference,
        negative_difference=float(found.negative.difference.mean()),
        accuracy=float(found.positive.best.float().mean()),
        silent=float((coded.codes == SILENT).mean()),
        unique=after.unique.reshape(grid).tolist(),
        distinct=after.distinct.reshape(grid).tolist(),
        untrained=before.unique.reshape(grid).tolist(),
        apart=found.apart.reshape(grid).tolist(),
        effect=effect.tolist(),
        in_circuit=int(truth.sum()),
        auc=roc_auc(after.unique, truth),
        auc_normalised=roc_auc(after.unique / after.distinct, truth),
        auc_untrained=roc_auc(before.unique, truth),
        auc_apart=roc_auc(found.apart, truth),
        spearman=spearman(after.unique, effect.flatten().abs().numpy()),
        shuffled_truth=_spread(shuffled_truth(after.unique, truth, DRAWS, search.seed)),
        shuffled_examples=_spread(shuffled_examples(coded.codes, positive, truth, DRAWS, search.seed)),
        prompts=[_shown(subject, pair) for pair in found.pairs[:SHOWN]],
    )


def code(x: Tensor, search: Search, step: Callable[[int, int], None] = lambda done, total: None) -> Coded:
    """x: [2 * examples, heads, d], the positive half first. It is divided by its root mean square over the prompts that
    are learned from."""
    rng = np.random.default_rng(search.seed)
    half, each = len(x) // 2, search.learned_from // 2
    chosen = np.concatenate([rng.permutation(half)[:each], half + rng.permutation(half)[:each]])
    learned = x[torch.from_numpy(chosen)].flatten(0, 1)
    scale = float(learned.pow(2).mean().sqrt()) or 1.0
    dictionary = Dictionary(x.shape[2], search.latents, scale, torch.Generator().manual_seed(search.seed))
    untrained = _codes(dictionary, x)
    dictionary.train(learned, search.steps, search.l1, step)
    return Coded(_codes(dictionary, x), untrained)


def _codes(dictionary: Dictionary, x: Tensor) -> Codes:
    return np.concatenate([dictionary.codes(part).numpy() for part in x.split(32)])


def name(subject: Subject, search: Search) -> str:
    """The task, the subject, the seed, and a few digits of all parameters."""
    slug = re.sub(r"[^a-z0-9]+", "-", subject.name.lower()).strip("-")[:40] or "subject"
    digest = hashlib.sha256(repr((search, subject.name, str(subject.dtype))).encode()).hexdigest()
    return f"{search.task}-{slug}-{search.seed}-{digest[:6]}"


def _shown(subject: Subject, pair: Pair) -> CircuitPrompt:
    right: Sequence[str] = [subject.vocabulary.text(i) for i in pair.positive.right]
    return CircuitPrompt(positive=pair.positive.text, negative=pair.negative.text, right=list(right))


def _spread(found: Spread | None) -> CircuitSpread | None:
    return None if found is None else CircuitSpread(**found._asdict())
