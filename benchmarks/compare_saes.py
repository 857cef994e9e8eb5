"""Every idea trained under equal conditions on the demo's hook, and measured alike: docs/comparison.md's table.

    python -m benchmarks.compare_saes --home HOME [--minutes 4] [--seeds 0,1,2] [--ideas topk,vsae] [--tokens 1000000]
                                      [--publish]

Trains what is missing, seed 0 of all ideas first, then harvests it on text nobody trained on and measures it there, by
`saescope harvest` and `saescope eval`, as anyone would: /compare shows them. After ``--minutes`` it stops cleanly, and
the same call goes on from there. ``HOME/comparison.json`` has what is known so far, ``--table`` prints it as a table.
Runs that docs/comparison.json tells whole are not made again; ``--publish`` writes those of HOME there too, and the
table of all that are whole into docs/comparison.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import text as sql

from app.demo.run import CONTEXT, SUBJECT, prepare_subject
from app.sae.formats import read
from app.settings import load_settings
from app.store.engine import database_url, sync_engine
from app.subject.load import Subject, choose_dtype, load_subject
from app.train import text
from app.train.plans import plans
from app.train.run import Plan, Recipe
from app.train.stream import Stopped, Watch, train
from benchmarks.compare_measures import FLOOR, effect, planted_recovery
from benchmarks.compare_table import COLUMNS, table

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- table: benchmarks/compare_saes.py --publish -->\n", "\n<!-- end of table -->"
HOOK, N, L0 = "model.layers.9:out", 4096, 32
BATCH = 512  # so that a million tokens are two thousand steps: thresholds and penalties need them to settle
TRAINED_ON = ["pkg:wikipedia-train", "pkg:brown", "pkg:django-docs"]  # what demo/run.py's split leaves for training
HELD_OUT, HELD_TOKENS, EFFECT_ROWS = "pkg:wikipedia-demo", 100_000, 128
# GBA's frequencies add up to L0: 4,096 latents in ten groups, each with half the frequency of the one before.
OPTIONS = {"gba": {"frequency": str(round(L0 / (N / 10 * FLOOR), 5))}}
RESIDUAL = [
    "topk", "batchtopk", "jumprelu", "relu-l1", "gated", "matryoshka", "abstopk", "matching-pursuit", "vsae", "top-afa",
    "gba", "gsae",
]  # fmt: skip
AT_ONCE = 6  # harvested in one pass
EVALUATED = {
    "core,independence,zf,bidirectional": 32_768,
    "autointerp": 98_304,
}  # groups of metrics, and on how many tokens


def wanted(ideas: Sequence[str], seeds: Sequence[int]) -> list[Plan]:
    """Seed by seed; g-SAE after all others, for the subject's gradients take long."""
    made = [plan for seed in seeds for idea in ideas for plan in plans([idea], [seed], N, OPTIONS.get(idea, {}))]
    return sorted(made, key=lambda plan: plan.idea == "gsae")


def recipe() -> Recipe:
    halved = choose_dtype("auto", torch.device("cpu")) is torch.bfloat16
    precision = "bfloat16" if halved else "float32"
    return Recipe(hook_point=HOOK, epochs=1, batch=BATCH, precision=precision, checkpoint_every=400)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--home", type=Path, required=True)
    arguments.add_argument("--minutes", type=float, default=1e9)
    arguments.add_argument("--seeds", default="0,1,2")
    arguments.add_argument("--ideas", default=",".join(RESIDUAL))
    arguments.add_argument("--tokens", type=int, default=1_000_000)
    arguments.add_argument("--at-once", type=int, default=4, help="SAEs on one stream")
    arguments.add_argument("--table", action="store_true")
    arguments.add_argument("--publish", action="store_true")
    given = arguments.parse_args()
    kept = Kept(given.home / "comparison.json", whole(DOCS / "comparison.json", given.tokens))
    if given.publish:
        publish(kept.known, DOCS)
    if given.table or given.publish:
        print(table(kept.known, RESIDUAL))
        return
    until = time.monotonic() + 60 * given.minutes
    subject = load_subject(prepare_subject(given.home), SUBJECT)
    asked = wanted(given.ideas.split(","), [int(seed) for seed in given.seeds.split(",")])
    try:
        train_missing(kept, asked, subject, given, until)
        measure_missing(kept, asked, subject, given.home, until)
        harvest_missing(kept, asked, given.home, until)
    except Stopped:
        print("The time is up; the same call goes on from here.", flush=True)


Rows = dict[str, dict[str, Any]]


def whole(path: Path, tokens: int) -> Rows:
    """The runs in a file that were trained on so many tokens and of which every column is known."""
    rows: Rows = json.loads(path.read_text()) if path.is_file() else {}
    fits = {label: row for label, row in rows.items() if abs(row["tokens"] - tokens) < 0.01 * tokens}
    return {label: row for label, row in fits.items() if all(field in row for field in COLUMNS)}


