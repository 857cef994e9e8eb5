"""The harvest's accumulators against brute force over the same activations, written the slow and plain way."""

import io
import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.harvest.batches import Batch, Padded, assemble, counted
from app.harvest.harvester import Harvester
from app.harvest.parameters import Parameters
from app.harvest.peaks import find_peaks
from app.harvest.pool import WindowPool
from app.harvest.samples import GROUPS, IntervalSamples, interval_of, priority_of
from app.harvest.stats import LatentStats, bin_edges, bin_of
from app.harvest.top import TopContexts
from app.sae.acts import Acts
from app.sae.base import SAEConfig
from app.sae.topk import TopK

BOS = 0


def random_batches(seed, *, sequences=24, length=12, latents=5, per_batch=5, vocabulary=4, signed=False):
    """Batches of short texts over a tiny vocabulary, so that windows repeat, with rounded activations, so that
    they tie. Every document is a few sequences long. Returns them with the dense activations
    {sequence: [length, latents]} and the ids."""
    g = torch.Generator().manual_seed(seed)
    batches, dense, texts = [], {}, {}
    document = torch.randint(0, 2, (sequences,), generator=g).cumsum(0)
    for start in range(0, sequences, per_batch):
        rows = min(per_batch, sequences - start)
        lengths = torch.randint(3, length + 1, (rows,), generator=g)
        ids = torch.randint(1, vocabulary + 1, (rows, int(lengths.max())), generator=g)
        ids[:, 0] = BOS
        inside = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        numbers = document[start : start + rows, None].expand_as(ids)
        padded = Padded(ids * inside, inside, lengths, numbers)
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
    padded = Padded(ids, ones, ones.sum(1), torch.zeros_like(ids))
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


def brute_samples(dense, texts, latent, k, bin_size, maximum, seed=0):
    """For every tenth the contexts the sketch promises: the first ``k`` by priority of those whose priority is not
    above that of the last held in any bin the tenth overlaps, where a bin holds its first ``bin_size``."""
    bins, tenths = defaultdict(list), defaultdict(list)
    contexts = brute_contexts(dense, texts, latent, 1, 6)
    top = max((math.floor(4 * math.log2(c[0])) for c in contexts), default=0)
    for context in contexts:
        priority = int(priority_of(torch.tensor(context[1]), torch.tensor(latent), seed))
        own = min(top - math.floor(4 * math.log2(context[0])), GROUPS - 1)
        bins[own].append(priority)
        tenths[int(interval_of(torch.tensor(context[0]), torch.tensor(maximum)))].append((priority, context))
    for tenth, members in tenths.items():
        bound = float("inf")
        for own, priorities in bins.items():
            low = 0.0 if own == GROUPS - 1 else 2 ** ((top - own) / 4)
            overlaps = low <= (tenth + 1) * maximum / 10 and 2 ** ((top - own + 1) / 4) > tenth * maximum / 10
            if overlaps and len(priorities) >= bin_size:
                bound = min(bound, sorted(priorities)[bin_size - 1])
        yield tenth, [context for priority, context in sorted(members) if priority <= bound][:k]


def drawn(table, maximum, k):
    """{latent: {tenth: [(magnitude, sequence, place, relative)]}}."""
    found = defaultdict(lambda: defaultdict(list))
    chosen = table.draw(maximum, k, chunk=2)
    for latent, tenth, slot in zip(*(column.tolist() for column in chosen), strict=True):
        found[latent][tenth].append(
            (
                float(table.magnitude[latent, slot]),
                int(table.sequence[latent, slot]),
                int(table.place[latent, slot]),
                table.pool.rows(table.window[latent, slot]).tolist(),
            )
        )
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("sequences", "size"), [(40, 2), (300, 3)])
def test_samples_equal_a_brute_force_pass(seed, sequences, size):
    batches, dense, texts = random_batches(seed, sequences=sequences)
    table = sample_of(batches, size)
    maximum = torch.stack([rows.amax(0) for rows in dense.values()]).amax(0)
    found = drawn(table, maximum, 2)
    for latent in range(5):
        wanted = {
            tenth: [(c[0], c[1], c[2], c[4]) for c in contexts]
            for tenth, contexts in brute_samples(dense, texts, latent, 2, size, float(maximum[latent]))
            if contexts
        }
        assert found[latent] == wanted


