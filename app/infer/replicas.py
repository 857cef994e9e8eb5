"""The service as replicas over a Ray cluster: Ray Serve spreads requests over them and starts anew what dies."""

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

from app.errors import BadRequest
from app.harvest.cluster import connected
from app.settings import Settings

NAME = "saescope"


def serve_replicas(settings: Settings, address: str, replicas: int, say: Callable[[str], None]) -> None:
    """Serve until told to stop. Each replica has a GPU or, in a cluster without any, a CPU core.

    Raises:
        BadRequest: Ray Serve is not installed, there is no cluster at ``address``, or too few processors.
    """
    with connected(address) as ray:
        try:
            from ray import serve
        except ImportError:
            raise BadRequest("Ray Serve is not installed; pip install 'saescope[ray]'.") from None
        there = ray.cluster_resources()
        kind = "GPU" if there.get("GPU", 0) >= 1 and settings.device != "cpu" else "CPU"
        if replicas > (most := int(there.get(kind, 0))):
            raise BadRequest(
                f"--replicas {replicas} is more than the {most} {kind}s of the cluster, and each replica takes one.",
                replicas=replicas,
            )
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        options = {"host": settings.host, "port": settings.port, "keep_alive_timeout_s": 30}
        serve.start(proxy_location="HeadOnly", http_options=options, logging_config=quiet)
        deployment = serve.deployment(
            serve.ingress(_builder(settings))(),
            num_replicas=replicas,
            max_ongoing_requests=settings.engine_waiting + 8,  # so that the engine itself says when it is full
            graceful_shutdown_timeout_s=settings.drain_seconds,
            ray_actor_options={"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1},
            logging_config=quiet,
        )
        serve.run(deployment.bind(), name=NAME, route_prefix="/")
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        say(f"saescope infer is at http://{settings.host}:{settings.port}, {replicas} replicas  (Ctrl-C stops it)")
        stopped.wait()
        say("\nStopping ...")
        serve.delete(NAME)


def _builder(settings: Settings) -> Callable[[], Any]:
    def build() -> Any:
        from app.infer.local import local_engine
        from app.infer.service import service

        return service(local_engine(settings), settings)

    return build
