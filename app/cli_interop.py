"""Commands that go between saescope and other programs: an attribution graph to be shown, assistants that ask."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app.errors import BadRequest, PackageUnavailable
from app.settings import load_settings


def graph(
    file: Annotated[Path, typer.Argument(help="JSON that circuit-tracer or Neuronpedia wrote.")],
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Keep an attribution graph, to be shown by 'saescope serve', and say at what address."""
    from app import urls
    from app.interop import graphs
    from app.store.engine import explained
    from app.store.graphs import keeping
    from app.store.migrate import migrated

    settings, path = load_settings(home=home), file.expanduser()
    try:
        if path.stat().st_size > graphs.MOST_BYTES:
            raise BadRequest(f"{path} is larger than {graphs.MOST_BYTES >> 20} MiB; prune the graph.", path=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", path=str(path)) from None
    read = graphs.read(data)
    name, statement = keeping(
        read.title, read.scan, read.prompt, len(read.nodes), len(read.links), graphs.packed(read)
    )  # fmt: skip
    with migrated(settings) as engine, explained(), engine.begin() as connection:
        connection.execute(statement)
    typer.echo(urls.graph(name))


def mcp(
    url: Annotated[str, typer.Option(help="The saescope server to ask.")] = "http://127.0.0.1:8000",
) -> None:
    """Let an assistant look features up, over the Model Context Protocol on stdin and stdout; a server with accounts
    is asked with the token in SAESCOPE_TOKEN."""
    try:
        import mcp.server  # noqa: F401
    except ImportError:
        raise PackageUnavailable("The package mcp is not installed; install saescope[mcp].", package="mcp") from None
    from app.mcp_server import serve

    serve(url, os.environ.get("SAESCOPE_TOKEN"))
