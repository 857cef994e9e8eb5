"""Writing explanations with their scores: one transaction, in which they take the place of older ones by the method."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, delete, select, text

from app.errors import ExplainRunning, UnknownSAE
from app.store import tables as t
from app.store.bulk import fill_partition, make_partition
from app.store.copying import Column, Fixed, Raw, ragged
from app.store.engine import explained
from app.store.labels import relabel
from app.store.locks import sole_right
from app.store.plain import plain, storable
from app.store.score_summaries import summarise

CHUNK = 8192
_EXPLANATION = {
    "sae_id": "int4", "id": "int8", "latent": "int4", "sign": "int2", "method": "text", "version": "int4",
    "parameters": "bytea", "text": "text", "label": "text", "rule": "bytea",
}  # fmt: skip
_SET = {
    "sae_id": "int4", "id": "int8", "latent": "int4", "sign": "int2", "split": "text", "sample": "text",
    "seed": "int4", "width": "int2", "hash": "text", "sequences": "int4[]", "starts": "int2[]", "kinds": "int2[]",
    "intervals": "int2[]", "peaks": "int2[]", "activations": "float4[]",
}  # fmt: skip
NUMBERS = (
    "headline", "balanced_accuracy", "balanced_accuracy_random", "balanced_accuracy_hard", "precision", "recall", "f1",
    "auroc", "auprc", "ci_low", "ci_high", "control",
)  # fmt: skip
COUNTS = ("n_pos", "n_neg", "tp", "fp", "tn", "fn")
_SCORE = {
    "sae_id": "int4", "id": "int8", "explanation_id": "int8", "latent": "int4", "scorer": "text", "version": "int4",
    "example_set_id": "int8", "status": "text", **dict.fromkeys(COUNTS, "int4"), **dict.fromkeys(NUMBERS, "float4"),
}  # fmt: skip
_SAID = {"sae_id": "int4", "score_id": "int8", "predictions": "bool[]", "probabilities": "float4[]"}


@dataclass(frozen=True)
class ExampleSet:
    """The windows of app.store.explain_tables.example_set, of one latent."""

    latent: int
    sign: int
    sequences: Any
    starts: Any
    kinds: Any
    intervals: Any
    peaks: Any
    activations: Any

    def hash(self) -> str:
        told = [np.asarray(x).tolist() for x in (self.sequences, self.starts, self.kinds)]
        return hashlib.sha256(json.dumps([self.latent, self.sign, told]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ScoreRow:
    """A score of an explanation; ``numbers`` has those of NUMBERS, nan for none, ``counts`` those of COUNTS.
    predictions, probabilities: on the latent's example set, where it was scored on that."""

    scorer: str
    status: str
    counts: dict[str, int]
    numbers: dict[str, float]
    predictions: npt.NDArray[np.bool_] | None = None
    probabilities: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ExplanationRow:
    latent: int
    sign: int
    text: str
    label: str
    rule: dict[str, Any] | None
    parameters: dict[str, Any]
    scores: list[ScoreRow] = field(default_factory=list)


@dataclass(frozen=True)
class SetKey:
    """What the example sets were drawn by."""

    split: str
    sample: str
    seed: int
    width: int


def explain_lock(engine: Engine, slug: str) -> AbstractContextManager[None]:
    """Hold the only right to explain ``slug`` in this database.

    Raises (when entered):
        ExplainRunning: another process holds it.
    """
    told = f"Features of {slug} are being explained already; wait for that or stop it first."
    return sole_right(engine, f"explain {slug}", ExplainRunning(told, sae=slug))


