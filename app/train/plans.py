"""What to train, as it is asked for: ideas, seeds and options on a command line, or runs in a TOML file."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.errors import BadRequest
from app.train.idea import Idea, Options
from app.train.ideas import named
from app.train.run import Plan, check_k

COUNTS = ("k", "groups", "every")
LEAST_LATENTS = 2
SEEDS = 1 << 32


def plans(ideas: Sequence[str], seeds: Sequence[int], latents: int, given: Mapping[str, str]) -> list[Plan]:
    """Every idea with every seed. An option goes to the ideas that have it.

    Raises:
        BadRequest: an idea is not known, or an option to none of them, or it does not fit.
    """
    chosen = [named(name) for name in ideas]
    for key in given:
        if not any(key in _names(idea) for idea in chosen):
            known = "; ".join(f"{idea.name}: {', '.join(_names(idea))}" for idea in chosen)
            raise BadRequest(f"No idea here has an option {key!r}; there are: {known}.", option=key)
    made = [
        Plan(idea.name, latents, seed, _options(idea, {k: v for k, v in given.items() if k in _names(idea)}))
        for seed in seeds
        for idea in chosen
    ]
    for plan in made:
        if plan.n_latents < LEAST_LATENTS:
            raise BadRequest(f"An SAE has {LEAST_LATENTS} latents or more, not {plan.n_latents}.")
        if not 0 <= plan.seed < SEEDS:
            raise BadRequest(f"A seed is 0 or more and less than 2^32, not {plan.seed}.")
        check_k(plan)
    return made


def sweep(path: Path, latents: int) -> list[Plan]:
    """The runs of a TOML file: tables ``[[run]]`` with ``idea`` and, where wanted, ``latents``, ``seeds`` and options.

    Raises:
        BadRequest: it is not there, no TOML, or says what is not known.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequest(f"The sweep {path} cannot be read: {str(error).rstrip('.')}.", path=str(path)) from None
    runs = told.get("run")
    if set(told) != {"run"} or not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise BadRequest(f"The sweep {path} is to hold tables [[run]] and nothing else.", path=str(path))
    made = []
    for run in runs:
        rest = {key: str(value) for key, value in run.items() if key not in ("idea", "latents", "seeds")}
        seeds, size = run.get("seeds", [0]), run.get("latents", latents)
        if not isinstance(seeds, list) or not seeds or not all(type(one) is int for one in [*seeds, size]):
            raise BadRequest(f"In the sweep {path}, seeds is a list of whole numbers and latents is one.")
        made += plans([str(run.get("idea", "topk"))], seeds, size, rest)
    return made


def _names(idea: type[Idea]) -> list[str]:
    return [field.name for field in fields(idea.Options)]


def _options(idea: type[Idea], given: Mapping[str, str]) -> Options:
    kinds = {field.name: field.type for field in fields(idea.Options)}
    values: dict[str, Any] = {}
    for key, text in given.items():
        try:
            values[key] = int(text) if kinds[key] is int else float(text)
        except ValueError:
            wanted = "a whole number" if kinds[key] is int else "a number"
            raise BadRequest(f"{idea.name}'s {key} is {text!r}; wanted {wanted}.", option=key) from None
        if not math.isfinite(values[key]):
            raise BadRequest(f"{idea.name}'s {key} is {text}; wanted a finite number.", option=key)
        if values[key] < 0 or (key in COUNTS and values[key] < 1) or (key == "sigma" and not values[key]):
            raise BadRequest(f"{idea.name}'s {key} is {text}; it is positive.", option=key)
        if key == "memory" and values[key] >= 1:
            raise BadRequest(f"{idea.name}'s {key} is {text}; it is a share, less than 1.", option=key)
    return idea.Options(**values)
