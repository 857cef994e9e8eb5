"""Reference checkpoints and outputs of overcomplete.

Run: python overcomplete_oracle.py OUT

The library saves pickled modules. Here each case is OUT/<case>/sae.pt, the
state_dict, beside OUT/<case>/config.json, the class and arguments that rebuild
the module, plus OUT/<case>.safetensors with fixed inputs and the outputs of the
rebuilt module in eval mode, and OUT/cases.json.
"""

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

# overcomplete/__init__.py imports vision models (torchvision, timm, OpenCV), which these modules
# do not need: an empty parent package leaves that file out.
_spec = importlib.util.find_spec("overcomplete")
assert _spec is not None
assert _spec.submodule_search_locations is not None
_package = ModuleType("overcomplete")
_package.__path__ = list(_spec.submodule_search_locations)
sys.modules["overcomplete"] = _package

import torch  # noqa: E402
from overcomplete import sae as library  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

D_IN, N_LATENTS, N_TOKENS, K = 12, 40, 16, 5
N_POINTS = 8

BASE = {"input_shape": D_IN, "nb_concepts": N_LATENTS}


def normalised(normalization: str, use_multiplier: bool = False) -> dict[str, object]:
    return {"normalization": normalization, "use_multiplier": use_multiplier}


# case: class, its arguments, how the encoder is attached, note
Case = tuple[str, dict[str, object], str | None, str]
CASES: dict[str, Case] = {
    "oc-sae": ("SAE", BASE, None, "ReLU; the dictionary is normalised to unit l2 rows (default)."),
    "oc-sae-tied": (
        "SAE",
        BASE,
        "tied",
        "sae.tied(bias=True): the encoder is the normalised dictionary, with a bias of its own.",
    ),
    "oc-sae-untied": (
        "SAE",
        BASE,
        "untied",
        "sae.untied(bias=True): encoder.weight and encoder.bias instead of encoder.final_block.",
    ),
    "oc-sae-mlp-bn": (
        "SAE",
        {**BASE, "encoder_module": "mlp_bn_1"},
        None,
        "Encoder Linear + BatchNorm, running statistics in eval, then ReLU.",
    ),
    "oc-sae-mlp-ln": (
        "SAE",
        {**BASE, "encoder_module": "mlp_ln_1"},
        None,
        "Encoder Linear + LayerNorm over the latents, then ReLU.",
    ),
    "oc-topk": (
        "TopKSAE",
        {**BASE, "top_k": K, "dictionary_params": normalised("l1")},
        None,
        "The k largest after the relu, per token; dictionary rows of unit l1 norm.",
    ),
    "oc-batchtopk": (
        "BatchTopKSAE",
        {**BASE, "top_k": K * N_TOKENS, "dictionary_params": normalised("max_l2")},
        None,
        "a 1[a >= running_threshold] after the relu; the threshold is in config.json, since the "
        "state_dict leaves it out; top_k counts the whole batch; the dictionary is divided by its "
        "largest row norm.",
    ),
    "oc-jump": (
        "JumpSAE",
        {**BASE, "dictionary_params": normalised("max_l1")},
        None,
        "a 1[a >= exp(thresholds)], a = relu(x W_enc + b_enc); the dictionary is divided by its largest row l1 norm.",
    ),
    "oc-qsae-hard": (
        "QSAE",
        {**BASE, "q": 4, "hard": True, "dictionary_params": normalised("identity")},
        None,
        "relu of the level of Q nearest to the pre-activation; the dictionary as stored.",
    ),
    "oc-qsae-soft": (
        "QSAE",
        {**BASE, "q": 4, "hard": False, "dictionary_params": normalised("l2", use_multiplier=True)},
        None,
        "relu of sum_q softmax_q(-(a - Q_q)^2) Q_q; unit l2 rows times exp(multiplier).",
    ),
    "oc-mp": ("MpSAE", {**BASE, "k": K}, None, "Matching pursuit, exactly k steps, unit atoms."),
    "oc-mp-identity": (
        "MpSAE",
        {**BASE, "k": K, "dictionary_params": normalised("identity")},
        None,
        "Matching pursuit with atoms of norm 0.5..1.2: the projection is not divided by the norm.",
    ),
    "oc-mp-negative": (
        "MpSAE",
        {**BASE, "k": K},
        None,
        "Atoms in a narrow cone: where all projections are negative, the codes are negative too.",
    ),
    "oc-omp": (
        "OMPSAE",
        {**BASE, "k": K, "max_iter": 10},
        None,
        "Orthogonal matching pursuit, codes from 10 projected-gradient steps per pursuit step.",
    ),
    "oc-ratopk": (
        "RATopKSAE",
        {**BASE, "top_k": K, "delta": 0.5},
        None,
        "TopK with a relaxed archetypal dictionary, exp(multiplier) (W C + Relax).",
    ),
    "oc-rajump": (
        "RAJumpSAE",
        {**BASE, "delta": 0.5, "use_multiplier": False},
        None,
        "JumpReLU with a relaxed archetypal dictionary, W C + Relax.",
    ),
}
LEVELS = (-0.6, 0.0, 0.55, 1.3)


