"""What is here of an SAE: its revisions, and the same weights under other names."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from app.store import tables as t


class Saved(NamedTuple):
    """A revision: over which corpus it was harvested and when, what weights it has, and where its files lie (inside
    the home, if it is no absolute path)."""

    revision: str
    corpus: str
    finished: datetime
    sha256: str
    path: str

    def __str__(self) -> str:
        return f"{self.revision} ({self.corpus}, {self.finished:%Y-%m-%d})"


def saved(connection: Connection, slug: str) -> list[Saved]:
    """Every revision of ``slug``, the newest first."""
    s, h, c = t.sae.c, t.harvest.c, t.corpus.c
    query = (
        select(s.revision, c.name, h.finished, s.sha256, s.path)
        .select_from(t.sae.join(t.harvest).join(t.corpus))
        .where(s.slug == slug)
        .order_by(s.id.desc())
    )
    return [Saved(*row) for row in connection.execute(query)]


def elsewhere(connection: Connection, sha256: str, slug: str) -> list[str]:
    """Other SAEs that have these very weights, by name."""
    s = t.sae.c
    query = select(s.slug).distinct().where(s.sha256 == sha256, s.slug != slug).order_by(s.slug)
    return list(connection.execute(query).scalars())