def make_partitions(connection: Connection, sae_id: int) -> None:
    """The SAE's partitions of explanations and scores, where there are none yet; one transaction at a time."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7))"), {"name": f"parts {sae_id}"})
    for table in (t.explanation, t.example_set, t.score, t.score_example):
        make_partition(connection, table.name, sae_id)


def save_explanations(
    engine: Engine,
    sae_id: int,
    made: dict[str, tuple[int, list[ExplanationRow]]],
    sets: Sequence[ExampleSet],
    key: SetKey,
) -> None:
    """made: by method its version and its explanations, which replace all the SAE has by that method. Labels and
    summaries follow in the same transaction; on any failure all is as it was.

    Raises:
        UnknownSAE: the SAE's revision has been removed meanwhile.
    """
    with explained(), engine.begin() as connection:
        there = select(t.sae.c.id).where(t.sae.c.id == sae_id).with_for_update(read=True, key_share=True)
        if connection.execute(there).scalar() is None:
            raise UnknownSAE("The SAE was removed while it was explained; nothing of that is kept.", sae=sae_id)
        make_partitions(connection, sae_id)
        set_ids = _save_sets(connection, sae_id, sets, key)
        for method, (version, rows) in made.items():
            forget(connection, sae_id, method)
            ids = _take_ids(connection, "explanation_id", len(rows))
            fill_partition(connection, "explanation", sae_id, _EXPLANATION, _explanations(method, version, rows, ids))
            pairs = [(row, one, int(i)) for row, i in zip(rows, ids, strict=True) for one in row.scores]
            score_ids = _take_ids(connection, "score_id", len(pairs))
            fill_partition(connection, "score", sae_id, _SCORE, _scores(pairs, score_ids, set_ids))
            fill_partition(connection, "score_example", sae_id, _SAID, _answers(pairs, score_ids))
        relabel(connection, sae_id)
        summarise(connection, sae_id)


def forget(connection: Connection, sae_id: int, method: str) -> None:
    """Drop an SAE's explanations by ``method``, with their scores and votes."""
    e, s = t.explanation.c, t.score.c
    these = select(e.id).where(e.sae_id == sae_id, e.method == method)
    scores = select(s.id).where(s.sae_id == sae_id, s.explanation_id.in_(these))
    x, v = t.score_example.c, t.explanation_vote.c
    connection.execute(delete(t.score_example).where(x.sae_id == sae_id, x.score_id.in_(scores)))
    connection.execute(delete(t.score).where(s.sae_id == sae_id, s.explanation_id.in_(these)))
    connection.execute(delete(t.explanation_vote).where(v.sae_id == sae_id, v.explanation_id.in_(these)))
    connection.execute(delete(t.explanation).where(e.sae_id == sae_id, e.method == method))


def _take_ids(connection: Connection, sequence: str, n: int) -> npt.NDArray[np.int64]:
    query = text(f"SELECT nextval('{sequence}') FROM generate_series(1, :n)")
    return np.array(connection.execute(query, {"n": n}).scalars().all(), np.int64)


def _save_sets(
    connection: Connection, sae_id: int, sets: Sequence[ExampleSet], key: SetKey
) -> dict[tuple[int, int], int]:
    """(latent, sign) to the id of its set; those that are there already are kept."""
    x = t.example_set.c
    query = select(x.latent, x.sign, x.hash, x.id).where(
        x.sae_id == sae_id, x.split == key.split, x.sample == key.sample, x.seed == key.seed, x.width == key.width
    )
    known = {(row.latent, row.sign, row.hash): int(row.id) for row in connection.execute(query)}
    hashes = [one.hash() for one in sets]
    fresh = [i for i, one in enumerate(sets) if (one.latent, one.sign, hashes[i]) not in known]
    ids = _take_ids(connection, "example_set_id", len(fresh))
    fill_partition(connection, "example_set", sae_id, _SET, _set_chunks([sets[i] for i in fresh], ids, key))
    known |= {(sets[i].latent, sets[i].sign, hashes[i]): int(new) for i, new in zip(fresh, ids, strict=True)}
    return {(one.latent, one.sign): known[one.latent, one.sign, hashes[i]] for i, one in enumerate(sets)}


