"""What an engine counts about itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """``waiting`` are requests not yet answered. Of services elsewhere only what is known here is said: ``away`` of
    ``services`` could not be reached lately; the rest they tell themselves."""

    running: bool
    waiting: int
    hits: int
    misses: int
    cached_bytes: int
    forwards: int | None = None
    batches: int | None = None
    prompts: int | None = None
    services: int | None = None
    away: int | None = None
