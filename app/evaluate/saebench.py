"""SAEBench's result files: one JSON object with eval_type_id, eval_config, eval_result_metrics (numbers by category)
and eval_result_details (a list of objects), as its BaseEvalOutput writes them."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from app.errors import BadRequest
from app.evaluate.outcome import Values, table

MOST = 64 << 20  # bytes of a file
DEEPEST = 8
METRICS = 500
ROWS = 100  # details that are kept
COLUMNS = 20
LONG = 200  # characters of a text that is kept
_NAME = re.compile(r"[\w.:/ -]{1,80}")


class Result(NamedTuple):
    """What a file says. values: by ``category.metric``; version: of SAEBench, as far as it says; measured: when."""

    kind: str
    values: Values
    parameters: dict[str, Any]
    details: dict[str, list[dict[str, Any]]]
    version: str


def read_result(path: Path) -> Result:
    """
    Raises:
        BadRequest: it cannot be read, or is no result of SAEBench; says what does not fit.
    """

    def refuse(why: str) -> NoReturn:
        raise BadRequest(f"{path.name} is no SAEBench result: {why}.", path=str(path))

    def constant(name: str) -> NoReturn:
        refuse(f"it holds {name}, which is no number")

    try:
        if not path.is_file():
            raise BadRequest(f"There is no file {path}.", path=str(path))
        if path.stat().st_size > MOST:
            refuse(f"it is {path.stat().st_size >> 20} MiB long, more than {MOST >> 20}")
        given = json.loads(path.read_bytes(), parse_constant=constant)
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", path=str(path)) from None
    except RecursionError:
        refuse("it is nested too deep")
    except ValueError as error:
        refuse(f"it is no JSON ({error})")
    if not isinstance(given, dict):
        refuse("it is no JSON object")
    if (fault := _fault(given)) is not None:
        refuse(fault)
    kind, metrics = given.get("eval_type_id"), given.get("eval_result_metrics")
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        refuse("it has no eval_type_id")
    if not isinstance(metrics, dict) or not metrics:
        refuse("it has no eval_result_metrics")
    values: Values = {}
    for category, numbers in metrics.items():
        if not isinstance(numbers, dict) or not _NAME.fullmatch(category):
            refuse(f"eval_result_metrics.{category[:40]} is no object of numbers")
        for name, value in numbers.items():
            where = f"{category}.{name[:40]}"
            if isinstance(value, bool) or not isinstance(value, int | float | None) or not _NAME.fullmatch(name):
                refuse(f"eval_result_metrics.{where} is {json.dumps(value)[:40]}, no number")
            values[where] = value
    if not values or len(values) > METRICS:
        refuse(f"it has {len(values)} metrics; 1 to {METRICS} are read")
    config, rows = given.get("eval_config") or {}, given.get("eval_result_details") or []
    if not isinstance(config, dict):
        refuse("its eval_config is no object")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        refuse("its eval_result_details is no list of objects")
    return Result(kind, values, _parameters(given, config, refuse), _details(rows), _version(given))


def _fault(given: Any) -> str | None:
    """What of it no database or page should hold."""
    level: list[Any] = [given]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for one in level:
            match one:
                case dict():
                    deeper += one.values()
                case list():
                    deeper += one
                case int() | float() if abs(one) > 1e300:
                    return "it holds a number beyond 1e300"
        level = deeper
    return f"it is nested deeper than {DEEPEST} levels" if any(isinstance(one, dict | list) for one in level) else None


def _parameters(given: dict[str, Any], config: dict[str, Any], refuse: Any) -> dict[str, Any]:
    told = {str(name)[:80]: _short(value) for name, value in list(config.items())[:60]}
    out: dict[str, Any] = {"config": told}
    for name in ("sae_lens_release_id", "sae_lens_id", "sae_lens_version", "eval_id"):
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            refuse(f"its {name} is no text")
        out[name] = value and value[:LONG]
    when = given.get("datetime_epoch_millis")
    if when is not None:
        if isinstance(when, bool) or not isinstance(when, int) or not 0 <= when <= 9_999_999_999_999:
            refuse("its datetime_epoch_millis is no time")
        out["measured"] = datetime.fromtimestamp(when / 1000, UTC).isoformat(timespec="seconds")
    return out


def _version(given: dict[str, Any]) -> str:
    commit = given.get("sae_bench_commit_hash")
    return f"SAEBench {commit[:40]}" if isinstance(commit, str) and commit else "SAEBench, version not said"


def _short(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)[:LONG]
    return value[:LONG] if isinstance(value, str) else value


def _details(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    if not rows:
        return {}
    columns = list(dict.fromkeys(str(name) for row in rows[:ROWS] for name in row))[:COLUMNS]
    kept = [[_short(row.get(name)) for name in columns] for row in rows[:ROWS]]
    more = f", the first {ROWS:,} of {len(rows):,}" if len(rows) > ROWS else ""
    return {"tables": [table(f"eval_result_details{more}", [name[:80] for name in columns], kept)]}
