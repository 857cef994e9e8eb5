"""Accumulators to rows of the database."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.harvest.directions import decoder_neighbours, encoder_decoder_cosine, project, residual_directions
from app.harvest.harvester import Harvester
from app.harvest.labels import START, peak_label, vocabulary_label
from app.harvest.run import Parameters
from app.harvest.samples import N_INTERVALS
from app.harvest.stats import LatentStats
from app.sae.base import SAE
from app.sae.heads import per_head_shares
from app.store.bulk import ExampleRows, LatentRows
from app.store.tables import NEAR, RANDOM, TOP
from app.subject.load import Subject


def latent_rows(
    harvester: Harvester, sae: SAE, subject: Subject, sequences: list[Sequence], parameters: Parameters
) -> LatentRows:
    """The latent table's columns: statistics of the harvest, and what the weights say."""
    stats = harvester.stats
    vocabulary = subject.vocabulary
    unembedding = subject.unembedding()[:, : len(vocabulary)]
    directions = residual_directions(sae, subject)
    projection = None if directions is None else project(directions, unembedding, parameters.promoted)
    ids, cosines = decoder_neighbours(sae.W_dec, parameters.neighbours)
    fired = stats.count.double()
    n = max(stats.positions, 1)
    mean = stats.total / n
    variance = (stats.squares / n - mean * mean).clamp_min(0)
    first, positive, negative = _trimmed_histograms(stats)
    W_enc: Tensor | None = getattr(sae, "W_enc", None)
    comparable = W_enc is not None and W_enc.shape == sae.W_dec.T.shape and sae.config.reads == sae.config.writes
    cosine = encoder_decoder_cosine(W_enc, sae.W_dec) if comparable and W_enc is not None else None
    nothing: list[list[int]] = [[] for _ in range(sae.config.n_latents)]
    promoted_ids = nothing if projection is None else projection.promoted_ids.tolist()
    heads = sae.config.heads
    tops = _peak_tokens(harvester, sequences)
    peaks = [peak_label([vocabulary.text(i) for i, _ in row]) for row in tops]
    starts = [bool(row) and sum(first for _, first in row) >= 0.8 * len(row) for row in tops]
    peaks = [START if start else peak for start, peak in zip(starts, peaks, strict=True)]
    columns: dict[str, Any] = {
        "index": np.arange(sae.config.n_latents),
        "fired": _numpy(stats.count),
        "density": _numpy(fired / n),
        "mean": _numpy(mean),
        "std": _numpy(variance.sqrt()),
        "maximum": _numpy(stats.maximum),
        "minimum": _numpy(stats.minimum),
        "histogram_first": first,
        "histogram": positive,
        "histogram_negative": negative,
        "promoted_ids": promoted_ids,
        "promoted_logits": nothing if projection is None else projection.promoted_logits.tolist(),
        "suppressed_ids": nothing if projection is None else projection.suppressed_ids.tolist(),
        "suppressed_logits": nothing if projection is None else projection.suppressed_logits.tolist(),
        "neighbour_ids": ids.tolist(),
        "neighbour_cosines": cosines.tolist(),
        "decoder_norm": _numpy(sae.W_dec.float().norm(dim=1)),
        "encoder_decoder_cosine": np.full(len(ids), np.nan) if cosine is None else _numpy(cosine),
        "head_shares": [None] * len(ids) if heads is None else per_head_shares(sae.W_dec, heads).tolist(),
        "label": [
            peak or vocabulary_label([vocabulary.text(i) for i in row])
            for peak, row in zip(peaks, promoted_ids, strict=True)
        ],
        "label_source": [
            "position" if start else "top-tokens" if peak else "vocab-projection"
            for start, peak in zip(starts, peaks, strict=True)
        ],
        "label_score": [None] * sae.config.n_latents,
    }
    return LatentRows(columns)


def _peak_tokens(harvester: Harvester, sequences: list[Sequence]) -> list[list[tuple[int, bool]]]:
    """For each latent the token ids at which its top contexts (both signs) are strongest, and whether each is the
    first of its sequence that counts."""
    peaks: list[list[tuple[int, bool]]] = [[] for _ in range(harvester.stats.n_latents)]
    for table in harvester.top.values():
        latent, slot = (table.magnitude > 0).nonzero(as_tuple=True)
        found = (latent.tolist(), table.sequence[latent, slot].tolist(), table.place[latent, slot].tolist())
        for index, sequence, place in zip(*found, strict=True):
            peaks[index].append((int(sequences[sequence].token_ids[place]), place <= 1))
    return peaks


def _trimmed_histograms(stats: LatentStats) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """For each latent the first bin in use, and the counts from there to the last in use, per sign."""
    counts = stats.histogram.cpu().numpy()
    used = counts.sum(0) > 0
    first = np.where(used.any(1), used.argmax(1), 0)
    last = np.where(used.any(1), used.shape[1] - used[:, ::-1].argmax(1), 0)
    cut = [[row[a:b].tolist() for row, a, b in zip(sign, first, last, strict=True)] for sign in counts]
    negative = cut[1] if len(cut) == 2 else [[] for _ in first]
    return first.tolist(), cut[0], negative


