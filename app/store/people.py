"""Explanations that people write, edit and vote for; labels follow in the same transaction."""

from sqlalchemy import Connection, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, UnknownExplanation
from app.store import tables as t
from app.store.explanation_bulk import make_partitions
from app.store.labels import relabel
from app.store.plain import storable
from app.store.reader import signed
from app.store.score_summaries import count_labels

METHOD = "person"
LONGEST, LONGEST_NAME, LONGEST_LABEL = 2000, 80, 60  # characters
_c, _e = t.explanation.c, t.explanation_edit.c


async def write(connection: AsyncConnection, sae_id: int, latent: int, words: str, author: str) -> int:
    """A new explanation by ``author``; its number.

    Raises:
        BadRequest: the text or the name is empty or too long.
    """
    words, author = checked(words, author)
    await connection.run_sync(_ready, sae_id)
    values = {"sae_id": sae_id, "latent": latent, "method": METHOD, "author": author}
    query = insert(t.explanation).values(**values, text=words, label=label_of(words)).returning(_c.id)
    made = int((await connection.execute(query)).scalar_one())
    await connection.run_sync(_follow, sae_id, latent)
    return made


async def edit(connection: AsyncConnection, sae_id: int, latent: int, number: int, words: str, author: str) -> None:
    """Give a person's explanation another text; the one it had is kept.

    Raises:
        BadRequest: the text or the name is empty or too long, or no person wrote it.
        UnknownExplanation: the latent has none of that number.
    """
    words, author = checked(words, author)
    mine = (_c.sae_id == sae_id, _c.latent == latent, _c.id == number)
    query = select(_c.method, _c.text, _c.author, _c.made).where(*mine).with_for_update()
    before = (await connection.execute(query)).first()
    if before is None:
        raise unknown(latent, number)
    if before.method != METHOD:
        raise BadRequest(
            f"Explanation {number} was made by {before.method}; write one of your own.", explanation=number
        )
    if words == before.text:
        return
    last = select(func.coalesce(func.max(_e.number), 0) + 1).where(_e.sae_id == sae_id, _e.explanation_id == number)
    kept = {"text": before.text, "author": before.author or "", "made": before.made}
    await connection.execute(
        insert(t.explanation_edit).values(sae_id=sae_id, explanation_id=number, number=last.scalar_subquery(), **kept)
    )
    values = {"text": words, "label": label_of(words), "author": author, "made": func.now(), "embedding": None}
    await connection.execute(update(t.explanation).where(*mine).values(**values))
    await connection.run_sync(_follow, sae_id, latent)


async def vote(connection: AsyncConnection, sae_id: int, latent: int, number: int, voter: str, value: int) -> None:
    """Vote for (1) or against (-1) an explanation, or take the vote back (0). A name has one vote.

    Raises:
        BadRequest: the name is empty or too long, or the vote none of these.
        UnknownExplanation: the latent has none of that number.
    """
    _, voter = checked("-", voter)
    if value not in (-1, 0, 1):
        raise BadRequest(f"A vote is 1, -1 or 0, not {value}.", value=value)
    mine = (_c.sae_id == sae_id, _c.latent == latent, _c.id == number)
    if (await connection.execute(select(_c.id).where(*mine))).first() is None:
        raise unknown(latent, number)
    v = t.explanation_vote.c
    key = {"sae_id": sae_id, "explanation_id": number, "voter": voter}
    await connection.execute(delete(t.explanation_vote).where(*(v[name] == given for name, given in key.items())))
    if value:
        await connection.execute(insert(t.explanation_vote).values(**key, value=value))
    await connection.run_sync(_follow, sae_id, latent)


def checked(words: str, name: str) -> tuple[str, str]:
    words, name = storable(words).strip(), " ".join(storable(signed(name)).split())
    if not words:
        raise BadRequest("The explanation is empty; say what the feature fires on.", field="text")
    if len(words) > LONGEST:
        raise BadRequest(f"The explanation has {len(words):,} characters; {LONGEST:,} are the most.", field="text")
    if not name:
        raise BadRequest("Whose it is is not said; give a name.", field="author")
    if len(name) > LONGEST_NAME:
        raise BadRequest(f"The name has {len(name)} characters; {LONGEST_NAME} are the most.", field="author")
    return words, name


def label_of(words: str) -> str:
    """Its first line, cut after a word where it is long."""
    line = words.splitlines()[0].strip()
    if len(line) <= LONGEST_LABEL:
        return line
    cut = line[:LONGEST_LABEL].rsplit(" ", 1)[0]
    return f"{cut.rstrip(',;:.')} …"


def unknown(latent: int, number: int) -> UnknownExplanation:
    return UnknownExplanation(
        f"Feature {latent} has no explanation {number}; its page lists those it has.", latent=latent, explanation=number
    )


def _ready(connection: Connection, sae_id: int) -> None:
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": f"explanation_{sae_id}"}).scalar() is None:
        make_partitions(connection, sae_id)


def _follow(connection: Connection, sae_id: int, latent: int) -> None:
    """Labels and the pages that show them."""
    relabel(connection, sae_id, [latent])
    count_labels(connection, sae_id)
