"""Recovery of a known dictionary, for SAEs of planted data (Sharkey et al. 2022: mean max cosine similarity)."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from app.errors import BadRequest
from app.evaluate.independence import BLOCK
from app.evaluate.outcome import Outcome, Values, bars, mean
from app.sae.base import SAE

FOUND = 0.9  # cosine from which on a feature counts as recovered


def read_dictionary(path: Path, d: int) -> Tensor:
    """[features, d] fp32, from a .npy file, or a .safetensors file with one tensor.

    Raises:
        BadRequest: it cannot be read, or is no matrix of that width.
    """
    try:
        if path.suffix == ".npy":
            found = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        else:
            tensors = load_file(path)
            if len(tensors) != 1:
                raise BadRequest(f"{path} holds {len(tensors)} tensors; the dictionary is one.", path=str(path))
            found = next(iter(tensors.values())).float()
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise BadRequest(f"The dictionary {path} cannot be read: {str(error).splitlines()[0]}.") from None
    if found.ndim != 2 or found.shape[1] != d or not len(found):
        raise BadRequest(f"The dictionary {path} is {tuple(found.shape)}; wanted rows of {d}, one for each feature.")
    if not found.isfinite().all() or not (found.norm(dim=1) > 0).all():
        raise BadRequest(f"The dictionary {path} holds a row that is 0 or not finite.")
    return found


def nearest(of: Tensor, among: Tensor, *, signed: bool) -> Tensor:
    """The greatest cosine (signed: |cosine|) of each row of ``of`` [m, d] with one of ``among`` [n, d]: [m]."""
    a, b = (torch.nn.functional.normalize(one.float(), dim=1) for one in (of, among))
    parts = [some @ b.T for some in a.split(max(1, BLOCK // len(b)))]
    return torch.cat([(one.abs() if signed else one).max(dim=1).values for one in parts])


def planted(sae: SAE, dictionary: Tensor) -> Outcome:
    W, signed = sae.W_dec.float().cpu(), sae.config.signed
    there, back = nearest(dictionary, W, signed=signed), nearest(W, dictionary, signed=signed)
    values: Values = {
        "planted_cosine": mean(there), "planted_recovered": mean((there > FOUND).double()),
        "planted_latent_cosine": mean(back), "planted_features": len(dictionary),
    }  # fmt: skip
    chart = bars("Greatest cosine of each planted feature with a decoder row", "cosine",
                 torch.linspace(-1, 1, 41).double(), torch.histc(there, 40, -1, 1).long())  # fmt: skip
    return Outcome(values, None, {"bars": [chart]})
