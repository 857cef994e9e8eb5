"""One SAE of every family on the tiny subject (2 layers, d_model 32, 4 heads), of random weights."""

import torch

from app.sae.afa import TopAFA
from app.sae.base import SAEConfig
from app.sae.clt import CLT
from app.sae.crosscoder import Crosscoder
from app.sae.gated import Gated
from app.sae.groupmax import GroupMax
from app.sae.jumprelu import JumpReLU
from app.sae.normalise import Normalisation
from app.sae.normgated import NormGated
from app.sae.pursuit import MatchingPursuit
from app.sae.quantised import Quantised
from app.sae.relu import ReLU
from app.sae.switch import Switch
from app.sae.topk import TopK

D, N = 32, 40
BLOCK, MLP_IN, MLP_OUT = "model.layers.0:out", "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"


def parts(seed=0, d_in=D, n=N, d_out=D):
    g = torch.Generator().manual_seed(seed)

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=g) * scale

    norms = torch.rand(n, 1, generator=g) * 1.5 + 0.5
    return random, {
        "W_enc": random(d_in, n, scale=d_in**-0.5),
        "b_enc": random(n, scale=0.05),
        "W_dec": torch.nn.functional.normalize(random(n, d_out), dim=1) * norms,
        "b_dec": random(d_out, scale=0.01),
    }


def config(name, reads=(BLOCK,), writes=None, d_in=D, n=N, signed=False, heads=None):
    return SAEConfig(name, d_in, n, tuple(reads), tuple(writes or reads), "tiny", signed=signed, heads=heads)


def make(name):
    """The SAE of family ``name``; activations of the tiny subject are small, so thresholds are too."""
    random, weights = parts()
    match name:
        case "relu":
            return ReLU(config(name), **weights)
        case "relu-layer-norm":
            return ReLU(config(name), **weights, normalise=Normalisation("layer_norm"))
        case "jumprelu" | "batchtopk" | "matryoshka":  # the latter two have one threshold for all
            threshold = random(N).abs() * 0.05 if name == "jumprelu" else torch.tensor(0.04)
            return JumpReLU(config(name), **weights, threshold=threshold)
        case "topk" | "topk-rescaled":
            return TopK(config(name), **weights, k=5, rescale_by_decoder_norm=name == "topk-rescaled")
        case "vsae":  # the revision without relu: fewer than k positive means leave negative ones among the k
            return TopK(config(name, signed=True), **weights | {"b_enc": weights["b_enc"] - 0.1}, k=9, relu=False)
        case "abstopk":
            weights["b_enc"] *= 0.05  # so that a latent takes both signs
            return TopK(config(name, signed=True), **weights, k=5, relu=False, by_magnitude=True)
        case "gated":
            gate = {"b_gate": random(N, scale=0.02), "b_mag": random(N, scale=0.02), "r_mag": random(N, scale=0.2)}
            return Gated(config(name), **weights | {"b_enc": torch.zeros(N)}, **gate)
        case "groupmax":
            return GroupMax(config(name), **weights, k=5)
        case "top-afa":
            return TopAFA(config(name), **weights | {"b_enc": torch.zeros(N)})
        case "switch":
            return Switch(config(name), **weights, router=random(4, D), b_router=random(D, scale=0.01), k=3)
        case "quantised":
            return Quantised(config(name), **weights, levels=torch.tensor([-0.05, 0.0, 0.05, 0.2]))
        case "quantised-soft":
            levels = torch.tensor([-0.05, 0.0, 0.05, 0.2])
            return Quantised(config(name), **weights, levels=levels, hard=False, temperature=0.01)
        case "norm-gated":
            glu = {"W_glu": random(D, N, scale=0.2), "b_glu": random(N)}
            return NormGated(config(name), **weights, act="jumprelu", threshold=torch.tensor(0.03), **glu,
                             subtract_b_dec=False)  # fmt: skip
        case "transcoder" | "skip-transcoder" | "jumprelu-transcoder":
            c = config(name, [MLP_IN], [MLP_OUT])
            skip = random(D, D, scale=0.1) if name.startswith("skip") else None
            weights = weights | {"W_skip": skip, "subtract_b_dec": False}
            return (
                JumpReLU(c, **weights, threshold=torch.tensor(0.4)) if name.startswith("jump") else ReLU(c, **weights)
            )
        case "crosscoder":
            _, wide = parts(d_in=2 * D, d_out=2 * D)
            c = config(name, [BLOCK, "model.layers.1:out"], d_in=2 * D)
            return Crosscoder(
                config=c, **wide, subtract_b_dec=False, layers=2, act="jumprelu", threshold=torch.tensor(0.05)
            )
        case "clt":
            c = config(name, [f"blocks.{i}.ln2.hook_normalized" for i in range(2)],
                       [f"blocks.{i}.hook_mlp_out" for i in range(2)], d_in=2 * D, n=2 * N)  # fmt: skip
            W_dec_to = tuple(random(to + 1, N, D, scale=0.2) for to in range(2))
            return CLT(config=c, W_enc=random(2, D, N, scale=0.2), b_enc=random(2, N, scale=0.1), W_dec_to=W_dec_to,
                       b_dec=random(2, D, scale=0.01), act="topk", k=4)  # fmt: skip
        case "matching-pursuit" | "matching-pursuit-signed":
            relu = name == "matching-pursuit"
            cone = 0.0 if relu else 0.5  # atoms of one direction, so that all projections of some inputs are negative
            rows = torch.nn.functional.normalize(weights["W_dec"] + cone * random(1, D), dim=1)
            c = config(name, signed=not relu)
            return MatchingPursuit(config=c, W_dec=rows, b_dec=torch.zeros(D), steps=5, relu=relu, stop_on_repeat=relu)
        case "attention-output":
            return TopK(config(name, ["blocks.1.attn.hook_z"]), **weights, k=5)
    raise ValueError(name)


FAMILIES = [
    "relu", "relu-layer-norm", "jumprelu", "batchtopk", "matryoshka", "topk", "topk-rescaled", "vsae", "abstopk",
    "gated", "groupmax", "top-afa", "switch", "quantised", "quantised-soft", "norm-gated", "transcoder",
    "skip-transcoder", "jumprelu-transcoder", "crosscoder", "clt", "matching-pursuit", "matching-pursuit-signed",
    "attention-output",
]  # fmt: skip
