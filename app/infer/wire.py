"""How the site and its inference services talk: JSON, and a prompt's arrays as npz. Never pickle.

POST /read takes a ``ReadAsk``; the answer is one line of JSON, then app.live.packed. POST /run takes a ``RunAsk``; the
answer is a line of JSON for each step, ``{"answer": ...}``, then ``{"done": true}`` or ``{"error": ...}``. POST /embed
takes an ``EmbedAsk``; the answer is the model's name and the vectors, fp32 in base64.
"""

import base64
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from app.embed.embedder import Embedded
from app.errors import BadRequest, SaescopeError
from app.live.jobs import (
    AttributeAnswer,
    AttributeJob,
    EffectAnswer,
    EffectJob,
    GenerateJob,
    HeadsAnswer,
    HeadsJob,
    Job,
    ListAnswer,
    ListJob,
    Step,
)
from app.live.packed import pack, unpack
from app.live.prompt import PromptRun, Target

T = TypeVar("T")
OCTETS, LINES = "application/octet-stream", "application/x-ndjson"


@dataclass(frozen=True)
class Place:
    """A target as it travels: its paths relative to the home where they lie in it."""

    revision: str
    subject: str
    subject_path: str
    sae_path: str
    subject_sha256: str | None
    sae_sha256: str | None


@dataclass(frozen=True)
class ReadAsk:
    targets: Annotated[list[Place], Field(min_length=1, max_length=64)]
    text: str
    chat: bool
    predict: bool


@dataclass(frozen=True)
class RunAsk:
    targets: Annotated[list[Place], Field(min_length=1, max_length=64)]
    job: Annotated[GenerateJob | EffectJob | AttributeJob | HeadsJob | ListJob, Field(discriminator="job")]


@dataclass(frozen=True)
class EmbedAsk:
    texts: Annotated[list[str], Field(min_length=1)]


_ASKS: dict[type[Any], TypeAdapter[Any]] = {ask: TypeAdapter(ask) for ask in (ReadAsk, RunAsk, EmbedAsk)}
_ANSWERS: dict[type[Any], TypeAdapter[Any]] = {
    job: TypeAdapter(answer)
    for job, answer in (
        (GenerateJob, Step),
        (EffectJob, EffectAnswer),
        (AttributeJob, AttributeAnswer),
        (HeadsJob, HeadsAnswer),
        (ListJob, ListAnswer),
    )
}


def place(target: Target, home: Path) -> Place:
    def inside(path: Path) -> str:
        return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)

    return Place(
        target.revision, target.subject, inside(target.subject_path), inside(target.sae_path), target.subject_sha256,
        target.sae_sha256,
    )  # fmt: skip


def written(ask: ReadAsk | RunAsk | EmbedAsk) -> bytes:
    return json.dumps(asdict(ask), default=sorted).encode()  # of an edit's positions, which are a set


def asked(kind: type[T], body: bytes) -> T:
    """
    Raises:
        BadRequest: it is nothing of that kind, and where not.
    """
    try:
        ask: T = _ASKS[kind].validate_json(body)
        return ask
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BadRequest(f"{where} does not fit: {first['msg'].lower()}.", field=where) from None


def run_written(run: PromptRun) -> bytes:
    return json.dumps({"seconds": run.seconds, "batch": run.batch}).encode() + b"\n" + pack(run, compressed=False)


def run_read(body: bytes) -> PromptRun:
    """
    Raises:
        ValueError, KeyError: it is none.
    """
    head, _, data = body.partition(b"\n")
    told = json.loads(head)
    return replace(unpack(data), seconds=float(told["seconds"]), batch=int(told["batch"]))


def answer_line(answer: Any) -> bytes:
    return json.dumps({"answer": asdict(answer)}).encode() + b"\n"


def answer_read(job: Job[T], told: Any) -> T:
    answer: T = _ANSWERS[type(job)].validate_python(told)
    return answer


def embedded_json(found: Embedded) -> dict[str, Any]:
    data = base64.b64encode(found.vectors.astype("<f4").tobytes()).decode()
    return {"model": found.model, "shape": list(found.vectors.shape), "vectors": data}


def embedded_read(told: dict[str, Any]) -> Embedded:
    """
    Raises:
        KeyError, ValueError, TypeError: it is none.
    """
    data = np.frombuffer(base64.b64decode(told["vectors"]), "<f4")
    return Embedded(str(told["model"]), data.reshape(told["shape"]).astype(np.float32))


def error_json(error: SaescopeError) -> dict[str, Any]:
    return {**error.as_json(), "status": error.status}


def error_line(error: SaescopeError) -> bytes:
    return json.dumps({"error": error_json(error)}).encode() + b"\n"


def error_read(told: dict[str, Any]) -> SaescopeError:
    """The error as it was raised: its own type, code, status, message and detail.

    Raises:
        KeyError, TypeError: it is none.
    """
    kinds = {kind.code: kind for kind in _kinds(SaescopeError)}
    error = kinds.get(told["code"], SaescopeError)(str(told["message"]))
    error.message, error.detail = str(told["message"]), dict(told["detail"])
    error.code, error.status = str(told["code"]), int(told["status"])
    return error


def _kinds(kind: type[SaescopeError]) -> list[type[SaescopeError]]:
    return [kind, *(below for sub in kind.__subclasses__() for below in _kinds(sub))]
