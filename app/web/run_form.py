"""The form that starts a harvest: what there is to choose from, and what a filled-in one means."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from app.corpus.sources import PACKAGED, documents
from app.errors import BadRequest, TextTooLong
from app.harvest.names import Known, Named, check_slug, imported
from app.paths import expanded
from app.store.overviews import RevisionRecord
from app.web.run_contexts import Choice, Going, StartForm

LONGEST = 64 * 1024
SMALLEST = 16  # tokens of a sequence, and so of a corpus
_READ_AT_ONCE = ("text", "jsonl", "parquet")  # corpora on this machine's disk


async def known(connection: AsyncConnection, home: Path) -> Known:
    """What can be named in the form."""
    return await connection.run_sync(Known.read, home, await asyncio.to_thread(imported, home))


def sae_choices(there: Known) -> list[Choice]:
    return [Choice(value=slug, text=slug) for slug in there.slugs]


def subject_choices(there: Known) -> list[Choice]:
    return [Choice(value=name, text=f"{name} ({folder})") for name, folder in there.subjects.items()]


def corpora() -> list[str]:
    return [f"pkg:{name}" for name in PACKAGED]


async def read_form(request: Request) -> StartForm:
    """The fields of a posted form; those it lacks are empty."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise TextTooLong(f"The form is longer than {LONGEST // 1024} KiB.")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        raise BadRequest("The request's body is no filled-in form.") from None
    return StartForm(**{name: fields.get(name, "").strip() for name in StartForm.model_fields})


async def checked(form: StartForm, there: Known, home: Path) -> tuple[str, dict[str, Any]]:
    """The SAE's slug and the options of the harvest, paths made absolute.

    Raises:
        BadRequest, InvalidSAE, CorpusUnavailable: the first thing that does not fit, in the order of the form.
    """
    for text in form.model_dump(exclude_none=True).values():
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise BadRequest(f"{text[:40]!r} holds a character that no name and no path can hold.")
    return await asyncio.to_thread(_checked, form, there, home)


class Unconfirmed(Exception):
    """A form that would drop revisions; ``form`` is the same, agreeing to ``going``."""

    def __init__(self, form: StartForm, going: list[Going]) -> None:
        self.form, self.going = form, going


def confirm(form: StartForm, slug: str, revisions: list[RevisionRecord]) -> None:
    """
    Raises:
        Unconfirmed: the form replaces revisions other than those it was shown to.
    """
    going = [
        Going(address=f"{slug}@{one.revision}", corpus=one.corpus, finished=f"{one.finished:%Y-%m-%d}")
        for one in revisions
    ]
    shown = " ".join(one.address for one in going)
    if shown != form.replacing:
        raise Unconfirmed(form.model_copy(update={"replacing": shown}), going)


def _checked(form: StartForm, there: Known, home: Path) -> tuple[str, dict[str, Any]]:
    try:
        sae = form.sae_path or form.sae
        if not sae:
            raise BadRequest("Choose an SAE, or write the folder it is in.", field="sae")
        named = there.sae(sae)
        if not (form.slug or named.slug):
            raise BadRequest(f"Give the SAE in {sae} a name; its pages will be at /saes/NAME.", field="slug")
        slug = check_slug(form.slug or named.slug or "")
        command = {
            "sae": _absolute(named.folder),
            "model": _absolute(_model(form, there, named)),
            "corpus": _corpus(form.corpus, home),
            "tokens": _number("Tokens", form.tokens) if form.tokens else None,
            "context": _number("Context", form.context or "128"),
            "slug": slug,
            **{name: True for name in ("pack", "chat", "replace") if getattr(form, name)},
        }
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, "~nobody", ...
        told = getattr(error, "strerror", None) or error
        raise BadRequest(f"A path in the form cannot be looked up: {told}.") from None
    return slug, {name: value for name, value in command.items() if value is not None}


def _absolute(path: Path) -> str:
    return str(expanded(str(path)).absolute())


def _model(form: StartForm, there: Known, sae: Named) -> Path:
    folder = there.model(form.model_path or form.model, [sae.model])
    if not (folder / "config.json").is_file():
        raise BadRequest(f"No model at {folder}: config.json is missing; give a Hugging Face folder.", field="model")
    return folder


def _corpus(spec: str, home: Path) -> str:
    """The spec with an absolute path; what lies on this machine's disk is opened, to see that it is there."""
    kind, _, where = spec.partition(":")
    found = documents(spec, home / "packages")
    if kind not in _READ_AT_ONCE:
        return spec
    next(found, None)
    return f"{kind}:{_absolute(Path(where))}"


def _number(name: str, text: str) -> int:
    digits = re.sub(r"[ ,_]", "", text)
    if not re.fullmatch(r"[0-9]{1,15}", digits):
        raise BadRequest(f"{name} is {text[:40]!r}, which is no whole number.", field=name.lower())
    if int(digits) < SMALLEST:
        raise BadRequest(f"{name} is {int(digits)}; it is at least {SMALLEST}.", field=name.lower())
    return int(digits)
