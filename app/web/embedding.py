"""Embedding what people write, while the site runs."""

from sqlalchemy.exc import SQLAlchemyError

from app.embed.embedder import LONGEST
from app.errors import SaescopeError
from app.store import embeddings
from app.web.state import State

AT_ONCE = 32  # explanations


async def embed_few(state: State, sae_id: int) -> None:
    """Embed what people have just written about an SAE whose other explanations are embedded; nobody waits for it."""
    try:
        async with state.database.connect() as db:
            rows = await embeddings.a_few_pending(db, sae_id, AT_ONCE)
        if not rows:
            return
        found = await state.engine.embed([row.text[:LONGEST] for row in rows])
        async with state.database.begin() as db:
            await embeddings.write_few(db, sae_id, found.model, list(zip(rows, found.vectors, strict=True)))
    except (SaescopeError, SQLAlchemyError):
        return  # the next search tries again
