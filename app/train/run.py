"""One SAE in training: an idea, its optimiser, its log and its checkpoint. Reproducible, and resumable after a kill."""

import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.disk import room
from app.errors import BadRequest
from app.sae import normal
from app.sae.base import SAE, SAEConfig
from app.sae.formats import saelens
from app.train import record
from app.train.idea import Batch, Idea, Options, Shape, Units
from app.train.ideas import named
from app.train.world import World


@dataclass(frozen=True)
class Recipe:
    """What all runs of a stream share: everything that decides the result, but for text, subject, idea and seed."""

    hook_point: str = "model.layers.9:out"
    writes: str | None = None  # of a transcoder
    epochs: int = 2
    batch: int = 2048
    lr: float = 8e-4
    warmup: int = 100
    decay: float = 0.25  # share of the steps, at the end, over which lr falls to zero
    dead_after: int = 100_000  # tokens without firing
    context: int = 128
    order: str = "mixed"  # or sequential: rows as they stand in the text
    order_seed: int = 0
    precision: str = "float32"  # of matrix products: float32 or bfloat16
    log_every: int = 50
    checkpoint_every: int = 200


@dataclass(frozen=True)
class Plan:
    """One SAE that is wanted."""

    idea: str = "topk"
    n_latents: int = 4096
    seed: int = 0
    options: Options | None = None

    @property
    def chosen(self) -> Options:
        return self.options or named(self.idea).Options()

    @property
    def label(self) -> str:
        """The idea, its size, what was chosen other than by default, and the seed."""
        usual = asdict(named(self.idea).Options())
        given = [
            f"{name}{'-' if name[-1].isdigit() else ''}{value:g}"
            for name, value in asdict(self.chosen).items()
            if value != usual[name]
        ]
        return "-".join([self.idea, str(self.n_latents), *given, f"s{self.seed}"]).replace("_", "-")


def check_k(plan: Plan) -> None:
    """
    Raises:
        BadRequest: more latents are to be active than there are.
    """
    k = getattr(plan.chosen, "k", 0)
    if k > plan.n_latents:
        raise BadRequest(f"k is {k}, more than the {plan.n_latents} latents.", k=k, latents=plan.n_latents)


class Diverged(Exception):
    """The loss is no number any more."""


class Run:
    """A plan under way in ``folder`` (facts, log, checkpoint)."""

    def __init__(
        self, facts: record.Facts, plan: Plan, recipe: Recipe, shape: Shape, folder: Path, device: torch.device,
        world: World,
    ) -> None:  # fmt: skip
        self.facts, self.plan, self.recipe, self.folder, self.world = facts, plan, recipe, folder, world
        made = named(plan.idea)(shape, plan.chosen, torch.Generator().manual_seed(plan.seed))
        self.idea: Idea = made.to(device)
        self.parameters = [p for p in self.idea.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.parameters, lr=recipe.lr, fused=True)
        self.since_fired = torch.zeros(shape.n_latents, dtype=torch.int64, device=device)
        self.step = 0
        self._since = _Means(device)
        self._resume()

    @property
    def steps(self) -> int:
        return self.facts.steps

    def update(self, batch: Batch) -> None:
        """One step; ``batch.dead`` is taken from this run.

        Raises:
            Diverged: at a step that is logged, the loss is NaN or infinite.
        """
        began = time.perf_counter()
        lr = self.recipe.lr * schedule(self.step, self.steps, self.recipe.warmup, self.recipe.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        batch = replace(batch, dead=self.since_fired >= self.recipe.dead_after, seed=self.plan.seed)
        halved = self.recipe.precision == "bfloat16"
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=halved):
            loss = self.idea.loss(batch)
        loss.total.backward()
        self.world.add_gradients(self.parameters)
        self.idea.before_step()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.idea.normalise()
        self.idea.after_step(batch, loss)
        self.since_fired += batch.size
        self.since_fired[self.world.most(loss.fired.to(torch.uint8)).bool()] = 0
        self.step += 1
        self._since.add({"loss": loss.total, "fvu": loss.fvu, "l0": loss.l0, **loss.terms})
        self._since.seconds += time.perf_counter() - began
        if self.step % self.recipe.log_every == 0 or self.step == self.steps:
            self._log(lr)
        if self.step % self.recipe.checkpoint_every == 0 and self.step < self.steps:
            self.checkpoint()

    def _log(self, lr: float) -> None:
        means = self._since.taken()
        self.facts.seconds += means.pop("seconds")
        if not all(math.isfinite(value) for value in means.values()):
            raise Diverged
        per_second = means.pop("steps") * self.recipe.batch / max(means.pop("busy"), 1e-9)
        line = record.Line(
            step=self.step, tokens=self.step * self.recipe.batch, loss=round(means.pop("loss"), 6),
            fvu=round(means.pop("fvu"), 6), l0=round(means.pop("l0"), 3),
            dead=int((self.since_fired >= self.recipe.dead_after).sum()), lr=lr,
            tokens_per_second=round(per_second, 1), terms={name: float(f"{v:.6g}") for name, v in means.items()},
        )  # fmt: skip
        self.last = line
        if self.world.rank == 0:
            record.add_line(self.folder, line)

    last: record.Line | None = None

    def checkpoint(self) -> None:
        """Everything that the next step depends on, in one file that is there whole or not at all."""
        if self.world.rank:
            return
        state = {
            "idea": self.idea.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "since_fired": self.since_fired,
            "since": self._since.state(),
            "step": self.step,
            "seconds": self.facts.seconds,
        }
        partial = self.folder / "checkpoint.partial"
        try:
            with room(self.folder, "The training's checkpoint"):
                with partial.open("wb") as file:
                    torch.save(state, file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.rename(self.folder / "checkpoint.pt")
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if path.is_file():
            try:
                self._load(torch.load(path, weights_only=True, map_location=self.since_fired.device))
            except Exception as error:  # torch, pickle and zip files have errors of their own for what is damaged
                raise BadRequest(
                    f"The checkpoint {path} is damaged; remove it, and the run begins again from its first step.",
                    path=str(path),
                ) from error
        if self.world.rank == 0:
            record.cut_lines(self.folder, self.step)

    def _load(self, state: dict[str, Any]) -> None:
        self.idea.load_state_dict(state["idea"])
        self.optimiser.load_state_dict(state["optimiser"])
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            raise ValueError("a parameter is not finite")
        self.since_fired.copy_(state["since_fired"])
        self._since.load(state["since"])
        self.step, self.facts.seconds = int(state["step"]), float(state["seconds"])

    def finish(self, units: Units, config: SAEConfig, out: Path) -> SAE:
        """Write the SAE to ``out`` and forget the checkpoint; of several processes the first does."""
        sae: SAE = rounded(self.idea.finished(config, units))
        if self.world.rank:
            return sae
        told = {
            "idea": self.plan.idea, "options": asdict(self.plan.chosen), "seed": self.plan.seed,
            **asdict(self.recipe), "tokens": self.facts.tokens, "text": self.facts.corpus,
        }  # fmt: skip
        with room(out, "The SAE"):
            write(out, sae, told)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)
        return sae


