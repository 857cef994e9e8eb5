"""Results of other tools onto an SAE's page."""

import hashlib
from pathlib import Path

from sqlalchemy import Engine

from app.evaluate.saebench import read_result
from app.store.engine import explained
from app.store.evaluations import EvaluationRow, key_of, save_evaluations
from app.store.revisions import known


def import_files(address: str, files: list[Path], engine: Engine) -> list[str]:
    """All of ``files`` or none, for the harvested SAE ``address``; a line for each.

    Raises:
        UnknownSAE: it was not harvested here.
        BadRequest: a file is no result of SAEBench.
    """
    slug, _, revision = address.partition("@")
    with explained(), engine.connect() as connection:
        weights = known(connection, slug, revision or None)[0].sha256
    rows, lines = {}, {}
    for file in files:
        result = read_result(file)
        key = key_of(weights, "imported", hashlib.sha256(file.read_bytes()).hexdigest())
        rows[key] = EvaluationRow(
            weights, None, result.kind, result.parameters, result.values, result.details, result.version,
            source=file.name,
        )  # fmt: skip
        lines[key] = f"{file.name}: {result.kind}, {len(result.values)} metrics of {result.version}"
    written = save_evaluations(engine, rows)
    return [f"{line}." if key in written else f"{line}; it was there already." for key, line in lines.items()]
