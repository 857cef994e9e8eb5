"""The saescope command. Heavy imports happen inside the commands, so that --help answers at once."""

import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_accounts import accounts
from app.cli_backup import backup, restore
from app.cli_circuit import circuit
from app.cli_dashboards import import_dashboard
from app.cli_doctor import assets, doctor
from app.cli_embed import embed
from app.cli_eval import evaluate
from app.cli_explain import explain
from app.cli_explanations import explanations
from app.cli_export import export
from app.cli_harvest import harvest, logged
from app.cli_harvests import harvests
from app.cli_infer import infer
from app.cli_interop import graph, mcp
from app.cli_map import make_map
from app.cli_progress import watching
from app.cli_saes import formats, import_sae, remove
from app.cli_server import check_mode, check_port, run_app, spin_less
from app.cli_train import train
from app.errors import BadRequest, SaescopeError
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts hold brackets
    help="Explore the features of sparse autoencoders.",
)

app.add_typer(accounts, name="account")
app.command("import")(import_sae)
app.command("import-dashboard")(import_dashboard)
app.command()(formats)
app.command()(remove)
app.command()(harvests)
app.command()(harvest)
app.command()(infer)
app.command()(export)
app.command()(doctor)
app.command()(assets)
app.command()(backup)
app.command()(restore)
app.command("map")(make_map)
app.command()(circuit)
app.command()(embed)
app.command("eval")(evaluate)
app.command()(explain)
app.command()(explanations)
app.command()(graph)
app.command()(mcp)
app.command()(train)

KEEP_S = 75  # that a connection is kept without a request: longer than proxies do, so that it is they who close

Home = Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")]
Port = Annotated[int | None, typer.Option(help="Port to serve on (default 8000).")]


@app.command()
def demo(
    port: Port = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve when everything is ready.")] = True,
    tokens: Annotated[int, typer.Option(min=1000, help="Tokens of text to harvest.")] = 400_000,
    home: Home = None,
) -> None:
    """Prepare and serve the demo: SmolLM2-135M, a TopK SAE of layer 9, and Wikipedia articles."""
    from app.demo.beside import made_beside, missing
    from app.demo.run import SLUG, demo_command, demo_marker, harvest_demo
    from app.harvest.parameters import Parameters
    from app.store.engine import database_url, sync_engine
    from app.store.migrate import migrate
    from app.store.runs import RunLog
    from app.web.assets import install_assets

    settings = load_settings(home=home, port=port)
    spin_less()
    if serve:
        check_mode(settings)
        check_port(settings)
    install_assets()
    say("Starting the database")
    engine = sync_engine(database_url(settings))
    migrate(engine)
    done = demo_marker(settings.home, tokens)
    if not done.is_file() or not _has(engine, SLUG):
        parameters = Parameters(batch_tokens=settings.batch_tokens)
        log = RunLog.start(engine, [SLUG], demo_command(settings.home, tokens))
        with logged(log) as ended, watching(log) as watch:
            ended.made = harvest_demo(
                settings.home, engine, tokens, settings.dtype, settings.device, parameters, on_step=say, watch=watch
            )
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
    steps = missing(engine)
    engine.dispose()
    if serve:
        if steps:
            what = ", then ".join(steps.values())
            typer.echo(f"Made while the site is up: {what}. Pages change as each is done.", err=True)
        with made_beside(settings, steps, partial(typer.echo, err=True)):
            run_server(settings)


@app.command()
def serve(port: Port = None, home: Home = None) -> None:
    """Serve what has been harvested."""
    settings = load_settings(home=home, port=port)
    spin_less()
    check_mode(settings)
    check_port(settings)
    run_server(settings)


def _has(engine: "Engine", slug: str) -> bool:
    from sqlalchemy import select

    from app.store import tables as t

    with engine.connect() as connection:
        return connection.execute(select(t.sae.c.id).where(t.sae.c.slug == slug).limit(1)).first() is not None


class CtrlC:
    """Ctrl-C as ever, and noted: a library that is being loaded may swallow the exception, and the next step must not
    begin then."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, *_: object) -> None:
        self.pressed = True
        raise KeyboardInterrupt


def say(line: str) -> None:
    """Announce the next step."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, CtrlC) and handler.pressed:
        raise KeyboardInterrupt
    typer.echo(f"{line} ...", err=True)


def settle() -> None:
    """Leave what is loaded by now, and stays, out of the garbage collector's rounds: over all of it one takes a quarter
    of a second, in which nobody is answered."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def run_server(settings: Settings) -> None:
    from app.main import create_app
    from app.store.engine import database_url, sync_engine
    from app.store.migrate import migrate

    # Here a refusal is one line; inside the server it would be a traceback.
    url = database_url(settings)
    engine = sync_engine(url)
    migrate(engine)
    engine.dispose()
    site = create_app(settings)
    run_app(
        site, settings, "saescope", stop=lambda: site.state.saescope.stop(),
        ready=lambda: site.state.warming.add_done_callback(lambda _: settle()),
        proxy_headers=False,  # the app takes the word of the proxies that are set alone
        timeout_keep_alive=KEEP_S,
    )  # fmt: skip


def check_arguments(arguments: list[str]) -> None:
    """Refuse bytes that are no UTF-8 (which Python holds as surrogates), before they end in a database."""
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise BadRequest(f"{argument} is not UTF-8; rename the file or folder it names.", argument=repr(argument))


def main() -> None:
    """Run a command; refusals are one line on stderr and status 1, Ctrl-C and SIGTERM, with which schedulers end what
    they run, are status 130: what is done is kept, and its run is stopped and not lost."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    before = signal.signal(signal.SIGINT, CtrlC())
    ended = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        check_arguments(sys.argv[1:])
        status = app(standalone_mode=False)  # typer turns Ctrl-C into the status 130
    except SaescopeError as error:
        typer.echo(f"saescope: {error.message}", err=True)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the command line's own refusals
            typer.echo(f"saescope: {error.format_message()}", err=True)
            raise SystemExit(error.exit_code) from None
        if os.environ.get("SAESCOPE_DEBUG"):
            raise
        told = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {told[0]}" if told else type(error).__name__
        typer.echo(f"saescope: This should not have happened ({reason}); SAESCOPE_DEBUG=1 shows where.", err=True)
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, ended)
    if status == 130 and sys.argv[1:2] in (["demo"], ["embed"], ["eval"], ["explain"], ["harvest"], ["map"], ["train"]):
        typer.echo("\nStopped. The same command carries on from here.", err=True)
    if isinstance(status, int) and status:
        raise SystemExit(status)


if __name__ == "__main__":
    main()
