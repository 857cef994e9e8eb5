"""The harvest's accumulators against brute force over the same activations, written the slow and plain way."""

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.harvest.batches import Batch, Padded, assemble, counted
from app.harvest.harvester import Harvester
from app.harvest.peaks import find_peaks
from app.harvest.pool import WindowPool
from app.harvest.samples import N_INTERVALS, IntervalSamples, interval_of, priority_of
from app.harvest.stats import LatentStats, bin_edges, bin_of
from app.harvest.top import TopContexts
from app.sae.acts import Acts
from app.sae.base import SAEConfig
from app.sae.topk import TopK

BOS = 0


def random_batches(seed, *, sequences=24, length=12, latents=5, per_batch=5, vocabulary=4, signed=False):
    """Batches of short texts over a tiny vocabulary, so that windows repeat, with rounded activations, so that
    they tie. Returns them with the dense activations {sequence: [length, latents]} and the ids."""
    g = torch.Generator().manual_seed(seed)
    batches, dense, texts = [], {}, {}
    for start in range(0, sequences, per_batch):
        rows = min(per_batch, sequences - start)
        lengths = torch.randint(3, length + 1, (rows,), generator=g)
        ids = torch.randint(1, vocabulary + 1, (rows, int(lengths.max())), generator=g)
        ids[:, 0] = BOS
        inside = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        padded = Padded(ids * inside, inside, lengths)
        mask = counted(padded, torch.tensor([BOS]))
        x = torch.rand(int(mask.sum()), latents, generator=g)
        x = (x * 8).round() / 4 * (torch.rand(x.shape, generator=g) < 0.3)
        if signed:
            x = x * (torch.randint(0, 2, x.shape, generator=g) * 2 - 1)
        position, latent = x.nonzero(as_tuple=True)
        acts = Acts(position, latent, x[position, latent], len(x))
        batches.append(assemble(acts, start, padded, mask))
        full = torch.zeros(*ids.shape, latents)
        full[mask] = x
        for row in range(rows):
            dense[start + row] = full[row, : lengths[row]]
            texts[start + row] = (ids * inside)[row, : lengths[row]]
    return batches, dense, texts


