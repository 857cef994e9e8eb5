"""A server that plays an OpenAI-compatible endpoint, with every fault of one."""

import asyncio
import json
import re
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.explain.budget import Budget
from app.explain.client import Client
from app.explain.client import Endpoint as Where
from app.explain.ledger import Ledger, spent
from app.explain.pacing import AT_ONCE, Clock
from app.explain.prices import Price
from app.store.engine import async_engine, database_url
from tests.serving import serving

PRICE = Price(1.0, 2.0, "given")

TEXT = re.compile(r"^\[text (\d+)\] (.*) \[/text\](?: (\d+))?$", re.MULTILINE)
DESCRIPTION = re.compile(r"^Description: (.*)$", re.MULTILINE)


class Endpoint:
    """``reply``: (body of the request) -> content of the answer. ``fault``: (number of the request, body) -> a fault or
    None; a fault is a status, (status, headers, body), "timeout", "cut" (the connection breaks in the answer) or a
    whole answer, as a dict or a string. ``lacks``: parameters that are refused with 400; ``context``: characters that
    are too many. Every request that got status 200 is in ``paid``."""

    def __init__(self, reply=None, fault=None, lacks=(), usage=True, context=None, seconds=0):
        self.reply, self.fault, self.lacks, self.usage, self.context = reply or oracle(), fault, lacks, usage, context
        self.seconds = seconds  # until an answer
        self.requests, self.paid, self.keys = [], [], []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self.gate = None  # an Event that answers wait for
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._answer, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )
        self.models = None

    @property
    def times(self):
        """How often each request was paid for."""
        return Counter(json.dumps(body, sort_keys=True) for body in self.paid)

    def prompts(self, purpose=None):
        """The text of every request that is not the probe."""
        return [
            "\n".join(message["content"] for message in body["messages"])
            for body in self.requests
            if len(body["messages"]) > 1
        ]

    async def _models(self, request: Request) -> Response:
        return JSONResponse(self.models) if self.models else Response(status_code=404)

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.keys.append(request.headers.get("authorization"))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._of(number, body, request)
        finally:
            with self._lock:
                self._at_once -= 1

    async def _of(self, number, body, request):
        await asyncio.sleep(self.seconds)
        for name in self.lacks:
            if name in json.dumps(body):
                return error(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        prompt = "\n".join(message["content"] for message in body["messages"])
        if self.context is not None and len(prompt) > self.context:
            return error(
                400, f"This model's maximum context length is {self.context} tokens.", "context_length_exceeded"
            )
        fault = self.fault(number, body) if self.fault else None
        if isinstance(fault, int):
            return error(fault, "a fault")
        if isinstance(fault, tuple):
            status, headers, said = fault
            return Response(said, status_code=status, headers=headers, media_type="application/json")
        if fault == "timeout":
            for _ in range(3_000):
                if await request.is_disconnected():
                    break
                await asyncio.sleep(0.02)
            return error(500, "late")
        if fault == "cut":

            async def half():
                yield b'{"choices": [{"message": {"content": "'
                raise ConnectionResetError

            return StreamingResponse(half(), headers={"content-length": "1000"}, media_type="application/json")
        if isinstance(fault, str):
            self.paid.append(body)
            return Response(fault, media_type="application/json")
        if self.gate is not None:
            while not self.gate.is_set():
                await asyncio.sleep(0.005)
        answer = fault or completion(self.reply(body), body)
        if self.usage and "usage" not in answer:
            answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
        self.paid.append(body)
        return JSONResponse(answer)


def error(status, message, code=None):
    return JSONResponse({"error": {"message": message, "code": code, "type": "error"}}, status_code=status)


def completion(content, body, finish="stop"):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [spelt(token) for token in re.findall(r"\w+|\W", content)]}
    return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}


def spelt(token):
    """A token with alternatives: true and false are nine to one."""
    other = {"true": "false", "false": "true"}.get(token)
    likely = [{"token": token, "logprob": -0.105, "bytes": None}]
    if other:
        likely.append({"token": other, "logprob": -2.303, "bytes": None})
    return {"token": token, "logprob": -0.105, "bytes": None, "top_logprobs": likely}


def asked(body):
    """(system text, description, texts of the prompt)."""
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    found = DESCRIPTION.search(user)
    return system, found[1] if found else None, [text for _, text, _ in TEXT.findall(user)]


def verdicts(said):
    return json.dumps({"answers": [{"i": i, "active": bool(one)} for i, one in enumerate(said)]})


def oracle(explanation="cats", says=None):
    """Explains everything as ``explanation``; says of a text whatever ``says(description, text)`` does, by default
    whether the description's first word is in it."""
    says = says or (lambda description, text: description.split()[0].lower() in text.lower())

    def reply(body):
        system, description, texts = asked(body)
        if body["messages"][0]["role"] == "user":  # the probe
            return '{"answers": [{"i": 0, "active": true}]}'
        if description is None:
            return (
                json.dumps({"explanation": explanation})
                if "JSON alone" in system
                else f"Hm. EXPLANATION: {explanation}"
            )
        if '"value"' in system:
            lines = body["messages"][-1]["content"].partition("[text]\n")[2].splitlines()[:-1]
            values = [10 if description.split()[0].lower() in line.lower() else 0 for line in lines]
            return json.dumps({"answers": [{"i": i, "value": value} for i, value in enumerate(values)]})
        return verdicts(says(description, text) for text in texts)

    return reply


class Quick(Clock):
    """Sleeps pass at once and are written down."""

    def __init__(self):
        self.slept, self.time = [], 0.0

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@contextmanager
def clients(settings):
    """call(endpoint, work, ...): what ``work(client)`` returns; an endpoint keeps its address."""
    with ExitStack() as stack:
        served = {}

        def call(endpoint, work, *, most=None, price=PRICE, job="job", timeout=60.0, clock=None, key=None, **given):
            async def inner(url):
                engine = async_engine(database_url(settings), holding=given.get("at_once", AT_ONCE))
                clock_ = clock or Quick()
                ledger = Ledger(engine, job, Budget(most, await spent(engine, job)), clock_)
                client = Client(Where(f"{url}/v1", "m", key, timeout), ledger, price, clock=clock_, seed=0, **given)
                try:
                    return await work(client)
                finally:
                    await client.close()
                    await engine.dispose()

            if endpoint not in served:
                served[endpoint] = stack.enter_context(serving(endpoint.app))
            return asyncio.run(inner(served[endpoint]))

        yield call
