"""How a harvest stands to what is here: said before it starts."""

from sqlalchemy import Connection

from app.store.revisions import elsewhere, saved

NAMED = 3  # revisions that are listed where nothing happens to them


def standing(connection: Connection, slug: str, sha256: str, *, replace: bool) -> list[str]:
    """Which SAE the harvest of these weights as ``slug`` makes or adds to, and what it drops."""
    there = saved(connection, slug)
    told = []
    if not there:
        told.append(f"This harvest makes a new SAE named {slug}.")
    elif replace:
        told.append(f"This harvest makes a new revision of {slug}.")
        names = ", ".join(map(str, there))
        told.append(f"Once it is saved, --replace drops these, but for the one it makes itself: {names}.")
    else:
        more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
        names = ", ".join(map(str, there[:NAMED]))
        told.append(f"This harvest makes a new revision of {slug}, beside {names}{more}.")
    if sha256 not in {one.sha256 for one in there} and (others := elsewhere(connection, sha256, slug)):
        told.append(
            f"The same weights are here as {', '.join(others)}; --slug {others[0]} would make this a revision of that."
        )
    return told
