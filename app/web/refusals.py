"""How the API's schema tells of refusals."""

from typing import Any

from pydantic import BaseModel, Field

from app import errors as e

Responses = dict[int | str, dict[str, Any]]
READING = (
    e.UnknownSAE, e.LatentOutOfRange, e.BadRequest, e.EmptyText, e.TooLarge, e.InvalidSAE, e.TextTooLong, e.BodyTooLong,
    e.ClientBusy, e.ClientRate, e.SubjectUnavailable, e.EngineBusy, e.EngineStopped, e.OutOfMemory,
)  # fmt: skip
EDITING = (*READING, e.InvalidEdit, e.EditUnsupported)
ATTRIBUTING = (*READING, e.EditUnsupported, e.AttributionUnsupported)
_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again."}}


class Refusal(BaseModel):
    """What every refused request is answered with."""

    code: str = Field(description="Which refusal it is, in a word that stays the same.")
    message: str = Field(description="One sentence for people: what does not fit, and what would.")
    detail: dict[str, Any] = Field(description="The values that the message names.")


def refused(*errors: type[e.SaescopeError]) -> Responses:
    """The responses of a route that may raise ``errors``; of any, that the database is away."""
    codes: dict[int, list[str]] = {}
    every: tuple[type[e.SaescopeError], ...] = (*errors, e.DatabaseUnavailable)
    for error in every:
        told = codes.setdefault(error.status, [])
        told += [error.code] if error.code not in told else []
    return {
        status: {"model": Refusal, "description": ", ".join(f"`{code}`" for code in names)}
        | ({"headers": _RETRY} if status == e.ClientBusy.status or "engine_busy" in names else {})
        for status, names in sorted(codes.items())
    }
