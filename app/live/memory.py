"""Memory that has run out, on whichever device."""

from app.errors import OutOfMemory


def out_of_memory(error: BaseException) -> bool:
    import torch

    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(s in str(error).lower() for s in signs)


def told(error: Exception) -> Exception:
    """As readers meet it."""
    if out_of_memory(error):
        return OutOfMemory("Memory ran out on this text; try a shorter one, or fewer SAEs at once.")
    return error
