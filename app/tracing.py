"""Spans for OpenTelemetry: a request, its statements, what it asks of an inference service, and what that does.

They are sent where OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) says, by OTLP over HTTP, if the packages of
``saescope[otel]`` are installed; else nothing here costs anything. As in logs, no span holds a prompt, a query string
or a value: a request has its route's template, a statement its text with the parameters left out.
"""

import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LACKING = "{name} is set, but no trace is sent: that takes more packages, pip install 'saescope[otel]'."
REFUSED = "{name} is set, but no trace is sent: {reason}."
FLUSH_SECONDS = 3.0
_log = logging.getLogger(__name__)


def wanted() -> str | None:
    """The variable that says where traces go, None where none are wanted."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "otlp":
        return None
    return next((name for name in ENDPOINTS if os.environ.get(name)), None)


def installed() -> bool:
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def provider() -> "TracerProvider | None":
    """This process's own, not the global one, which others may have set for theirs."""
    name = wanted()
    if name is None:
        return None
    if not installed():
        _log.warning(LACKING.format(name=name))
        return None
    other = next((variable for variable in PROTOCOLS if os.environ.get(variable)), None)
    if other is not None and os.environ[other] != "http/protobuf":
        _log.warning(REFUSED.format(name=name, reason=f"{other} must be http/protobuf, not {os.environ[other]!r}"))
        return None
    try:
        return _made()
    except ValueError as error:  # of the packages' own variables, such as OTEL_BSP_MAX_QUEUE_SIZE
        _log.warning(REFUSED.format(name=name, reason=f"another OTEL_ variable is not as it should be ({error})"))
        return None


def _made() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or "saescope"})
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def flush() -> None:
    """Send what has not been sent yet, for three seconds at most: the packages' own limit does not hold where the
    collector is away, for they go on trying."""
    if (known := provider()) is not None:
        sending = Thread(target=known.force_flush, name="traces", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)


@contextmanager
def serving(headers: Mapping[str, str]) -> "Iterator[Span | None]":
    """A request that came with ``headers``, whose trace it goes on with; what is done meanwhile belongs to it."""
    if (known := provider()) is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    caller = TraceContextTextMapPropagator().extract(headers)
    with known.get_tracer("saescope").start_as_current_span(
        "request", caller, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    ) as span:
        yield span


def served(span: "Span | None", method: str, route: str, status: int, request: str) -> None:
    """What came of the request."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attributes({
        "http.request.method": method, "http.route": route, "http.response.status_code": status,
        "saescope.request_id": request,
    })  # fmt: skip
    if status >= 500:
        span.set_status(StatusCode.ERROR)


@contextmanager
def asking(name: str, headers: MutableMapping[str, str], **attributes: str | int) -> Iterator[None]:
    """A request of ours to another service, to which ``headers`` take the trace along. What runs meanwhile does not
    belong to it: it may be in a generator, whose context at its end need not be the one it began in."""
    if (known := provider()) is None:
        yield
        return
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    span = known.get_tracer("saescope").start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(span))
    try:
        yield
    finally:
        span.end()


def follow_statements(engine: Engine) -> None:
    """A span for every statement of ``engine``, with its text and without its parameters."""
    if (known := provider()) is None:
        return
    from opentelemetry.trace import SpanKind, StatusCode

    tracer = known.get_tracer("saescope")

    def begun(
        _connection: object, _cursor: object, statement: str, _parameters: object, context: Any, _m: bool
    ) -> None:
        told = {"db.system.name": "postgresql", "db.query.text": statement}
        context.span = tracer.start_span(statement.split(maxsplit=1)[0], kind=SpanKind.CLIENT, attributes=told)

    def ended(
        _connection: object, _cursor: object, _statement: str, _parameters: object, context: Any, _m: bool
    ) -> None:
        context.span.end()

    def failed(error: ExceptionContext) -> None:
        span = getattr(error.execution_context, "span", None)
        if span is not None:
            span.set_status(StatusCode.ERROR, type(error.original_exception).__name__)
            span.end()

    event.listen(engine, "before_cursor_execute", begun)
    event.listen(engine, "after_cursor_execute", ended)
    event.listen(engine, "handle_error", failed)
