"""Tables of the circuits kept in a home: ``python -m benchmarks.circuits HOME``. The searches themselves are made by
``saescope circuit``."""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from app.circuits.record import CircuitRun, kept
from app.circuits.scores import roc_auc

THRESHOLDS = (0.01, 0.02, 0.05, 0.1)


def told(values: list[float | None]) -> str:
    """Mean and standard deviation over seeds."""
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f} ± {np.std(known):.3f}" if known else "–"


def row(runs: list[CircuitRun]) -> str:
    first = runs[0]
    dealt = [None if run.shuffled_examples is None else run.shuffled_examples.mean for run in runs]
    chance = [None if run.shuffled_truth is None else run.shuffled_truth.high for run in runs]
    cells = [
        first.task, str(len(runs)), told([run.accuracy for run in runs]), told([run.difference for run in runs]),
        told([run.negative_difference for run in runs]), told([float(run.in_circuit) for run in runs]),
        told([run.auc for run in runs]), told([run.auc_normalised for run in runs]),
        told([run.auc_untrained for run in runs]), told([run.auc_apart for run in runs]), told(dealt), told(chance),
        told([run.spearman for run in runs]), told([run.silent for run in runs]), told([run.seconds for run in runs]),
    ]  # fmt: skip
    return " | ".join(cells)


def thresholds(runs: list[CircuitRun]) -> str:
    """In the circuit, and ROC AUC, at other thresholds."""
    cells = []
    for share in THRESHOLDS:
        inside, found = [], []
        for run in runs:
            truth = np.abs(np.array(run.effect)) > share * abs(run.ablated_difference)
            inside.append(int(truth.sum()))
            found.append(roc_auc(np.array(run.unique).ravel(), truth.ravel()))
        cells.append(f"{share:.0%}: {np.mean(inside):.0f} heads, {told(found)}")
    return "; ".join(cells)


def main(home: Path) -> None:
    groups: dict[tuple[object, ...], list[CircuitRun]] = defaultdict(list)
    for run in kept(home)[0]:
        groups[run.subject, run.task, run.examples, run.learned_from, run.l1, run.latents, run.dtype].append(run)
    for key, runs in sorted(groups.items(), key=lambda pair: str(pair[0])):
        print(*key, sep=" | ")
        print(" ", row(runs))
        print(" ", thresholds(runs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
