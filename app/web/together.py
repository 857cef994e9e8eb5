"""Several texts read by the same SAEs: anew, side by side, or as they were kept."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, EmptyText, TextTooLong
from app.live.packed import pack, unpack
from app.live.prompt import PromptRun
from app.store import inspections
from app.store import queries as q
from app.store.inspections import InspectionRecord
from app.web.gone import while_there
from app.web.identity import Entry
from app.web.inspect_build import Read
from app.web.inspection import check_keepable, check_unicode, chosen
from app.web.limits import about_tokens, client_of
from app.web.routes import state_of
from app.web.state import target


class Wanted(NamedTuple):
    """A text, or the run of one that was kept; ``name`` is what refusals call it."""

    name: str
    text: str | None = None
    run: str | None = None


class Source(NamedTuple):
    """A text as it was read; ``kept`` is the run's name where it comes from one."""

    text: str
    chat: bool
    kept: str | None
    run: PromptRun


class Together(NamedTuple):
    """Texts that were read by the same SAEs; ``known`` are all SAEs here."""

    subject: str
    saes: list[Read]
    sources: list[Source]
    known: list[q.SAERecord]


async def read_together(request: Request, wanted: Sequence[Wanted], names: list[str], *, chat: bool) -> Together:
    """The SAEs are those named; where runs are among the texts, of those the runs have in common. New texts go to the
    engine at once, so that they share its batches.

    Raises:
        UnknownInspection, UnknownSAE: a name that is not here.
        BadRequest: the runs have no SAE in common, or none that is still here where a new text is to be read.
        EmptyText, TextTooLong and what else the engine refuses, with the text's name before it.
    """
    state = state_of(request)
    async with state.database.connect() as db:
        known = await q.list_saes(db)
        records = await inspections.get_all(db, list(dict.fromkeys(one.run for one in wanted if one.run)))
        if records:
            saes = await _common(db, list(records.values()), names)
        else:
            saes = [Read(sae.slug, sae.revision, sae, sae.pinned) for sae in await chosen(db, names, known)]
    if any(one.run is None for one in wanted):
        saes = [sae for sae in saes if sae.record is not None]
        if not saes and records:
            raise BadRequest("The SAEs of the kept run are no longer here, so no other text can be read with them.")
    if not saes:
        raise BadRequest("There is no SAE here to read the texts with; harvest one first.")
    runs = await while_there(request, _read_all(request, saes, wanted, records, chat))
    sources = [
        Source(one.text or "", chat, None, run)
        if one.run is None
        else Source(records[one.run].text, records[one.run].chat, one.run, run)
        for one, run in zip(wanted, runs, strict=True)
    ]
    first = saes[0].record
    return Together(next(iter(records.values())).subject if first is None else first.subject, saes, sources, known)


async def _common(db: AsyncConnection, records: list[InspectionRecord], names: list[str]) -> list[Read]:
    read_by = [list(zip(record.slugs, record.revisions, strict=True)) for record in records]
    shared = [pair for pair in read_by[0] if all(pair in others for others in read_by)]
    if not shared:
        raise BadRequest("The kept runs were read with no SAE in common, so there is nothing to compare.")
    asked = [pair for pair in shared if not names or pair[0] in names or "@".join(pair) in names]
    if not asked:
        told = ", ".join("@".join(pair) for pair in shared)
        raise BadRequest(f"The kept runs were not read with {', '.join(names)[:200]}; they have {told}.")
    there = await q.find_revisions(db, asked)
    return [Read(slug, revision, there.get((slug, revision)), True) for slug, revision in asked]


async def _read_all(
    request: Request, saes: list[Read], wanted: Sequence[Wanted], records: dict[str, InspectionRecord], chat: bool
) -> list[PromptRun]:
    state = state_of(request)
    targets = [target(sae.record, state.settings.home) for sae in saes if sae.record is not None]
    texts = {number: which.text or "" for number, which in enumerate(wanted) if which.run is None}
    for number, text in texts.items():
        with _named(wanted[number]):
            check_unicode(text)
    found = {number: state.engine.known(targets, text, chat=chat) for number, text in texts.items()}
    missing = [number for number, run in found.items() if run is None]

    async def one(number: int) -> None:
        with _named(wanted[number]):
            found[number] = await state.engine.read(targets, texts[number], chat=chat)

    if missing:
        with state.limits.request(client_of(request)) as spend:  # together they are one request
            tasks = [asyncio.create_task(one(number)) for number in missing]
            try:
                await asyncio.gather(*tasks)
            except asyncio.CancelledError:  # the client has gone
                spend(sum(about_tokens(texts[number]) for number in missing if found[number] is None))
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                spend(sum(len(run.token_ids) for number in missing if (run := found[number]) is not None))
    runs = []
    for number, which in enumerate(wanted):
        run = found.get(number)
        runs.append(await asyncio.to_thread(unpack, records[which.run].data) if which.run else run)
    return [run for run in runs if run is not None]


@contextmanager
def _named(which: Wanted) -> Iterator[None]:
    """Refusals say which text they mean."""
    try:
        yield
    except (EmptyText, TextTooLong, BadRequest) as error:
        raise type(error)(f"{which.name}: {error.message}", **error.detail) from None


async def keep_all(request: Request, found: Together) -> list[str]:
    """Store what was read of the texts that are not kept yet, all or none; each text's name.

    Raises:
        BadRequest: a text holds a NUL, which the database cannot.
    """
    for one in found.sources:
        check_keepable(one.text)
    data = [await asyncio.to_thread(pack, one.run) if one.kept is None else b"" for one in found.sources]
    saes = [(sae.slug, sae.revision) for sae in found.saes]
    names = []
    async with state_of(request).database.begin() as db:
        for one, packed in zip(found.sources, data, strict=True):
            names.append(
                one.kept
                or await inspections.keep(
                    db, subject=found.subject, text=one.text, chat=one.chat, saes=saes, data=packed
                )
            )
    request.state.audit = Entry("kept prompt runs", " ".join(map(urls.inspect, names)))
    return names


async def kept_records(request: Request, names: list[str]) -> dict[str, InspectionRecord]:
    if not names:
        return {}
    async with state_of(request).database.connect() as db:
        return await inspections.get_all(db, names)
