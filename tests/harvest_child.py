"""Stands in for a harvest's process in tests of the queue: ``harvest_child.py RUN SLUG``. What it does is in the slug;
the database, the run and the signals are real."""

import os
import signal
import sys
import time

from app.settings import load_settings
from app.store.engine import database_url, sync_engine
from app.store.runs import RunLog


def main(run: int, slug: str) -> None:
    if slug == "refused":
        sys.exit("saescope: The SAE does not fit\nsaescope: its W_enc has 3 rows.\n")
    log = RunLog.start(sync_engine(database_url(load_settings())), [slug], {}, run)
    if slug == "killed":
        log.beat(5, 100, 0, 0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    done = 0
    try:
        while slug == "slow" or done < 100:
            done += 10
            log.kept(f"harvest-{slug}.pt", done)
            if log.beat(done, 100_000 if slug == "slow" else 100, 0, 0.05 * done):
                raise KeyboardInterrupt
            time.sleep(0.05)
    except KeyboardInterrupt:
        log.finish("stopped")
        sys.exit(130)
    log.finish("done", revisions=["0123456789"], metrics={slug: {"fvu": 0.25, "l0": 4.0}})


main(int(sys.argv[1]), sys.argv[2])