def window(place, length, width):
    start = max(0, min(place - width // 2, length - width))
    return start, min(length, start + width)


def brute_contexts(dense, texts, latent, sign, width):
    """Every sequence's peak: (magnitude, sequence, place, window text, values relative to the peak)."""
    found = []
    for sequence, values in dense.items():
        column = values[:, latent] * sign
        if column.max() > 0:
            place = int(column.argmax())
            start, end = window(place, len(column), width)
            relative = (values[start:end, latent] / values[place, latent]).half().tolist()
            relative += [0.0] * (width - len(relative))
            text = tuple(texts[sequence][start:end].tolist())
            found.append((float(column[place]), sequence, place, text, relative))
    return found


def brute_top(contexts, k):
    seen, kept = set(), []
    for context in sorted(contexts, key=lambda c: (-c[0], c[1])):
        if context[3] not in seen:
            seen.add(context[3])
            kept.append(context)
    return kept[:k]


def read_top(table, latent):
    rows = []
    for slot in range(table.k):
        if table.magnitude[latent, slot] > 0:
            relative = table.pool.rows(table.window[latent, slot]).tolist()
            rows.append(
                (
                    float(table.magnitude[latent, slot]),
                    int(table.sequence[latent, slot]),
                    int(table.place[latent, slot]),
                    relative,
                )
            )
    return rows


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_top_contexts_equal_a_brute_force_pass(seed, signed):
    batches, dense, texts = random_batches(seed, sequences=60, signed=signed)
    for sign in (1, -1) if signed else (1,):
        table = TopContexts(5, 4, WindowPool(6))
        for batch in batches:
            table.update(batch, find_peaks(batch, 5, sign))
        for latent in range(5):
            wanted = [(c[0], c[1], c[2], c[4]) for c in brute_top(brute_contexts(dense, texts, latent, sign, 6), 4)]
            assert read_top(table, latent) == wanted


def test_the_same_text_in_two_documents_counts_once_at_its_strongest():
    ids = torch.tensor([[BOS, 1, 2, 3], [BOS, 1, 2, 3], [BOS, 3, 2, 1]])
    ones = torch.ones_like(ids)
    padded = Padded(ids, ones, ones.sum(1))
    mask = counted(padded, torch.tensor([BOS]))
    value = torch.tensor([1.0, 2.0, 0.5])
    acts = Acts(torch.tensor([1, 4, 7]), torch.zeros(3, dtype=torch.int64), value, 9)
    batch = assemble(acts, 0, padded, mask)
    table = TopContexts(1, 3, WindowPool(4))
    table.update(batch, find_peaks(batch, 1, 1))
    assert table.sequence.tolist() == [[1, 2, -1]]
    assert table.magnitude.tolist() == [[2.0, 0.5, 0.0]]


@pytest.mark.parametrize("seed", range(4))
def test_top_contexts_merge_to_what_one_pass_finds(seed):
    batches, _, _ = random_batches(seed, sequences=60)
    whole = TopContexts(5, 4, WindowPool(6))
    parts = [TopContexts(5, 4, WindowPool(6)) for _ in range(3)]
    for number, batch in enumerate(batches):
        whole.update(batch, find_peaks(batch, 5, 1))
        parts[number % 3].update(batch, find_peaks(batch, 5, 1))
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = TopContexts(5, 4, WindowPool(6))
        for part in order:
            merged.merge(parts[part])
        assert [read_top(merged, latent) for latent in range(5)] == [read_top(whole, latent) for latent in range(5)]


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=25, deadline=None)
def test_stats_equal_sums_over_the_dense_activations_and_merge(seed, signed):
    batches, dense, _ = random_batches(seed, signed=signed)
    whole, left, right = LatentStats(5, signed), LatentStats(5, signed), LatentStats(5, signed)
    for number, batch in enumerate(batches):
        whole.update(batch)
        (left if number % 2 else right).update(batch)
    values = torch.cat([rows[1:] for rows in dense.values()]).double()
    assert whole.positions == len(values)
    assert whole.count.tolist() == (values != 0).sum(0).tolist()
    torch.testing.assert_close(whole.total, values.sum(0))
    torch.testing.assert_close(whole.squares, values.pow(2).sum(0))
    assert whole.maximum.tolist() == values.amax(0).clamp_min(0).tolist()
    assert whole.minimum.tolist() == values.amin(0).clamp_max(0).tolist()
    assert whole.histogram.sum((0, 2)).tolist() == whole.count.tolist()
    left.merge(right)
    for name, value in whole.state_dict().items():
        merged = left.state_dict()[name]
        assert merged == value if name == "positions" else torch.allclose(merged.double(), value.double())


def test_histogram_bins_hold_what_lies_between_their_edges():
    edges = bin_edges()
    values = torch.tensor([1.0, 1.05, 2.0, 3.9, 100.0], dtype=torch.float64)
    bins = bin_of(values)
    assert (edges[bins] <= values).all()
    assert (values < edges[bins + 1]).all()
    assert bin_of(torch.tensor([1e-9, 1e9])).tolist() == [0, len(edges) - 2]


def test_intervals_are_tenths_with_their_upper_end():
    magnitude = torch.tensor([0.01, 1.0, 1.001, 9.0, 9.5, 10.0])
    assert interval_of(magnitude, torch.full((6,), 10.0)).tolist() == [0, 0, 1, 8, 9, 9]


def sample_of(batches, k, latents=5, seed=0):
    table = IntervalSamples(latents, k, WindowPool(6), seed)
    for batch in batches:
        table.update(batch, find_peaks(batch, latents, 1))
    return table


@pytest.mark.parametrize("seed", range(6))
def test_samples_are_complete_below_their_bound(seed):
    """What makes a bottom-k sketch uniform: an interval holds exactly its contexts of priority below the bound."""
    batches, dense, texts = random_batches(seed, sequences=200)
    table = sample_of(batches, 3)
    for latent in range(5):
        contexts = brute_contexts(dense, texts, latent, 1, 6)
        inside = defaultdict(dict)
        for magnitude, sequence, place, _, relative in contexts:
            interval = int(interval_of(torch.tensor(magnitude), table.maximum[latent]))
            priority = int(priority_of(torch.tensor(sequence), torch.tensor(latent), 0))
            inside[interval][priority] = (magnitude, sequence, place, relative)
        assert float(table.maximum[latent]) == max(c[0] for c in contexts)
        for interval in range(N_INTERVALS):
            slots = slice(interval * 3, interval * 3 + 3)
            bound = int(table.bound[latent, interval])
            wanted = sorted(p for p in inside[interval] if p < bound)
            held = [p for p in table.priority[latent, slots].tolist() if p < torch.iinfo(torch.int64).max]
            assert held == wanted
            for slot, priority in zip(range(slots.start, slots.stop), held, strict=False):
                magnitude, sequence, place, relative = inside[interval][priority]
                assert float(table.magnitude[latent, slot]) == magnitude
                assert int(table.sequence[latent, slot]) == sequence
                assert int(table.place[latent, slot]) == place
                assert table.pool.rows(table.window[latent, slot]).tolist() == relative


def test_samples_are_full_once_the_maximum_has_settled():
    batches, dense, texts = random_batches(3, sequences=400)
    table = sample_of(batches, 2)
    for latent in range(5):
        sizes = torch.zeros(N_INTERVALS, dtype=torch.int64)
        for context in brute_contexts(dense, texts, latent, 1, 6):
            sizes[interval_of(torch.tensor(context[0]), table.maximum[latent])] += 1
        held = (table.sequence[latent].view(N_INTERVALS, 2) >= 0).sum(1)
        assert held.tolist() == sizes.clamp_max(2).tolist()


def test_every_context_of_an_interval_is_sampled_equally_often():
    """Chi-squared over 600 seeds: 18 contexts of one latent in one interval, 3 drawn, the maximum growing."""
    rows = 19
    ids = torch.ones(rows, 3, dtype=torch.int64)
    ids[:, 0] = BOS
    padded = Padded(ids, torch.ones_like(ids), torch.full((rows,), 3))
    mask = counted(padded, torch.tensor([BOS]))
    magnitude = torch.linspace(0.901, 0.95, rows)
    magnitude[-1] = 1.0
    drawn = torch.zeros(rows)
    for seed in range(600):
        table = IntervalSamples(1, 4, WindowPool(2), seed)
        for start in range(0, rows, 4):
            chosen = torch.arange(start, min(start + 4, rows))
            acts = Acts(torch.arange(len(chosen)) * 2, torch.zeros_like(chosen), magnitude[chosen], 2 * len(chosen))
            part = Padded(ids[chosen], torch.ones_like(ids[chosen]), padded.lengths[chosen])
            batch: Batch = assemble(acts, start, part, mask[chosen])
            table.update(batch, find_peaks(batch, 1, 1))
        held = table.sequence[0, 36:]
        drawn[held[held >= 0]] += 1
    expected = drawn.sum() / rows
    assert float(((drawn - expected) ** 2 / expected).sum()) < 42.3  # 99.9th percentile of chi-squared, 18 d.o.f.


@pytest.mark.parametrize("seed", range(4))
def test_merged_samples_are_complete_below_their_bound(seed):
    batches, dense, texts = random_batches(seed, sequences=200)
    half = len(batches) // 2
    merged = sample_of(batches[:half], 3)
    merged.merge(sample_of(batches[half:], 3))
    for latent in range(5):
        for interval in range(N_INTERVALS):
            wanted = []
            for context in brute_contexts(dense, texts, latent, 1, 6):
                if int(interval_of(torch.tensor(context[0]), merged.maximum[latent])) == interval:
                    wanted.append(int(priority_of(torch.tensor(context[1]), torch.tensor(latent), 0)))
            bound = int(merged.bound[latent, interval])
            held = merged.priority[latent, interval * 3 : interval * 3 + 3]
            assert [p for p in held.tolist() if p < torch.iinfo(torch.int64).max] == sorted(
                p for p in wanted if p < bound
            )


def tiny_sae(latents=5, d=7):
    g = torch.Generator().manual_seed(1)
    config = SAEConfig("topk", d, latents, ("m:out",), ("m:out",), "tiny")
    W_dec = torch.randn(latents, d, generator=g)
    return TopK(config, W_dec.T.contiguous(), torch.zeros(latents), W_dec, torch.zeros(d), k=2)


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_harvester_restored_from_its_state_ends_the_same(cut):
    batches, _, _ = random_batches(5, sequences=60)
    x = [
        torch.randn(batch.acts.n_positions, 7, generator=torch.Generator().manual_seed(i))
        for i, batch in enumerate(batches)
    ]

    def fresh():
        return Harvester(tiny_sae(), top=4, per_interval=2, width=6, reconstruct_every=2)

    whole, first = fresh(), fresh()
    for batch, rows in zip(batches, x, strict=True):
        whole.update(batch, rows)
    for batch, rows in list(zip(batches, x, strict=True))[:cut]:
        first.update(batch, rows)
    second = fresh()
    second.load_state_dict(first.state_dict())
    for batch, rows in list(zip(batches, x, strict=True))[cut:]:
        second.update(batch, rows)
    assert second.reconstruction.result() == whole.reconstruction.result()
    for latent in range(5):
        assert read_top(second.top[1], latent) == read_top(whole.top[1], latent)
    for name, value in whole.samples[1].state_dict().items():
        if name != "window":
            assert torch.equal(second.samples[1].state_dict()[name], value)


def test_compacting_the_pool_keeps_every_window_that_is_named():
    pool = WindowPool(2)
    numbers = pool.add(torch.arange(12.0).view(6, 2).half())
    first, second = numbers[[5, 0]].clone(), torch.tensor([int(numbers[3]), -1])
    pool.compact([first, second])
    assert len(pool) == 3
    assert pool.rows(first).tolist() == [[10.0, 11.0], [0.0, 1.0]]
    assert pool.rows(second[:1]).tolist() == [[6.0, 7.0]]
    assert second[1] == -1
