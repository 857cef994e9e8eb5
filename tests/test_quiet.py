"""Contexts without firing: against brute force on random sparse activations, and uniform over the windows."""

import numpy as np
import pytest
import torch

from app.corpus.sequences import Sequence
from app.harvest.batches import assemble, counted, groups, pad
from app.harvest.quiet import QuietContexts
from app.sae.linear import gather

N, WIDTH = 7, 6


def corpus(seed, count=60, length=14, vocabulary=9):
    random = np.random.default_rng(seed)
    sequences = [
        Sequence(random.integers(1, vocabulary, random.integers(4, length)).astype(np.int32), "doc")
        for _ in range(count)
    ]
    dense = [(random.random((len(s.token_ids), N)) < 0.12) * random.random((len(s.token_ids), N)) for s in sequences]
    return sequences, dense


def feed(quiet, sequences, dense, batch_tokens=100, only=None):
    for number, (first, rows) in enumerate(groups(sequences, batch_tokens)):
        if only is not None and number % 2 != only:
            continue
        padded = pad(rows, torch.device("cpu"))
        mask = counted(padded, torch.tensor([0]))
        values = torch.from_numpy(np.concatenate(dense[first : first + len(rows)])).float()
        quiet.update(assemble(gather(len(values), [(0, values, values != 0)]), first, padded, mask))


@pytest.mark.parametrize("seed", range(6))
def test_fired_is_what_a_pass_over_every_window_finds_and_merging_changes_nothing(seed):
    sequences, dense = corpus(seed)
    quiet = QuietContexts(N, WIDTH, 40, seed)
    feed(quiet, sequences, dense)
    halves = [QuietContexts(N, WIDTH, 40, seed) for _ in range(2)]
    for half, part in zip(halves, (0, 1), strict=True):
        feed(half, sequences, dense, only=part)
    halves[0].merge(halves[1])
    for name, value in quiet.state_dict().items():
        assert torch.equal(halves[0].state_dict()[name], value)
    assert len(quiet.sequence.unique()) == 40
    for row, (number, start) in enumerate(zip(quiet.sequence.tolist(), quiet.start.tolist(), strict=True)):
        window = dense[number][start : start + WIDTH]
        assert quiet.fired[row].tolist() == (window != 0).any(0).tolist()
    token = torch.tensor([int(sequences[i].token_ids[0]) for i in range(N - 1)] + [-1])
    for found, name in ((quiet.random(5), "random"), (quiet.near(5, token), "near")):
        assert (found.rank < 5).all()
        for latent, sequence, start, place in zip(
            found.latent.tolist(), found.sequence.tolist(), found.start.tolist(), found.place.tolist(), strict=True
        ):
            assert not dense[sequence][start : start + WIDTH, latent].any()
            assert start <= place < start + WIDTH
            if name == "near":
                assert latent != N - 1
                assert sequences[sequence].token_ids[place] == token[latent]
        possible = [
            int((~quiet.fired[:, i] & ((quiet.ids == token[i]).any(1) if name == "near" else True)).sum())
            if name == "random" or i != N - 1
            else 0
            for i in range(N)
        ]
        assert torch.bincount(found.latent, minlength=N).tolist() == [min(5, p) for p in possible]


def test_windows_are_drawn_uniformly():
    """Chi-square over many seeds: every sequence is as likely to be drawn as any other."""
    sequences, dense = corpus(0, count=30)
    drawn = torch.zeros(30)
    for seed in range(600):
        quiet = QuietContexts(N, WIDTH, 10, seed)
        feed(quiet, sequences, dense)
        drawn[quiet.sequence] += 1
    expected = 600 * 10 / 30
    assert float(((drawn - expected) ** 2 / expected).sum()) < 60  # 29 degrees of freedom; p < 0.001 beyond 58