@pytest.mark.parametrize("seed", range(4))
def test_samples_of_a_wide_range_equal_a_brute_force_pass(seed):
    """Eighteen octaves, most of them below a tenth of the maximum."""
    batches, dense, texts = random_batches(seed, sequences=300)
    batches = [replace(b, acts=b.acts._replace(value=b.acts.value**6)) for b in batches]
    dense = {sequence: rows**6 for sequence, rows in dense.items()}
    table = sample_of(batches, 2)
    maximum = torch.stack([rows.amax(0) for rows in dense.values()]).amax(0)
    found = drawn(table, maximum, 2)
    for latent in range(5):
        wanted = {
            tenth: [(c[0], c[1], c[2], c[4]) for c in contexts]
            for tenth, contexts in brute_samples(dense, texts, latent, 2, 2, float(maximum[latent]))
            if contexts
        }
        assert found[latent] == wanted


def test_a_tenth_of_fewer_contexts_than_a_bin_holds_is_complete():
    batches, dense, texts = random_batches(3, sequences=40)
    table = sample_of(batches, 40)
    maximum = torch.stack([rows.amax(0) for rows in dense.values()]).amax(0)
    found = drawn(table, maximum, 40)
    for latent in range(5):
        assert sum(map(len, found[latent].values())) == len(brute_contexts(dense, texts, latent, 1, 6))


@pytest.mark.parametrize("seed", range(4))
def test_samples_do_not_depend_on_order_or_sharding(seed):
    batches, dense, _ = random_batches(seed, sequences=200)
    maximum = torch.stack([rows.amax(0) for rows in dense.values()]).amax(0)
    whole = drawn(sample_of(batches, 3), maximum, 3)
    thirds = [sample_of(batches[i::3], 3) for i in range(3)]
    thirds[2].merge(thirds[0])
    thirds[1].merge(thirds[2])
    assert drawn(thirds[1], maximum, 3) == whole
    assert drawn(sample_of(batches[::-1], 3), maximum, 3) == whole


def test_every_context_of_an_interval_is_sampled_equally_often():
    """Chi-squared over 600 seeds: 18 contexts of one latent in one interval, 3 drawn, the maximum growing."""
    rows = 19
    ids = torch.ones(rows, 3, dtype=torch.int64)
    ids[:, 0] = BOS
    padded = Padded(ids, torch.ones_like(ids), torch.full((rows,), 3), torch.zeros_like(ids))
    mask = counted(padded, torch.tensor([BOS]))
    magnitude = torch.linspace(0.901, 0.95, rows)
    magnitude[-1] = 1.0
    counts = torch.zeros(rows)
    for seed in range(600):
        table = IntervalSamples(1, 4, WindowPool(2), seed)
        for start in range(0, rows, 4):
            chosen = torch.arange(start, min(start + 4, rows))
            acts = Acts(torch.arange(len(chosen)) * 2, torch.zeros_like(chosen), magnitude[chosen], 2 * len(chosen))
            part = Padded(*(column[chosen] for column in padded))
            batch: Batch = assemble(acts, start, part, mask[chosen])
            table.update(batch, find_peaks(batch, 1, 1))
        chosen = table.draw(torch.ones(1), 3)
        highest = table.sequence[0, chosen.slot[chosen.interval == 9]].long()
        counts[highest] += 1
    expected = counts.sum() / rows
    assert counts.sum() > 1200
    assert float(((counts - expected) ** 2 / expected).sum()) < 42.3  # 99.9th percentile of chi-squared, 18 d.o.f.


def tiny_sae(latents=5, d=7):
    g = torch.Generator().manual_seed(1)
    config = SAEConfig("topk", d, latents, ("m:out",), ("m:out",), "tiny")
    W_dec = torch.randn(latents, d, generator=g)
    return TopK(config, W_dec.T.contiguous(), torch.zeros(latents), W_dec, torch.zeros(d), k=2)


