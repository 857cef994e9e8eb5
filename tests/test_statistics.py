"""Places, tokens, documents and co-activation against brute force over the same activations."""

import math
from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.harvest.coactivation import ExactPairs, SampledPairs, coactivation, highest, rectangles
from app.harvest.documents import Documents
from app.harvest.places import Places
from app.harvest.samples import priority_of
from app.harvest.tokens import TokenPairs
from app.sae.acts import Acts
from tests.test_accumulators import random_batches

N, VOCABULARY = 5, 5


def positions(batches, dense):
    """Every counted position: (sequence, place, token, document, values)."""
    for batch in batches:
        rows = zip(batch.sequence.tolist(), batch.place.tolist(), batch.document.tolist(), strict=True)
        for row, place, document in rows:
            sequence = row + batch.first_sequence
            yield sequence, place, int(batch.token_ids[row, place]), document, dense[sequence][place]


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_of_equal_scores_the_first_are_taken_also_at_the_end(seed, k):
    score = torch.randint(-1, 5, (7, 12), generator=torch.Generator().manual_seed(seed)).double() / 4
    found, ids = highest(score, k)
    for row in range(7):
        best = score[row].argsort(descending=True, stable=True)[:k]
        assert torch.equal(found[row], score[row, best])
        above = score[row, best] > 0
        assert torch.equal(ids[row][above], best[above])


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_places_first_and_last(seed, signed):
    batches, dense, _ = random_batches(seed, signed=signed)
    places = Places(N, 12)
    for batch in batches:
        places.update(batch)
    edges = places.edges.tolist()
    profile, at = torch.zeros(N, len(edges)), defaultdict(list)
    for sequence, place, _, _, values in positions(batches, dense):
        bin_of = max(i for i, edge in enumerate(edges) if edge <= place)
        profile[values != 0, bin_of] += 1
        at[sequence].append((place, values != 0))
    assert places.counts.tolist() == profile.tolist()
    assert places.sequences == len(at)
    assert places.first.tolist() == sum(min(rows, key=lambda r: r[0])[1].long() for rows in at.values()).tolist()
    assert places.last.tolist() == sum(max(rows, key=lambda r: r[0])[1].long() for rows in at.values()).tolist()
    assert places.positions.sum() == sum(map(len, at.values()))


def brute_tokens(batches, dense):
    seen, fires, total = Counter(), defaultdict(Counter), defaultdict(Counter)
    for _, _, token, _, values in positions(batches, dense):
        seen[token] += 1
        for latent in range(N):
            fires[latent][token] += int(values[latent] != 0)
            total[latent][token] += float(values[latent])
    return seen, fires, total


