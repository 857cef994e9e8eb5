"""What we save in SAELens format, loaded and run by the real sae_lens in an environment of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.sae.formats import saelens
from tests.families import FAMILIES, make

ROOT = Path(__file__).resolve().parents[1]
VERSION = saelens.VERSION


@pytest.fixture(scope="session")
def sae_lens(cache):
    """A Python that has sae_lens; made once and kept in the cache."""
    venv = cache / f"sae-lens-{VERSION}"
    python = venv / "bin" / "python"
    if not (venv / "ready").is_file():
        torch_pin = next(x for x in (ROOT / "constraints.txt").read_text().split() if x.startswith("torch=="))
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        for requirement in (torch_pin, f"sae-lens=={VERSION}"):
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
            subprocess.run(pip, check=True)
        (venv / "ready").touch()
    return python


def test_sae_lens_loads_what_it_has_a_class_for_and_computes_the_same(sae_lens, tmp_path):
    written = []
    for name in FAMILIES:
        sae = make(name)
        if not saelens.can_write(sae):
            continue
        folder = tmp_path / name
        saelens.write(folder, sae, matrices=torch.float32)
        x = torch.randn(16, sae.config.d_in, generator=torch.Generator().manual_seed(3))
        acts = sae.encode(x)
        save_file(
            {"x": x, "acts": acts.dense(sae.config.n_latents), "x_hat": sae.decode(acts, x)},
            folder / "reference.safetensors",
        )
        written.append(name)
    assert set(written) == {
        "relu", "relu-layer-norm", "jumprelu", "batchtopk", "matryoshka", "topk", "topk-rescaled", "abstopk", "gated",
        "transcoder", "skip-transcoder", "jumprelu-transcoder", "matching-pursuit", "attention-output",
    }  # fmt: skip
    command = [sae_lens, ROOT / "tests" / "oracles" / "saelens_load.py", *(tmp_path / name for name in written)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [Path(one["folder"]).name for one in told] == written, done.stderr[-2000:]
    for one in told:
        assert "error" not in one, one
        assert max(value for key, value in one.items() if "dev" in key) <= 1e-5, one
