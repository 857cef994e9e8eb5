"""What is kept of contexts against brute force over the same activations, and the rows made of it."""

import io
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.harvest import contexts as module
from app.harvest.context_columns import context_columns, posting_columns, vectors
from app.harvest.contexts import Contexts
from app.harvest.samples import priority_of
from app.harvest.stats import LatentStats
from tests.test_accumulators import random_batches

WIDTH, LONGEST, LATENTS = 5, 12, 5
PER = 3


def accumulator(limit=10**6, budget=10**6, seed=0):
    return Contexts(LATENTS, WIDTH, LONGEST, limit, seed, budget=budget)


def fed(batches, **options):
    made = accumulator(**options)
    for batch in batches:
        made.update(batch)
    made.settle()
    return made


def told(contexts):
    """{(sequence, number): {latent: (offset, value)}}"""
    held, out, at = contexts.held, {}, 0
    for context, size in zip(held.context.tolist(), held.size.tolist(), strict=True):
        codes, values = held.code[at : at + size].tolist(), held.value[at : at + size].tolist()
        assert codes == sorted(codes)
        out[divmod(context, PER)] = {c // WIDTH: (c % WIDTH, v) for c, v in zip(codes, values, strict=True)}
        at += size
    assert at == len(held.value)
    return out


def brute(dense):
    """The same of every context that holds a counted position; place 0 is BOS, which is not."""
    out = {}
    for sequence, values in dense.items():
        for number in range(math.ceil(len(values) / WIDTH)):
            some = values[number * WIDTH : (number + 1) * WIDTH]
            best = {}
            for latent in range(LATENTS):
                column = some[:, latent]
                if column.abs().max() > 0:
                    offset = int(column.abs().argmax())
                    best[latent] = (offset, float(column[offset]))
            if number or len(some) > 1:
                out[sequence, number] = best
    return out


def first_by_priority(every, limit, budget, seed):
    """What there is room for, from the lowest priority up."""
    chosen, entries = {}, 0
    key = {
        place: int(priority_of(torch.tensor(place[0] * PER + place[1]), torch.tensor(0), seed + 5)) for place in every
    }
    for place in sorted(every, key=key.__getitem__):
        entries += len(every[place])
        if entries > budget or len(chosen) == limit:
            break
        chosen[place] = every[place]
    return chosen


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_context_has_each_latents_strongest_activation(seed, signed):
    batches, dense, _ = random_batches(seed, length=LONGEST, latents=LATENTS, signed=signed)
    made, wanted = fed(batches), brute(dense)
    assert told(made) == wanted
    assert made.seen == len(wanted)


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 150))
@settings(max_examples=60, deadline=None)
def test_what_there_is_room_for_is_the_lowest_priorities_however_it_is_read_and_merged(seed, limit, budget):
    batches, dense, _ = random_batches(seed, length=LONGEST, latents=LATENTS, sequences=40)
    wanted = first_by_priority(brute(dense), limit, budget, seed)
    whole = fed(batches, limit=limit, budget=budget, seed=seed)
    assert told(whole) == wanted
    g = torch.Generator().manual_seed(seed)
    owner = torch.randint(0, 3, (len(batches),), generator=g).tolist()
    parts = [fed([b for b, o in zip(batches, owner, strict=True) if o == i], limit=limit, budget=budget, seed=seed)
             for i in range(3)]  # fmt: skip
    states = [part.state_dict() for part in parts]

    def merged(*order):
        out = accumulator(limit, budget, seed)
        for i in order:
            other = accumulator(limit, budget, seed)
            other.load_state_dict(states[i])
            out.merge(other)
        return out

    for order in ((0, 1, 2), (2, 0, 1)):
        some = merged(*order)
        assert (told(some), some.seen, some.bound) == (wanted, whole.seen, whole.bound)
    right, left = merged(1, 2), merged(0)
    left.merge(right)
    assert (told(left), left.seen, left.bound) == (wanted, whole.seen, whole.bound)


def test_the_sample_is_uniform_over_contexts():
    batches, dense, _ = random_batches(1, length=LONGEST, latents=LATENTS, sequences=20)
    every, runs, limit = brute(dense), 600, 8
    counts = Counter(place for seed in range(runs) for place in told(fed(batches, limit=limit, seed=seed)))
    assert sum(counts.values()) == runs * limit
    expected = runs * limit / len(every)
    chi = sum((counts[place] - expected) ** 2 / expected for place in every)
    # Each run draws without replacement, so this is a little below chi-square of that many degrees.
    assert chi < len(every) + 4 * math.sqrt(2 * len(every))
    assert chi > len(every) / 4


