"""A training run from text to an SAE folder: reproducible from its seed, resumable after a kill."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.corpus.sequences import Sequence, corpus_hash
from app.disk import room
from app.errors import BadRequest
from app.sae.base import SAEConfig
from app.sae.formats import saelens
from app.sae.topk import TopK
from app.subject.hooks import HookPoint
from app.subject.identity import fingerprint
from app.subject.load import Subject
from app.train.activations import ActivationFile, gather
from app.train.topk import TopKTrainer, fold


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result, apart from the text and the subject."""

    hook_point: str = "model.layers.9:out"
    n_latents: int = 4096
    k: int = 32
    epochs: int = 2
    batch: int = 2048
    lr: float = 8e-4
    warmup: int = 100
    decay: float = 0.25  # share of the steps, at the end, over which lr falls to zero
    aux_weight: float = 1 / 32
    dead_after: int = 100_000  # tokens without firing
    context: int = 128
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 200


@dataclass(frozen=True)
class Metrics:
    """One line of the log. ``fvu`` and ``aux`` are means since the last line; ``lr`` is the last used."""

    step: int
    steps: int
    tokens: int
    fvu: float
    aux: float
    dead: int
    lr: float
    tokens_per_second: float


def train(
    subject: Subject,
    sequences: list[Sequence],
    recipe: Recipe,
    out: Path,
    *,
    on_gather: Callable[[int, int], None] = lambda done, total: None,
    on_metrics: Callable[[Metrics], None] = lambda metrics: None,
    notes: dict[str, Any] | None = None,
) -> TopK:
    """Train, write the SAE to ``out`` in SAELens format and return it.

    Work files live in ``out/work``: the activations, ``checkpoint.pt`` and ``metrics.jsonl``. A run that was
    killed carries on from them and ends with the same weights; they are removed at the end.

    Raises:
        BadRequest: ``out/work`` belongs to a run with another recipe, other text or another subject.
    """
    work = out / "work"
    identity = _identity(recipe, sequences, subject)
    _claim(work, identity, out)
    hook = HookPoint.parse(recipe.hook_point)
    file, rows = gather(subject, hook, sequences, work, on_progress=on_gather)
    mean, scale = normalisation(file, rows)
    trainer = TopKTrainer(subject.d_model, recipe.n_latents, recipe.k, torch.Generator().manual_seed(recipe.seed))
    _optimise(trainer, file, rows, mean, scale, recipe, work, on_metrics)
    folded = fold(trainer.parameters(), mean, scale)
    sae = TopK(
        config=SAEConfig(
            architecture="topk",
            d_in=subject.d_model,
            n_latents=recipe.n_latents,
            reads=(recipe.hook_point,),
            writes=(recipe.hook_point,),
            subject=subject.name,
            context=recipe.context,
        ),
        W_enc=folded["W_enc"],
        b_enc=folded["b_enc"],
        W_dec=folded["W_dec"],
        b_dec=folded["b_dec"],
        k=recipe.k,
    )
    saelens.write(
        out, sae, matrices=torch.bfloat16, metadata={"training": asdict(recipe) | {"tokens": rows} | (notes or {})}
    )
    (work / "metrics.jsonl").replace(out / "metrics.jsonl")
    for leftover in work.iterdir():
        leftover.unlink()
    work.rmdir()
    return sae