def build(name: str, kwargs: dict[str, object], encoder: str | None) -> library.SAE:
    """The module, with its encoder attached as config.json says."""
    if name in ("RATopKSAE", "RAJumpSAE"):
        kwargs = {**kwargs, "points": torch.zeros(N_POINTS, D_IN)}  # replaced by the state_dict
    sae = getattr(library, name)(**kwargs)
    match encoder:
        case "tied":
            return sae.tied(bias=True)
        case "untied":
            return sae.untied(bias=True)
        case _:
            return sae


@torch.no_grad()
def fill(sae: library.SAE, case: str, generator: torch.Generator) -> None:
    """Random state: encoder rows of norm about 1, dictionary rows of norm 0.5..2, biases of 0.3."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    for name, tensor in sae.state_dict().items():
        match name.rsplit(".", 1)[-1]:
            case "_weights":
                spread = 0.7 if case == "oc-mp-identity" else 1.5
                centre = 1.0 if case == "oc-mp-negative" else 0.0
                scale = 0.2 if case == "oc-mp-negative" else 1.0
                direction = torch.nn.functional.normalize(scale * randn(*tensor.shape) + centre)
                tensor.copy_(direction * (0.5 + spread * rand(len(tensor), 1)))
            case "multiplier":
                # A buffer that stays 0 unless the multiplier is a parameter.
                if name in dict(sae.named_parameters()):
                    tensor.fill_(0.4)
            case "thresholds":
                tensor.copy_((0.05 + 0.45 * rand(N_LATENTS)).log())
            case "Q":
                tensor.copy_(torch.tensor(LEVELS))
            case "C":
                tensor.copy_(randn(*tensor.shape))
            case "W":
                tensor.copy_(randn(*tensor.shape))
            case "Relax":
                tensor.copy_(0.2 * randn(*tensor.shape))
            case "running_var":
                tensor.copy_(0.5 + rand(*tensor.shape))
            case "running_mean" | "bias":
                tensor.copy_(0.3 * randn(*tensor.shape))
            case "weight" if tensor.ndim == 1:  # gain of a normalisation
                tensor.copy_(0.5 + rand(*tensor.shape))
            case "weight":
                tensor.copy_(randn(*tensor.shape) / D_IN**0.5)


@torch.no_grad()
def pursuit_steps(sae: library.SAE, x: Tensor) -> dict[str, Tensor]:
    """The library's encode after 0..k steps.

    selection: [tokens, k], the atom chosen at each step; residuals: [tokens, k, d_in], what is
    left after it.
    """
    dictionary = sae.get_dictionary()
    orthogonal = isinstance(sae, library.OMPSAE)
    residual, chosen, residuals = x, [], []
    for step in range(1, sae.k + 1):
        scores = residual @ dictionary.T
        if orthogonal and chosen:
            scores.scatter_(1, torch.stack(chosen, dim=1), -torch.inf)
        chosen.append(scores.argmax(dim=1))
        full, sae.k = sae.k, step
        residual, _ = sae.encode(x)
        sae.k = full
        residuals.append(residual)
    return {"selection": torch.stack(chosen, dim=1), "residuals": torch.stack(residuals, dim=1)}


@torch.no_grad()
def outputs(folder: Path, x: Tensor) -> dict[str, Tensor]:
    """x: [tokens, d_in] -> acts: [tokens, n_latents], x_hat: [tokens, d_in], a pursuit's steps."""
    config = json.loads((folder / "config.json").read_text())
    sae = build(config["class"], config["kwargs"], config["encoder"])
    sae.load_state_dict(torch.load(folder / "sae.pt", weights_only=True))
    if "running_threshold" in config:
        sae.running_threshold = torch.tensor(config["running_threshold"])
    sae.eval()  # the dictionary is normalised and fixed by this call
    _, acts, x_hat = sae(x)
    tensors = {"x": x, "acts": acts, "x_hat": x_hat}
    if isinstance(sae, library.MpSAE | library.OMPSAE):
        tensors |= pursuit_steps(sae, x)
    return tensors


def main(out: Path) -> None:
    cases = {}
    for seed, (case, (name, kwargs, encoder, note)) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(seed)
        sae = build(name, kwargs, encoder)
        fill(sae, case, generator)
        x = 1.5 * torch.randn((N_TOKENS, D_IN), generator=generator) + 0.3
        config: dict[str, object] = {"class": name, "kwargs": kwargs, "encoder": encoder}
        if name == "BatchTopKSAE":
            sae.encode(x)  # in training mode: sets the running threshold,
            sae.encode(0.5 * x)  # and moves it, so that no latent equals it
            config["running_threshold"] = sae.running_threshold.item()
        folder = out / case
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        torch.save(sae.state_dict(), folder / "sae.pt")
        tensors = {k: v.detach().clone().contiguous() for k, v in outputs(folder, x).items()}
        save_file(tensors, out / f"{case}.safetensors")
        cases[case] = {
            "library": "overcomplete",
            "version": version("overcomplete"),
            "class": name,
            "note": note,
        }
    (out / "cases.json").write_text(json.dumps(cases, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