def _set_chunks(sets: Sequence[ExampleSet], ids: npt.NDArray[np.int64], key: SetKey) -> Iterator[dict[str, Column]]:
    for start in range(0, len(sets), CHUNK):
        some = sets[start : start + CHUNK]
        n = len(some)
        yield {
            "id": Fixed(ids[start : start + n]),
            "latent": Fixed(np.array([one.latent for one in some])),
            "sign": Fixed(np.array([one.sign for one in some])),
            "split": Raw.of_strings([key.split] * n),
            "sample": Raw.of_strings([key.sample] * n),
            "seed": Fixed(np.full(n, key.seed)),
            "width": Fixed(np.full(n, key.width)),
            "hash": Raw.of_strings([one.hash() for one in some]),
            "sequences": ragged([one.sequences for one in some], np.int32),
            "starts": ragged([one.starts for one in some], np.int16),
            "kinds": ragged([one.kinds for one in some], np.int16),
            "intervals": ragged([one.intervals for one in some], np.int16),
            "peaks": ragged([one.peaks for one in some], np.int16),
            "activations": ragged([one.activations for one in some], np.float32),
        }


def _explanations(
    method: str, version: int, rows: list[ExplanationRow], ids: npt.NDArray[np.int64]
) -> Iterator[dict[str, Column]]:
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        n = len(some)
        yield {
            "id": Fixed(ids[start : start + n]),
            "latent": Fixed(np.array([row.latent for row in some])),
            "sign": Fixed(np.array([row.sign for row in some])),
            "method": Raw.of_strings([method] * n),
            "version": Fixed(np.full(n, version)),
            "parameters": Raw.of_bytes([_jsonb(row.parameters) for row in some]),
            "text": Raw.of_strings([storable(row.text) for row in some]),
            "label": Raw.of_strings([storable(row.label) for row in some]),
            "rule": Raw.of_bytes([None if row.rule is None else _jsonb(row.rule) for row in some]),
        }


def _scores(
    pairs: list[tuple[ExplanationRow, ScoreRow, int]], ids: npt.NDArray[np.int64], sets: dict[tuple[int, int], int]
) -> Iterator[dict[str, Column]]:
    for start in range(0, len(pairs), CHUNK):
        some = pairs[start : start + CHUNK]
        n = len(some)
        set_ids = [-1 if one.predictions is None else sets[row.latent, row.sign] for row, one, _ in some]
        columns: dict[str, Column] = {
            "id": Fixed(ids[start : start + n]),
            "explanation_id": Fixed(np.array([i for _, _, i in some])),
            "latent": Fixed(np.array([row.latent for row, _, _ in some])),
            "scorer": Raw.of_strings([one.scorer for _, one, _ in some]),
            "version": Fixed(np.full(n, 1)),
            "example_set_id": Fixed(np.array(set_ids), np.array(set_ids) < 0),
            "status": Raw.of_strings([one.status for _, one, _ in some]),
        }
        for name in COUNTS:
            columns[name] = Fixed(np.array([one.counts[name] for _, one, _ in some]))
        for name in NUMBERS:
            values = np.array([one.numbers.get(name, np.nan) for _, one, _ in some], np.float64)
            columns[name] = Fixed(values, np.isnan(values))
        yield columns


def _answers(
    pairs: list[tuple[ExplanationRow, ScoreRow, int]], ids: npt.NDArray[np.int64]
) -> Iterator[dict[str, Column]]:
    said = [(one, i) for (_, one, _), i in zip(pairs, ids, strict=True) if one.predictions is not None]
    for start in range(0, len(said), CHUNK):
        some = said[start : start + CHUNK]
        yield {
            "score_id": Fixed(np.array([i for _, i in some])),
            "predictions": ragged([one.predictions for one, _ in some], np.bool_),
            "probabilities": ragged([one.probabilities for one, _ in some], np.float32),
        }


def _jsonb(value: Any) -> bytes:
    """As COPY takes it: a version, then the text."""
    return b"\x01" + json.dumps(plain(value)).encode()
