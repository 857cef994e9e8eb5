"""The numbers for Prometheus, gathered when they are asked for.

Nothing is kept in the client library's own values, so its files for several processes (PROMETHEUS_MULTIPROC_DIR) play
no part: each process tells of itself.
"""

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from app import __version__
from app.live.stats import EngineStats
from app.web.traffic import BUCKETS, Traffic

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(
    traffic: Traffic,
    engine: EngineStats,
    database: AsyncEngine | None = None,
    runs: Mapping[str, int] | None = None,
) -> str:
    """``runs`` counts harvests by state, None where the database does not answer; without ``database`` neither it nor
    they are told of."""
    registry = CollectorRegistry(auto_describe=False)
    found = [_build(), *_requests(traffic), *_engine(engine)]
    if database is not None:
        found += [*_pool(database), *_runs(runs)]
    registry.register(_Given(found))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


class _Given(Collector):
    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        yield from self._found


def _build() -> Metric:
    build = GaugeMetricFamily("saescope_build_info", "Which saescope this is.", labels=["version", "python"])
    build.add_metric([__version__, platform.python_version()], 1)
    return build


def _requests(traffic: Traffic) -> Iterator[Metric]:
    counts = CounterMetricFamily(
        "saescope_requests", "Requests answered, by the route's template.", labels=["method", "route", "status"]
    )
    for (method, route, status), count in sorted(traffic.counts.items()):
        counts.add_metric([method, route, str(status)], count)
    yield counts
    seconds = HistogramMetricFamily(
        "saescope_request_seconds", "How long requests took, streams to their end.", labels=["route"]
    )
    for route, (buckets, total) in sorted(traffic.seconds.items()):
        sums = [sum(buckets[: n + 1]) for n in range(len(buckets))]
        named = [*map(str, BUCKETS), "+Inf"]
        seconds.add_metric([route], list(zip(named, sums, strict=True)), total)
    yield seconds
    yield GaugeMetricFamily("saescope_requests_underway", "Requests not answered yet.", value=traffic.underway)


def _engine(stats: EngineStats) -> Iterator[Metric]:
    yield _gauge("saescope_engine_running", "Whether the engine takes requests.", stats.running)
    yield _gauge("saescope_engine_waiting", "Requests that wait for the model or are on their way.", stats.waiting)
    yield _counter("saescope_engine_cache_hits", "Prompts answered from what was read before.", stats.hits)
    yield _counter("saescope_engine_cache_misses", "Prompts that had to be read.", stats.misses)
    yield _gauge("saescope_engine_cache_bytes", "What the kept readings take.", stats.cached_bytes)
    for name, told, value in (
        ("forwards", "Forward passes of a subject.", stats.forwards),
        ("batches", "Forward passes that several prompts may have shared.", stats.batches),
        ("prompts", "Prompts in those batches.", stats.prompts),
    ):
        if value is not None:
            yield _counter(f"saescope_engine_{name}", told, value)
    if stats.services is not None and stats.away is not None:
        yield _gauge("saescope_inference_services", "Inference services that are asked.", stats.services)
        yield _gauge("saescope_inference_services_away", "Those that could not be reached lately.", stats.away)


def _pool(database: AsyncEngine) -> Iterator[Metric]:
    pool = database.sync_engine.pool
    if isinstance(pool, QueuePool):
        connections = GaugeMetricFamily("saescope_database_connections", "Connections, by state.", labels=["state"])
        connections.add_metric(["idle"], pool.checkedin())
        connections.add_metric(["used"], pool.checkedout())
        yield connections


def _runs(runs: Mapping[str, int] | None) -> Iterator[Metric]:
    yield _gauge("saescope_database_up", "Whether the database answers.", runs is not None)
    if runs is not None:
        states = GaugeMetricFamily("saescope_runs", "Harvests, by state.", labels=["state"])
        for state, count in sorted(runs.items()):
            states.add_metric([state], count)
        yield states


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value=float(value))


def _counter(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(name, told, value=float(value))
