"""An SAE's activations as delphi keeps them: ``latents/{hook}/{first}_{last}.safetensors`` and ``config.json``.

As in delphi/latents/cache.py of https://github.com/EleutherAI/delphi: ``tokens`` [rows, context]; ``locations`` [m, 3],
row, place and latent less the file's first; ``activations`` [m] in fp16. delphi takes a row in which a latent has no
location for one in which it does not fire, so what is written is every activation on a sample of the corpus, and
not the examples that are stored.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from app.errors import BadRequest
from app.explain.samples import Codes

SPLITS = 5
MOST = 65504.0  # in fp16

Array = npt.NDArray[Any]


class Written(NamedTuple):
    """rows: sequences of the longest length, ``context``; shorter: those left out, since delphi's rows are of one."""

    folder: Path
    rows: int
    context: int
    shorter: int
    activations: int


def write(
    folder: Path, codes: Codes, n_latents: int, hook: str, about: dict[str, Any], step: Callable[[int, int], None]
) -> Written:
    """
    Raises:
        BadRequest: an activation is beyond fp16.
    """
    lengths = np.diff(codes.begin)
    context = int(lengths.max())
    whole = (lengths == context).nonzero()[0]
    row_of = np.full(len(lengths), -1)
    row_of[whole] = np.arange(len(whole))
    tokens = np.stack([codes.token_ids[codes.begin[i] : codes.begin[i + 1]] for i in whole])
    sequence = np.searchsorted(codes.begin, codes.place, side="right") - 1
    latent = np.repeat(np.arange(n_latents), np.diff(codes.indptr))
    row, place = row_of[sequence], codes.place - codes.begin[sequence]
    if len(codes.value) and (most := float(np.abs(codes.value).max())) > MOST:
        raise BadRequest(f"The largest activation is {most:g}; delphi's files hold at most {MOST:g}.")
    place_of = folder / "latents" / hook
    place_of.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(0, n_latents, SPLITS + 1).astype(np.int64)
    for number, (first, end) in enumerate(pairwise(edges)):
        if first == end:
            continue
        chosen = (latent >= first) & (latent < end) & (row >= 0)
        where = np.stack([row[chosen], place[chosen], latent[chosen] - first], axis=1)
        order = np.lexsort((where[:, 2], where[:, 1], where[:, 0]))
        small = where.size == 0 or where.max() < 1 << 16
        save_file(
            {
                "locations": np.ascontiguousarray(where[order].astype(np.uint16 if small else np.uint32)),
                "activations": codes.value[chosen][order].astype(np.float16),
                "tokens": tokens.astype(np.int64),
            },
            place_of / f"{first}_{end - 1}.safetensors",
        )
        step(number + 1, SPLITS)
    config = {"batch_size": 32, "cache_ctx_len": context, "ctx_len": context, "n_tokens": int(tokens.size),
              "n_splits": SPLITS, "width": n_latents, **about}  # fmt: skip
    (place_of / "config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    return Written(place_of, len(whole), context, len(lengths) - len(whole), int((row >= 0).sum()))


def hook_name(hook: str) -> str:
    """``layers.9`` of ``model.layers.9:out``, as delphi calls a block; other places by their whole path."""
    path = hook.partition(":")[0]
    return path.removeprefix("model.").removeprefix("transformer.") if path.count(".") == 2 else path
