"""Harvests and other jobs: the page that lists and starts them, a run's own page, and their twins."""

import re
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import (
    BadRequest,
    BodyTooLong,
    CorpusUnavailable,
    HarvestRunning,
    InvalidSAE,
    RunEnded,
    RunOpen,
    SaescopeError,
    UnknownRun,
    UnknownSAE,
)
from app.store import run_queries as q
from app.store.overviews import list_revisions
from app.store.queries import list_saes
from app.web import run_form
from app.web.api_examples import HARVEST
from app.web.job_contexts import JobForm, JobsForm
from app.web.refusals import refused
from app.web.rendering import render_block, render_page
from app.web.routes import html, json_of, state_of
from app.web.run_contexts import Going, HarvestsPage, RunList, RunPage, RunView, StartBody, StartForm, view
from app.web.spending import local, model_of

router = APIRouter(tags=["harvests"], responses=refused(BadRequest, UnknownRun))
PAGE = 30


def number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UnknownRun(f"{text[:40]!r} is no run's number.", run=text[:40])
    return int(text)


def fragment(request: Request) -> bool:
    return bool(request.headers.get("hx-request")) and not request.headers.get("hx-history-restore-request")


async def load_runs(request: Request, cursor: str | None) -> RunList:
    async with state_of(request).database.connect() as db:
        runs, following = await q.list_runs(db, cursor=cursor, limit=PAGE)
    return RunList(items=[view(run) for run in runs], next=following)


async def load_run(request: Request, run: int) -> RunView:
    async with state_of(request).database.connect() as db:
        return view(await q.get_run(db, run))


async def load_page(
    request: Request,
    cursor: str | None,
    form: StartForm | None = None,
    error: str | None = None,
    going: list[Going] | None = None,
) -> HarvestsPage:
    state = state_of(request)
    async with state.database.connect() as db:
        there = await run_form.known(db, state.settings.home)
        saes = [sae.slug for sae in await list_saes(db)]
    model = model_of(state.settings)
    jobs = JobsForm(saes=saes, model=model, local=bool(model) and local(state.settings), form=JobForm())
    first = StartForm(sae=next(iter(there.slugs), ""), model=next(iter(there.subjects), ""))
    return HarvestsPage(
        runs=await load_runs(request, cursor),
        cursor=cursor,
        saes=run_form.sae_choices(there),
        subjects=run_form.subject_choices(there),
        corpora=run_form.corpora(),
        form=form or first,
        error=error,
        going=going or [],
        worker=state.settings.worker,
        jobs=jobs,
    )


async def start(request: Request, form: StartForm) -> int:
    """
    Raises:
        Unconfirmed: it would drop revisions, and the form does not agree to just these.
    """
    state = state_of(request)
    async with state.database.connect() as db:
        there = await run_form.known(db, state.settings.home)
    slug, command = await run_form.checked(form, there, state.settings.home)
    if form.replace and form.replacing is not None:
        async with state.database.connect() as db:
            run_form.confirm(form, slug, await list_revisions(db, slug))
    return await state.jobs.start([slug], command)


async def stop(request: Request, run: int) -> None:
    async with state_of(request).database.begin() as db:
        await q.ask_stop(db, run)


@router.get("/harvests.json", response_model=RunList)
async def harvests_json(request: Request, cursor: str | None = None) -> Response:
    """Runs of every kind of job, newest first: running, waiting and past."""
    return json_of(await load_runs(request, cursor))


@router.get("/harvests", response_class=HTMLResponse, include_in_schema=False)
async def harvests(request: Request, cursor: str | None = None) -> Response:
    if fragment(request):
        runs = await load_runs(request, cursor)
        return HTMLResponse(render_block("harvests.html", "runs", runs=runs, cursor=cursor))
    page = await load_page(request, cursor)
    return html("harvests.html", request, page=page, runs=page.runs, cursor=cursor)


@router.post("/harvests", response_class=HTMLResponse, include_in_schema=False)
async def start_harvest(request: Request) -> Response:
    form = await run_form.read_form(request)
    try:
        run = await start(request, form)
    except run_form.Unconfirmed as asked:
        page = await load_page(request, None, asked.form, going=asked.going)
        return HTMLResponse(render_page("harvests.html", page=page, runs=page.runs, cursor=None))
    except SaescopeError as error:
        if error.status >= 500:
            raise
        page = await load_page(request, None, form, error.message)
        text = render_page("harvests.html", page=page, runs=page.runs, cursor=None)
        return HTMLResponse(text, status_code=error.status)
    return RedirectResponse(urls.harvest_run(run), status_code=303)


@router.get("/harvests/{run}.json", response_model=RunView)
async def run_json(request: Request, run: str) -> Response:
    """One run, with its progress or what became of it."""
    return json_of(await load_run(request, number(run)))


@router.get("/harvests/{run}", response_class=HTMLResponse, include_in_schema=False)
async def run_page(request: Request, run: str) -> Response:
    page = RunPage(run=await load_run(request, number(run)))
    if fragment(request):
        return HTMLResponse(render_block("harvest_run.html", "run", page=page))
    return html("harvest_run.html", request, page=page)


@router.post("/harvests/{run}/stop", include_in_schema=False)
async def stop_harvest(request: Request, run: str) -> Response:
    await stop(request, number(run))
    return RedirectResponse(urls.harvest_run(number(run)), status_code=303)


@router.post("/harvests/{run}/resume", include_in_schema=False)
async def resume_harvest(request: Request, run: str) -> Response:
    new = await state_of(request).jobs.resume(number(run))
    return RedirectResponse(urls.harvest_run(new), status_code=303)


@router.post("/harvests/{run}/forget", include_in_schema=False)
async def forget_harvest(request: Request, run: str) -> Response:
    async with state_of(request).database.begin() as db:
        await q.forget(db, number(run))
    return RedirectResponse(urls.harvests(), status_code=303)


@router.post(
    "/api/harvests",
    response_model=RunView,
    responses=refused(BadRequest, UnknownSAE, InvalidSAE, CorpusUnavailable, BodyTooLong, HarvestRunning),
)
async def api_start(request: Request, body: Annotated[StartBody, Body(openapi_examples=HARVEST)]) -> Response:
    """Start a harvest; it waits in the queue until the worker comes to it."""
    given = {name: "" if value is None or value is False else str(value) for name, value in body.model_dump().items()}
    return json_of(await load_run(request, await start(request, StartForm(**given, replacing=None))))


@router.post("/api/harvests/{run}/stop", response_model=RunView, responses=refused(UnknownRun, RunEnded))
async def api_stop(request: Request, run: str) -> Response:
    """Ask a run to stop, a harvest after the batch at hand; what it has done is kept."""
    await stop(request, number(run))
    return json_of(await load_run(request, number(run)))


@router.post(
    "/api/harvests/{run}/resume", response_model=RunView, responses=refused(UnknownRun, RunEnded, HarvestRunning)
)
async def api_resume(request: Request, run: str) -> Response:
    """Start a stopped, failed or lost run once more, as a new one; it carries on from what was kept."""
    return json_of(await load_run(request, await state_of(request).jobs.resume(number(run))))


@router.post("/api/harvests/{run}/forget", response_model=RunView, responses=refused(UnknownRun, RunOpen))
async def api_forget(request: Request, run: str) -> Response:
    """Take a run that has ended off the list, and show it a last time; what it made stays."""
    async with state_of(request).database.begin() as db:
        last = view(await q.get_run(db, number(run)))
        await q.forget(db, number(run))
    return json_of(last)
