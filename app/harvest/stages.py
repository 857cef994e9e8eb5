"""Where a pass spends its time."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """seconds by stage. ``settle`` is called at the end of each (a GPU's synchronise, when it is to be measured)."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._settle = settle

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._settle()
            self.seconds[name] += time.perf_counter() - start
