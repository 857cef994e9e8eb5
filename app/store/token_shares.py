"""Which tokens a latent's firings are on, of every latent of an SAE, as the harvest counted them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

CHUNK = 16_384  # latents a statement


class TokenShares(NamedTuple):
    """ids: [n_latents, k] int32, -1 where a latent has fewer; shares: [n_latents, k] fp32, of its firings, on that
    token (probability × seen / fired). k is the most that any has."""

    ids: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.shares.nbytes


_ROW = np.dtype([("latent", ">i4"), ("token", ">i4"), ("share", ">f4")])
# As bytes, since numbers one by one would hold up the event loop.
_SHARES = """
    SELECT string_agg(int4send(l.index) || int4send(u.token) || float4send(
        CAST(CAST(u.probability AS float8) * u.seen / l.fired AS float4)), CAST('' AS bytea) ORDER BY l.index, u.place)
    FROM latent l CROSS JOIN LATERAL unnest(l.token_probability_ids, l.token_probability_values,
        l.token_probability_seen) WITH ORDINALITY AS u (token, probability, seen, place)
    WHERE l.sae_id = :sae AND l.index >= :start AND l.index < :stop AND l.fired > 0 AND u.token >= 0
        AND u.probability <= 1 AND u.probability * u.seen > 0.5
"""


async def read_token_shares(connection: AsyncConnection, sae: int, n_latents: int) -> TokenShares | None:
    """Of the SAE with this id; None where the harvest did not count them, or nothing fired."""
    parts = []
    for start in range(0, n_latents, CHUNK):
        given = {"sae": sae, "start": start, "stop": min(start + CHUNK, n_latents)}
        if (found := (await connection.execute(text(_SHARES), given)).scalar_one()) is not None:
            parts.append(bytes(found))
    return arranged(b"".join(parts), n_latents) if parts else None


def arranged(rows: bytes, n_latents: int) -> TokenShares:
    """rows: (latent, token, share) each, sorted by latent."""
    told = np.frombuffer(rows, _ROW)
    latent = told["latent"].astype(np.int64)
    counts = np.bincount(latent, minlength=n_latents)
    place = np.arange(len(latent)) - (np.cumsum(counts) - counts)[latent]
    ids = np.full((n_latents, int(counts.max())), -1, np.int32)
    shares = np.zeros(ids.shape, np.float32)
    ids[latent, place] = told["token"]
    shares[latent, place] = told["share"]
    return TokenShares(ids, shares)
