"""Asking a language model behind any OpenAI-compatible endpoint: each request once, paced, retried and kept."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from app.errors import EndpointRefused, EndpointSilent, SaescopeError
from app.explain.capabilities import ANSWERS, Capabilities
from app.explain.failures import Failed, Failure
from app.explain.ledger import Asked, Claim, Ledger
from app.explain.pacing import AT_ONCE, ATTEMPTS, Clock, Pace, asked_wait, jittered
from app.explain.prices import Price, cost
from app.explain.reply import Reply, parsed, read_reply, usage_of

SILENT = 3  # requests in a row without an answer after which an endpoint is given up
TIMEOUT = 120.0
REACHED = 10.0  # seconds for a connection, before anything is asked
_TOO_LONG = ("context_length", "context length", "context size", "context window", "maximum context", "too many tokens",
             "prompt is too long", "exceed_context")  # fmt: skip
_STOPS = {
    401: "does not accept the key; name the variable that holds it with --api-key-env",
    402: "wants to be paid first",
    403: "does not allow this",
    404: "does not know the model or the address",
}


@dataclass(frozen=True)
class Endpoint:
    """``base_url`` ends where /chat/completions begins."""

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return (urlsplit(self.base_url).hostname or "") in ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Ask:
    """What is asked. ``schema``: of the JSON wanted; ``version``: see ``Asked``."""

    messages: list[dict[str, str]]
    version: int
    purpose: str
    max_tokens: int
    latent: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    schema: dict[str, Any] | None = None
    logprobs: bool = False


class _Retry(Exception):
    """An attempt that may be repeated; ``wait``: seconds that the endpoint asks for."""

    def __init__(self, told: str, wait: float | None = None) -> None:
        super().__init__(told)
        self.wait = wait


async def check_reached(endpoint: Endpoint) -> None:
    """Whatever it answers, something listens there. Costs nothing, so that it can be asked before all else.

    Raises:
        EndpointSilent: no connection comes about.
    """
    import httpx2
    import openai
    from openai import AsyncOpenAI

    wait = min(endpoint.timeout, REACHED)
    async with AsyncOpenAI(
        base_url=endpoint.base_url, api_key=endpoint.api_key or "none", max_retries=0, timeout=wait
    ) as client:
        try:
            await client.models.with_raw_response.list()
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                reason = str(error.__cause__).strip() or f"no connection within {wait:g} s"
                raise EndpointSilent(
                    f"{endpoint.base_url} cannot be reached ({reason}); nothing was asked of it.",
                    base_url=endpoint.base_url,
                ) from None
        except openai.OpenAIError:
            pass  # it answers, though not to this


class Client:
    """``capabilities``: what the endpoint is taken to understand, see ``probe``."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        price: Price,
        *,
        sae_id: int | None = None,
        at_once: int = AT_ONCE,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        from openai import AsyncOpenAI

        self.endpoint, self.price, self._ledger, self._sae_id = endpoint, price, ledger, sae_id
        self.capabilities = Capabilities()
        self.clock = clock or Clock()
        self.pace = Pace(at_once, self.clock)
        self.sent = 0  # requests that went over the wire
        self._rng = random.Random(seed)  # of the waits alone
        self._silent = 0
        self._stopped: SaescopeError | None = None
        self._openai = AsyncOpenAI(
            base_url=endpoint.base_url, api_key=endpoint.api_key or "none", max_retries=0, timeout=endpoint.timeout
        )

    async def close(self) -> None:
        await self._openai.close()

    async def probe(self) -> Capabilities:
        """Learn what the endpoint understands, by one small request or, where it refuses something, a few."""
        text = f"Text 0: the cat sat. Is a cat in it? Answer with this JSON and nothing else: {PROBE_ANSWER}"
        ask = Ask([{"role": "user", "content": text}], 1, "probe", 64, schema=ANSWERS, logprobs=True)
        while True:
            try:
                body = await self._body(ask)
            except Failed as failed:
                fewer = self.capabilities.without(failed.told) if failed.kind is Failure.refused else None
                if fewer is None:
                    return self.capabilities
                self.capabilities = fewer
                continue
            try:
                choice = parsed(body)["choices"][0]
                content = str(choice["message"]["content"] or "").lstrip()
                told = bool((choice.get("logprobs") or {}).get("content"))
            except (Failed, KeyError, IndexError, TypeError):
                content, told = "", False
            self.capabilities = self.capabilities.learnt(told, content.startswith("{"))
            return self.capabilities

    async def ask(self, ask: Ask) -> Reply:
        """
        Raises:
            Failed: no answer to this request.
            EndpointRefused, EndpointSilent, BudgetSpent: there is no use in asking more.
        """
        return read_reply(await self._body(ask))

    async def models(self) -> dict[str, Any]:
        """The endpoint's list of models; empty where it has none."""
        import openai

        try:
            raw = await self._openai.models.with_raw_response.list()
            return parsed(raw.http_response.text)
        except (openai.OpenAIError, Failed):
            return {}

    def asked(self, ask: Ask) -> Asked:
        params = self.capabilities.params(
            ask.max_tokens, temperature=ask.temperature, seed=ask.seed, schema=ask.schema, logprobs=ask.logprobs
        )
        where = self.endpoint
        return Asked(
            where.base_url, where.model, params, ask.messages, ask.version, ask.purpose, self._sae_id, ask.latent
        )

    async def _body(self, ask: Ask) -> str:
        asked = self.asked(ask)
        async with self._place(asked) as claim:
            if claim.response is not None:
                return claim.response
            return await self._sent(asked, claim, self.price.worst(asked.messages, asked.params, ask.max_tokens))

    @asynccontextmanager
    async def _place(self, asked: Asked) -> AsyncIterator[Claim]:
        # A place first: a claim holds a connection, of which there are only so many.
        async with self.pace.slot(), self._ledger.claim(asked) as claim:
            yield claim

    async def _sent(self, asked: Asked, claim: Claim, worst: float) -> str:
        told = ""
        for attempt in range(1, ATTEMPTS + 1):
            if self._stopped:
                raise self._stopped
            try:
                body = await self._once(asked, claim, worst)
            except _Retry as again:
                told = str(again)
                if attempt < ATTEMPTS:
                    if again.wait is not None:
                        self.pace.hold(again.wait)
                    await self.clock.sleep(again.wait if again.wait is not None else jittered(attempt, self._rng))
                continue
            except SaescopeError as error:
                self._stopped = self._stopped or error
                raise
            self._silent = 0
            return body
        self._silent += 1
        if self._silent >= SILENT:
            self._stopped = self._stopped or EndpointSilent(
                f"{self.endpoint.base_url} does not answer ({told}); what is done is saved, and the same command goes "
                "on from there.", base_url=self.endpoint.base_url,
            )  # fmt: skip
            raise self._stopped
        raise Failed(Failure.unavailable, told)

    async def _once(self, asked: Asked, claim: Claim, worst: float) -> str:
        import httpx2
        import openai

        attempt = await claim.sending(worst)
        began = time.monotonic()
        self.sent += 1
        try:
            raw = await self._openai.chat.completions.with_raw_response.create(
                model=asked.model,
                messages=asked.messages,  # type: ignore[arg-type]
                **asked.params,
            )
            body, status, headers = raw.http_response.text, 200, raw.headers
        except openai.APIStatusError as error:
            body, status, headers = error.response.text, error.status_code, error.response.headers
        except openai.APIConnectionError as error:
            # A connection that never came about costs nothing; one that broke may have.
            refused = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
            await claim.failed(attempt, "lost", paid=not refused)
            reason = error.__cause__ or error
            raise _Retry(str(reason).strip() or type(reason).__name__) from None
        if status == 200 and (inner := _error_inside(body)):
            status = inner
        if status != 200:
            await claim.failed(attempt, "refused", status=status)
            self._judge(status, body, headers)
        usage = usage_of(body)
        paid, source = cost(usage, self.price, worst)
        await claim.answered(attempt, body, usage, paid, source, time.monotonic() - began)
        self.pace.good()
        return body

    def _judge(self, status: int, body: str, headers: Any) -> None:
        """What a status other than 200 means.

        Raises:
            _Retry, Failed, EndpointRefused.
        """
        code, message = _error_of(body)
        said = f"{code} {message}".lower()
        where = f"{self.endpoint.base_url} ({self.endpoint.model})"
        if status in _STOPS or "insufficient_quota" in said:
            why = "has no quota left" if "insufficient_quota" in said else _STOPS[status]
            raise EndpointRefused(
                f"{where} {why}: {_short(message) or f'HTTP {status}'}. What is done is saved, and the same command "
                "goes on from there.", status=status, base_url=self.endpoint.base_url,
            )  # fmt: skip
        if status in (408, 409, 429) or status >= 500:
            if status in (429, 503):
                self.pace.crowded()
            raise _Retry(f"HTTP {status}", asked_wait(headers))
        if any(sign in said for sign in _TOO_LONG):
            raise Failed(Failure.too_long, _short(message))
        if "content_filter" in said or "content_policy" in said:
            raise Failed(Failure.filtered, _short(message))
        raise Failed(Failure.refused, _short(message) or f"HTTP {status}")


PROBE_ANSWER = '{"answers": [{"i": 0, "active": true}]}'


def _error_of(body: str) -> tuple[str, str]:
    """Code and message of an error, in the forms they come in."""
    try:
        found = parsed(body)
    except Failed:
        return "", body
    error = found.get("error", found)
    if isinstance(error, dict):
        return f"{error.get('code')} {error.get('type')}", str(error.get("message") or error.get("detail") or "")
    return "", str(error)


def _error_inside(body: str) -> int | None:
    """The status of an error that came with status 200, as gateways send it; None where there is none."""
    try:
        found = parsed(body)
    except Failed:
        return None
    error = found.get("error")
    if found.get("choices") or not isinstance(error, dict):
        return None
    code = error.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _short(message: str) -> str:
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= 160 else line[:159] + "…"