def write(out: Path, sae: SAE, training: dict[str, Any]) -> None:
    """``sae`` in SAELens format where it has the architecture, else in saescope's own."""
    if saelens.can_write(sae):
        saelens.write(out, sae, metadata={"training": training})
    else:
        config = replace(sae.config, extra=sae.config.extra | {"training": training})
        normal.write(out, replace(sae, config=config))  # type: ignore[type-var]


def rounded(sae: Any) -> Any:
    """The same SAE with its matrices rounded to bf16, as they are stored."""
    matrices = {name: getattr(sae, name) for name in ("W_enc", "W_dec") if hasattr(sae, name)}
    return replace(sae, **{name: value.bfloat16().float() for name, value in matrices.items()})


def identity(recipe: Recipe, plan: Plan, text: str, subject: str, dtype: str) -> str:
    """What a checkpoint must agree with: everything that decides the result."""
    told = {"recipe": asdict(recipe), "plan": asdict(plan) | {"options": asdict(plan.chosen)}, "text": text,
            "subject": subject, "dtype": dtype}  # fmt: skip
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def claim(folder: Path, facts: record.Facts) -> record.Facts:
    """The facts of the run in ``folder``, carried on where they are this one's; of one that is finished, ``sae`` is
    where it was written then.

    Raises:
        BadRequest: the folder belongs to a run with another recipe, other text or another subject, or what the SAE is
            to be written to is not free.
    """
    there = record.read_facts(folder)
    if there is None:
        if Path(facts.sae).parent != folder:
            check_free(Path(facts.sae))
        return facts
    if there.identity != facts.identity:
        raise BadRequest(
            f"{folder} holds a run with another recipe, other text or another subject; remove it or name this one "
            "apart with --tag.",
            path=str(folder),
        )
    if facts.sae != there.sae:
        check_free(Path(facts.sae))
    if there.state == "finished" and not holds_sae(Path(there.sae)):
        return facts  # what it made is gone, and its checkpoint with it: from the first step
    facts.started, facts.seconds, facts.ended = there.started, there.seconds, there.ended
    if there.state == "finished":
        facts.state, facts.sae = "finished", there.sae
    return facts


def holds_sae(folder: Path) -> bool:
    return next(folder.glob("*.safetensors"), None) is not None


def check_free(out: Path) -> None:
    """
    Raises:
        BadRequest: ``out`` is no folder, or holds something.
    """
    if out.exists() and not out.is_dir():
        raise BadRequest(f"{out} is no folder; the SAE is written to a new or an empty one.", path=str(out))
    if out.is_dir() and next(out.iterdir(), None) is not None:
        raise BadRequest(f"{out} holds something already; the SAE is written to a new or an empty one.", path=str(out))


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: linear up over ``warmup`` steps, linear to zero over the last ``decay``."""
    up = min(1.0, (step + 1) / max(warmup, 1))
    down = min(1.0, (steps - step) / max(decay * steps, 1))
    return min(up, down)


class _Means:
    """Sums since the last line of the log, on the device, so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.seconds, self._device = 0, 0.0, device

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=self._device)) + value.detach()
        self.steps += 1

    def taken(self) -> dict[str, float]:
        """The means, with ``steps`` and the ``seconds`` they took; then all begins anew."""
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        made = means | {"steps": float(self.steps), "busy": self.seconds, "seconds": self.seconds}
        self.sums, self.steps, self.seconds = {}, 0, 0.0
        return made

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "steps": self.steps, "seconds": self.seconds}

    def load(self, state: dict[str, Any]) -> None:
        self.sums, self.steps, self.seconds = state["sums"], state["steps"], state["seconds"]
