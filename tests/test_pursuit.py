"""Matching pursuit by the Gram matrix takes what matching pursuit takes."""

from dataclasses import replace

import pytest
import torch

from app.sae import pursuit
from app.sae.base import SAEConfig
from tests.families import make


def draws(n: int, d: int, *shape: int, unit: bool = True) -> torch.Tensor:
    drawn = torch.randn(*shape, n, d, generator=torch.Generator().manual_seed(n + d))
    return drawn / drawn.norm(dim=-1, keepdim=True) if unit else drawn


def sae(W_dec: torch.Tensor, **options: object) -> pursuit.MatchingPursuit:
    config = replace(make("matching-pursuit").config, n_latents=len(W_dec), d_in=W_dec.shape[1])
    assert isinstance(config, SAEConfig)
    return pursuit.MatchingPursuit(config=config, W_dec=W_dec, b_dec=torch.full(W_dec.shape[1:], 0.1), **options)


def both(made: pursuit.MatchingPursuit, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """Chosen, values, residual norms: by products taken anew each step, and by the Gram matrix."""
    monkeypatch.setattr(pursuit, "GRAM_PAYS", 10**9)
    anew = made._pursue(x)
    assert "_gram" not in vars(made)
    monkeypatch.setattr(pursuit, "GRAM_PAYS", 1)
    monkeypatch.setattr(pursuit, "NEAR_ELEMENTS", 64 * len(made.W_dec))
    kept = made._pursue(x)
    assert "_gram" in vars(made)
    return [list(anew), list(kept)]


OPTIONS = [
    {"steps": 24, "relu": True},
    {"steps": 24},
    {"steps": 24, "relu": True, "subtract_b_dec": True, "stop_on_repeat": True},
    {"steps": 24, "residual_threshold": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("unit", [True, False])
def test_the_gram_matrix_changes_no_choice(options, unit, monkeypatch):
    made = sae(draws(300, 24) * (1 if unit else torch.linspace(0.5, 1.3, 300)[:, None]), **options)
    x = 3 * draws(700, 24, unit=False)  # not a multiple of 64
    anew, kept = both(made, x, monkeypatch)
    assert torch.equal(anew[0], kept[0])
    size = anew[1].abs().max()
    assert float((anew[1] - kept[1]).abs().max() / size) < 1e-5
    assert float((anew[2] - kept[2]).abs().max() / size) < 1e-5


def in_double(W: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
    """The latents chosen in fp64, with products taken anew."""
    W, left, chosen = W.double(), x.double(), []
    for _ in range(steps):
        value, latent = (left @ W.T).max(1)
        left = left - value[:, None] * W[latent]
        chosen.append(latent)
    return torch.stack(chosen, 1)


@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-5, 1e-4])
def test_rows_that_are_nearly_the_same_are_told_apart_as_well_as_without_it(apart, monkeypatch):
    W = draws(200, 24)
    made = sae(torch.cat([W, W + apart * draws(200, 24, 1)[0].flip(0)]), steps=12)
    x = 3 * draws(2000, 24, unit=False)
    anew, kept = both(made, x, monkeypatch)
    monkeypatch.setattr(pursuit, "UNSURE", 0.0)
    careless = made._pursue(x)
    right = in_double(made.W_dec, x, 12)
    shares = [float((found[0] == right).double().mean()) for found in (anew, kept, careless)]
    assert shares[1] > shares[0] - 0.005
    if apart == 1e-6:
        assert shares[1] > shares[2] + 0.01


def test_nothing_is_pursued_in_no_positions():
    found = make("matching-pursuit").encode(torch.zeros(0, make("matching-pursuit").config.d_in))
    assert len(found.value) == 0


def test_a_gram_matrix_is_made_for_much_text_and_not_for_a_prompt_or_a_wide_sae(monkeypatch):
    made = sae(draws(300, 24), steps=4)
    made.encode(draws(299, 24))
    assert "_gram" not in vars(made)
    monkeypatch.setattr(pursuit, "GRAM_ELEMENTS", 300 * 300 - 1)
    made.encode(draws(300, 24))
    assert "_gram" not in vars(made)
    monkeypatch.setattr(pursuit, "GRAM_ELEMENTS", 300 * 300)
    made.encode(draws(300, 24))
    assert "_gram" in vars(made)
    assert "_gram" not in vars(made.to("cpu"))


def test_the_largest_of_a_row_is_the_first_of_several():
    rows = torch.tensor([[1.0, 3.0, 3.0], [-torch.inf, -2.0, -5.0], [0.0, 0.0, 0.0]])
    value, place = pursuit.largest_of(rows)
    assert value.tolist() == [3.0, -2.0, 0.0]
    assert place.tolist() == [1, 1, 0]
