"""Several SAEs trained at once on one stream of batches, from text to folders that can be harvested."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from app.corpus.sequences import Sequence as Tokens
from app.corpus.sequences import corpus_hash
from app.disk import room
from app.errors import BadRequest
from app.sae.base import SAEConfig
from app.shortage import out_of_memory
from app.subject.hook_names import hook_point
from app.subject.identity import fingerprint
from app.subject.load import Subject
from app.train import record
from app.train.activations import (
    GRADIENT,
    ActivationFile,
    Gathered,
    cache_folder,
    gather,
    gradient_scale,
    normalisation,
)
from app.train.estimate import enough, places
from app.train.idea import Batch, Shape, Units
from app.train.ideas import named
from app.train.run import Diverged, Plan, Recipe, Run, check_k, claim, identity
from app.train.world import ALONE, World

ALIVE_S = 5.0


@dataclass(frozen=True)
class Watch:
    """What is told while it goes on; ``stopping`` is asked between steps."""

    gathered: Callable[[int, int], None] = lambda done, total: None
    stepped: Callable[[Run], None] = lambda run: None
    ended: Callable[[record.Facts], None] = lambda facts: None
    stopping: Callable[[], bool] = lambda: False


class Stopped(Exception):
    """Asked to stop; checkpoints are written."""


def train(
    subject: Subject,
    sequences: Sequence[Tokens],
    recipe: Recipe,
    plans: Sequence[Plan],
    home: Path,
    *,
    corpus: Sequence[str] = (),
    tag: str = "",
    out: Path | None = None,
    watch: Watch = Watch(),
    world: World = ALONE,
) -> list[record.Facts]:
    """Train ``plans`` on the activations of ``subject`` over ``sequences`` and write the SAEs: each to its run's folder
    under ``home``, or to ``out`` (to folders in it, where there are several). A run that was killed carries on from its
    checkpoint and ends with the same weights; one that is finished is left as it is.

    Raises:
        BadRequest: plans do not fit the subject, the text or what is in their folders.
        Stopped: ``watch.stopping`` said so; the same call carries on.
    """
    recipe = resolved(recipe, subject)
    check(recipe, plans, subject)
    tokens = enough(subject, sequences, recipe)
    text, sha256, dtype = corpus_hash(sequences), fingerprint(subject), str(subject.dtype)
    steps = tokens // recipe.batch * recipe.epochs
    facts, wanted = [], []
    for plan in plans:
        name = run_name(subject.name, recipe, plan, tag)
        where = record.folder_of(home, name) / "sae"
        if out is not None:
            where = out if len(plans) == 1 else out / name
        wanted.append(where)
        facts.append(
            claim(
                record.folder_of(home, name),
                record.Facts(
                    name=name, idea=plan.idea, about=named(plan.idea).about, options=asdict(plan.chosen),
                    seed=plan.seed, n_latents=plan.n_latents, subject=subject.name, reads=recipe.hook_point,
                    writes=recipe.writes or recipe.hook_point, corpus=list(corpus), tokens=tokens, steps=steps,
                    recipe=asdict(recipe), identity=identity(recipe, plan, text, sha256, dtype), sae=str(where),
                ),
            )
        )  # fmt: skip
    if len({one.name for one in facts}) < len(facts):
        raise BadRequest("Two of the runs are the same: idea, size, options and seed.")
    if world.rank == 0:
        _hand_over(facts, wanted, out)
    world.wait()
    for one, where in zip(facts, wanted, strict=True):
        one.sae = str(where)
    if all(one.state == "finished" for one in facts):
        return facts
    gathered = _gathered(subject, recipe, plans, sequences, home, sha256, text, watch, world)
    rows = Rows.of(gathered, recipe)
    runs = [
        _begun(one, plan, recipe, rows, record.folder_of(home, one.name), subject, world)
        for one, plan in zip(facts, plans, strict=True)
        if one.state != "finished"
    ]
    if world.rank == 0:
        for run in runs:
            record.save_facts(run.folder, run.facts)
    world.wait()
    stream(runs, rows, recipe, steps, watch, world)
    for run in runs:
        if run.facts.state == "running" and run.step == steps:
            _finish(run, rows, recipe, subject, watch, world)
    return facts


def _hand_over(facts: Sequence[record.Facts], wanted: Sequence[Path], out: Path | None) -> None:
    """SAEs that are finished to where they are wanted now; room for the others, before the work and not after it."""
    for one, where in zip(facts, wanted, strict=True):
        with room(where, "The SAE"):
            if one.state == "finished" and Path(one.sae) != where:
                shutil.copytree(one.sae, where, dirs_exist_ok=True)
            elif one.state != "finished" and out is not None:
                where.mkdir(parents=True, exist_ok=True)


def _begun(
    facts: record.Facts, plan: Plan, recipe: Recipe, rows: "Rows", folder: Path, subject: Subject, world: World
) -> Run:
    """
    Raises:
        BadRequest: its checkpoint is damaged, or memory does not hold it.
    """
    try:
        return Run(facts, plan, recipe, rows.shape(plan), folder, subject.device, world)
    except Exception as error:
        if out_of_memory(error):
            told = f"{plan.idea} of {plan.n_latents:,} latents takes more memory than there is."
            raise BadRequest(told, latents=plan.n_latents) from error
        raise


def _finish(run: Run, rows: "Rows", recipe: Recipe, subject: Subject, watch: Watch, world: World) -> None:
    if world.rank == 0:
        config = SAEConfig(
            architecture=run.idea.architecture or run.idea.name, d_in=run.idea.shape.d_in,
            n_latents=run.plan.n_latents, reads=(recipe.hook_point,), writes=(recipe.writes or recipe.hook_point,),
            subject=subject.name, context=recipe.context, signed=run.idea.signed, heads=heads_at(subject, recipe),
        )  # fmt: skip
        run.finish(rows.units, config, Path(run.facts.sae))
        run.facts.state, run.facts.ended = "finished", time.time()
        record.save_facts(run.folder, run.facts)
    watch.ended(run.facts)


def heads_at(subject: Subject, recipe: Recipe) -> int | None:
    """The number of heads whose outputs lie side by side there, if it is an attention's output projection's input."""
    if re.search(r"(?:o_proj|attn\.c_proj|attention\.dense|out_proj):in$", recipe.hook_point):
        return getattr(subject.model.config, "num_attention_heads", None)
    return None


def resolved(recipe: Recipe, subject: Subject) -> Recipe:
    """The recipe with its places as the subject's hook points.

    Raises:
        SubjectUnavailable: there is no such place; names what comes near.
    """
    writes = recipe.writes and str(hook_point(recipe.writes, subject.model))
    return replace(recipe, hook_point=str(hook_point(recipe.hook_point, subject.model)), writes=writes)


def check(recipe: Recipe, plans: Sequence[Plan], subject: Subject) -> None:
    """
    Raises:
        BadRequest: an idea is not known, its options do not fit, or not the place.
    """
    if recipe.context > subject.max_context:
        raise BadRequest(f"--context is {recipe.context:,}; {subject.name} reads at most {subject.max_context:,}.")
    for plan in plans:
        check_k(plan)
        moved = recipe.writes not in (None, recipe.hook_point)
        if moved != (plan.idea == "transcoder"):
            said = "writes where it reads; leave --writes out" if moved else "needs --writes, what it is to predict"
            raise BadRequest(f"{plan.idea} {said}.", idea=plan.idea)
        if plan.idea == "attention-output" and heads_at(subject, recipe) is None:
            raise BadRequest(
                f"attention-output reads the input of an attention's output projection, such as "
                f"blocks.0.attn.hook_z, not {recipe.hook_point}.",
                hook_point=recipe.hook_point,
            )


def run_name(subject: str, recipe: Recipe, plan: Plan, tag: str) -> str:
    place = re.sub(r"^(?:model|transformer|gpt_neox)\.(?:layers|h)\.", "l", recipe.hook_point)
    told = f"{subject}-{place}-{plan.label}{f'-{tag}' if tag else ''}".lower()
    return re.sub(r"[^a-z0-9.]+", "-", told).strip("-.")


def _gathered(
    subject: Subject, recipe: Recipe, plans: Sequence[Plan], sequences: Sequence[Tokens], home: Path, sha256: str,
    text: str, watch: Watch, world: World,
) -> Gathered:  # fmt: skip
    """Rank 0 gathers, the others wait for it and then find it all there."""
    folder = cache_folder(home, sha256, subject.dtype, text)
    wanted = places(recipe, plans)

    def between() -> None:
        if watch.stopping():
            raise Stopped

    if world.rank == 0:
        gather(subject, wanted, sequences, folder, on_progress=watch.gathered, between=between)
    world.wait()
    return gather(subject, wanted, sequences, folder)


def dropped(home: Path, subject: Subject, sequences: Sequence[Tokens]) -> None:
    """Remove the activations of ``subject`` over ``sequences``."""
    shutil.rmtree(cache_folder(home, fingerprint(subject), subject.dtype, corpus_hash(sequences)), ignore_errors=True)


class Rows(NamedTuple):
    """The files that batches are read from, and what normalises them."""

    x: ActivationFile
    y: ActivationFile
    gradient: ActivationFile | None
    rows: int
    units: Units
    gradient_scale: float

    @classmethod
    def of(cls, gathered: Gathered, recipe: Recipe) -> "Rows":
        x = gathered.files[recipe.hook_point]
        y = gathered.files[recipe.writes or recipe.hook_point]
        slope = gathered.files.get(GRADIENT + recipe.hook_point)
        mean, scale = normalisation(x, gathered.rows)
        units = Units(mean, scale, *((mean, scale) if y is x else normalisation(y, gathered.rows)))
        return cls(x, y, slope, gathered.rows, units, gradient_scale(slope, gathered.rows) if slope else 1.0)

    def shape(self, plan: Plan) -> Shape:
        return Shape(self.x.d, self.y.d, plan.n_latents)

    def batch(self, index: Tensor, device: torch.device, step: int, steps: int, world: World) -> Batch:
        """The rows ``index`` as a batch, this process's share of them. Dead latents and the seed are a run's own."""
        size, share = len(index), world.share(len(index))
        mean, scale, out_mean, out_scale = self.units
        whole = ((self.y.read(index) - out_mean) * out_scale).to(device)
        y = whole[share]
        x = y if self.x is self.y else ((self.x.read(index[share]) - mean) * scale).to(device)
        slope = None if self.gradient is None else (self.gradient.read(index[share]) * self.gradient_scale).to(device)
        return Batch(
            x=x, y=y, variance=(whole - whole.mean(0)).pow(2).sum(), size=size, step=step, steps=steps,
            dead=torch.zeros(0, dtype=torch.bool), world=world, gradient=slope,
        )  # fmt: skip


def stream(
    runs: list[Run], rows: Rows, recipe: Recipe, steps: int, watch: Watch = Watch(), world: World = ALONE
) -> None:  # fmt: skip
    """Every run's steps that it has not done, on one stream of batches.

    Raises:
        Stopped: ``watch.stopping`` said so; checkpoints are written.
    """
    going = list(runs)
    device = going[0].since_fired.device
    begin, told = min(run.step for run in going), time.monotonic()
    try:
        for step, index in batches(rows.rows, recipe, begin, steps):
            if _asked(watch, world):
                raise Stopped
            batch = rows.batch(index, device, step, steps, world)
            for run in [run for run in going if run.step == step]:
                try:
                    run.update(batch)
                except Diverged:
                    going.remove(run)
                    _fail(run, watch)
                watch.stepped(run)
            if time.monotonic() > told + ALIVE_S and world.rank == 0:
                told = time.monotonic()
                for run in going:
                    record.alive(run.folder)
            if not going:
                return
    except Stopped:
        for run in going:
            run.checkpoint()
            _end(run, "stopped", world)
        raise
    except BaseException:
        for run in going:
            with suppress(OSError):
                _end(run, "stopped", world)
        raise


def _asked(watch: Watch, world: World) -> bool:
    """Whether to stop; all processes do if one was asked."""
    asked = watch.stopping()
    return asked if world.size == 1 else bool(world.most(torch.tensor([int(asked)])).item())


def _end(run: Run, state: record.State, world: World) -> None:
    if world.rank == 0:
        run.facts.state, run.facts.ended = state, time.time()
        record.save_facts(run.folder, run.facts)


def _fail(run: Run, watch: Watch) -> None:
    first = max(1, run.step - run.recipe.log_every + 1)
    run.facts.message = (
        f"Its loss was no number any more by step {run.step} (at {first} or later); a lower --lr may help."
    )
    _end(run, "failed", run.world)
    watch.ended(run.facts)


def batches(rows: int, recipe: Recipe, begin: int, steps: int) -> Iterator[tuple[int, Tensor]]:
    """(step, row numbers) from step ``begin`` on; the rest of an epoch that fills no batch is left out."""
    per_epoch = rows // recipe.batch
    for epoch in range(begin // per_epoch, -(-steps // per_epoch)):
        order = epoch_order(rows, recipe, epoch)
        for number in range(per_epoch):
            step = epoch * per_epoch + number
            if begin <= step < steps:
                index = order[number * recipe.batch : (number + 1) * recipe.batch]
                yield step, index.sort().values


def epoch_order(rows: int, recipe: Recipe, epoch: int) -> Tensor:
    """Mixed: drawn anew for every epoch. Sequential (FAST): as the text has them, document by document."""
    if recipe.order == "sequential":
        return torch.arange(rows)
    generator = torch.Generator().manual_seed(recipe.order_seed * 1_000_003 + epoch + 1)
    return torch.randperm(rows, generator=generator)
