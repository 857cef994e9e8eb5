"""``saescope infer``: the engine as a service of its own."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app.cli_server import check_port, run_app, spin_less
from app.errors import BadRequest, InvalidSetting
from app.settings import Settings, load_settings


def infer(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine it needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8100,
    home: Annotated[Path | None, typer.Option(help="Folder that holds the models and SAEs.")] = None,
    ray: Annotated[str | None, typer.Option(help="Serve replicas over a Ray cluster: its address, or auto.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="With --ray: how many (default 1).")] = None,
) -> None:
    """Run the model for web servers whose SAESCOPE_INFER_URL names this service."""
    # The names are those of the site; beyond this machine it is the token that keeps others out.
    settings = load_settings(home=home, host=host, port=port, allowed_hosts="")
    if replicas is not None and ray is None:
        raise BadRequest("--replicas goes with --ray; without it, start the command once for each.")
    check_secret(settings)
    check_port(settings)
    spin_less()
    if ray is not None:
        from app.infer.replicas import serve_replicas

        serve_replicas(settings, ray, replicas or 1, lambda line: typer.echo(line, err=True))
        return
    from app.infer.local import local_engine
    from app.infer.service import service

    engine = local_engine(settings)

    async def stop() -> None:
        await asyncio.sleep(settings.drain_seconds)
        await engine.close()

    run_app(service(engine, settings), settings, "saescope infer", stop=stop, timeout_keep_alive=30)


def check_secret(settings: Settings) -> None:
    """
    Raises:
        InvalidSetting: others than this machine could ask, and there is no secret.
    """
    from app.web.guard import is_loopback

    if not is_loopback(settings.host) and not settings.infer_token:
        raise InvalidSetting(
            f"On {settings.host} others than this machine can ask; set SAESCOPE_INFER_TOKEN to a secret that the web "
            "server has too, or listen on 127.0.0.1.",
            setting="infer_token",
        )
