"""The groups one after another, each written as soon as it is measured: what was cut short carries on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Engine
from torch import Tensor

from app import __version__
from app.corpus.sequences import Held
from app.errors import BadRequest
from app.evaluate.absorption import Absorption
from app.evaluate.autointerp import autointerp
from app.evaluate.bidirectional import Bidirectional
from app.evaluate.core import Core
from app.evaluate.definitions import GROUPS
from app.evaluate.independence import Independence
from app.evaluate.outcome import NotApplicable, Outcome, Streamed
from app.evaluate.planted import planted
from app.evaluate.probing import Probing
from app.evaluate.pursuit import Pursuit
from app.evaluate.robustness import Robustness
from app.evaluate.target import Target
from app.evaluate.tpp import TPP
from app.evaluate.zf import ZF
from app.explain.free import Watch as Explaining
from app.harvest.batches import groups as batches
from app.harvest.reader import Reader
from app.store.evaluations import EvaluationRow, key_of, save_evaluations, there

STREAMED = ("core", "independence", "zf", "probing", "tpp", "pursuit", "bidirectional")


@dataclass(frozen=True)
class Recipe:
    """recovery: sequences on which the loss is measured; dictionary: planted features [m, d_out], and their file's
    name and hash."""

    groups: tuple[str, ...]
    tokens: int
    seed: int = 0
    recovery: int = 32
    batch_tokens: int = 8192
    dictionary: Tensor | None = None
    dictionary_name: str | None = None


@dataclass(frozen=True)
class Watch:
    """Who is told: ``doing`` at each stage, ``step`` with how much of it is done."""

    doing: Callable[[str], None] = lambda stage: None
    step: Callable[[int, int], None] = lambda done, total: None


class Done(NamedTuple):
    """What became of a group: its outcome, or why there is none; whether it was there before."""

    group: str
    outcome: Outcome | None
    why: str | None = None
    before: bool = False


def chosen(text: str | None) -> tuple[str, ...]:
    """The groups named in ``text``, by commas; all that need nothing more without it.

    Raises:
        BadRequest: there is no such group.
    """
    if text is None:
        return tuple(name for name, group in GROUPS.items() if not group.asked)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in GROUPS]
    if unknown or not names:
        raise BadRequest(f"There is no metric {unknown[0] if unknown else ''!r}; there are: {', '.join(GROUPS)}.")
    return names


class Evaluation:
    def __init__(self, target: Target, recipe: Recipe, engine: Engine, watch: Watch = Watch()) -> None:
        self.target, self.recipe, self.engine, self.watch = target, recipe, engine, watch
        self._reader: Reader | None = None

    @property
    def reader(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self.target.subject, [self.target.sae], names=[self.target.address])
        return self._reader

    def run(self) -> list[Done]:
        """Every group of the recipe; those that are written already are not measured again."""
        keys = {group: self._key(group) for group in self.recipe.groups}
        written = there(self.engine, list(keys.values()))
        done = {group: Done(group, None, before=True) for group, key in keys.items() if key in written}
        missing = [group for group in keys if group not in done]
        for one, seconds in self._measured(missing):
            if one.outcome is not None:
                save_evaluations(self.engine, {keys[one.group]: self._row(one.group, one.outcome, seconds)})
            done[one.group] = one
        return [done[group] for group in self.recipe.groups]

    def _parameters(self, group: str) -> dict[str, Any]:
        target, recipe = self.target, self.recipe
        return {
            "version": GROUPS[group].version, "tokens_asked": recipe.tokens, "dtype": target.dtype,
            "text_sha256": target.sha256, "recovery_sequences": recipe.recovery if group == "core" else None,
            "dictionary": recipe.dictionary_name if group == "planted" else None,
        }  # fmt: skip

    def _key(self, group: str) -> str:
        target = self.target
        return key_of(target.weights, target.subject_sha256, group, self.recipe.seed, self._parameters(group))

    def _row(self, group: str, outcome: Outcome, seconds: float) -> EvaluationRow:
        target = self.target
        return EvaluationRow(
            target.weights, target.subject_sha256, group, self._parameters(group), outcome.values, outcome.details,
            __version__, target.corpus, outcome.tokens, self.recipe.seed, None, seconds,
        )  # fmt: skip

    def _measured(self, missing: list[str]) -> Iterator[tuple[Done, float]]:
        """Each with the seconds it took; those that share a pass have a part of it each."""
        shared = [group for group in missing if group in STREAMED]
        yield from self._pass(shared)
        for group in missing:
            if group not in shared:
                self.watch.doing(f"measuring {GROUPS[group].title.lower()}")
                began = time.monotonic()
                try:
                    done = Done(group, self._alone(group))
                except NotApplicable as error:
                    done = Done(group, None, str(error))
                yield done, time.monotonic() - began

    def _pass(self, shared: list[str]) -> Iterator[tuple[Done, float]]:
        made: dict[str, Streamed] = {}
        for group in shared:
            try:
                made[group] = self._streamed(group)
            except NotApplicable as error:
                yield Done(group, None, str(error)), 0.0
        if not made:
            return
        self.watch.doing("reading the text for " + ", ".join(made))
        began, rows = time.monotonic(), Held(self.target.sequences)
        for first, some in batches(rows, self.recipe.batch_tokens):
            for (read,) in self.reader.read(first, some):
                for group, one in list(made.items()):
                    try:
                        one.update(read.batch, read.x, read.x if read.y is None else read.y)
                    except NotApplicable as error:
                        del made[group]
                        yield Done(group, None, str(error)), 0.0
            self.watch.step(first + len(some), len(rows))
        each = (time.monotonic() - began) / max(len(made), 1)
        for group, one in made.items():
            self.watch.doing(f"measuring {GROUPS[group].title.lower()}")
            began = time.monotonic()
            try:
                done = Done(group, one.result())
            except NotApplicable as error:
                done = Done(group, None, str(error))
            yield done, each + time.monotonic() - began

    def _streamed(self, group: str) -> Streamed:
        target, recipe = self.target, self.recipe
        subject, sae, rows, seed = target.subject, target.sae, target.sequences, recipe.seed
        match group:
            case "core":
                return Core(subject, sae, rows, recipe.recovery)
            case "independence":
                return Independence(sae, seed)
            case "zf":
                return ZF(sae, seed)
            case "probing":
                return Probing(subject, sae, rows, seed)
            case "tpp":
                return TPP(subject, sae, rows, seed)
            case "pursuit":
                return Pursuit(sae, sum(len(row.token_ids) for row in rows))
            case _:
                return Bidirectional(sae, subject.n_tokens)

    def _alone(self, group: str) -> Outcome:
        target, recipe = self.target, self.recipe
        match group:
            case "robustness":
                return Robustness(self.reader, target.sequences, recipe.batch_tokens, recipe.seed).result()
            case "absorption":
                return Absorption(target.subject, target.sae, recipe.batch_tokens, recipe.seed).result()
            case "autointerp":
                if target.source is None or not target.own_text:
                    raise NotApplicable("it is of a harvest and its text")
                watch = Explaining(self.watch.doing, self.watch.step)
                return autointerp(
                    target.source,
                    self.engine,
                    target.home,
                    recipe.tokens,
                    recipe.seed,
                    target.subject.device.type,
                    watch,
                )
            case _:
                if recipe.dictionary is None:
                    raise NotApplicable("no --dictionary is given")
                return planted(target.sae, recipe.dictionary)
