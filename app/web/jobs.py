"""Jobs other than harvests, started from the page of harvests: explanations, maps, embeddings."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, ExplainLimit, HarvestRunning, LatentOutOfRange, SaescopeError, UnknownSAE
from app.web import job_form, spending
from app.web.api_examples import JOB
from app.web.job_contexts import JobBody, JobForm
from app.web.refusals import refused
from app.web.rendering import render_page
from app.web.routes import json_of, state_of
from app.web.run_contexts import RunView
from app.web.runs import load_page, load_run

router = APIRouter(tags=["harvests"], responses=refused(BadRequest, UnknownSAE))


async def start(request: Request, form: JobForm) -> int:
    """
    Raises:
        BadRequest, UnknownSAE, LatentOutOfRange: what is wanted does not fit.
        ExplainLimit: it may cost more than is left of a day's limit.
        HarvestRunning: the same kind of job waits already for this SAE.
    """
    state = state_of(request)
    async with state.database.connect() as db:
        job = await job_form.checked(db, form, state.settings)
    bound = partial(spending.within_day, settings=state.settings, wanted=job.command.get("max_usd"))
    return await state.jobs.start(job.slugs, job.command, kind=job.kind, bound=bound)


@router.get("/jobs", include_in_schema=False)
async def jobs() -> Response:
    return RedirectResponse(urls.harvests(), status_code=308)


@router.post("/jobs", response_class=HTMLResponse, include_in_schema=False)
async def start_job(request: Request) -> Response:
    form = await job_form.read_form(request)
    try:
        run = await start(request, form)
    except SaescopeError as error:
        if error.status >= 500:
            raise
        page = await load_page(request, None)
        page.jobs.form, page.jobs.error = form, error.message
        text = render_page("harvests.html", page=page, runs=page.runs, cursor=None)
        return HTMLResponse(text, status_code=error.status)
    return RedirectResponse(urls.harvest_run(run), status_code=303)


@router.post(
    "/api/jobs",
    response_model=RunView,
    responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, HarvestRunning, ExplainLimit),
)
async def api_start(request: Request, body: Annotated[JobBody, Body(openapi_examples=JOB)]) -> Response:
    """Start explaining, mapping or embedding an SAE; it waits in the queue until the worker comes to it."""
    given = {name: "" if value is None else str(value) for name, value in body.model_dump().items()}
    return json_of(await load_run(request, await start(request, JobForm(**given))))
