"""Explanations of other tools in the database."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, func, select

from app.explain.exchange import Told
from app.explain.llm_run import label_of
from app.explain.samples import WIDTH
from app.store import tables as t
from app.store.explanation_bulk import ExplanationRow, SetKey, save_explanations

IMPORTED = "imported"


def save_told(engine: Engine, sae_id: int, told: Sequence[Told], name: str) -> int:
    """In the place of all that was imported before. What is there already by another way is imported again.

    Raises:
        UnknownSAE: the SAE has been removed meanwhile.
    """
    rows = [
        ExplanationRow(
            one.latent, 1, one.text, label_of(one.text), None, {"file": name, "model": one.model, "kind": one.kind}
        )
        for one in sorted(told, key=lambda one: one.latent)
    ]
    save_explanations(engine, sae_id, {IMPORTED: (1, rows)}, [], SetKey("test", "", 0, WIDTH))
    return len(rows)


def read_all(connection: Connection, sae_id: int) -> list[Told]:
    """By latent; the one that is its label first, then the newest."""
    e, n = t.explanation.c, t.latent.c
    model = func.coalesce(e.model, e.author, e.parameters["model"].astext)
    query = (
        select(e.latent, e.text, model, e.method)
        .join(t.latent, (n.sae_id == e.sae_id) & (n.index == e.latent))
        .where(e.sae_id == sae_id, e.status == "ok")
        .order_by(e.latent, (n.explanation_id == e.id).desc().nulls_last(), e.id.desc())
    )
    return [Told(*row) for row in connection.execute(query)]
