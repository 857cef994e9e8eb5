"""What a map is made from, besides the SAE's weights: its latents' rows, as arrays."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, case, func, select, text

from app.errors import UnknownSAE
from app.store import tables as t

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CHUNK = 20_000
TOKENS = 5  # of each kind


class Source(NamedTuple):
    """An SAE's row: where its files and its subject's lie, in the home if they are no absolute paths."""

    id: int
    slug: str
    revision: str
    n_latents: int
    sha256: str
    path: str
    subject_path: str


class Latents(NamedTuple):
    """density, maximum, minimum, score (nan for none): [n]; labels: (label, source) of each;
    tokens: [sum of counts], top tokens of each; counts: [n]."""

    density: Doubles
    maximum: Doubles
    minimum: Doubles
    score: Doubles
    labels: list[tuple[str, str]]
    tokens: Ints
    counts: Ints


def find_source(connection: Connection, slug: str, revision: str | None) -> Source:
    """The newest revision of ``slug``, or ``revision``.

    Raises:
        UnknownSAE: it has just been removed.
    """
    s = t.sae.c
    query = (
        select(s.id, s.slug, s.revision, s.n_latents, s.sha256, s.path, t.subject.c.path)
        .join(t.subject)
        .where(s.slug == slug, *([s.revision == revision] if revision else []))
        .order_by(s.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        raise UnknownSAE(f"There is no SAE {slug!r} here any more.", sae=slug)
    return Source(*row)


def read_latents(connection: Connection, sae_id: int) -> Latents:
    """Every latent of an SAE, in order. Tokens are those it fires on most surely and most strongly, or, where it never
    fired, those it promotes."""
    c = t.latent.c
    none = text("'{}'::integer[]")
    fires = func.coalesce(c.token_probability_ids[1:TOKENS], none).op("||")(
        func.coalesce(c.token_mean_ids[1:TOKENS], none)
    )
    tokens = case((func.cardinality(fires) > 0, fires), else_=c.promoted_ids[1:TOKENS])
    query = (
        select(c.density, c.maximum, c.minimum, c.label_score, c.label, c.label_source, tokens)
        .where(c.sae_id == sae_id)
        .order_by(c.index)
    )
    numbers: list[tuple[float, ...]] = []
    labels: list[tuple[str, str]] = []
    ids: list[Ints] = []
    counts: list[int] = []
    for rows in connection.execution_options(stream_results=True, yield_per=CHUNK).execute(query).partitions():
        numbers += [(row[0], row[1], row[2], np.nan if row[3] is None else row[3]) for row in rows]
        labels += [(row[4], row[5]) for row in rows]
        counts += [len(row[6]) for row in rows]
        ids.append(np.array([token for row in rows for token in row[6]], np.int64))
    density, maximum, minimum, score = np.array(numbers, np.float64).reshape(-1, 4).T
    tokens_of = np.concatenate([*ids, np.empty(0, np.int64)])
    return Latents(density, maximum, minimum, score, labels, tokens_of, np.array(counts, np.int64))


def read_company(connection: Connection, sae_id: int) -> tuple[Ints, npt.NDArray[np.float32], Ints]:
    """Stored co-active latents and their correlations, latent after latent, and how many each has: ids, phi, counts."""
    c = t.latent.c
    query = select(c.coactive_ids, c.coactive_phi).where(c.sae_id == sae_id).order_by(c.index)
    ids: list[Ints] = []
    phi: list[npt.NDArray[np.float32]] = []
    counts: list[int] = []
    for rows in connection.execution_options(stream_results=True, yield_per=CHUNK).execute(query).partitions():
        counts += [len(row[0] or ()) for row in rows]
        ids.append(np.array([one for row in rows for one in row[0] or ()], np.int64))
        phi.append(np.array([one for row in rows for one in row[1] or ()], np.float32))
    return (
        np.concatenate([*ids, np.empty(0, np.int64)]),
        np.concatenate([*phi, np.empty(0, np.float32)]),
        np.array(counts, np.int64),
    )


class Worded(NamedTuple):
    """latents: [m], ascending, those with an embedded explanation; vectors: [m, d]; model: that made them."""

    latents: Ints
    vectors: npt.NDArray[np.float32]
    model: str | None


_WORDED = text(
    """
    SELECT DISTINCT ON (e.latent) e.latent, e.embedding::text
    FROM explanation e JOIN latent l ON l.sae_id = e.sae_id AND l.index = e.latent
    WHERE e.sae_id = :sae AND e.status = 'ok' AND e.embedding IS NOT NULL
    ORDER BY e.latent, (e.id = l.explanation_id) DESC NULLS LAST, e.id DESC
    """
)


def read_vectors(connection: Connection, sae_id: int) -> Worded:
    """Of each latent's embedded explanations the one its label is from, else the newest."""
    model = connection.execute(select(t.embedding.c.model).where(t.embedding.c.sae_id == sae_id)).scalar()
    latents: list[int] = []
    parts: list[npt.NDArray[np.float32]] = []
    given = {"sae": sae_id}
    for rows in connection.execution_options(stream_results=True, yield_per=CHUNK).execute(_WORDED, given).partitions():
        latents += [row[0] for row in rows]
        parts.append(np.array([np.fromstring(row[1][1:-1], np.float32, sep=",") for row in rows]))
    vectors = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    return Worded(np.array(latents, np.int64), vectors, model)


class Old(NamedTuple):
    """A map that others are to share the frame of. latents: [placed]; places: [placed, 2], the layout."""

    id: int
    version: str
    together: str | None
    frame: list[float]
    latents: Ints
    places: npt.NDArray[np.float32]


def read_map(connection: Connection, sae_id: int, method: str, on: str) -> Old | None:
    """The SAE's own map of this kind."""
    m, p = t.map_.c, t.map_point.c
    own = (m.sae_id == sae_id, m.method == method, m.on == on, m.beside == [])
    row = connection.execute(select(m.id, m.version, m.together, m.frame).where(*own)).first()
    if row is None:
        return None
    places = select(p.latent, p.layout_x, p.layout_y).where(p.sae_id == sae_id, p.map_id == row.id).order_by(p.latent)
    found = np.array([tuple(one) for one in connection.execute(places)], np.float64).reshape(-1, 3)
    return Old(*row, found[:, 0].astype(np.int64), found[:, 1:].astype(np.float32))


def share(connection: Connection, map_id: int, together: str) -> None:
    """The map's frame has a name from now on."""
    connection.execute(t.map_.update().where(t.map_.c.id == map_id).values(together=together))
