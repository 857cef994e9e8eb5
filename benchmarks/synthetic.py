"""SAEs of any size without a model: rows of the shapes and sizes a harvest writes, drawn at random over real text."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from app.harvest.parameters import Parameters
from app.harvest.places import EDGES
from app.store.bulk import CorpusRows, HarvestRow, SAERow, SubjectRow, save_harvest
from app.store.copying import Column, Fixed, Ragged, Raw, ragged
from app.store.tables import NEAR, RANDOM, TOP
from app.subject.load import load_vocabulary
from app.subject.tokens import Vocabulary

Array = npt.NDArray[Any]
CONTEXT, SEQUENCES, DOCUMENTS = 128, 20_000, 500
POSITIONS = SEQUENCES * (CONTEXT - 1)
CHUNK = 4096
SCORED = 0.5  # the share of latents whose label has a score
BINS = sum(edge < CONTEXT for edge in EDGES)


def save_synthetic(engine: Engine, folder: Path, texts: list[str], n_latents: int, every: int) -> str:
    """An SAE of ``n_latents``, of which each ``every``-th has examples; returns its slug. folder: a subject's;
    texts: what its sequences are cut from, begun again until there are enough."""
    slug = f"synthetic-{n_latents}"
    vocabulary = load_vocabulary(folder)
    parameters = Parameters()
    rng = np.random.default_rng(n_latents)
    density = 10 ** rng.normal(-3.2, 0.6, n_latents).clip(-6, -0.5)
    counts, edges = np.histogram(np.log10(density), np.arange(-6, 0.25, 0.25))
    sha256, made_up = hashlib.sha256(slug.encode()).hexdigest(), hashlib.sha256(b"synthetic").hexdigest()
    save_harvest(
        engine,
        SubjectRow("synthetic", str(folder), {"parameters": 1, "layers": 30, "d_model": 576}, made_up),
        CorpusRows(
            "synthetic", made_up, CONTEXT, SEQUENCES * CONTEXT,
            lambda: _sequences(folder, texts), lambda: ((i, f"Document {i}") for i in range(DOCUMENTS)),
        ),
        SAERow(
            slug, sha256[:10], ["model.layers.9:out"], ["model.layers.9:out"], "topk", 576, n_latents, False,
            {"k": 32}, "nowhere", sha256,
        ),
        HarvestRow(
            asdict(parameters) | {"dtype": "bfloat16"},
            {"fvu": 0.2, "explained_variance": 0.8, "cosine": 0.9, "norm_ratio": 0.95, "l0": 32.0, "tokens": POSITIONS},
            edges.tolist(), counts.tolist(), POSITIONS, 0, 1.0,
            {
                "place_edges": [edge for edge in EDGES if edge < CONTEXT],
                "place_positions": [POSITIONS // BINS] * BINS,
                "sequences": SEQUENCES, "coactivation_exact": True, "coactivation_positions": POSITIONS,
                "token_counts_exact": True,
            },
        ),
        _latents(rng, density, vocabulary, parameters, every),
        _examples(np.random.default_rng(n_latents + 1), n_latents, parameters, every),
        [],
        [],
    )  # fmt: skip
    return slug


def _sequences(folder: Path, texts: list[str]) -> Iterator[tuple[Array, str]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    stream = np.concatenate([np.array(ids, np.int32) for ids in tokenizer(texts)["input_ids"]])
    for number in range(SEQUENCES):
        at = np.arange(number * (CONTEXT - 1), (number + 1) * (CONTEXT - 1)) % len(stream)
        yield np.concatenate([np.array([1], np.int32), stream[at]]), f"Document {number % DOCUMENTS}"


def _tokens(rng: np.random.Generator, shape: tuple[int, ...], vocabulary: int) -> Array:
    """Token ids, the low ones often."""
    return (vocabulary * rng.random(shape) ** 3).astype(np.int32)


def _latents(
    rng: np.random.Generator, density: Array, vocabulary: Vocabulary, parameters: Parameters, every: int
) -> Iterator[dict[str, Column]]:
    total = len(density)
    words = [vocabulary.text(i).strip().replace("\0", "") or "space" for i in range(len(vocabulary))]

    def ids(rows: int, width: int) -> Ragged:
        return ragged(_tokens(rng, (rows, width), len(vocabulary)), np.int32)

    def falling(rows: int, width: int, top: float = 1.0) -> Ragged:
        return ragged(-np.sort(-top * rng.random((rows, width)), axis=1), np.float32)

    def company(rows: int, width: int) -> Ragged:
        """Others that have examples too."""
        return ragged(rng.integers(0, -(-total // every), (rows, width)) * every, np.int32)

    for start in range(0, total, CHUNK):
        n = min(CHUNK, total - start)
        dense = density[start : start + n]
        fired = (dense * POSITIONS).astype(np.int64)
        named = _tokens(rng, (n, 3), len(vocabulary))
        k, tokens, partners = parameters.promoted, parameters.tokens, parameters.partners
        counts = rng.integers(0, 1000, (n, BINS))
        yield {
            "index": Fixed(np.arange(start, start + n)), "fired": Fixed(fired), "density": Fixed(dense),
            "mean": Fixed(dense), "std": Fixed(dense), "maximum": Fixed(rng.lognormal(2, 0.5, n)),
            "minimum": Fixed(np.zeros(n)), "histogram_first": Fixed(np.full(n, 90)),
            "histogram": ragged(rng.integers(0, 300, (n, 40)), np.int32),
            "histogram_negative": ragged(np.zeros((n, 0), np.int32), np.int32),
            "promoted_ids": ids(n, k), "promoted_logits": falling(n, k), "suppressed_ids": ids(n, k),
            "suppressed_logits": ragged(-rng.random((n, k)), np.float32),
            "neighbour_ids": company(n, parameters.neighbours), "neighbour_cosines": falling(n, parameters.neighbours),
            "decoder_norm": Fixed(np.ones(n)), "encoder_decoder_cosine": Fixed(rng.random(n)),
            "label": Raw.of_strings([", ".join(words[i] for i in row) for row in named.tolist()]),
            "label_source": Raw.of_strings(["top-tokens"] * n),
            "label_score": Fixed(rng.random(n), rng.random(n) > SCORED),
            "head_shares": Ragged(np.zeros(0, np.float32), np.zeros(n, np.int64), np.ones(n, dtype=bool)),
            "place_counts": ragged(counts, np.int32), "first_fired": Fixed(fired // 50),
            "last_fired": Fixed(fired // 90),
            "token_mean_ids": ids(n, tokens), "token_mean_values": falling(n, tokens, 9.0),
            "token_probability_ids": ids(n, tokens), "token_probability_values": falling(n, tokens),
            "token_probability_seen": ragged(rng.integers(5, 999, (n, tokens)), np.int32),
            "coactive_ids": company(n, partners), "coactive_phi": falling(n, partners),
            "coactive_together": ragged(rng.integers(3, 999, (n, partners)), np.int32),
            "documents": Fixed(rng.integers(1, DOCUMENTS, n)),
            "document_ids": ragged(rng.integers(0, DOCUMENTS, (n, parameters.documents)), np.int32),
            "document_fires": ragged(rng.integers(1, 99, (n, parameters.documents)), np.int32),
        }  # fmt: skip


def _examples(
    rng: np.random.Generator, n_latents: int, parameters: Parameters, every: int
) -> Iterator[dict[str, Column]]:
    """Of each latent with examples: the top ones, some of every tenth, random ones and near misses."""
    quiet = parameters.quiet
    kinds = [(code, parameters.per_interval) for code in range(10)]
    kinds += [(TOP, parameters.top), (RANDOM, quiet), (NEAR, quiet)]
    interval = np.concatenate([np.full(count, code) for code, count in kinds])
    rank = np.concatenate([np.arange(count) for _, count in kinds])
    firing = interval <= TOP
    per = len(interval)
    chosen = np.arange(0, n_latents, every)
    for first in range(0, len(chosen), CHUNK // 8):
        latents = chosen[first : first + CHUNK // 8]
        rows = len(latents) * per
        fires = np.tile(firing, len(latents))
        start = rng.integers(0, CONTEXT - parameters.width + 1, rows)
        held = np.where(fires, rng.integers(1, 12, rows), 0)
        # Distinct offsets in order: a step of one to five tokens from each to the next, the first one the peak.
        steps = rng.integers(1, 6, held.sum())
        begins = np.repeat(np.cumsum(held) - held, held)
        total = np.cumsum(steps)
        offsets = total - np.where(begins > 0, total[begins - 1], 0)
        peak = np.full(rows, 10)
        peak[fires] = offsets[(np.cumsum(held) - held)[fires]]
        shares = rng.random(held.sum()).astype("<f2")
        shares[(np.cumsum(held) - held)[fires]] = 1
        yield {
            "latent": Fixed(np.repeat(latents, per)), "sign": Fixed(np.ones(rows, np.int16)),
            "interval": Fixed(np.tile(interval, len(latents))), "rank": Fixed(np.tile(rank, len(latents))),
            "sequence_id": Fixed(rng.integers(0, SEQUENCES, rows)), "position": Fixed(start + peak),
            "start": Fixed(start), "activation": Fixed(np.where(fires, 1 + 5 * rng.random(rows), 0)),
            "offsets": Ragged(offsets.astype(np.int16), held), "shares": Raw(shares.view(np.uint8), 2 * held),
        }  # fmt: skip
