"""Embedding what is not embedded yet of an SAE's explanations; a killed run carries on when started again."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from app.embed.model import SentenceModel
from app.store import embeddings as e

CHUNK = 512


@dataclass(frozen=True)
class Outcome:
    """embedded: texts that were, in this run; there: those that were before; other: the model whose vectors were given
    up for this one's, None where there were none."""

    embedded: int
    there: int
    other: str | None


def embed_missing(
    engine: Engine, sae_id: int, model: SentenceModel, *, step: Callable[[int, int], None] = lambda done, total: None
) -> Outcome:
    """Embed the explanations of ``sae_id`` that have no vector of ``model``: new ones, those whose text has changed,
    and, where another model made the vectors there are, all. Committed a few hundred at a time.

    Raises:
        EmbeddingRunning: another process is at it.
    """
    with e.embedding_lock(engine, sae_id):
        other = e.begin(engine, sae_id, model.name)
        there, missing = e.counts(engine, sae_id)
        done, after = 0, 0
        while rows := e.pending(engine, sae_id, after, CHUNK):
            texts = list(dict.fromkeys(row.text for row in rows))
            vectors = dict(zip(texts, model.encode(texts), strict=True))
            done += e.write(engine, sae_id, model.name, [(row, vectors[row.text]) for row in rows])
            after = rows[-1].id
            step(min(done, missing), missing)
        return Outcome(done, there, other)
