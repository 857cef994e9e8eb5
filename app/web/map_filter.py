"""Where on a map, as URLs say it, checked."""

import re
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, UnknownMap
from app.store import maps as m
from app.store.map_places import NONE, Corner, OnMap
from app.store.plain import storable
from app.store.queries import SAERecord

SIDE = 65_536
CORNERS = 500


class Place(Protocol):
    map: str
    region: str
    cluster: str
    within: str


async def on_map(db: AsyncConnection, sae: SAERecord, query: Place) -> OnMap | None:
    """What of a map ``query`` keeps; None where it names none.

    Raises:
        BadRequest, UnknownMap: what in it does not fit.
    """
    if not (query.map or query.region or query.cluster or query.within):
        return None
    return chosen(sae, pick(sae, await m.list_maps(db, sae.id), query.map), query)


def chosen(sae: SAERecord, record: m.MapRecord, query: Place) -> OnMap:
    """
    Raises:
        BadRequest: a number or a corner is none.
    """
    return OnMap(
        sae.id, record.id, number("region", query.region), number("cluster", query.cluster), corners(query.within)
    )


def pick(sae: SAERecord, found: list[m.MapRecord], version: str) -> m.MapRecord:
    """The map of this version; for none, the one that keeps most neighbours together.

    Raises:
        UnknownMap: there is none.
    """
    for one in found:
        if one.version == version or not version:
            return one
    raise no_map(sae, [one.version for one in found], version)


def no_map(sae: SAERecord, there: list[str], version: str) -> UnknownMap:
    told = f"there are: {', '.join(there)}" if there else f"'saescope map {sae.slug}' makes one"
    name = f"no map {storable(version[:40])!r} here" if version else "no map"
    return UnknownMap(f"{sae.address} has {name}; {told}.", sae=sae.address, version=version[:40])


def number(name: str, text: str) -> int | None:
    if not text:
        return None
    if text == "none":
        return NONE
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise BadRequest(f"{name} is {text[:40]!r}; give its number, or none.", field=name)
    return int(text)


def corners(text: str) -> tuple[Corner, ...]:
    """``0,0 9,0 9,5``: three corners or more of an outline, or two that span a rectangle."""
    parts = text.split()
    if not parts:
        return ()
    found: list[Corner] = []
    for part in parts:
        if not re.fullmatch(r"-?[0-9]{1,6}(\.[0-9]{1,6})?,-?[0-9]{1,6}(\.[0-9]{1,6})?", part):
            raise BadRequest(
                f"within holds {part[:40]!r}; corners are x,y with numbers from 0 to {SIDE}.", field="within"
            )
        x, _, y = part.partition(",")
        found.append((float(x), float(y)))
    if not 2 <= len(found) <= CORNERS:
        raise BadRequest(
            f"within has {len(found):,} corner{'s' if len(found) != 1 else ''}; give 2, which span a rectangle, to "
            f"{CORNERS}.",
            field="within",
        )
    if len(found) == 2:
        (left, bottom), (right, top) = found
        found = [(left, bottom), (right, bottom), (right, top), (left, top)]
    return tuple(found)