def wilson(hits, n, z=1.96):
    share = hits / n
    centre = share + z * z / (2 * n)
    return (centre - z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_top_tokens_by_mean_and_by_probability(seed, signed):
    batches, dense, _ = random_batches(seed, signed=signed)
    table = TokenPairs(N, VOCABULARY)
    for batch in batches:
        table.update(batch)
    seen, fires, total = brute_tokens(batches, dense)
    mean, sure = table.by_mean(3, 2), table.by_probability(3, 2)
    for latent in range(N):
        known = [token for token in sorted(seen) if seen[token] >= 2]
        wanted = sorted(
            (t for t in known if total[latent][t]), key=lambda t: (-abs(total[latent][t] / seen[t]), t)
        )[:3]  # fmt: skip
        assert mean.ids[latent].tolist() == wanted + [-1] * (3 - len(wanted))
        for slot, token in enumerate(wanted):
            assert float(mean.values[latent, slot]) == pytest.approx(total[latent][token] / seen[token])
        wanted = sorted(
            (t for t in known if fires[latent][t]), key=lambda t: (-wilson(fires[latent][t], seen[t]), t)
        )[:3]  # fmt: skip
        assert sure.ids[latent].tolist() == wanted + [-1] * (3 - len(wanted))
        for slot, token in enumerate(wanted):
            assert float(sure.values[latent, slot]) == pytest.approx(fires[latent][token] / seen[token])
            assert int(sure.seen[latent, slot]) == seen[token]


def test_pruned_token_counts_miss_no_more_than_they_say(monkeypatch):
    monkeypatch.setattr("app.harvest.tokens.PENDING", 16)
    batches, dense, _ = random_batches(1, sequences=200, vocabulary=60)
    table = TokenPairs(N, 61, limit=100)
    for batch in batches:
        table.update(batch)
    table._settle()
    _, fires, _ = brute_tokens(batches, dense)
    assert len(table.key) <= 100
    assert table.lost.sum() > 0
    known = dict(zip(table.key.tolist(), table.fires.tolist(), strict=True))
    for latent in range(N):
        for token, count in fires[latent].items():
            found = known.get(latent * 61 + token, 0)
            assert found <= count <= found + int(table.lost[latent])


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_documents_with_a_firing_and_those_with_the_most(seed, k):
    batches, dense, _ = random_batches(seed, sequences=50, per_batch=4)
    table = Documents(N, k)
    for batch in batches:
        table.update(batch)
    table.finish()
    fires = defaultdict(Counter)
    for _, _, _, document, values in positions(batches, dense):
        for latent in (values != 0).nonzero().flatten().tolist():
            fires[latent][document] += 1
    for latent in range(N):
        best = sorted(fires[latent].items(), key=lambda entry: (-entry[1], entry[0]))[:k]
        best += [(-1, 0)] * (k - len(best))
        assert int(table.count[latent]) == len(fires[latent])
        assert list(zip(table.number[latent].tolist(), table.fires[latent].tolist(), strict=True)) == best


def brute_together(rows):
    active = torch.stack([values != 0 for values in rows]).double()
    together = active.T @ active
    n, fired = len(rows), together.diagonal()
    spread = (fired * (n - fired)).sqrt()
    phi = (together * n - fired[:, None] * fired) / (spread[:, None] * spread).clamp_min(1e-12)
    phi.fill_diagonal_(0)
    phi[together < 3] = 0
    return together, phi


def same_partners(found, together, phi, k):
    for latent in range(N):
        best = [i for i in phi[latent].argsort(descending=True, stable=True).tolist() if phi[latent, i] > 0][:k]
        assert [i for i in found.ids[latent].tolist() if i >= 0] == best
        for slot, other in enumerate(best):
            assert int(found.together[latent, slot]) == int(together[latent, other])
            assert float(found.phi[latent, slot]) == pytest.approx(float(phi[latent, other]))


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_joint_firings_are_exact(seed, signed):
    batches, dense, _ = random_batches(seed, sequences=40, signed=signed)
    table = ExactPairs(N)
    for batch in batches:
        table.update(batch)
    rows = [values for *_, values in positions(batches, dense)]
    assert table.positions == len(rows)
    same_partners(table.partners(3), *brute_together(rows), 3)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_sampled_joint_firings_are_those_of_the_positions_of_lowest_priority(seed):
    batches, dense, _ = random_batches(seed, sequences=60)
    table = SampledPairs(N, 100, seed=3)
    for batch in batches:
        table.update(batch)
    every = list(positions(batches, dense))
    order = priority_of(torch.tensor([e[0] for e in every]), torch.tensor([e[1] for e in every]), 5).argsort()
    rows = [every[i][4] for i in order[:100].tolist()]
    assert table.positions == 100
    same_partners(table.partners(3), *brute_together(rows), 3)


def test_positions_are_sampled_uniformly():
    """Chi-square over 400 seeds: 30 of about 150 positions."""
    batches, dense, _ = random_batches(0, sequences=24)
    index = {(sequence, place): i for i, (sequence, place, *_) in enumerate(positions(batches, dense))}
    drawn = torch.zeros(len(index))
    for seed in range(400):
        table = SampledPairs(N, 30, seed)
        for batch in batches:
            table.update(batch)
        last = table.priority[-1]
        for (sequence, place), i in index.items():
            drawn[i] += bool(priority_of(torch.tensor(sequence), torch.tensor(place), seed + 2) <= last)
    expected = 400 * 30 / len(index)
    degrees = len(index) - 1
    assert int(drawn.sum()) == 400 * 30
    chi = float(((drawn - expected) ** 2 / (expected * (1 - 30 / len(index)))).sum())
    assert chi < degrees + 4 * math.sqrt(2 * degrees)


def test_rectangles_hold_every_position_with_two_or_more():
    acts = Acts(torch.tensor([0, 0, 0, 2, 2, 3, 5, 5]), torch.tensor([1, 4, 7, 0, 7, 2, 1, 2]), torch.ones(8), 6)
    found = [part.tolist() for part in rectangles(acts, 9, rows=2)]
    assert found == [[[0, 7], [1, 2]], [[1, 4, 7]]]
    assert [part.tolist() for part in rectangles(acts, 9)] == [[[0, 7, 9], [1, 2, 9], [1, 4, 7]]]


def test_co_activation_is_exact_where_that_is_cheap():
    assert coactivation(4096, 32.0, 0, "cpu").exact
    assert not coactivation(40_000, 32.0, 0, "cpu").exact
    assert not coactivation(4096, 500.0, 0, "cpu").exact
    assert coactivation(4096, 500.0, 0, "cpu").most == (1 << 30) // 500**2


def test_two_latents_are_co_active_from_three_joint_firings_on():
    for together, wanted in ((2, -1), (3, 1)):
        table = ExactPairs(2)
        position = torch.arange(together).repeat_interleave(2)
        acts = Acts(position, torch.tensor([0, 1]).repeat(together), torch.ones(2 * together), 20)
        table.update(SimpleNamespace(acts=acts))
        assert int(table.partners(1).ids[0, 0]) == wanted
