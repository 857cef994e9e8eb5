"""Notes on features. A note is of the weights' latent, so that every harvest of them shows it; its versions stay."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import NoteChanged
from app.roles import Visibility
from app.store import tables as t
from app.store.queries import SAERecord
from app.store.reader import inside, owner, signed, visible

KEPT = 200  # versions that a page shows


@dataclass(frozen=True)
class NoteRecord:
    """A version of a note, as it was written on a harvest; an empty text takes the note away."""

    id: int
    slug: str
    revision: str
    text: str
    author: str
    visibility: Visibility
    made: datetime

    @classmethod
    def of(cls, row: dict[str, Any]) -> "NoteRecord":
        """A row as PostgreSQL writes it in JSON."""
        return cls(**{**{f.name: row[f.name] for f in fields(cls)}, "made": datetime.fromisoformat(row["made"])})


_n = t.note.c
_later = t.note.alias("later")
_WITHDREW = (  # after this version nobody outside is shown what was public before
    select(func.max(_later.c.id))
    .where(_later.c.weights == bindparam("weights"), _later.c.latent == bindparam("latent"))
    .where(or_(visible(_later).is_not(True), _later.c.text == ""))
    .scalar_subquery()
)
_VERSIONS = (
    select(*[_n[f.name] for f in fields(NoteRecord)])
    .where(_n.weights == bindparam("weights"), _n.latent == bindparam("latent"), visible(t.note))
    .where(or_(inside(), _n.id >= func.coalesce(_WITHDREW, 0)))
    .order_by(_n.id.desc())
)
_NEWEST = _VERSIONS.limit(1)
_HISTORY = _VERSIONS.limit(KEPT)


async def get_note(connection: AsyncConnection, sae: SAERecord, index: int) -> NoteRecord | None:
    """The newest version."""
    row = (await connection.execute(_NEWEST, {"weights": sae.sha256, "latent": index})).first()
    return None if row is None else NoteRecord(*row)


async def history(connection: AsyncConnection, sae: SAERecord, index: int) -> list[NoteRecord]:
    """The versions, the newest first."""
    rows = await connection.execute(_HISTORY, {"weights": sae.sha256, "latent": index})
    return [NoteRecord(*row) for row in rows]


async def write(
    connection: AsyncConnection,
    sae: SAERecord,
    index: int,
    text: str,
    *,
    author: str = "",
    after: int | None = None,
    visibility: Visibility = "team",
) -> None:
    """Add a version. after: the one that its writer had read, 0 where there was none; None asks for no such check.

    Raises:
        NoteChanged: there is another since.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{sae.sha256}/{index}", 0))))
    now = await get_note(connection, sae, index)
    if after is not None and after != (now.id if now else 0):
        raise NoteChanged(
            f"The note on feature {index} of {sae.slug} was changed since you read it; read it again, then write.",
            sae=sae.slug, index=index,
        )  # fmt: skip
    if (now.text, now.visibility) == (text, visibility) if now else not text:
        return
    await connection.execute(
        insert(t.note).values(
            weights=sae.sha256, latent=index, slug=sae.slug, revision=sae.revision, text=text, author=signed(author),
            owner_id=owner(), visibility=visibility,
        )
    )  # fmt: skip
