"""Runs of harvests in the terminal: what runs, what became of the others, and stopping one."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from app.web.run_contexts import RunList, RunView

SHOWN = 30


def harvests(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as /harvests.json has it.")] = False,
    forget: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Take this run, which has ended, off the list; may be given several times."),
    ] = None,
    stop: Annotated[int | None, typer.Option(metavar="ID", help="Ask this run to stop.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """List running and past harvests, newest first; --stop ID stops one, --forget ID takes one off the list."""
    from app.store.engine import database_url, explained, sync_engine
    from app.store.migrate import migrate

    url = database_url(load_settings(home=home))
    engine = sync_engine(url)
    migrate(engine)
    engine.dispose()
    with explained():
        if stop is not None:
            state = asyncio.run(ask_stop(url, stop))
            typer.echo(f"Run {stop} {'is stopped' if state == 'stopped' else 'stops after the batch at hand'}.")
            return
        if forget:
            asyncio.run(take_off(url, forget))
            which = "Run" if len(forget) == 1 else "Runs"
            typer.echo(f"{which} {', '.join(map(str, forget))} taken off the list; what was harvested stays.")
            return
        runs = asyncio.run(newest(url))
    if as_json:
        typer.echo(runs.model_dump_json(indent=2))
    elif runs.items:
        show(runs)
    else:
        typer.echo("There has been no harvest yet.")


async def newest(url: "URL") -> "RunList":
    from app.store.engine import async_engine
    from app.store.run_queries import list_runs
    from app.web.run_contexts import RunList, view

    engine = async_engine(url)
    try:
        async with engine.connect() as connection:
            runs, following = await list_runs(connection, cursor=None, limit=SHOWN)
    finally:
        await engine.dispose()
    return RunList(items=[view(run) for run in runs], next=following)


async def ask_stop(url: "URL", run_id: int) -> str:
    from app.store import run_queries
    from app.store.engine import async_engine

    engine = async_engine(url)
    try:
        async with engine.begin() as connection:
            return await run_queries.ask_stop(connection, run_id)
    finally:
        await engine.dispose()


async def take_off(url: "URL", runs: list[int]) -> None:
    """All of them, or none."""
    from app.store import run_queries
    from app.store.engine import async_engine

    engine = async_engine(url)
    try:
        async with engine.begin() as connection:
            for run in dict.fromkeys(runs):
                await run_queries.forget(connection, run)
    finally:
        await engine.dispose()


def show(runs: "RunList") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", justify="right")
    for name in ("SAE", "state", "progress", "tok/s", "FVU", "L0", "when", "revision"):
        right = name in ("progress", "tok/s", "FVU", "L0")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for run in runs.items:
        table.add_row(
            str(run.id),
            "\n".join(sae.sae for sae in run.saes),
            run.state,
            progress(run),
            f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else "",
            "\n".join(f"{sae.fvu:.4f}" for sae in run.saes if sae.fvu is not None),
            "\n".join(f"{sae.l0:.1f}" for sae in run.saes if sae.l0 is not None),
            f"{run.started or run.created:%Y-%m-%d %H:%M}",
            "\n".join(sae.revision for sae in run.saes if sae.revision),
        )
    console = Console()
    console.print(table, markup=False)
    for run in runs.items:
        if run.message:
            typer.echo(f"run {run.id}: {run.message}")


def progress(run: "RunView") -> str:
    if not run.total:
        return f"{run.tokens:,}"
    return f"{run.tokens:,} of {run.total:,} ({run.tokens / run.total:.0%})"
