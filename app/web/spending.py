"""Whether pages may ask a language model, and what that may cost."""

from importlib.util import find_spec
from math import ceil

from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, ExplainLimit
from app.settings import Settings
from app.store.spending import asked_lately, promised, spent_today

SHARE = 0.1  # of a day's limit, that one explanation a page asks for may cost


def model_of(settings: Settings) -> str | None:
    """The model that pages may ask; None where none is set, or none can be asked."""
    there = settings.llm_url and settings.llm_model and find_spec("openai") is not None
    return settings.llm_model if there else None


def on_pages(settings: Settings) -> str | None:
    """The model that a feature's page offers to ask."""
    return model_of(settings) if settings.llm_per_hour else None


def local(settings: Settings) -> bool:
    """Whether the endpoint is on this machine, and so costs nothing."""
    from app.explain.client import Endpoint

    return Endpoint(settings.llm_url, settings.llm_model, None).local


def checked_model(settings: Settings) -> str:
    """
    Raises:
        BadRequest: pages cannot ask a language model here.
    """
    if found := model_of(settings):
        return found
    raise BadRequest(
        "No language model is set up here: set SAESCOPE_LLM_URL and SAESCOPE_LLM_MODEL and install saescope[llm]."
    )


def one_explanation(settings: Settings) -> float | None:
    """USD that one may cost; None where no limit is set."""
    return None if settings.llm_usd_per_day is None else settings.llm_usd_per_day * SHARE


async def within_hour(connection: AsyncConnection, settings: Settings) -> None:
    """
    Raises:
        ExplainLimit: pages have asked for as many explanations as they may within an hour.
    """
    count, seconds = await asked_lately(connection)
    if count >= settings.llm_per_hour:
        wait = max(1, ceil(seconds))
        raise ExplainLimit(
            f"{count:,} explanations were asked for within the last hour, as many as may be (SAESCOPE_LLM_PER_HOUR); "
            f"the next one can be asked for in {ceil(wait / 60)} min.",
            retry_after=wait,
        )


async def within_day(connection: AsyncConnection, settings: Settings, wanted: float | None) -> None:
    """
    Raises:
        ExplainLimit: ``wanted`` USD more may be more than a day's limit.
    """
    if settings.llm_usd_per_day is None or wanted is None:
        return
    left = settings.llm_usd_per_day - await spent_today(connection) - await promised(connection)
    if wanted > left:
        raise ExplainLimit(
            f"This may cost ${wanted:.2f}, and of the ${settings.llm_usd_per_day:.2f} a day (SAESCOPE_LLM_USD_PER_DAY) "
            f"${max(left, 0.0):.2f} are left.",
            retry_after=3600,
        )
