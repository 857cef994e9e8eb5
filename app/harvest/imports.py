"""Imports: what an SAE is, shown before it is kept; a check of it on some text; and keeping it under a name."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.disk import room
from app.errors import BadRequest
from app.harvest.batches import counted, groups, pad
from app.harvest.names import ORIGIN
from app.harvest.reading import Hooks
from app.sae.base import SAE
from app.sae.formats import save
from app.sae.metrics import Reconstruction
from app.subject.load import Subject


@dataclass(frozen=True)
class Check:
    """An SAE on a little text. ``alive`` is the fraction of latents that fired; ``warnings`` say what is absurd."""

    tokens: int
    fvu: float | None
    l0: float
    alive: float
    warnings: list[str]


def describe(sae: SAE, format_name: str) -> list[tuple[str, str]]:
    """What was read, a line each: (what, value)."""
    c = sae.config
    rows = [
        ("format", format_name),
        ("architecture", f"{c.architecture} ({type(sae).__name__})"),
        ("latents", f"{c.n_latents:,}"),
        ("width", f"{c.d_in} in, {sae.W_dec.shape[1]} out"),
        ("reads", ", ".join(c.reads)),
        ("writes", ", ".join(c.writes)),
        ("subject", c.subject),
    ]
    for name in ("k", "steps"):
        if (value := getattr(sae, name, None)) is not None:
            rows.append((name, str(value)))
    threshold = getattr(sae, "threshold", None)
    if isinstance(threshold, Tensor):
        rows.append(("threshold", _spread(threshold)))
    rows.append(("decoder norms", _spread(sae.W_dec.float().norm(dim=1))))
    normalise = getattr(sae, "normalise", None)
    if normalise is not None:
        told = f"scale {normalise.scale_in:g} in, {normalise.scale_out:g} out"
        rows.append(("normalisation", told if normalise.kind == "scale" else normalise.kind))
    if (subtract := getattr(sae, "subtract_b_dec", None)) is not None:
        rows.append(("b_dec", "subtracted from the input" if subtract else "not subtracted from the input"))
    if getattr(sae, "W_skip", None) is not None:
        rows.append(("skip connection", "yes"))
    if c.signed:
        rows.append(("activations", "signed"))
    if warning := c.extra.get("warning"):
        rows.append(("warning", str(warning)))
    return rows


def _spread(values: Tensor) -> str:
    low, middle, high = values.min(), values.median(), values.max()
    return f"{float(low):.4g}" if low == high else f"{float(low):.3g} to {float(high):.3g}, median {float(middle):.3g}"


def check(sae: SAE, subject: Subject, sequences: list[Sequence]) -> Check:
    """Run ``sae`` on ``sequences``: FVU above 1, L0 of 0 or near n mean a wrong hook or normalisation."""
    sae = sae.to(subject.device)
    hooks = Hooks.of(sae, subject)
    special = torch.tensor(subject.special_ids, device=subject.device)
    measured: Reconstruction | None = None
    fired = torch.zeros(sae.config.n_latents, dtype=torch.bool, device=subject.device)
    for _, rows in groups(sequences, 4096):
        padded = pad(rows, subject.device)
        found = hooks.read(subject, padded)
        mask = counted(padded, special)
        x, y = hooks.inputs(sae, found, mask), hooks.targets(found, mask)
        acts = sae.encode(x)
        measured = measured or Reconstruction(y.shape[1])
        measured.update(y, sae.decode(acts, x), acts)
        fired[acts.latent] = True
    result: dict[str, Any] = measured.result() if measured else {"tokens": 0, "fvu": None, "l0": None}
    fvu, l0, n = result["fvu"], result["l0"] or 0.0, sae.config.n_latents
    warnings = []
    if fvu is None:
        warnings.append("FVU is not defined: there is too little text, or the reconstruction overflows.")
    elif fvu > 1:
        warnings.append(f"FVU {fvu:.3g} is worse than predicting the mean: the hook or the normalisation is wrong.")
    if l0 == 0:
        warnings.append("No latent fires: the hook, the normalisation or the threshold is wrong.")
    elif l0 > n / 2:
        warnings.append(f"L0 {l0:.0f} of {n:,} latents: the hook, the normalisation or the threshold is wrong.")
    return Check(int(result["tokens"]), fvu, l0, float(fired.float().mean()), warnings)


def keep(sae: SAE, slug: str, home: Path, origin: dict[str, Any], *, replace: bool = False) -> Path:
    """Keep ``sae`` as ``slug`` in the home; all of it or nothing.

    Raises:
        BadRequest: there is one of that name already and ``replace`` is not said.
    """
    folder = home / "imports" / slug
    if folder.exists() and not replace:
        raise BadRequest(f"{slug!r} is imported already; choose another --slug, or say --replace.", slug=slug)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with room(folder, "The import"):
            save(partial, sae)
            (partial / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