def publish(known: Rows, docs: Path) -> None:
    """Write the runs of which every column is known to ``docs``/comparison.json, and their table into comparison.md.

    Raises:
        SystemExit: the page is not there, or not its two marks, between which the table stands; nothing is written.
    """
    rows = {label: row for label, row in sorted(known.items()) if all(field in row for field in COLUMNS)}
    page = docs / "comparison.md"
    before, begun, rest = (page.read_text() if page.is_file() else "").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise SystemExit(f"{page} has no place for the table: it stands between {BEGIN.strip()} and {END.strip()}.")
    lasting = {label: _lasting(row) for label, row in rows.items()}
    (docs / "comparison.json").write_text(json.dumps(lasting, indent=1) + "\n")
    page.write_text(before + BEGIN + table(rows, RESIDUAL) + END + after)


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    """What holds beyond this home."""
    return {name: value for name, value in row.items() if name not in ("sae", "slug")}


class Kept:
    """What is known of each run, by its label, in a file that is there whole or not at all, and from elsewhere."""

    def __init__(self, path: Path, elsewhere: Rows) -> None:
        self.path = path
        self.known: Rows = elsewhere | (json.loads(path.read_text()) if path.is_file() else {})

    def add(self, label: str, **told: Any) -> None:
        self.known.setdefault(label, {}).update(told)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.known, indent=2) + "\n")
        partial.rename(self.path)
        print(label, json.dumps(told), flush=True)

    def lacking(self, asked: Sequence[Plan], field: str) -> list[Plan]:
        """Those trained here whose ``field`` is not known."""
        rows = [(plan, self.known.get(plan.label, {})) for plan in asked]
        return [plan for plan, row in rows if row.get("state") == "finished" and "sae" in row and field not in row]


def train_missing(kept: Kept, asked: Sequence[Plan], subject: Subject, given: Any, until: float) -> None:
    sequences = text.read(TRAINED_ON, subject, given.home / "packages", CONTEXT, tokens=given.tokens)
    missing = [plan for plan in asked if plan.label not in kept.known]
    print(f"{len(missing)} of {len(asked)} to train.", flush=True)
    for first in range(0, len(missing), given.at_once):
        some = missing[first : first + given.at_once]
        watch = Watch(
            gathered=lambda done, total: print(f"activations {done:,} of {total:,}", flush=True),
            stepped=_told, stopping=lambda: time.monotonic() > until,
        )  # fmt: skip
        made = train(subject, sequences, recipe(), some, given.home, corpus=TRAINED_ON, watch=watch)
        for facts, plan in zip(made, some, strict=True):
            told: dict[str, Any] = {"idea": plan.idea, "seed": plan.seed, "state": facts.state, "sae": facts.sae}
            if facts.state == "finished":
                lines = (given.home / "training" / facts.name / "log.jsonl").read_text().splitlines()
                dead = json.loads(lines[-1])["dead"] / N
                told |= {"tokens": facts.tokens, "seconds": facts.seconds, "dead": dead}
            kept.add(plan.label, **told)


def measure_missing(kept: Kept, asked: Sequence[Plan], subject: Subject, home: Path, until: float) -> None:
    for plan in kept.lacking(asked, "planted_cosine"):
        _in_time(until)
        kept.add(plan.label, **planted_recovery(plan))
    rows = text.read([HELD_OUT], subject, home / "packages", CONTEXT, tokens=HELD_TOKENS)
    for plan in kept.lacking(asked, "effect"):
        _in_time(until)
        kept.add(
            plan.label, **effect(subject, read(Path(kept.known[plan.label]["sae"])), rows[:: len(rows) // EFFECT_ROWS])
        )


def harvest_missing(kept: Kept, asked: Sequence[Plan], home: Path, until: float) -> None:
    missing = kept.lacking(asked, "slug")
    for first in range(0, len(missing), AT_ONCE):
        _in_time(until)
        some = {plan.label: f"compare-{plan.idea}-{plan.seed}" for plan in missing[first : first + AT_ONCE]}
        named = [part for label, slug in some.items() for part in ("--sae", kept.known[label]["sae"], "--slug", slug)]
        text_of = "--corpus", HELD_OUT, "--tokens", HELD_TOKENS, "--context", CONTEXT
        _saescope("harvest", *named, *text_of, "--model", home / "models" / SUBJECT, "--home", home)
        for label, slug in some.items():
            kept.add(label, slug=slug)
    for plan in kept.lacking(asked, "fvu"):
        _in_time(until)
        slug = kept.known[plan.label]["slug"]
        for groups, tokens in EVALUATED.items():
            _saescope("eval", slug, "--metrics", groups, "--tokens", tokens, "--home", home)
        kept.add(plan.label, **evaluated(home, slug))


def evaluated(home: Path, slug: str) -> dict[str, Any]:
    """What `saescope eval` has kept of the SAE, of all groups."""
    engine = sync_engine(database_url(load_settings(home=home)))
    query = "SELECT e.values FROM evaluation e JOIN sae ON sae.sha256 = e.weights WHERE slug = :slug ORDER BY e.id"
    with engine.connect() as connection:
        found = connection.execute(sql(query), {"slug": slug}).scalars().all()
    engine.dispose()
    return {name: value for values in found for name, value in values.items()}


def _saescope(*arguments: object) -> None:
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    print(*command[2:], flush=True)
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def _in_time(until: float) -> None:
    if time.monotonic() > until:
        raise Stopped


def _told(run: Any) -> None:
    if run.last is not None and run.last.step == run.step:
        line = run.last
        print(f"{run.plan.label} {line.step}/{run.steps} fvu {line.fvu:.4f} l0 {line.l0:.1f} dead {line.dead} "
              f"{line.tokens_per_second:,.0f} tok/s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
