"""A subject as its row in the database."""

from pathlib import Path

from sqlalchemy import Engine, select

from app.store import tables as t
from app.store.bulk import SubjectRow
from app.store.engine import explained
from app.subject.identity import lies_at
from app.subject.load import Subject

HASHES = "hashes.json"  # of weight files, in the home


def subject_row(subject: Subject, sha256: str, engine: Engine, home: Path) -> SubjectRow:
    """Where it lay when it was harvested from before it stays, as long as it is there still: a copy in another folder
    may be gone tomorrow."""
    path = inside(subject.path, home)
    with explained(), engine.connect() as connection:
        before = connection.execute(select(t.subject.c.path).where(t.subject.c.sha256 == sha256)).scalar()
    if before is not None and before != path and lies_at(home / before, sha256, home / HASHES):
        path = before
    facts = {"parameters": subject.n_parameters, "layers": subject.n_layers, "d_model": subject.d_model}
    return SubjectRow(subject.name, path, facts, sha256)


def inside(path: Path, home: Path) -> str:
    """``path`` relative to the home if it lies there, so that a home can be moved; else absolute."""
    path, home = path.resolve(), home.resolve()
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)
