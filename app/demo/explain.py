"""The demo's explanations, made while its pages are served already."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import DEVNULL

from sqlalchemy import Engine, select

from app.demo.run import SLUG
from app.jobs import environment
from app.settings import Settings
from app.store import tables as t

GRACE = 10.0  # seconds in which it may end by itself


def is_explained(engine: Engine) -> bool:
    """Whether the newest revision of the demo's SAE has explanations."""
    newest = select(t.sae.c.id).where(t.sae.c.slug == SLUG).order_by(t.sae.c.id.desc()).limit(1).scalar_subquery()
    query = select(t.score_summary.c.sae_id).where(t.score_summary.c.sae_id == newest).limit(1)
    with engine.connect() as connection:
        return connection.execute(query).first() is not None


@contextmanager
def explaining(settings: Settings, *, needed: bool) -> Iterator[None]:
    """Explain the demo's features while the block runs, in a process of its own: pages come at once, and their labels
    get better. Where the block ends first, the next demo carries on."""
    if not needed:
        yield
        return
    process = subprocess.Popen(
        ["nice", sys.executable, "-m", "app.cli", "explain", SLUG], env=environment(settings), stdin=DEVNULL,
        stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
