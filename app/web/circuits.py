"""/circuits: heads ranked by a small SAE's codes, beside what ablating them does."""

import asyncio

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app import urls
from app.circuits.record import CircuitRun, get, kept
from app.errors import BadRequest, UnknownCircuit
from app.web.circuit_contexts import CircuitCard, CircuitPage, CircuitsPage, RankedHead
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["site"], responses=refused(BadRequest, UnknownCircuit))
TOP = 20


def level(value: float, most: float) -> str:
    """The class that colours a cell: a tenth of ``most``, of either sign."""
    tenth = round(10 * min(1.0, abs(value) / most)) if most else 0
    return f"{'n' if value < 0 else 'a'}{tenth}" if tenth else ""


def card(run: CircuitRun) -> CircuitCard:
    names = ("name", "task", "subject", "examples", "seed", "accuracy", "auc", "in_circuit")
    return CircuitCard(
        **{name: getattr(run, name) for name in names},
        made=run.made.isoformat(timespec="seconds"),
        heads=sum(len(row) for row in run.unique),
        url=urls.circuit(run.name),
    )


def page_of(run: CircuitRun) -> CircuitPage:
    unique, effect = np.array(run.unique), np.array(run.effect)
    least = run.threshold * abs(run.ablated_difference)
    powers = np.exp(unique.astype(np.float64) - unique.max())
    order = np.lexsort((-np.abs(effect).ravel(), -unique.ravel()))[:TOP]
    top = []
    for layer, head in zip(*np.unravel_index(order, unique.shape), strict=True):
        top.append(
            RankedHead(
                layer=int(layer),
                head=int(head),
                unique=int(unique[layer, head]),
                distinct=run.distinct[layer][head],
                share=float(powers[layer, head] / powers.sum()),
                effect=float(effect[layer, head]),
                in_circuit=bool(abs(effect[layer, head]) > least),
            )
        )
    return CircuitPage(run=run, least=least, top=top)


async def load_circuits(request: Request) -> CircuitsPage:
    runs, bad = await asyncio.to_thread(kept, state_of(request).settings.home)
    return CircuitsPage(items=[card(run) for run in runs], unreadable=bad)


async def load_circuit(request: Request, circuit: str) -> CircuitPage:
    return page_of(await asyncio.to_thread(get, state_of(request).settings.home, circuit))


@router.get("/circuits.json", response_model=CircuitsPage)
async def circuits_json(request: Request) -> Response:
    """Every search for a circuit that is kept here, the newest first."""
    return json_of(await load_circuits(request))


@router.get("/circuits", response_class=HTMLResponse, include_in_schema=False)
async def circuits(request: Request) -> Response:
    return html("circuits.html", request, page=await load_circuits(request))


@router.get("/circuits/{circuit}.json", response_model=CircuitPage)
async def circuit_json(request: Request, circuit: str) -> Response:
    """A search for a circuit: heads by unique codes, what ablating each does, and how well the two agree."""
    return json_of(await load_circuit(request, circuit))


@router.get("/circuits/{circuit}", response_class=HTMLResponse, include_in_schema=False)
async def circuit_page(request: Request, circuit: str) -> Response:
    return html("circuit.html", request, page=await load_circuit(request, circuit), level=level)
