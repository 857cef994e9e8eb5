"""What models of URLs, forms and bodies have in common."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, model_validator
from pydantic_core import PydanticCustomError

from app.store.plain import storable

TEXTS = ("text", "other")  # of these an empty one is told so elsewhere


class Asked(BaseModel):
    """What a form left empty is as good as missing."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        full = {name: value for name, value in given.items() if value != "" or name in TEXTS}
        runs = (name for name, value in full.items() if name.endswith("_run") and isinstance(value, list))
        return full | {name: [run for run in full[name] if run != ""] for name in runs}


def _storable(text: str) -> str:
    if text != storable(text):
        raise PydanticCustomError("label", "no label holds a NUL or half of a surrogate pair")
    return text


Label = Annotated[str, AfterValidator(_storable)]  # part of one, looked for in the database
