"""saescope's own format: any SAE as it stands in memory. ``saescope.json`` (family, config, options) and
``sae.safetensors``. For what SAELens has no name for; see app/sae/formats/saelens.py for the rest."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from app.sae.afa import TopAFA
from app.sae.base import SAE, SAEConfig, SAEFormatError, rehooked
from app.sae.clt import CLT
from app.sae.crosscoder import Crosscoder
from app.sae.formats.files import Options, Source, Tensors
from app.sae.gated import Gated
from app.sae.groupmax import GroupMax
from app.sae.jumprelu import JumpReLU
from app.sae.normalise import Kind, Normalisation
from app.sae.normgated import NormGated
from app.sae.pursuit import MatchingPursuit
from app.sae.quantised import Quantised
from app.sae.relu import ReLU
from app.sae.switch import Switch
from app.sae.topk import TopK

NAME, DETAIL = "saescope", "saescope's own: saescope.json, sae.safetensors"
CONFIG, WEIGHTS, VERSION = "saescope.json", "sae.safetensors", 1
FAMILIES: dict[str, Any] = {
    c.__name__: c
    for c in (
        ReLU, JumpReLU, TopK, GroupMax, Gated, TopAFA, Switch, Quantised, NormGated, Crosscoder, CLT, MatchingPursuit,
    )
}  # fmt: skip


def write(folder: Path, sae: SAE) -> None:
    """Write ``sae`` into ``folder``. Matrices that are exact in bf16 are stored so, all else in fp32."""
    tensors: dict[str, Tensor] = {}
    options: dict[str, Any] = {}
    for f in fields(sae):  # type: ignore[arg-type]
        value = getattr(sae, f.name)
        match value:
            case SAEConfig():
                continue
            case Tensor():
                tensors[f.name] = compact(value)
            case tuple():
                tensors |= {f"{f.name}.{i}": compact(part) for i, part in enumerate(value)}
            case Normalisation():
                options[f.name] = asdict(value)
            case None:
                continue
            case _:
                options[f.name] = value
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    told = {
        "saescope_format": VERSION,
        "family": type(sae).__name__,
        "config": asdict(sae.config),
        "options": options,
    }
    (folder / CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def compact(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, in bf16 if it is a matrix and loses nothing by it."""
    made = tensor.detach().cpu().contiguous()
    if made.ndim < 2 or made.dtype != torch.float32:
        return made
    half = made.bfloat16()
    return half if half.float().equal(made) else made


def recognise(source: Source) -> bool:
    return source.has(CONFIG, WEIGHTS)


def read(source: Source, options: Options) -> SAE:
    """The SAE ``write`` wrote.

    Raises:
        SAEFormatError: what is there is not what ``write`` writes.
    """
    told = source.json(CONFIG)
    if told.get("saescope_format") != VERSION or told.get("family") not in FAMILIES:
        raise SAEFormatError(
            f"{CONFIG} in {source.folder} says format {told.get('saescope_format')!r}, family {told.get('family')!r}; "
            f"this version reads format {VERSION} of {', '.join(FAMILIES)}."
        )
    family, values = FAMILIES[told["family"]], source.tensors(WEIGHTS)
    tensors = Tensors(values, source.folder / WEIGHTS)
    try:
        config = told["config"] | {name: tuple(told["config"][name]) for name in ("reads", "writes")}
        stored = rehooked(SAEConfig(**config), options.hook, options.subject)
        given: dict[str, Any] = {"config": stored, **told["options"]}
        for name in {"k", "steps"} & given.keys():
            if options.k is not None and given[name] not in (None, options.k):
                raise SAEFormatError(
                    f"--k is {options.k}, but {CONFIG} in {source.folder} says {name} {given[name]}; leave --k out."
                )
        if "normalise" in given:
            given["normalise"] = Normalisation(**given["normalise"])
            if given["normalise"].kind not in get_args(Kind):
                raise SAEFormatError(f"{CONFIG} in {source.folder} says normalisation {given['normalise'].kind!r}.")
        for name, value in values.items():
            stem, _, part = name.partition(".")
            made = tensors.take(name, *value.shape)
            given[stem] = (*given.get(stem, ()), made) if part else made
        sae: SAE = family(**given)
    except (KeyError, TypeError, AttributeError) as error:
        raise SAEFormatError(f"{CONFIG} in {source.folder} does not fit family {told['family']}: {error}.") from None
    return sae
