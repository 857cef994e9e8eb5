"""Paths as people type them."""

from pathlib import Path

from app.errors import BadRequest


def expanded(text: str) -> Path:
    """``text`` as a path that can be asked for, a leading ``~`` or ``~user`` resolved.

    Raises:
        BadRequest: there is no such user, the name is too long, or a folder on the way may not be entered.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except RuntimeError:
        reason = "there is no such user"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    else:
        return path
    raise BadRequest(f"{text!r} cannot be looked up: {reason}.", path=text)
