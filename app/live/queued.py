"""What waits for the engine, and what it has begun."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from app.live.forward import Chunk, Probe
from app.live.prompt import Target
from app.live.residents import Loaded
from app.subject.load import Subject

Steps = Callable[[Subject, list[Probe]], Iterator[Any]]


@dataclass
class Request:
    """``steps`` is None for a prompt; then ``ids`` are its tokens once it is prepared. saes: whether those of
    ``targets`` are needed, or only their subject."""

    targets: Sequence[Target]
    text: str = ""
    chat: bool = False
    predict: bool = False
    saes: bool = True
    steps: Steps | None = None
    future: "Future[Any]" = field(default_factory=Future)
    tell: Callable[[Any], None] | None = None
    gone: threading.Event = field(default_factory=threading.Event)
    ids: list[int] = field(default_factory=list)
    loaded: Loaded | None = None

    @property
    def there(self) -> Loaded:
        """What it needs, which has been loaded."""
        assert self.loaded is not None
        return self.loaded


@dataclass
class Underway:
    """A request on its way, its next step, and what it has cost."""

    request: Request
    steps: Iterator[Any]
    chunks: list[Chunk] = field(default_factory=list)
    seconds: float = 0.0
