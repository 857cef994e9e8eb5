"""Load SAE folders with the real sae-lens library and say what came of it, one JSON line a folder.

Run:  python saelens_load.py FOLDER...

A line holds the folder, the class, and the largest absolute latent value on fixed random inputs, or the error.
Where a folder holds reference.safetensors (x [tokens, d_in], acts, x_hat), its x is the input and the
line adds the largest absolute deviations of acts and x_hat. hook_z reshaping is switched off, so x is flat.
A temporal SAE takes x as one sequence, or x_seq [sequences, positions, d_in] where the file has it.
The exit status is 1 if any folder failed to load or run.
"""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from safetensors.torch import load_file
from torch import Tensor


def load(folder: Path) -> SAE[Any]:
    """The inference class, or the training class where the architecture has no other."""
    architecture = json.loads((folder / "cfg.json").read_text()).get("architecture", "standard")
    if architecture not in SAE_CLASS_REGISTRY and architecture in SAE_TRAINING_CLASS_REGISTRY:
        return TrainingSAE.load_from_disk(folder, dtype="float32")
    return SAE.load_from_disk(folder, dtype="float32")


def deviation(name: str, value: Tensor, reference: Tensor) -> float:
    if value.numel() != reference.numel():
        raise ValueError(f"{name}: the library gives {list(value.shape)}, the reference is {list(reference.shape)}")
    return (value.reshape(reference.shape) - reference).abs().max().item()


@torch.no_grad()
def check(folder: Path) -> dict[str, Any]:
    sae = load(folder)
    sae.turn_off_forward_pass_hook_z_reshaping()
    path = folder / "reference.safetensors"
    reference = load_file(path) if path.exists() else None
    if reference is None:
        x = torch.randn(16, sae.cfg.d_in, generator=torch.Generator().manual_seed(0)) * 1.5 + 0.3
    else:
        x = reference["x"]
    if sae.cfg.architecture() == "temporal":
        x = reference["x_seq"] if reference and "x_seq" in reference else x[None]
    acts, x_hat = sae.encode(x), sae(x)
    line: dict[str, Any] = {"class": type(sae).__name__, "acts_max": acts.abs().max().item()}
    if reference is not None:
        line["acts_deviation"] = deviation("acts", acts, reference["acts"])
        line["x_hat_deviation"] = deviation("x_hat", x_hat, reference["x_hat"])
    return line


def main(folders: list[str]) -> int:
    warnings.simplefilter("ignore")
    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    failed = False
    for folder in folders:
        try:
            line = check(Path(folder))
        except Exception as error:  # the library raises many kinds, and each is a finding to print
            line = {"error": f"{type(error).__name__}: {error}"}
            failed = True
        print(json.dumps({"folder": folder} | line))
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
