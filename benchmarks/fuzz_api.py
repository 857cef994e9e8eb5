"""Requests made from the API's own schema, fitting it and not, sent to a real server: what it must never answer.

Three times in four the names in a path or body are ones the server knows, so that what lies behind them is reached.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests import Session
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

NAMES = {"sae": "slug", "feature": "feature", "pin": "feature", "run": "run", "other_run": "run", "map": "map"}


@dataclass
class Told:
    """Answers by status, and the requests whose answers were faults."""

    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def known_here(base: str, session: Session) -> dict[str, list[Any]]:
    """Names of what the server has; a kept prompt is made for it."""

    def get(path: str) -> Any:
        return session.get(base + path, timeout=60).json()

    slug = get("/saes.json")["items"][0]["slug"]
    answer = session.post(base + "/api/inspect", json={"text": "Paris is big", "sae": slug, "keep": True}, timeout=120)
    if not answer.ok:
        raise SystemExit(f"The server reads no prompt, so it cannot be tried: {answer.text}")
    kept = answer.json()["run"]
    maps = [one["version"] for one in get(f"/saes/{slug}/maps.json")["items"]]
    return {
        "slug": [slug], "index": [0, 3, 7], "run": [kept, 1],
        "feature": [f"{slug}/3"], "kind": ["top", "interval-9"], "rank": [0], "number": [0, 1], "score": [1, 2],
        "z": [0, 1], "x": [0, 1], "y": [0], **({"version": maps, "map": ["pca", "umap"]} if maps else {}),
    }  # fmt: skip


def _list(base: str, session: Session, slug: str) -> dict[str, list[Any]]:
    """A new list; requests remove it, so every operation gets one."""
    given: Any = {"title": "Fuzzed", "items": [{"kind": "feature", "sae": slug, "index": 3}]}
    made = session.post(base + "/api/lists", json=given, timeout=60).json()
    return {"name": [made["name"]], "item": [made["items"][0]["id"]]}


def fuzz(
    base: str, examples: int, first: int = 0, *, only: str = "", seconds: float = math.inf, token: str = ""
) -> Told:
    """``examples`` requests, dealt evenly over operations (those whose path holds ``only``); ``first`` seeds them. When
    ``seconds`` are over, no further operation is begun. token: an API token to send them with, in team mode."""
    told, end = Told(), time.monotonic() + seconds
    with Session() as session:
        session.trust_env = False
        if token:
            session.headers["authorization"] = f"Bearer {token}"
        known = known_here(base, session)
        schema = schemathesis.openapi.from_dict(session.get(base + "/api/openapi.json", timeout=60).json())
        operations: list[Any] = [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]
        operations = [one for one in operations if only in one.path and one.path != "/metrics"]
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        shares = _dealt(examples, len(operations) * len(modes))
        for number, operation in enumerate(operations):
            for mode in modes:
                if (share := next(shares)) and time.monotonic() < end:
                    made = _list(base, session, known["slug"][0]) if "{name}" in operation.path else {}
                    _operation(base, session, operation, mode, share, first + number, known | made, told)
    return told


def _dealt(total: int, parts: int) -> Iterator[int]:
    for part in range(parts):
        yield (part + 1) * total // parts - part * total // parts


def _operation(
    base: str,
    session: Session,
    operation: Any,
    mode: GenerationMode,
    share: int,
    first: int,
    known: dict[str, list[Any]],
    told: Told,
) -> None:
    named = f"{operation.method.upper()} {operation.path}"

    @seed(first)
    @settings(
        max_examples=share,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), drawn=st.randoms(use_true_random=False))
    def sends(case: Case[Any], drawn: Any) -> None:
        _name(case, known, drawn)
        answer = case.call(base_url=base, session=session, timeout=120)
        told.statuses[answer.status_code] += 1
        told.operations[named] += 1
        if fault := _fault(operation, answer):
            told.faults.append(f"{answer.status_code} {fault}: {case.as_curl_command()}")

    try:
        sends()
    except Unsatisfiable:  # nothing can fail to fit what takes nothing
        return


def _name(case: Case[Any], known: dict[str, list[Any]], drawn: Any) -> None:
    """Put names the server knows into the path, the query and the body."""
    for name in case.path_parameters or {}:
        if name in known and drawn.random() < 0.75:
            case.path_parameters[name] = str(drawn.choice(known[name]))
    for place in (case.query, case.body):
        if isinstance(place, dict):
            for name, kind in NAMES.items():
                if name in place and kind in known and drawn.random() < 0.75:
                    given = drawn.choice(known[kind])
                    place[name] = [given] if isinstance(place[name], list) else given


def _fault(operation: Any, answer: Any) -> str:
    """What is wrong with an answer, if anything is: a status the schema does not tell, or one of 500."""
    if answer.status_code == 500:
        return "failed"
    documented = operation.definition.raw.get("responses", {})
    if answer.status_code >= 500 and str(answer.status_code) not in documented:
        return "undocumented"
    kind = (answer.headers.get("content-type") or [""])[0]
    if answer.status_code >= 400 and kind.startswith("application/json"):
        body = answer.json()
        if set(body) != {"code", "message", "detail"} or "\n" in body["message"]:
            return "no refusal in one sentence"
    return ""
