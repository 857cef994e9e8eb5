"""Replacing one latent's values, and what one unit of it adds: against ``decode`` itself, for every family."""

import pytest
import torch

from app.sae.acts import Acts, no_acts
from app.sae.normalise import Normalisation
from app.sae.unit_rows import pulled_back, unit_row
from tests.families import FAMILIES, make


def inputs(sae, rows=7):
    scale = 1.0 if sae.config.architecture == "matching-pursuit" else 0.3
    return scale * torch.randn(rows, sae.config.d_in, generator=torch.Generator().manual_seed(3))


def literal():
    return Acts(torch.tensor([0, 0, 2]), torch.tensor([1, 4, 0]), torch.tensor([2.0, -3.0, 5.0]), 3)


def test_a_column_is_read_and_replaced_in_order():
    acts = literal()
    assert acts.column(4).tolist() == [-3.0, 0.0, 0.0]
    changed = acts.with_column(2, torch.tensor([7.0, 8.0, 0.0]))
    assert changed.position.tolist() == [0, 0, 0, 1, 2]
    assert changed.latent.tolist() == [1, 2, 4, 2, 0]
    assert changed.value.tolist() == [2.0, 7.0, -3.0, 8.0, 5.0]
    assert acts.with_column(4, torch.zeros(3)).latent.tolist() == [1, 0]


@pytest.mark.parametrize("normalise", [
    Normalisation(), Normalisation("scale", 3.0, 4.0), Normalisation("unit_norm"), Normalisation("layer_norm"),
    Normalisation("layer_norm", undo=False),
])  # fmt: skip
def test_the_slope_is_how_far_back_moves(normalise):
    x, x_hat, step = (torch.randn(5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    moved = normalise.back(x_hat + step, x) - normalise.back(x_hat, x)
    assert torch.allclose(moved, normalise.slope(x) * step, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_taking_one_entry_away_takes_its_unit_row_times_its_value(name):
    sae = make(name)
    x = inputs(sae)
    acts = sae.encode(x)
    whole = sae.decode(acts, x)
    gradient = torch.randn(whole.shape, generator=torch.Generator().manual_seed(4))
    pulled = pulled_back(sae, acts, x, gradient)
    gates = sae.gates(acts).all(0) if name == "crosscoder" else torch.ones(len(acts.value), dtype=torch.bool)
    assert gates.any()
    for entry in range(0, len(acts.value), max(1, len(acts.value) // 12)):
        position, latent, value = int(acts.position[entry]), int(acts.latent[entry]), float(acts.value[entry])
        lost = (whole - sae.decode(acts.keep(torch.arange(len(acts.value)) != entry), x))[position]
        assert float(pulled[entry]) * value == pytest.approx(float(lost @ gradient[position]), abs=2e-5)
        if gates[entry]:
            assert torch.allclose(unit_row(sae, latent, x)[position] * value, lost, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_entries_together_are_what_decode_adds_to_nothing(name, monkeypatch):
    monkeypatch.setattr("app.sae.unit_rows.CHUNK_ELEMENTS", 32 * 5)
    sae = make(name)
    x = inputs(sae)
    acts = sae.encode(x)
    added = sae.decode(acts, x) - sae.decode(no_acts(len(x), x.device), x)
    gradient = torch.randn(added.shape, generator=torch.Generator().manual_seed(5))
    sums = torch.zeros(len(x)).index_add_(0, acts.position, acts.value * pulled_back(sae, acts, x, gradient))
    assert torch.allclose(sums, (added * gradient).sum(1), atol=1e-4)


def test_a_crosscoder_entry_counts_only_in_the_layers_whose_gate_is_open():
    sae = make("crosscoder")
    acts = sae.encode(inputs(sae))
    one = sae.gates(acts).sum(0) == 1
    assert one.any()
    first = sae.gates(acts)[0]
    gradient = torch.cat([torch.ones(7, 32), torch.zeros(7, 32)], 1)
    pulled = pulled_back(sae, acts, inputs(sae), gradient)
    assert torch.equal(pulled[~first], torch.zeros(int((~first).sum())))
    assert (pulled[first] != 0).all()
