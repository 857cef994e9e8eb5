"""What commands that serve have in common."""

import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from app.errors import PortInUse
from app.settings import Settings

if TYPE_CHECKING:
    from types import FrameType


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


def run_app(
    app: Any, settings: Settings, name: str, *, ready: Callable[[], object] = lambda: None, **options: Any
) -> None:
    """Serve until told to stop; ``ready`` is called once it can be reached. ``options`` are uvicorn's."""
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

        def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
            if not self.should_exit:
                typer.echo("\nStopping ...", err=True)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=log_config(settings), access_log=False, **options
    )
    Server(config).run()
