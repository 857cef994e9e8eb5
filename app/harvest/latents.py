"""Accumulators to the columns of the latent table."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.harvest.directions import decoder_neighbours, encoder_decoder_cosine, project, residual_directions
from app.harvest.harvester import Harvester
from app.harvest.labels import START, peak_label, vocabulary_label
from app.harvest.parameters import Parameters
from app.harvest.stats import LatentStats
from app.sae.base import SAE
from app.sae.heads import per_head_shares
from app.store.copying import Column, Fixed, Ragged, Raw, ragged
from app.subject.load import Subject
from app.subject.tokens import Vocabulary


def latent_columns(harvester: Harvester, subject: Subject) -> dict[str, Column]:
    """One row a latent, in order: statistics of the harvest, and what the weights say."""
    n = harvester.n_latents
    weights, promoted = weight_columns(harvester.sae, harvester.parameters, subject)
    labels, sources = _labels(harvester, promoted, subject.vocabulary)
    return {
        "index": Fixed(np.arange(n)),
        **_moments(harvester.stats),
        **weights,
        "label": Raw.of_strings(labels),
        "label_source": Raw.of_strings(sources),
        "label_score": Fixed(np.zeros(n), np.ones(n, dtype=bool)),
        **_positions(harvester),
        **_tokens(harvester),
        **_company(harvester),
    }


def _moments(stats: LatentStats) -> dict[str, Column]:
    n = max(stats.positions, 1)
    mean = stats.total / n
    variance = (stats.squares / n - mean * mean).clamp_min(0)
    first, positive, negative = _trimmed_histograms(stats)
    return {
        "fired": Fixed(_numpy(stats.count)),
        "density": Fixed(_numpy(stats.count.double() / n)),
        "mean": Fixed(_numpy(mean)),
        "std": Fixed(_numpy(variance.sqrt())),
        "maximum": Fixed(_numpy(stats.maximum)),
        "minimum": Fixed(_numpy(stats.minimum)),
        "histogram_first": Fixed(first),
        "histogram": positive,
        "histogram_negative": negative,
    }


def weight_columns(
    sae: SAE, parameters: Parameters, subject: Subject
) -> tuple[dict[str, Column], np.ndarray[Any, Any]]:
    """The columns, and the promoted token ids [n, k] (k = 0 where a latent's effect on the logits is not known)."""
    n = sae.config.n_latents
    directions = residual_directions(sae, subject)
    none = np.zeros((n, 0))
    promoted = (none, none, none, none)
    if directions is not None:
        unembedding = subject.unembedding()[:, : len(subject.vocabulary)]
        found = project(directions, unembedding, parameters.promoted)
        promoted = tuple(map(_numpy, found))  # type: ignore[assignment]
    ids, cosines = decoder_neighbours(sae.W_dec, parameters.neighbours)
    W_enc: Tensor | None = getattr(sae, "W_enc", None)
    comparable = W_enc is not None and W_enc.shape == sae.W_dec.T.shape and sae.config.reads == sae.config.writes
    cosine = encoder_decoder_cosine(W_enc, sae.W_dec) if comparable and W_enc is not None else None
    heads = sae.config.heads
    nothing = Ragged(np.zeros(0, np.float32), np.zeros(n, np.int64), np.ones(n, dtype=bool))
    columns: dict[str, Column] = {
        "promoted_ids": ragged(promoted[0].astype(np.int32), np.int32),
        "promoted_logits": ragged(promoted[1].astype(np.float32), np.float32),
        "suppressed_ids": ragged(promoted[2].astype(np.int32), np.int32),
        "suppressed_logits": ragged(promoted[3].astype(np.float32), np.float32),
        "neighbour_ids": ragged(_numpy(ids).astype(np.int32), np.int32),
        "neighbour_cosines": ragged(_numpy(cosines), np.float32),
        "decoder_norm": Fixed(_numpy(sae.W_dec.float().norm(dim=1))),
        "encoder_decoder_cosine": Fixed(np.full(n, np.nan) if cosine is None else _numpy(cosine)),
        "head_shares": nothing if heads is None else ragged(_numpy(per_head_shares(sae.W_dec, heads)), np.float32),
    }
    return columns, promoted[0].astype(np.int64)


def _labels(
    harvester: Harvester, promoted: np.ndarray[Any, Any], vocabulary: Vocabulary
) -> tuple[list[str], list[str]]:
    """A label for each latent, and what it was made from."""
    rows = [(_numpy(table.token), _numpy(table.place)) for table in harvester.top.values()]
    tokens = np.concatenate([token for token, _ in rows], axis=1)
    places = np.concatenate([place for _, place in rows], axis=1)
    labels, sources = [], []
    for ids, where, best in zip(tokens, places, promoted, strict=True):
        held = ids >= 0
        if held.any() and (where[held] <= 1).sum() >= 0.8 * held.sum():
            label, source = START, "position"
        elif held.any():
            label, source = peak_label([vocabulary.text(i) for i in ids[held].tolist()]), "top-tokens"
        else:
            label, source = vocabulary_label([vocabulary.text(i) for i in best.tolist()]), "vocab-projection"
        labels.append(label)
        sources.append(source)
    return labels, sources


def _positions(harvester: Harvester) -> dict[str, Column]:
    places = harvester.places
    return {
        "place_counts": ragged(_numpy(places.counts).astype(np.int32), np.int32),
        "first_fired": Fixed(_numpy(places.first)),
        "last_fired": Fixed(_numpy(places.last)),
    }


def _tokens(harvester: Harvester) -> dict[str, Column]:
    parameters, n_tokens = harvester.parameters, harvester.parameters.tokens
    mean = harvester.tokens.by_mean(n_tokens, parameters.token_least)
    sure = harvester.tokens.by_probability(n_tokens, parameters.token_least)
    return {
        "token_mean_ids": _present(mean.ids, mean.ids, np.int32),
        "token_mean_values": _present(mean.values, mean.ids, np.float32),
        "token_probability_ids": _present(sure.ids, sure.ids, np.int32),
        "token_probability_values": _present(sure.values, sure.ids, np.float32),
        "token_probability_seen": _present(sure.seen, sure.ids, np.int32),
    }


def _company(harvester: Harvester) -> dict[str, Column]:
    found = harvester.together.partners(harvester.parameters.partners)
    documents = harvester.documents
    return {
        "coactive_ids": _present(found.ids, found.ids, np.int32),
        "coactive_phi": _present(found.phi, found.ids, np.float32),
        "coactive_together": _present(found.together, found.ids, np.int32),
        "documents": Fixed(_numpy(documents.count)),
        "document_ids": _present(documents.number, documents.number, np.int32),
        "document_fires": _present(documents.fires, documents.number, np.int32),
    }


def _present(values: Tensor, ids: Tensor, dtype: Any) -> Ragged:
    """values: [n, k], those where ids >= 0 (which come first in a row)."""
    held = _numpy(ids) >= 0
    return Ragged(_numpy(values)[held].astype(dtype), held.sum(1))


def _trimmed_histograms(stats: LatentStats) -> tuple[np.ndarray[Any, Any], Ragged, Ragged]:
    """For each latent the first bin in use, and the counts from there to the last in use, per sign."""
    counts = _numpy(stats.histogram)
    used = counts.sum(0) > 0
    first = np.where(used.any(1), used.argmax(1), 0)
    last = np.where(used.any(1), used.shape[1] - used[:, ::-1].argmax(1), 0)
    bins = np.arange(used.shape[1])
    inside = (bins >= first[:, None]) & (bins < last[:, None])
    cut = [Ragged(sign[inside], last - first) for sign in counts]
    empty = Ragged(np.zeros(0, np.int32), np.zeros(len(first), np.int64))
    return first, cut[0], cut[1] if len(cut) == 2 else empty


def density_histogram(stats: LatentStats) -> tuple[list[float], list[int]]:
    """log10 density of the latents that ever fire: (edges, counts), four bins a decade; the last one includes 1."""
    alive = stats.count[stats.count > 0].double().cpu()
    if not len(alive):
        return [-1.0, 0.0], [0]
    logs = (alive / stats.positions).log10().numpy()
    low = min(np.floor(logs.min() * 4) / 4, -0.25)
    edges = np.arange(low, 0.25, 0.25)
    counts, _ = np.histogram(logs, edges)
    return [float(edge) for edge in edges], [int(count) for count in counts]


def facts(harvester: Harvester) -> dict[str, Any]:
    """What the latents' numbers are over, for the harvest's row."""
    places = harvester.places
    return {
        "place_edges": places.edges.tolist(),
        "place_positions": places.positions.tolist(),
        "sequences": places.sequences,
        "coactivation_exact": harvester.together.exact,
        "coactivation_positions": harvester.together.positions,
        "token_counts_exact": not bool(harvester.tokens.lost.any()),
        "contexts": {"kept": len(harvester.contexts.held.context), "seen": harvester.contexts.seen},
    }


def _numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy()