def test_a_pass_that_is_cut_and_goes_on_ends_with_the_same_bytes(monkeypatch):
    monkeypatch.setattr(module, "WAITING", 30)
    batches, _, _ = random_batches(3, length=LONGEST, latents=LATENTS, sequences=60)

    def saved(made):
        file = io.BytesIO()
        torch.save(made.state_dict(), file)
        return file.getvalue()

    whole = fed(batches, limit=25, budget=90)
    for cut in range(1, len(batches)):
        made = accumulator(25, 90)
        for batch in batches[:cut]:
            made.update(batch)
        again = accumulator(25, 90)
        again.load_state_dict(torch.load(io.BytesIO(saved(made)), weights_only=True))
        for batch in batches[cut:]:
            again.update(batch)
        again.settle()
        assert saved(again) == saved(whole)


def by_hand(dense, stats, most):
    """{(sequence, start): (norm, {latent: (weight, offset)})}"""
    peak = torch.maximum(stats.maximum, -stats.minimum).tolist()
    density = (stats.count / stats.positions).tolist()
    out = {}
    for (sequence, number), fires in brute(dense).items():
        strength = {
            latent: math.copysign(abs(v) / peak[latent] * min(1.0, -math.log10(density[latent]) / 4), v)
            for latent, (_, v) in fires.items()
        }
        best = sorted(strength, key=lambda latent: (-abs(strength[latent]), latent))[:most]
        norm = math.sqrt(sum(strength[latent] ** 2 for latent in best))
        out[sequence, number * WIDTH] = (norm, {x: (strength[x] / norm, fires[x][0]) for x in best if strength[x]})
    return out


def rows(found):
    """The same, read from the columns as PostgreSQL would hold them."""
    c = context_columns(found)
    places = list(zip(c["sequence_id"].values.tolist(), c["start"].values.tolist(), strict=True))
    out = {place: (norm, {}) for place, norm in zip(places, c["norm"].values.tolist(), strict=True)}
    assert places == sorted(places)
    for chunk in posting_columns(found):
        at = 0
        for latent, size in zip(chunk["latent"].values.tolist(), (chunk["offsets"].lengths).tolist(), strict=True):
            ids, weights = (
                np.frombuffer(chunk[name].data.tobytes(), kind)[at : at + size].tolist()
                for name, kind in (("contexts", "<i4"), ("weights", "<f2"))
            )
            assert ids == sorted(set(ids))
            for i, weight, offset in zip(ids, weights, chunk["offsets"].data[at : at + size].tolist(), strict=True):
                out[places[i]][1][latent] = (weight, offset)
            at += size
    return out


@pytest.mark.parametrize("most", [1, 3, 10])
@pytest.mark.parametrize("signed", [False, True])
def test_rows_hold_the_strongest_latents_of_each_context(monkeypatch, most, signed):
    monkeypatch.setattr("app.harvest.context_columns.CHUNK", 7)
    monkeypatch.setattr("app.harvest.context_columns.LATENTS", 2)
    batches, dense, _ = random_batches(5, length=LONGEST, latents=LATENTS, sequences=40, signed=signed)
    stats, made = LatentStats(LATENTS, signed), accumulator()
    for batch in batches:
        stats.update(batch)
        made.update(batch)
    found, wanted = rows(vectors(made, stats, most)), by_hand(dense, stats, most)
    assert found.keys() == wanted.keys()
    for place, (norm, entries) in wanted.items():
        assert found[place][0] == pytest.approx(norm, rel=1e-6)
        assert {x: offset for x, (_, offset) in found[place][1].items()} == {x: o for x, (_, o) in entries.items()}
        for latent, (weight, _) in entries.items():
            assert found[place][1][latent][0] == pytest.approx(weight, rel=1e-3)
    assert any(weight < 0 for _, entries in found.values() for weight, _ in entries.values()) == signed


def test_a_harvest_in_which_nothing_fires_has_contexts_and_no_postings():
    batches, dense, _ = random_batches(0, length=LONGEST, latents=LATENTS)
    stats, made = LatentStats(LATENTS, False), accumulator()
    for batch in batches:
        silent = batch.acts.keep(torch.zeros(len(batch.acts.value), dtype=torch.bool))
        quiet = type(batch)(**{**vars(batch), "acts": silent})
        vars(quiet).pop("entries", None)
        stats.update(quiet)
        made.update(quiet)
    found = vectors(made, stats, 4)
    assert len(found.sequence) == len(brute(dense))
    assert list(posting_columns(found)) == []
    assert found.norm.tolist() == [0.0] * len(found.sequence)
