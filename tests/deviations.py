"""Largest deviations from the reference, noted for docs/formats.md when SAESCOPE_DEVIATIONS names a file."""

import json
import os
from pathlib import Path


def note(case, acts, x_hat):
    if path := os.environ.get("SAESCOPE_DEVIATIONS"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"case": case, "acts": float(acts), "x_hat": float(x_hat)}) + "\n")
