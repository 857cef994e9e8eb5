"""What commands that serve have in common."""

import asyncio
import ipaddress
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import typer

from app.errors import InvalidSetting, PortInUse
from app.settings import Settings

if TYPE_CHECKING:
    from types import FrameType


SPINS = "10000"


def spin_less() -> None:
    """Let OpenMP's threads sleep a few tenths of a millisecond after a product, where they spin for milliseconds and
    take a core from the event loop and the database. Before torch is loaded; whoever sets a policy has their own."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def check_mode(settings: Settings) -> None:
    """Refuse to serve others what has no accounts."""
    try:
        alone = settings.host.lower() == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        alone = False
    if not settings.team and not alone:
        raise InvalidSetting(
            f"SAESCOPE_HOST is {settings.host}, where others reach the server, and SAESCOPE_MODE is local, which has "
            "no accounts: set SAESCOPE_MODE=team, or listen on 127.0.0.1.",
            setting="mode",
        )


def check_port(settings: Settings) -> None:
    """Refuse early, before minutes of work, if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise PortInUse(
                f"Port {settings.port} on {settings.host} cannot be used ({error.strerror}); "
                "choose another with --port.",
                port=settings.port,
            ) from None


CUT_S = 5  # between the end of the draining and that of connections that are open still


def run_app(
    app: Any,
    settings: Settings,
    name: str,
    *,
    stop: Callable[[], Coroutine[Any, Any, None]],
    ready: Callable[[], object] = lambda: None,
    **options: Any,
) -> None:
    """Serve until told to stop; ``ready`` is called once it can be reached. ``options`` are uvicorn's.

    Then no connection is taken any more, and what is under way goes on. ``stop`` runs meanwhile, and has
    SAESCOPE_DRAIN_SECONDS and a little more to see to it that it ends.
    """
    import uvicorn

    from app.logs import log_config

    # The server raises the signal again when it has ended; this way the embedded database is stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    class Server(uvicorn.Server):
        """Says when it can be reached, and when it is told to stop."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()
                typer.echo(f"{name} is at http://{settings.host}:{settings.port}  (Ctrl-C stops it)", err=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            stopping = asyncio.create_task(stop())
            try:
                await super().shutdown(sockets)
            finally:
                stopping.cancel()
                await asyncio.gather(stopping, return_exceptions=True)

        def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
            if not self.should_exit:
                typer.echo("\nStopping ...", err=True)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=log_config(settings), access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds + CUT_S), **options,
    )  # fmt: skip
    Server(config).run()