def _identity(recipe: Recipe, sequences: list[Sequence], subject: Subject) -> str:
    told = {
        "recipe": asdict(recipe),
        "text": corpus_hash(sequences),
        "subject": fingerprint(subject),
        "dtype": str(subject.dtype),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _claim(work: Path, identity: str, out: Path) -> None:
    mark = work / "identity"
    if mark.is_file() and mark.read_text() != identity:
        raise BadRequest(
            f"{work} holds an unfinished run with another recipe, other text or another subject; remove it or choose "
            f"another folder than {out}.",
            path=str(work),
        )
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(identity)


def normalisation(file: ActivationFile, rows: int, chunk: int = 65_536) -> tuple[Tensor, float]:
    """The mean [d] and the scale that brings the centred rows to mean squared norm d, over all rows in fp64."""
    d = file.rows.shape[1]
    total, squares = torch.zeros(d, dtype=torch.float64), 0.0
    for start in range(0, rows, chunk):
        x = file.read(torch.arange(start, min(start + chunk, rows))).double()
        total += x.sum(0)
        squares += float(x.pow(2).sum())
    mean = total / rows
    variance = squares / rows - float(mean.pow(2).sum())
    return mean.float(), math.sqrt(d / variance)


def _optimise(
    trainer: TopKTrainer,
    file: ActivationFile,
    rows: int,
    mean: Tensor,
    scale: float,
    recipe: Recipe,
    work: Path,
    on_metrics: Callable[[Metrics], None],
) -> None:
    per_epoch = rows // recipe.batch
    steps = per_epoch * recipe.epochs
    if not steps:
        raise BadRequest(f"{rows} tokens are fewer than one batch of {recipe.batch}.", tokens=rows)
    parameters = trainer.parameters()
    optimiser = torch.optim.Adam(parameters.values(), lr=recipe.lr)
    since_fired = torch.zeros(recipe.n_latents, dtype=torch.int64)
    step = _resume(work, trainer, optimiser, since_fired)
    fvu, aux, logged, clock = 0.0, 0.0, 0, time.perf_counter()
    while step < steps:
        order = _epoch_order(rows, recipe.seed, step // per_epoch)
        for batch in range(step % per_epoch, per_epoch):
            index = order[batch * recipe.batch : (batch + 1) * recipe.batch]
            x = (file.read(index.sort().values) - mean) * scale
            lr = recipe.lr * schedule(step, steps, recipe.warmup, recipe.decay)
            for group in optimiser.param_groups:
                group["lr"] = lr
            dead = since_fired >= recipe.dead_after
            losses = trainer.losses(x, dead)
            (losses.fvu + recipe.aux_weight * losses.aux).backward()
            trainer.project_gradient()
            optimiser.step()
            optimiser.zero_grad()
            trainer.normalise_decoder()
            since_fired += recipe.batch
            since_fired[losses.fired] = 0
            fvu, aux, logged = fvu + losses.fvu.item(), aux + losses.aux.item(), logged + 1
            step += 1
            if step % recipe.log_every == 0 or step == steps:
                now = time.perf_counter()
                line = Metrics(
                    step=step,
                    steps=steps,
                    tokens=step * recipe.batch,
                    fvu=round(fvu / logged, 5),
                    aux=round(aux / logged, 5),
                    dead=int((since_fired >= recipe.dead_after).sum()),
                    lr=lr,
                    tokens_per_second=round(logged * recipe.batch / (now - clock), 1),
                )
                with (work / "metrics.jsonl").open("a") as log:
                    log.write(json.dumps(asdict(line)) + "\n")
                on_metrics(line)
                fvu, aux, logged, clock = 0.0, 0.0, 0, now
            if step % recipe.checkpoint_every == 0 and step < steps:
                _checkpoint(work, trainer, optimiser, since_fired, step)


def _epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1))


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: linear up over ``warmup`` steps, linear to zero over the last ``decay``."""
    up = min(1.0, (step + 1) / max(warmup, 1))
    down = min(1.0, (steps - step) / max(decay * steps, 1))
    return min(up, down)


def _checkpoint(work: Path, trainer: TopKTrainer, optimiser: torch.optim.Adam, since_fired: Tensor, step: int) -> None:
    state = {
        "parameters": {name: p.detach() for name, p in trainer.parameters().items()},
        "optimiser": optimiser.state_dict(),
        "since_fired": since_fired,
        "step": step,
    }
    partial = work / "checkpoint.partial"
    try:
        with room(work, "The training's checkpoint"):
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(work / "checkpoint.pt")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@torch.no_grad()
def _resume(work: Path, trainer: TopKTrainer, optimiser: torch.optim.Adam, since_fired: Tensor) -> int:
    path = work / "checkpoint.pt"
    lines = work / "metrics.jsonl"
    if not path.is_file():
        lines.unlink(missing_ok=True)
        return 0
    state = torch.load(path, weights_only=True)
    for name, parameter in trainer.parameters().items():
        parameter.copy_(state["parameters"][name])
    optimiser.load_state_dict(state["optimiser"])
    since_fired.copy_(state["since_fired"])
    if lines.is_file():
        kept = [line for line in lines.read_text().splitlines() if json.loads(line)["step"] <= state["step"]]
        lines.write_text("".join(line + "\n" for line in kept))
    return int(state["step"])
