"""Which latents a command is of."""

from app.errors import BadRequest, LatentOutOfRange


def ones(given: str | None, n: int) -> list[int]:
    """The numbers that ``0-99,512`` names; all below ``n`` where nothing is given.

    Raises:
        BadRequest: it is not of this form.
        LatentOutOfRange: one is not there.
    """
    if given is None:
        return list(range(n))
    found: set[int] = set()
    for part in given.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadRequest(f"--latents {given!r} is no list of numbers and ranges such as 0-99,512.", latents=given)
        low, high = int(first), int(last or first)
        if high >= n or low > high:
            raise LatentOutOfRange(f"--latents {part.strip()} is not within 0 to {n - 1}.", latents=part.strip())
        found.update(range(low, high + 1))
    return sorted(found)
