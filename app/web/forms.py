"""Forms that were posted, as the models that URLs are read into."""

from typing import TypeVar, get_origin
from urllib.parse import parse_qs

from fastapi import Request
from pydantic import BaseModel

from app.errors import BadRequest, TextTooLong

LONGEST = 1 << 20
M = TypeVar("M", bound=BaseModel)


async def form_fields(request: Request, *, empty: bool = False) -> dict[str, list[str]]:
    """Every field that is not empty, or, ``empty``, every field.

    Raises:
        TextTooLong, BadRequest: the body is too long, or no form.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise TextTooLong(f"The form is longer than {LONGEST // 1024} KiB.")
    try:
        return parse_qs(body.decode(), keep_blank_values=empty, max_num_fields=500)
    except ValueError:
        raise BadRequest("The form cannot be read: it is no form.") from None


def filled(model: type[M], fields: dict[str, list[str]]) -> M:
    """``model`` of those fields that it knows.

    Raises:
        BadRequest: a value that does not fit.
    """
    several = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    given = {n: v if n in several else v[-1] for n, v in fields.items() if n in model.model_fields}
    try:
        return model(**given)
    except ValueError as error:
        first = error.errors()[0] if hasattr(error, "errors") else None
        told = f"{'.'.join(map(str, first['loc']))} does not fit: {first['msg'].lower()}" if first else "it is no form"
        raise BadRequest(f"The form cannot be read: {told}.") from None
