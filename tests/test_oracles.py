"""Checkpoints written by the libraries the formats come from, and what those libraries computed with them.

tests/oracles/*.py made tests/data/oracles in environments of their own: {case}/ is the checkpoint as the library
saved it, {case}.safetensors its x, acts and x_hat in fp32.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.sae import normal
from app.sae.base import Pursuing, SAEFormatError
from app.sae.formats import Options, Source, read, recognise, saelens, save
from app.sae.heads import per_head_shares
from tests.deviations import note

DATA = Path(__file__).parent / "data" / "oracles"
FORMATS = {"sae-lens": "saelens", "sparsify": "sparsify", "dictionary_learning": "dictionary_learning",
           "overcomplete": "overcomplete"}  # fmt: skip
REFUSED = {
    "temporal": "attends over whole sequences",
    "temporal_untied": "attends over whole sequences",
    "dl-batchtopk": "never set",
    "oc-sae-mlp-ln": "LayerNorm over the latents",
    "oc-omp": "'OMPSAE'",
}
ACTS = {"sparsify-signed": ("acts_signed", "x_hat_signed")}


def cases():
    for library in FORMATS:
        for case in json.loads((DATA / library / "cases.json").read_text()):
            yield pytest.param(library, case, id=case)


def folder_of(library, case):
    """The folder that holds the checkpoint: where its files are, below the case's own folder."""
    files = [p for p in (DATA / library / case).rglob("*") if p.suffix in (".json", ".pt", ".safetensors")]
    return min((p.parent for p in files), key=lambda p: len(p.parts))


OPTIONS = Options(hook="model.layers.3:out", ignore_unknown=False)


@pytest.mark.parametrize(("library", "case"), list(cases()))
def test_the_same_latents_fire_with_the_same_values(library, case, tmp_path):
    folder = folder_of(library, case)
    assert recognise(Source.at(folder)) == FORMATS[library]
    if case in REFUSED:
        with pytest.raises(SAEFormatError, match=REFUSED[case]):
            read(folder, OPTIONS)
        return
    sae = read(folder, OPTIONS)
    wanted = load_file(DATA / library / f"{case}.safetensors")
    names = ACTS.get(case, ("acts", "x_hat"))
    check(sae, wanted["x"], wanted[names[0]], wanted[names[1]], case)
    save(tmp_path, sae)
    check(read(tmp_path), wanted["x"], wanted[names[0]], wanted[names[1]])
    normal.write(tmp_path / "own", sae)
    check(read(tmp_path / "own"), wanted["x"], wanted[names[0]], wanted[names[1]])


def check(sae, x, acts, x_hat, case=None):
    got = sae.encode(x)
    dense = got.dense(acts.shape[1])
    assert torch.equal(dense != 0, acts != 0)
    acts_off, x_hat_off = (dense - acts).abs().max(), (sae.decode(got, x) - x_hat).abs().max()
    assert acts_off <= 1e-5
    assert x_hat_off <= 1e-5
    if case:
        note(case, acts_off, x_hat_off)
    assert sae.config.signed or (acts >= 0).all()


@pytest.mark.parametrize("case", ["matching_pursuit", "matching_pursuit_capped", "oc-mp", "oc-mp-negative"])
def test_pursuits_tell_the_order_and_what_was_left(case):
    library = "overcomplete" if case.startswith("oc") else "sae-lens"
    sae, wanted = read(folder_of(library, case), OPTIONS), load_file(DATA / library / f"{case}.safetensors")
    assert isinstance(sae, Pursuing)
    steps = sae.pursue(wanted["x"])
    order = wanted["selection" if library == "overcomplete" else "order"]
    norms = wanted["residuals"].norm(dim=2) if library == "overcomplete" else wanted["residual_norm"]
    assert torch.equal(steps.latent, order)
    assert (steps.residual - norms).abs().max() <= 1e-5


def test_heads_share_a_latents_decoder():
    W_dec = torch.tensor([[3.0, 0.0, 0.0, 4.0], [1.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(per_head_shares(W_dec, 2), torch.tensor([[0.36, 0.64], [1.0, 0.0]]))


def test_what_sae_lens_has_a_class_for_is_written_for_it():
    for case in json.loads((DATA / "sae-lens" / "cases.json").read_text()):
        if case not in REFUSED:
            assert saelens.can_write(read(folder_of("sae-lens", case), OPTIONS)), case