def example_rows(harvester: Harvester, sequences: list[Sequence], parameters: Parameters) -> ExampleRows:
    """The example table's columns, sorted by latent, sign, interval and rank."""
    lengths = np.array([len(s.token_ids) for s in sequences])
    parts = [part for sign in harvester.signs for part in _tables(harvester, sign, parameters)]
    parts += _quiet(harvester, sequences, parameters)
    latent, sign, interval, rank, sequence, place, magnitude, window, fixed = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.lexsort((rank, interval, -sign, latent))
    latent, sign, interval, rank, sequence, place, magnitude, window, fixed = (
        column[order] for column in (latent, sign, interval, rank, sequence, place, magnitude, window, fixed)
    )
    width = parameters.width
    centred = np.clip(np.minimum(place - width // 2, lengths[sequence] - width), 0, None)
    start = np.where(fixed >= 0, fixed, centred)
    kept = torch.from_numpy(window).to(harvester.stats.count.device)
    shares = harvester.pool.rows(kept.clamp_min(0)).cpu().numpy() * (window >= 0)[:, None]
    row, offset = shares.nonzero()
    ends = np.cumsum(np.bincount(row, minlength=len(shares)))[:-1]
    columns: dict[str, Any] = {
        "latent": latent,
        "sign": sign,
        "interval": interval,
        "rank": rank,
        "sequence_id": sequence,
        "position": place,
        "start": start,
        "activation": magnitude * sign,
        "offsets": [part.tolist() for part in np.split(offset, ends)],
        "shares": [part.tobytes() for part in np.split(shares[row, offset].astype("<f2"), ends)],
    }
    return ExampleRows(columns)


def _tables(harvester: Harvester, sign: int, parameters: Parameters) -> list[tuple[np.ndarray[Any, Any], ...]]:
    """The filled slots of one sign's tables: latent, sign, interval, rank, sequence, place, magnitude, window."""
    top, samples = harvester.top[sign], harvester.samples[sign]
    out = []
    latent, rank = (top.magnitude > 0).nonzero(as_tuple=True)
    out.append(_columns(top, latent, rank, sign, torch.full_like(rank, TOP), rank))
    n, k = samples.n_latents, parameters.per_interval
    # Slots are in order of priority, so the first k of an interval are a uniform sample of it.
    drawn = samples.magnitude.view(n, N_INTERVALS, -1)[:, :, :k]
    order = drawn.argsort(dim=2, descending=True, stable=True)
    rank_of = torch.empty_like(order).scatter_(2, order, torch.arange(k, device=order.device).expand_as(order))
    latent, interval, slot = (drawn > 0).nonzero(as_tuple=True)
    flat = interval * samples.k + slot
    out.append(_columns(samples, latent, flat, sign, interval, rank_of[latent, interval, slot]))
    return out


def _columns(
    table: Any, latent: Tensor, slot: Tensor, sign: int, interval: Tensor, rank: Tensor
) -> tuple[np.ndarray[Any, Any], ...]:
    picked = [table.sequence[latent, slot], table.place[latent, slot], table.magnitude[latent, slot],
              table.window[latent, slot]]  # fmt: skip
    centred = torch.full_like(latent, -1)
    return tuple(_numpy(c) for c in (latent, torch.full_like(latent, sign), interval, rank, *picked, centred))


def _quiet(
    harvester: Harvester, sequences: list[Sequence], parameters: Parameters
) -> list[tuple[np.ndarray[Any, Any], ...]]:
    """Rows of contexts in which a latent does not fire: like _tables, with the start of their windows at the end."""
    if harvester.quiet is None:
        return []
    token = torch.full((harvester.stats.n_latents,), -1)
    for sign in reversed(harvester.signs):
        table = harvester.top[sign]
        best = zip(
            table.magnitude[:, 0].tolist(), table.sequence[:, 0].tolist(), table.place[:, 0].tolist(), strict=True
        )
        for latent, (magnitude, sequence, place) in enumerate(best):
            if magnitude > 0:
                token[latent] = int(sequences[sequence].token_ids[place])
    found = (
        (RANDOM, harvester.quiet.random(parameters.quiet)),
        (NEAR, harvester.quiet.near(parameters.quiet, token.to(harvester.stats.count.device))),
    )
    out = []
    for code, q in found:
        one, none = torch.ones_like(q.latent), torch.full_like(q.latent, -1)
        magnitude = torch.zeros(len(q.latent))
        columns = (q.latent, one, one * code, q.rank, q.sequence, q.place, magnitude, none, q.start)
        out.append(tuple(_numpy(c) for c in columns))
    return out


def density_histogram(stats: LatentStats) -> tuple[list[float], list[int]]:
    """log10 density of the latents that ever fire: (edges, counts), four bins a decade."""
    alive = stats.count[stats.count > 0].double().cpu()
    if not len(alive):
        return [-1.0, 0.0], [0]
    logs = (alive / stats.positions).log10().numpy()
    low = np.floor(logs.min() * 4) / 4
    edges = np.arange(low, 0.25, 0.25)
    counts, _ = np.histogram(logs, edges)
    return [float(edge) for edge in edges], [int(count) for count in counts]


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy()
