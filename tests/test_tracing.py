"""Spans as a collector gets them: of a request, its statements and an inference service, and what they leave out."""

import gzip
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import text
from sqlalchemy.exc import DataError

from app import tracing
from app.main import create_app
from app.store.engine import database_url, sync_engine
from tests.conftest import SLUG
from tests.services import started
from tests.test_infer import infer

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SERVER, CLIENT = 2, 3  # kinds of spans
ERROR = 2  # a status


class Collector(ThreadingHTTPServer):
    """An OpenTelemetry collector as far as it takes spans; ``status`` is what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.status, self.taken, self.services = 200, [], set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name):
        return [span for span in self.taken if span.name == name]


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces" and self.server.status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                self.server.services.add(named["service.name"])
                for scope in resource.scope_spans:
                    self.server.taken.extend(scope.spans)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        try:
            yield collector
        finally:
            collector.shutdown()


@pytest.fixture
def collector(monkeypatch):
    with collecting() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        tracing.provider.cache_clear()
        yield made
        tracing.provider().shutdown()
        tracing.provider.cache_clear()


def attributes(span):
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_and_its_statements_are_one_trace_without_what_was_typed(harvested, settings, collector):
    with TestClient(create_app(settings)) as client:
        answer = client.get(f"/saes/{SLUG}/features/3?text=secretly typed", headers={"traceparent": CALLER})
        client.get("/healthz")
        client.get("/nowhere/at/all?q=secretly")
    assert answer.status_code == 200
    (page,) = collector.named("GET /saes/{slug}/features/{index}")
    assert page.kind == SERVER
    assert page.trace_id.hex() == CALLER.split("-")[1]
    assert page.parent_span_id.hex() == CALLER.split("-")[2]
    told = attributes(page)
    assert told["http.response.status_code"] == 200
    assert told["saescope.request_id"] == answer.headers["x-request-id"]
    statements = [span for span in collector.taken if span.parent_span_id == page.span_id]
    assert 3 <= len([span for span in statements if "db.query.text" in attributes(span)]) <= 8
    assert any("FROM example" in attributes(span).get("db.query.text", "") for span in statements)
    assert not [span for span in collector.taken if "healthz" in span.name]
    assert not re.search(rb"secretly|typed", b"".join(span.SerializeToString() for span in collector.taken))
    assert collector.services == {"saescope"}


def test_a_service_goes_on_with_the_trace(harvested, settings, tiny_folder, collector, tmp_path, monkeypatch):
    arguments, given = infer(settings, tiny_folder, tmp_path)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "engine")
    with started(*arguments, **given) as process:
        monkeypatch.delenv("OTEL_SERVICE_NAME")
        with TestClient(create_app(settings.model_copy(update={"infer_url": process.url}))) as client:
            answer = client.post("/api/inspect", json={"text": "The cat sat.", "sae": [SLUG]})
        assert answer.status_code == 200, answer.text
    (page,) = collector.named("POST /api/inspect")
    reads = [span for span in collector.named("POST /read") if span.trace_id == page.trace_id]  # not those that warm
    (asked,) = [span for span in reads if span.kind == CLIENT]
    (done,) = [span for span in reads if span.kind == SERVER]
    assert asked.parent_span_id == page.span_id
    assert done.parent_span_id == asked.span_id
    assert collector.services == {"saescope", "engine"}


def test_a_statement_that_fails_says_how_and_not_with_what(settings, collector):
    engine = sync_engine(database_url(settings))
    tracing.follow_statements(engine)
    with pytest.raises(DataError), engine.connect() as connection:
        connection.execute(text("SELECT 1 / CAST(:secret AS int)"), {"secret": "04711x"})
    engine.dispose()
    tracing.flush()
    (span,) = collector.named("SELECT")
    assert (span.status.code, span.status.message) == (ERROR, "InvalidTextRepresentation")
    assert b"04711" not in span.SerializeToString()


def test_a_collector_that_fails_or_is_away_is_seen_by_nobody(harvested, settings, collector):
    collector.status = 400
    with TestClient(create_app(settings)) as client:
        assert client.get("/").status_code == 200
        collector.server_close()
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "env", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "console"}]
)
def test_nothing_is_traced_where_it_is_not_wanted(env, monkeypatch):
    if env:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    tracing.provider.cache_clear()
    assert tracing.provider() is None
    with tracing.serving({}) as span:
        assert span is None
    tracing.provider.cache_clear()


def test_without_the_packages_the_site_says_so_once_and_works(harvested, settings, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing.provider.cache_clear()
    with TestClient(create_app(settings)) as client:
        assert client.get("/").status_code == 200
    tracing.provider.cache_clear()
    told = [line.getMessage() for line in caplog.records if line.name == "app.tracing"]
    assert told == [tracing.LACKING.format(name="OTEL_EXPORTER_OTLP_ENDPOINT")]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "another OTEL_ variable is not as it should be (max_queue_size must be"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "another OTEL_ variable is not as it should be (OTEL_SPAN_ATTRIBUTE"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not 'grpc'"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL must be http/protobuf"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence_and_the_site_works(
    name, value, says, harvested, settings, monkeypatch, caplog
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    tracing.provider.cache_clear()
    with TestClient(create_app(settings)) as client:
        assert client.get("/").status_code == 200
    tracing.provider.cache_clear()
    (told,) = [line for line in caplog.records if line.name == "app.tracing"]
    assert says in told.getMessage()
    assert told.exc_info is None
    assert "\n" not in told.getMessage()


def test_what_cannot_be_sent_holds_nobody_up(collector, monkeypatch):
    """A sender that never comes back stands for a collector that is away: the packages try for their own time."""
    held = threading.Event()
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(tracing.provider(), "force_flush", held.wait)
    flushing = threading.Thread(target=tracing.flush)
    flushing.start()
    flushing.join(300)
    assert not flushing.is_alive()
    held.set()
