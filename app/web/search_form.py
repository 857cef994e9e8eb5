"""Search's URL, checked, and what it asks for."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app import urls
from app.errors import BadRequest
from app.store.queries import SAERecord
from app.store.search import Kept
from app.web.browse_form import span_of
from app.web.build import layer_of
from app.web.search_contexts import Jump, SearchQuery

LONGEST = 500  # characters of what is searched by meaning, tokens and examples
_SIGNS = {"": None, "positive": 1, "negative": -1}
_FEATURE = re.compile(r"(?:https?://[^/\s]+)?(?:/saes/)?([^/\s]+)/(?:features/)?([0-9]{1,9})")


def kept(query: SearchQuery, saes: Sequence[SAERecord]) -> Kept:
    """
    Raises:
        BadRequest: a bound is no number, or a range holds nothing.
    """
    return Kept(
        saes=tuple(sae.id for sae in saes),
        method=query.method or None,
        sign=_SIGNS[query.fires],
        density=span_of(query, "density"),
        score=span_of(query, "score"),
        size=sum(sae.n_latents for sae in saes),
    )


def check_short(query: SearchQuery) -> str:
    """What is looked for.

    Raises:
        BadRequest: it is too long for this mode.
    """
    asked = query.q.strip()
    if len(asked) > LONGEST:
        raise BadRequest(
            f"q has {len(asked):,} characters; by {query.mode} at most {LONGEST} are searched; mode text takes more.",
            field="q",
        )
    return asked


def of_layer(saes: Sequence[SAERecord], layer: int | None) -> list[SAERecord]:
    return [sae for sae in saes if layer is None or any(layer_of(read) == layer for read in sae.reads)]


def jumps(asked: str, saes: Sequence[SAERecord]) -> list[Jump]:
    """The features that ``asked`` is the number of: of the SAE it names, else of each of ``saes``."""
    asked = asked.strip()
    if re.fullmatch(r"[0-9]{1,9}", asked):
        there = [(sae, int(asked)) for sae in saes if int(asked) < sae.n_latents]
    elif found := _FEATURE.fullmatch(asked):
        there = [
            (sae, int(found[2])) for sae in saes if found[1] in (sae.slug, f"{sae.slug}@{sae.revision}")
            and int(found[2]) < sae.n_latents
        ]  # fmt: skip
    else:
        return []
    return [Jump(sae=sae.slug, index=index, url=urls.feature(sae.address, index)) for sae, index in there]


def feature_named(asked: str) -> tuple[str, int] | None:
    """(SAE, index) where ``asked`` is SLUG/NUMBER or a feature's address."""
    found = _FEATURE.fullmatch(asked.strip())
    return None if found is None else (found[1], int(found[2]))


def direction(asked: str) -> npt.NDArray[np.float32]:
    """The numbers pasted.

    Raises:
        BadRequest: they are no direction.
    """
    told = "A direction is SLUG/NUMBER, or a JSON list of numbers, one a dimension"
    try:
        given: Any = json.loads(asked)
    except (ValueError, RecursionError):
        raise BadRequest(f"{told}; {asked.strip()[:40]!r} is neither.", field="q") from None
    if not isinstance(given, list) or not given or not all(type(x) in (int, float) for x in given):
        raise BadRequest(f"{told}; this is another kind of JSON.", field="q")
    try:
        numbers = [float(x) for x in given]
    except OverflowError:
        numbers = [math.inf]
    size = math.hypot(*numbers)
    if not math.isfinite(size) or size == 0:
        raise BadRequest("The direction's length is 0 or not finite, so nothing points the same way.", field="q")
    return (np.array(numbers) / size).astype(np.float32)


def given(query: SearchQuery, **changed: object) -> dict[str, Any]:
    """The state as a URL writes it: what is not the default, with ``changed`` in its place."""
    return query.model_dump(exclude_defaults=True) | changed
