"""Training runs: the page that lists them, a run's own page, and their twins. All of it is read from the home's files;
runs are started on the command line."""

import asyncio
import re

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.errors import BadRequest, UnknownRun
from app.web import training_contexts as c
from app.web.curves import curves
from app.web.refusals import refused
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of
from app.web.runs import fragment

router = APIRouter(tags=["training"], responses=refused(UnknownRun, BadRequest))


async def load_runs(request: Request) -> c.TrainingPage:
    return await asyncio.to_thread(c.runs, state_of(request).settings.home)


async def load_run(request: Request, name: str) -> c.TrainingRunPage:
    found = None
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,240}", name):
        found = await asyncio.to_thread(c.run_page, state_of(request).settings.home, name)
    if found is None:
        raise UnknownRun(f"There is no training run {name[:80]!r}; /training lists those there are.", run=name[:80])
    return found


@router.get("/training.json", response_model=c.TrainingPage)
async def training_json(request: Request) -> Response:
    """Training runs of this home, the last started first."""
    return json_of(await load_runs(request))


@router.get("/training", response_class=HTMLResponse, include_in_schema=False)
async def training(request: Request) -> Response:
    page = await load_runs(request)
    if fragment(request):
        return HTMLResponse(render_block("training.html", "runs", page=page))
    return html("training.html", request, page=page)


@router.get("/training/{run}.json", response_model=c.TrainingRunPage)
async def run_json(request: Request, run: str) -> Response:
    """One training run, with its log."""
    return json_of(await load_run(request, run))


@router.get("/training/{run}", response_class=HTMLResponse, include_in_schema=False)
async def run_page(request: Request, run: str) -> Response:
    page = await load_run(request, run)
    drawn = curves(page.lines, page.run.steps)
    if fragment(request):
        return HTMLResponse(render_block("training_run.html", "run", page=page, drawn=drawn))
    return html("training_run.html", request, page=page, drawn=drawn)
