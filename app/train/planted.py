"""Activations made from a dictionary that is known, to see whether training finds it."""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from app.sae.base import SAE, SAEConfig
from app.train import record
from app.train.activations import GRADIENT, ActivationFile, Gathered
from app.train.ideas import named
from app.train.run import Plan, Recipe, Run
from app.train.stream import Rows, stream
from app.train.world import ALONE, World

PLACE = "planted:out"


class Planted(NamedTuple):
    """x: [rows, d] = codes @ atoms (+ noise); atoms: [n, d] of norm 1; codes: [rows, n] >= 0."""

    x: Tensor
    atoms: Tensor
    codes: Tensor


def _drawn(seed: int) -> torch.Generator:
    """Draws nothing that a training run of any small seed starts with: equal seeds would start it at the answer."""
    return torch.Generator().manual_seed(0x9A7ED00 + seed)


def _directions(n: int, d: int, generator: torch.Generator) -> Tensor:
    rows = torch.randn(n, d, generator=generator)
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return unit


def planted(rows: int, d: int = 64, n: int = 128, active: float = 4.0, noise: float = 0.0, seed: int = 0) -> Planted:
    """Every atom is active at a row with chance ``active`` / n, by itself, with a value uniform in [0.5, 1.5]."""
    generator = _drawn(seed)
    atoms = _directions(n, d, generator)
    on = torch.rand(rows, n, generator=generator) < active / n
    codes = on * (0.5 + torch.rand(rows, n, generator=generator))
    x = codes @ atoms + noise * torch.randn(rows, d, generator=generator)
    return Planted(x, atoms, codes)


def hierarchical(
    rows: int, d: int = 64, parents: int = 16, children: int = 7, active: float = 2.0, seed: int = 0
) -> Planted:
    """Parents, drawn as in ``planted``, each of which brings exactly one of its children along.

    A child is orthogonal to its own parent but not to the other families (conditionally orthogonal, as Costa et al.
    2025 have it): so a parent and its child are told apart by what the parent leaves. Rows of ``atoms`` are all
    parents, then each one's children.
    """
    generator = _drawn(seed)
    tops = _directions(parents, d, generator)
    below = _directions(parents * children, d, generator).view(parents, children, d)
    below = below - (below @ tops[:, :, None]) * tops[:, None]
    below = below / below.norm(dim=2, keepdim=True)
    on = torch.rand(rows, parents, generator=generator) < active / parents
    values = on * (0.5 + torch.rand(rows, parents, generator=generator))
    which = torch.randint(children, (rows, parents), generator=generator)
    inner = torch.zeros(rows, parents, children)
    inner.scatter_(
        2, which[:, :, None], (on * (0.3 + 0.4 * torch.rand(rows, parents, generator=generator)))[:, :, None]
    )
    codes = torch.cat([values, inner.flatten(1)], 1)
    atoms = torch.cat([tops, below.flatten(0, 1)])
    return Planted(codes @ atoms, atoms, codes)


class Recovery(NamedTuple):
    """Over the planted atoms, of each one's largest cosine to a decoder row: the mean, and the share above 0.9."""

    cosine: float
    found: float


def recovery(W_dec: Tensor, atoms: Tensor, *, signed: bool = False) -> Recovery:
    """W_dec: [n_latents, d]; atoms: [n, d]. Of a signed SAE a row counts for its opposite too."""
    rows = torch.nn.functional.normalize(W_dec.float(), dim=1)
    cosines = torch.nn.functional.normalize(atoms.float(), dim=1) @ rows.T
    best = (cosines.abs() if signed else cosines).amax(1)
    return Recovery(float(best.mean()), float((best > 0.9).float().mean()))


def trained(plan: Plan, made: Planted, recipe: Recipe, folder: Path, world: World = ALONE) -> SAE:
    """The SAE of ``plan`` on planted activations, as it is written to ``folder``; the recipe's hook point is not looked
    at. For g-SAE, which there is no subject for, gradients are noise."""
    rows, d = made.x.shape
    values = {PLACE: made.x}
    if named(plan.idea).wants_gradient:
        values[GRADIENT + PLACE] = torch.randn(rows, d, generator=_drawn(plan.seed))
    if world.rank == 0:
        for place, given in values.items():
            ActivationFile(folder, place, d, rows).write(0, given)
    world.wait()
    files = {place: ActivationFile(folder, place, d, rows) for place in values}
    recipe = Recipe(**asdict(recipe) | {"hook_point": PLACE, "writes": None})
    read = Rows.of(Gathered(folder, files, rows), recipe)
    facts = record.Facts(
        name="planted", idea=plan.idea, about="", options=asdict(plan.chosen), seed=plan.seed,
        n_latents=plan.n_latents, subject="planted", reads=PLACE, writes=PLACE, corpus=[], tokens=rows,
        steps=rows // recipe.batch * recipe.epochs, recipe=asdict(recipe), identity="", sae=str(folder / "sae"),
    )  # fmt: skip
    if world.rank == 0:
        record.save_facts(folder, facts)
    run = Run(facts, plan, recipe, read.shape(plan), folder, torch.device("cpu"), world)
    stream([run], read, recipe, facts.steps, world=world)
    idea = run.idea
    config = SAEConfig(
        idea.architecture or idea.name, d, plan.n_latents, (PLACE,), (PLACE,), "planted", signed=idea.signed
    )  # fmt: skip
    sae = run.finish(read.units, config, folder / "sae")
    world.wait()
    return sae
