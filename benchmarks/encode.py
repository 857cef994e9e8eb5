"""Encoders and the sparse decode: tok/s by architecture and size, beside a bare matmul + topk on the same device.

python -m benchmarks.encode [--json] [--sizes 576x16k,2304x16k,...] [--tokens 1024]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from app.sae import linear
from app.sae.acts import Acts
from app.sae.afa import TopAFA
from app.sae.base import SAE, SAEConfig
from app.sae.gated import Gated
from app.sae.groupmax import GroupMax
from app.sae.jumprelu import JumpReLU
from app.sae.normgated import NormGated
from app.sae.pursuit import MatchingPursuit
from app.sae.quantised import Quantised
from app.sae.relu import ReLU
from app.sae.switch import Switch
from app.sae.topk import TopK

K = 32
SIZES = "576x16k,2304x16k,4096x16k,576x131k,2304x131k,576x1m"


def count(text: str) -> int:
    return int(float(text.lower().replace("k", "e3").replace("m", "e6")))


def seconds(run: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """The median over ``repeats`` after one run to warm up."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def weights(d: int, n: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    W_enc = torch.randn(d, n, generator=g).to(device) * d**-0.5
    return {
        "W_enc": W_enc.to(dtype), "b_enc": torch.full((n,), -2.0, device=device),
        "W_dec": W_enc.T.contiguous().to(dtype), "b_dec": torch.zeros(d, device=device),
    }  # fmt: skip


def families(d: int, n: int, w: dict[str, Any]) -> dict[str, SAE]:
    """One SAE an architecture; the thresholds leave about K active of a token."""
    c = SAEConfig("bench", d, n, ("x:out",), ("x:out",), "bench")
    level = float(torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - K / n))) - 2.0
    theta, zero = torch.tensor(level, device=w["b_dec"].device), torch.zeros(n, device=w["b_dec"].device)
    sparse = w | {"b_enc": w["b_enc"] - level}
    out: dict[str, SAE] = {
        "relu": ReLU(c, **sparse),
        "jumprelu": JumpReLU(c, **w, threshold=theta),
        "topk": TopK(c, **w, k=K),
        "abstopk": TopK(c, **w, k=K, relu=False, by_magnitude=True),
        "gated": Gated(c, **w, b_gate=sparse["b_enc"], b_mag=zero, r_mag=zero),
        "norm-gated": NormGated(c, **w, act="jumprelu", threshold=theta, subtract_b_dec=False),
        "quantised": Quantised(c, **sparse, levels=torch.tensor([0.0, 0.5, 1.0, 2.0], device=theta.device)),
    }
    if n % K == 0:
        out["groupmax"] = GroupMax(c, **w, k=K)
        router = torch.randn(16, d, device=theta.device)
        out["switch"] = Switch(c, **w, router=router, b_router=w["b_dec"], k=K)
    if n <= 20_000:
        out["top-afa"] = TopAFA(c, **w)
        out["matching-pursuit"] = MatchingPursuit(config=c, W_dec=w["W_dec"].float(), b_dec=w["b_dec"], steps=K)
    return out


def sparse_acts(tokens: int, n: int, active: int, device: torch.device) -> Acts:
    latent = torch.randint(0, n, (tokens, active), device=device).sort(dim=1).values.flatten()
    position = torch.arange(tokens, device=device).repeat_interleave(active)
    return Acts(position, latent, torch.rand(len(latent), device=device), tokens)


def decode_crossover(d: int, n: int, tokens: int, device: torch.device) -> list[dict[str, float]]:
    """Gathering rows against the dense product, by the share of active entries."""
    W, rows = torch.randn(n, d, device=device), []
    for share in (0.002, 0.01, 0.03, 0.08, 0.2):
        acts = sparse_acts(tokens, n, max(1, int(share * n)), device)
        taken = {}
        for name, limit in (("gather", 1e9), ("dense", 0.0)):
            linear.DENSE_SHARE = limit
            taken[name] = seconds(lambda acts=acts: linear.weighted_rows(acts, W), device)  # type: ignore[misc]
        rows.append({"share": share, "gather_ms": taken["gather"] * 1e3, "dense_ms": taken["dense"] * 1e3})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--bf16", action="store_true", help="matrices in bf16")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if given.bf16 else torch.float32
    results: list[dict[str, Any]] = []
    crossover = decode_crossover(576, 16_384, 256, device)
    linear.DENSE_SHARE = 0.12
    for size in given.sizes.split(","):
        d, n = (count(part) for part in size.split("x"))
        n -= n % 64
        w = weights(d, n, dtype, device)
        tokens = given.tokens if n <= 200_000 else min(given.tokens, 256)
        x = torch.randn(tokens, d, device=device)
        inner = x.to(dtype)

        def bare(inner: Tensor = inner, w: dict[str, Any] = w) -> None:
            (inner @ w["W_enc"]).topk(K, dim=1, sorted=False)

        base = seconds(bare, device)
        for name, sae in families(d, n, w).items():
            taken = seconds(lambda sae=sae, x=x: sae.encode(x), device)  # type: ignore[misc]
            row = {
                "d": d,
                "n": n,
                "architecture": name,
                "tok_s": round(tokens / taken),
                "over_bare": round(taken / base, 2),
            }
            results.append(row)
            if not given.json:
                print(f"{d:5} x {n:9,}  {name:17} {row['tok_s']:9,} tok/s  {row['over_bare']:.2f}x bare", flush=True)
        del w
    if given.json:
        print(
            json.dumps({"device": str(device), "dtype": str(dtype), "encode": results, "decode": crossover}, indent=1)
        )
    else:
        for row in crossover:
            print(
                f"decode, {row['share']:.1%} active: gather {row['gather_ms']:.1f} ms, dense {row['dense_ms']:.1f} ms"
            )


if __name__ == "__main__":
    main()
