"""Prompts that were read, by subject and text, within a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.live.prompt import PromptRun, Target

Key = tuple[tuple[Path, str | None], str, bool]  # the subject, the text, whether it is a chat


class Cache:
    """The least recently used make room. What is added is joined with what is known of the same prompt."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: OrderedDict[Key, PromptRun] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def nbytes(self) -> int:
        return self._bytes

    def count(self, *, hit: bool) -> None:
        """A prompt that was asked for, and whether all of it was known."""
        with self._lock:
            if hit:
                self.hits += 1
            else:
                self.misses += 1

    def lacks(
        self, key: Key, targets: Sequence[Target], predict: bool
    ) -> tuple[PromptRun | None, Sequence[Target], bool]:
        """What is known of a prompt if that is all that is asked, else None; the SAEs to read it with, and whether to
        predict, so that everything is."""
        known = self.get(key)
        missing = [t for t in targets if known is None or t.revision not in known.readings]
        ask = predict and (known is None or known.predictions is None)
        return (None if missing or ask else known), missing or targets[:1], ask

    def get(self, key: Key) -> PromptRun | None:
        with self._lock:
            known = self._runs.get(key)
            if known is not None:
                self._runs.move_to_end(key)
            return known

    def add(self, key: Key, run: PromptRun) -> PromptRun:
        """What is known now: ``run`` and the readings of other SAEs."""
        with self._lock:
            known = self._runs.pop(key, None)
            if known is not None:
                self._bytes -= known.nbytes
                run = replace(
                    run,
                    readings={**known.readings, **run.readings},
                    predictions=run.predictions or known.predictions,
                )
            self._runs[key] = run
            self._bytes += run.nbytes
            while len(self._runs) > 1 and self._bytes > self._limit:
                self._bytes -= self._runs.popitem(last=False)[1].nbytes
            return run
