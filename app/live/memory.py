"""Memory that has run out, on whichever device."""

from app.errors import OutOfMemory
from app.shortage import out_of_memory


def told(error: Exception) -> Exception:
    """As readers meet it."""
    if out_of_memory(error):
        return OutOfMemory("Memory ran out on this text; try a shorter one, or fewer SAEs at once.")
    return error
