"""Ctrl-C that waits for the batch at hand."""

import signal
import threading


class Interrupt:
    """While it is open, Ctrl-C is only noted (``asked``), so that a batch can be finished and saved before it
    is raised; a second Ctrl-C is raised at once. In threads other than the main one it does nothing."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)
        if self.asked and kind is None:  # it came after the block last looked
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
