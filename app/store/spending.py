"""What language models have cost, and what runs that pages started may still cost."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.runs import OPEN


async def spent_today(connection: AsyncConnection) -> float:
    """USD of the last 24 hours, by any command: what is not known to have cost less counts with all that was set
    aside for it."""
    a = t.llm_attempt.c
    cost = func.coalesce(func.sum(func.coalesce(a.cost, a.reserved)), 0.0)
    query = select(cost).where(a.sent > func.now() - func.make_interval(0, 0, 0, 0, 24))
    return float((await connection.execute(query)).scalar_one())


async def promised(connection: AsyncConnection) -> float:
    """USD that runs which wait or run may cost at most; what they have spent already counts here as well."""
    r = t.run.c
    most = func.coalesce(func.sum(r.command["max_usd"].as_float()), 0.0)
    return float((await connection.execute(select(most).where(r.kind == "explain", r.state.in_(OPEN)))).scalar_one())


async def asked_lately(connection: AsyncConnection) -> tuple[int, float]:
    """How many explanations pages asked for within the last hour, and in how many seconds the first of them is an
    hour old."""
    r = t.run.c
    since = func.now() - func.make_interval(0, 0, 0, 0, 1)
    left = func.extract("epoch", func.min(r.created) - since)
    query = select(func.count(), func.coalesce(left, 0)).where(r.latent.is_not(None), r.created > since)
    count, seconds = (await connection.execute(query)).one()
    return int(count), float(seconds)
