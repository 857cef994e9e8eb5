"""Forms that start jobs other than harvests: what a filled-in one means."""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest
from app.explain.latents import ones
from app.settings import Settings
from app.store import queries as q
from app.store.runs import Kind
from app.web import spending
from app.web.forms import form_fields
from app.web.job_contexts import FREE, JobForm, Layout, Method, On

SCORERS = "detection", "fuzzing", "simulation", "embedding", "surprisal", "intervention"


class Job(NamedTuple):
    kind: Kind
    slugs: list[str]
    command: dict[str, Any]


async def read_form(request: Request) -> JobForm:
    """The fields of a posted form; those it lacks are as they are in an empty one."""
    fields = await form_fields(request)
    return JobForm(**{name: fields[name][-1].strip() for name in JobForm.model_fields if fields.get(name)})


async def checked(db: AsyncConnection, form: JobForm, settings: Settings) -> Job:
    """
    Raises:
        BadRequest, UnknownSAE: the first thing that does not fit.
    """
    if any("\0" in text or not text.isprintable() for text in form.model_dump().values()):
        raise BadRequest("A field of the form holds a character that no name can hold.")
    if form.job not in ("explain", "map", "embed"):
        raise BadRequest(f"There is no job {form.job[:40]!r}; there are explain, map and embed.", field="job")
    if not form.sae:
        if form.job != "embed":
            raise BadRequest("Choose an SAE.", field="sae")
        return Job("embed", [sae.slug for sae in await q.list_saes(db)], {})
    sae = await q.get_sae(db, form.sae)
    command = {"sae": form.sae}
    match form.job:
        case "embed":
            return Job("embed", [sae.slug], command)
        case "map":
            layout = _one_of("layout", form.layout, get_args(Layout))
            return Job("map", [sae.slug], command | {"method": layout, "on": _one_of("on", form.on, get_args(On))})
    method = _one_of("method", form.method, get_args(Method))
    if method in FREE:
        return Job("explain", [sae.slug], command | {"method": method})
    return Job("explain", [sae.slug], command | asked(form, method, sae.n_latents, settings))


def asked(form: JobForm, method: str, n_latents: int, settings: Settings) -> dict[str, Any]:
    """The options of an explanation by a language model; endpoint and key are the server's settings.

    Raises:
        BadRequest, LatentOutOfRange: an option is none, or there is no limit to what it may cost.
    """
    model = spending.checked_model(settings)
    scorers = [one.strip() for one in form.scorers.split(",") if one.strip()]
    for scorer in scorers:
        if scorer not in (*SCORERS, "none"):
            told = f"There is no scorer {scorer[:40]!r}; there are {', '.join(SCORERS)} and none."
            raise BadRequest(told, field="scorers")
    if form.latents:
        ones(form.latents, n_latents)
    most = _usd("What it may cost", form.max_usd)
    if most is None and not spending.local(settings):
        raise BadRequest(f"Say what it may cost at most: {settings.llm_url} is not on this machine.", field="max_usd")
    command = {
        "method": method,
        "model": form.model or model,
        "latents": form.latents.replace(" ", "") or None,
        "scorers": ",".join(scorers) or "none",
        "max_usd": most,
        "price_in": _usd("The price of prompts", form.price_in),
        "price_out": _usd("The price of answers", form.price_out),
    }
    return {name: value for name, value in command.items() if value is not None}


def _one_of(name: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        raise BadRequest(f"{name} is {given[:40]!r}; it is one of {', '.join(known)}.", field=name)
    return given


def _usd(name: str, given: str) -> float | None:
    if not given:
        return None
    try:
        value = float(given.removeprefix("$"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise BadRequest(f"{name} is {given[:40]!r}, which is no number of USD.", field=name)
    return value
