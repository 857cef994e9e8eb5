"""The comparison's table, from what is known of each run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {  # field: what its column is called, and what its numbers are multiplied by
    "fvu": ("FVU", 1), "l0": ("L0", 1), "ce_recovered": ("CE recovered", 100), "dead_share": ("silent held-out", 100),
    "dead": ("dead in training", 100), "max_cosine": ("nearest cosine", 1), "phi_abs_q999": ("co-firing, 99.9%", 1),
    "rules_accuracy": ("rules", 1), "effect": ("effect, nats", 1), "planted_cosine": ("planted", 1),
    "families_cosine": ("families", 1), "seconds": ("train, s", 1),
}  # fmt: skip


def table(known: Mapping[str, Mapping[str, Any]], ideas: Sequence[str]) -> str:
    """A line for each of the ``ideas``: means over the seeds there are, with half of their range where there are
    several; a dash for what is not known of all of them."""
    lines = ["| idea | seeds | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) + 1))
    for idea in ideas:
        rows = [row for row in known.values() if row["idea"] == idea and row["state"] == "finished"]
        if rows:
            cells = [_cell([row.get(field) for row in rows], by) for field, (_, by) in COLUMNS.items()]
            lines.append(f"| {idea} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None], by: int) -> str:
    known = [value * by for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    mean, half = statistics.fmean(known), (max(known) - min(known)) / 2
    digits = 1 if by == 100 or mean >= 10 else 3
    spread = f" ± {half:.{digits}f}" if len(known) > 1 else ""
    return f"{mean:.{digits}f}{'%' if by == 100 else ''}{spread}"
