"""The latent a URL names."""

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import queries as q
from app.web import build
from app.web.freshness import unless_known
from app.web.routes import state_of
from app.web.spending import on_pages


async def find_sae_of(request: Request, connection: AsyncConnection, slug: str, index: int) -> q.SAERecord:
    """The SAE of the latent, which is not looked up.

    Raises:
        UnknownSAE, LatentOutOfRange: there is no such one.
        NotModified: the reader has the page.
    """
    sae = await q.get_sae(connection, slug)
    unless_read(request, sae, index)
    return sae


def unless_read(request: Request, sae: q.SAERecord, index: int) -> None:
    """
    Raises:
        LatentOutOfRange: the SAE has no such latent.
        NotModified: the reader has the page.
    """
    if not 0 <= index < sae.n_latents:
        raise build.out_of_range(sae, index)
    unless_known(request, sae, on_pages(state_of(request).settings), sae.lists)


async def find_latent(
    request: Request, connection: AsyncConnection, slug: str, index: int
) -> tuple[q.SAERecord, q.LatentRecord]:
    """The SAE and the latent.

    Raises:
        as ``find_sae_of``.
    """
    sae = await find_sae_of(request, connection, slug, index)
    latent = await q.get_latent(connection, sae, index)
    if latent is None:
        raise build.out_of_range(sae, index)
    return sae, latent
