"""Branch coverage of app, by slipcover: it rewrites the bytecode, where a trace function takes half as long again.

In use where COVERAGE_FOLDER names a folder: every process of the tests leaves a file there, which scripts/test adds
up. Loaded with -p, so that it is there before anything imports app.
"""

import json
import os
from pathlib import Path

import slipcover

FOLDER = os.environ.get("COVERAGE_FOLDER")
if FOLDER:
    # Never taken out again, as it is by default where it was passed often: finding where takes longer than it saves.
    SEEN = slipcover.Slipcover(branch=True, source=["app"], d_miss_threshold=2**30)
    slipcover.ImportManager(SEEN, slipcover.FileMatcher(sources=["app"])).__enter__()


def pytest_sessionfinish() -> None:
    if FOLDER:
        process = os.environ.get("PYTEST_XDIST_WORKER", "main")
        Path(FOLDER, f"{process}.json").write_text(json.dumps(SEEN.get_coverage()))
