"""A prompt's run as bytes, to be kept or sent: the arrays as npz, the rest as JSON beside them."""

import io
import json
from typing import Any

import numpy as np

from app.live.prompt import Predictions, PromptRun, Reading

_PREDICTIONS = ("logprob", "entropy", "top_ids", "top_logprobs")


def pack(run: PromptRun, *, compressed: bool = True) -> bytes:
    """Everything but how long it took."""
    arrays: dict[str, Any] = {
        "token_ids": np.array(run.token_ids, dtype=np.int32),
        "counted": np.array(run.counted, dtype=bool),
    }
    steps: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for number, (revision, reading) in enumerate(run.readings.items()):
        arrays |= {f"{number}.{name}": getattr(reading, name) for name in ("position", "latent", "value")}
        if reading.error is not None:
            arrays[f"{number}.error"] = reading.error
        if reading.steps is not None:
            steps[revision] = reading.steps
    if run.predictions is not None:
        arrays |= {name: getattr(run.predictions, name) for name in _PREDICTIONS}
    told = {"pieces": run.pieces, "revisions": list(run.readings), "steps": steps}
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def unpack(data: bytes) -> PromptRun:
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        told = json.loads(held["told"].tobytes())
        readings = {
            revision: Reading(
                held[f"{number}.position"],
                held[f"{number}.latent"],
                held[f"{number}.value"],
                held.get(f"{number}.error"),
                {int(place): [(int(i), float(x)) for i, x in taken] for place, taken in told["steps"][revision].items()}
                if revision in told["steps"]
                else None,
            )
            for number, revision in enumerate(told["revisions"])
        }
        predictions = Predictions(*(held[name] for name in _PREDICTIONS)) if "logprob" in held else None
        return PromptRun(held["token_ids"].tolist(), told["pieces"], held["counted"].tolist(), readings, predictions)
