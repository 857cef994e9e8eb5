"""What is here of an SAE: its revisions, and the same weights under other names."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select

from app.errors import UnknownSAE
from app.store import tables as t
from app.store.engine import explained

SHOWN = 20  # names that a refusal lists


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


def known(connection: Connection, slug: str, revision: str | None) -> list[Saved]:
    """The revision, or all of the SAE's, the newest first.

    Raises:
        UnknownSAE: there is none; names those there are.
    """
    there = saved(connection, slug)
    if not there:
        slugs = connection.execute(select(t.sae.c.slug).distinct().order_by(t.sae.c.slug).limit(SHOWN)).scalars()
        told = ", ".join(slugs) or "none yet"
        raise UnknownSAE(f"There is no harvested SAE {slug!r} here; there are: {told}.", sae=slug)
    found = [one for one in there if revision in (None, one.revision)]
    if not found:
        told = ", ".join(one.revision for one in there[:SHOWN])
        raise UnknownSAE(f"{slug} has no revision {revision!r} here; there are: {told}.", sae=slug, revision=revision)
    return found


class One(NamedTuple):
    slug: str
    revision: str


def one(engine: Engine, address: str) -> One:
    """The SAE that ``slug`` or ``slug@revision`` names.

    Raises:
        UnknownSAE: there is none; names those there are.
    """
    slug, _, revision = address.partition("@")
    with explained(), engine.connect() as connection:
        return One(slug, known(connection, slug, revision or None)[0].revision)


def elsewhere(connection: Connection, sha256: str, slug: str) -> list[str]:
    """Other SAEs that have these very weights, by name."""
    s = t.sae.c
    query = select(s.slug).distinct().where(s.sha256 == sha256, s.slug != slug).order_by(s.slug)
    return list(connection.execute(query).scalars())
