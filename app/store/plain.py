"""Values as PostgreSQL's text and jsonb can hold them."""

import math
import re
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")


def plain(value: Any) -> Any:
    """``value`` with every text in it ``storable``, and null for numbers that are not finite, which JSON has not."""
    match value:
        case str():
            return storable(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {storable(str(key)): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    return value


def storable(text: str) -> str:
    """A NUL as ``\\x00``; half of a surrogate pair, which has no UTF-8, as U+FFFD."""
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", text.replace("\0", "\\x00"))
