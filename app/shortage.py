"""Memory that has run out, by whoever says so."""


def out_of_memory(error: BaseException) -> bool:
    import torch

    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(s in str(error).lower() for s in signs)
