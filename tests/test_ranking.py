"""The ranking of a prompt's latents against its definition, entry by entry."""

import asyncio
import itertools
import math
import threading

import numpy as np
import pytest

from app.live import ranking
from app.live.prompt import Reading
from app.live.ranking import APART, Scale, active, rank, rank_apart, rows_of

LATENTS = 60


def reading(rng, positions, most):
    """Some positions have no entry; equal values are frequent, and some are negative."""
    entries = [
        (position, int(latent), float(rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0])))
        for position in range(positions)
        for latent in sorted(rng.choice(LATENTS, rng.integers(0, most + 1), replace=False))
    ]
    position, latent, value = zip(*entries, strict=True) if entries else ((), (), ())
    return Reading(np.array(position, np.int32), np.array(latent, np.int32), np.array(value, np.float32), None)


def plainly(reading, scale, token, by, top, densest, among):
    entries = list(zip(reading.position.tolist(), reading.latent.tolist(), reading.value.tolist(), strict=True))
    found = []
    for index in sorted({latent for _, latent, _ in entries}):
        row = [(position, value) for position, latent, value in entries if latent == index]
        scope = [(position, value) for position, value in row if token in (None, position)]
        density, peak = float(scale.density[index]), float(scale.peak[index])
        if not scope or (densest is not None and density > densest) or (among is not None and index not in among):
            continue
        position, value = max(scope, key=lambda entry: (abs(entry[1]), -entry[0]))
        share = abs(value) / peak if peak else 1.0
        strength = share * min(1.0, max(0.0, -math.log10(max(density, 1e-12)) / 4))
        key = {"strength": -strength, "activation": -abs(value), "count": -len(row), "first": row[0][0]}[by]
        told = (index, value, share, strength, position, len(row), row[0][0], row)
        found.append(((key, -strength, index), told))
    return [told for _, told in sorted(found)][:top]


@pytest.mark.parametrize("by", ["strength", "activation", "count", "first"])
def test_the_ranking_is_what_it_says(by):
    rng = np.random.default_rng(0)
    for positions, token, densest, limited in itertools.product((1, 5, 30), (None, 0, 4, 99), (None, 0.2), (0, 1)):
        read = reading(rng, positions, 12)
        scale = Scale(
            np.where(rng.random(LATENTS) < 0.1, 0, 2.0 ** rng.integers(-2, 3, LATENTS)).astype(np.float32),
            (10.0 ** -rng.integers(0, 6, LATENTS)).astype(np.float32),
        )
        among = set(rng.integers(0, LATENTS, 20).tolist()) if limited else None
        for top in (3, 100):
            found = rank(read, scale, token=token, by=by, top=top, densest=densest, among=among)
            expected = plainly(read, scale, token, by, top, densest, among)
            assert [one.index for one in found] == [one[0] for one in expected]
            for one, (_, value, share, strength, *rest) in zip(found, expected, strict=True):
                assert [one.position, one.count, one.first, one.activations] == rest
                assert one.activation == value
                assert (one.share, one.strength) == pytest.approx((share, strength))
        there = read.latent if token is None else read.latent[read.position == token]
        assert active(read, token).tolist() == sorted(set(there.tolist()))
        assert rows_of(read, [one.index for one in found]) == {one.index: one.activations for one in found}


@pytest.mark.parametrize("more", [0, 1])
def test_a_long_prompt_is_ranked_off_the_event_loop(monkeypatch, more):
    n = APART + more
    read = Reading(np.arange(n, dtype=np.int32) // LATENTS, np.arange(n, dtype=np.int32) % LATENTS,
                   np.random.default_rng(1).random(n, np.float32), None)  # fmt: skip
    scale = Scale(np.ones(LATENTS, np.float32), np.full(LATENTS, 0.01, np.float32))
    threads = []

    def noted(*given, **options):
        threads.append(threading.current_thread() is threading.main_thread())
        return rank(*given, **options)

    monkeypatch.setattr(ranking, "rank", noted)
    options = {"token": 3, "by": "activation", "top": 5, "among": {1, 2, 3}}
    found = asyncio.run(rank_apart(read, scale, **options))
    assert found == rank(read, scale, **options)
    assert [one.index for one in found] == sorted({1, 2, 3}, key=lambda i: -read.value[3 * LATENTS + i])
    assert threads == [more == 0]