PARAMETERS = Parameters(
    top=4, per_interval=2, width=6, reconstruct_every=2, quiet_windows=8, tokens=3, token_least=2, partners=3,
    documents=2,
)  # fmt: skip


def fresh(l0=2.0):
    return Harvester(tiny_sae(), PARAMETERS, vocabulary=5, longest=12, l0=l0)


def fed(batches, harvester=None):
    harvester = harvester or fresh()
    for batch in batches:
        x = torch.randn(batch.acts.n_positions, 7, generator=torch.Generator().manual_seed(batch.first_sequence))
        harvester.update(batch, x)
    return harvester


def outcome(harvester):
    """Everything a harvest stores, but for what is only numbers of windows."""
    harvester.finish()
    tables = {
        **{f"token {name}": value for name, value in harvester.tokens.by_mean(3, 2)._asdict().items()},
        **{f"sure {name}": value for name, value in harvester.tokens.by_probability(3, 2)._asdict().items()},
        **{f"with {name}": value for name, value in harvester.together.partners(3)._asdict().items()},
        **{f"random {name}": value for name, value in harvester.quiet.random(2)._asdict().items()},
        "documents": harvester.documents.count,
        "document fires": harvester.documents.fires,
        "document number": harvester.documents.number,
        "histogram": harvester.stats.histogram,
        "count": harvester.stats.count,
        "places": harvester.places.counts,
        "first": harvester.places.first,
        "last": harvester.places.last,
    }
    samples = drawn(harvester.samples[1], harvester.stats.maximum, 2)
    top = [read_top(harvester.top[1], latent) for latent in range(5)]
    return {name: value.tolist() for name, value in tables.items()} | {"samples": samples, "top": top}


@pytest.mark.parametrize("cut", [1, 3, 7])
@pytest.mark.parametrize("l0", [2.0, 1000.0])
def test_a_harvester_restored_from_its_state_ends_the_same(cut, l0):
    batches, _, _ = random_batches(5, sequences=60)
    whole = fed(batches, fresh(l0))
    second = fresh(l0)
    state = io.BytesIO()
    torch.save(fed(batches[:cut], fresh(l0)).state_dict(), state)
    state.seek(0)
    second.load_state_dict(torch.load(state, weights_only=True))
    fed(batches[cut:], second)
    assert second.reconstruction.result() == whole.reconstruction.result()
    assert outcome(second) == outcome(whole)


@given(st.integers(0, 10_000), st.integers(2, 4), st.sampled_from([2.0, 1000.0]))
@settings(max_examples=20, deadline=None)
def test_shards_merged_in_any_order_are_the_whole_pass(seed, shards, l0):
    batches, _, _ = random_batches(seed, sequences=60)
    whole = outcome(fed(batches, fresh(l0)))
    size = -(-len(batches) // shards)
    parts = [batches[i * size : (i + 1) * size] for i in range(shards)]
    forwards, backwards = ([fed(part, fresh(l0)) for part in parts if part] for _ in range(2))
    for part in forwards[1:]:
        forwards[0].merge(part)
    for part in backwards[-2::-1]:
        backwards[-1].merge(part)
    assert outcome(forwards[0]) == whole
    assert outcome(backwards[-1]) == whole


def test_rows_that_no_table_names_are_reused():
    pool = WindowPool(2, slots=4)
    numbers = pool.add(torch.arange(12.0).view(6, 2).half())
    first, second = numbers[[5, 0]].int(), torch.tensor([int(numbers[3]), -1], dtype=torch.int32)
    pool.recycle([first, second])
    assert len(pool) == 3
    again = pool.add(torch.full((4, 2), 7.0).half())
    assert set(again.tolist()) == {1, 2, 4, 6}
    assert pool.rows(first).tolist() == [[10.0, 11.0], [0.0, 1.0]]
    assert pool.rows(second[:1]).tolist() == [[6.0, 7.0]]
