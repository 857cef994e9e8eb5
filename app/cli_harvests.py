"""Runs of harvests and other jobs in the terminal: what runs, what became of the others, and stopping one."""

import asyncio
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from app.web.run_contexts import RunList, RunView


def harvests(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as /harvests.json has it.")] = False,
    forget: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Take this run, which has ended, off the list; may be given several times."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    stop: Annotated[int | None, typer.Option(metavar="ID", help="Ask this run to stop.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """List running and past harvests and other jobs, newest first; --stop ID stops one, --forget ID forgets one."""
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
        runs = asyncio.run(newest(url, limit))
    if as_json:
        typer.echo(runs.model_dump_json(indent=2))
    elif runs.items:
        show(runs, shutil.get_terminal_size().columns)
    else:
        typer.echo("There has been no harvest yet.")


async def newest(url: "URL", limit: int) -> "RunList":
    from app.store.engine import async_engine
    from app.store.run_queries import list_runs
    from app.web.run_contexts import RunList, view

    engine = async_engine(url)
    try:
        async with engine.connect() as connection:
            runs, following = await list_runs(connection, cursor=None, limit=limit)
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


Row = dict[str, str]
COLUMNS = ("run", "SAE", "corpus", "state", "tokens", "tok/s", "FVU", "L0", "started", "revision")
RIGHT = ("run", "tokens", "tok/s", "FVU", "L0")
DROPPED = ("revision", "tok/s", "L0")  # in this order, where the terminal is too narrow
GAP, LEAST, LONGEST = 2, 12, 40


def show(runs: "RunList", width: int) -> None:
    """A table of at most ``width`` columns: some are left out, names are shortened in the middle, nothing is wrapped
    but what a run has to say, which stands below it."""
    table = [(run, rows(run)) for run in runs.items]
    every = [row for _, some in table for row in some]
    shown = list(COLUMNS)
    for name in DROPPED:
        if _whole(wide := _widths(every, shown)) > width:
            shown.remove(name)
    if _whole(_widths(every, shown)) > width:
        for row in every:
            row["started"] = row["started"][len("2026-") :]
    wide = _widths(every, shown)
    for name in ("corpus", "SAE"):
        wide[name] = max(min(LEAST, wide[name]), wide[name] - max(0, _whole(wide) - width))
    typer.echo(_line(dict(zip(shown, shown, strict=True)), wide))
    for run, some in table:
        for row in some:
            typer.echo(_line(row, wide))
        for said in remarks(run):
            typer.echo(_wrapped(said, width, " " * (wide["run"] + GAP)))
    if runs.next:
        typer.echo(f"These are the newest {len(runs.items)}; --limit N shows more.")


def rows(run: "RunView") -> list[Row]:
    """A line for each SAE; what is the run's own stands in the first."""
    own = {
        "run": str(run.id),
        "corpus": shortened((run.corpus or "") if run.kind == "harvest" else run.called, LONGEST),
        "state": run.state,
        "tokens": progress(run),
        "tok/s": f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else "",
        "started": f"{run.started or run.created:%Y-%m-%d %H:%M}",
    }
    return [
        {
            **(dict.fromkeys(COLUMNS, "") if number else own),
            "SAE": sae.sae,
            "FVU": "" if sae.fvu is None else f"{sae.fvu:.3g}",
            "L0": "" if sae.l0 is None else f"{sae.l0:.3g}",
            "revision": " ".join(filter(None, (sae.revision, f"({sae.gone})" if sae.gone else None))),
        }
        for number, sae in enumerate(run.saes)
    ]


def progress(run: "RunView") -> str:
    """Of one that has not ended how far it is, else the tokens it counted."""
    if run.already or run.kind != "harvest":
        return f"{run.part / run.whole:.0%}" if run.part and run.whole else ""
    if run.refresh and run.total:
        return f"{run.tokens / run.total:.0%}"
    return f"{run.tokens:,}" if run.tokens < 10_000_000 else f"{run.tokens / 1e6:,.0f}M"


def remarks(run: "RunView") -> list[str]:
    """What a run has to say besides its numbers."""
    skipped = "1 document was" if run.skipped == 1 else f"{run.skipped:,} documents were"
    gone = [f"{sae.sae}@{sae.revision} was {sae.gone}." for sae in run.saes if sae.gone]
    told = [run.stage and f"{run.stage} ...", run.message, f"{skipped} skipped." if run.skipped else None, *gone]
    return [one for one in told if one]


def shortened(text: str, width: int) -> str:
    """At most ``width`` characters, the middle left out."""
    if len(text) <= width:
        return text
    begin = width // 2
    return f"{text[:begin]}…{text[len(text) - (width - begin - 1) :]}"


def _widths(table: list[Row], shown: list[str]) -> dict[str, int]:
    return {name: max(len(name), *(len(row[name]) for row in table)) for name in shown}


def _whole(wide: dict[str, int]) -> int:
    return sum(wide.values()) + GAP * (len(wide) - 1)


def _line(row: Row, wide: dict[str, int]) -> str:
    cells = (f"{shortened(row[name], n):{'>' if name in RIGHT else '<'}{n}}" for name, n in wide.items())
    return (" " * GAP).join(cells).rstrip()


def _wrapped(text: str, width: int, indent: str) -> str:
    """Lines broken between words; a word that is longer than a line is shortened."""
    words = (shortened(word, width - len(indent)) for word in text.split())
    return textwrap.fill(
        " ".join(words), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
