"""What the demo makes while its pages are served already: explanations, a map, and vectors to search by."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from subprocess import DEVNULL

from sqlalchemy import Engine, select

from app.commands import environment
from app.demo.run import SLUG
from app.settings import Settings
from app.store import tables as t

GRACE = 10.0  # seconds in which a step may end by itself
Step = tuple[str, ...]
# Labels before what is made of them. The decoder of the demo's SAE has hardly any regions: docs/map.md.
STEPS: dict[Step, str] = {
    ("explain", SLUG): "explanations",
    ("map", SLUG, "--on", "coactivation"): "a map",
    ("embed", SLUG): "search by meaning",
}


def missing(engine: Engine) -> dict[Step, str]:
    """The steps whose result the newest revision of the demo's SAE does not have, and what each makes."""
    newest = select(t.sae.c.id).where(t.sae.c.slug == SLUG).order_by(t.sae.c.id.desc()).limit(1).scalar_subquery()
    made = (t.score_summary.c.sae_id, t.map_.c.sae_id, t.embedding.c.sae_id)
    with engine.connect() as connection:
        there = [connection.execute(select(one).where(one == newest).limit(1)).first() for one in made]
    return {step: what for (step, what), found in zip(STEPS.items(), there, strict=True) if found is None}


class _Beside:
    """Commands of saescope, one after another, each in a process of its own."""

    def __init__(self, settings: Settings, steps: Mapping[Step, str], say: Callable[[str], None]) -> None:
        self._settings, self._steps, self._say = settings, steps, say
        self._lock, self._ended = threading.Lock(), False
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="saescope-demo", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for step, what in self._steps.items():
            with self._lock:
                if self._ended:
                    return
                self._running = subprocess.Popen(
                    ["nice", sys.executable, "-m", "app.cli", *step], env=environment(self._settings), stdin=DEVNULL,
                    stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
                )  # fmt: skip
            if self._running.wait() and not self._ended:
                self._say(f"There will be no {what.removeprefix('a ')} yet; 'saescope {' '.join(step)}' says why.")

    def stop(self) -> None:
        with self._lock:
            self._ended = True
        if self._running is not None:
            self._running.send_signal(signal.SIGINT)  # its run is said to be stopped then, not lost
            try:
                self._running.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._running.kill()
        self._thread.join()


@contextmanager
def made_beside(settings: Settings, steps: Mapping[Step, str], say: Callable[[str], None]) -> Iterator[None]:
    """Make ``steps`` while the block runs: pages come at once, and get better. Where the block ends first, the next
    demo carries on."""
    beside = _Beside(settings, steps, say)
    try:
        yield
    finally:
        beside.stop()
