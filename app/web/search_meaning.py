"""Search by words, meaning and what subjects list: what is embedded, and by which model, and what is missing."""

import asyncio

from app.embed.embedder import Embedded
from app.errors import ClientBusy, ClientRate, SaescopeError
from app.store import embeddings
from app.store.search import Found, both
from app.store.search_hits import Wanted, get_hits
from app.web import search_build as build
from app.web import search_form as form
from app.web.embedding import embed_few
from app.web.limits import about_tokens, client_of
from app.web.routes import state_of
from app.web.search_contexts import SearchResult
from app.web.search_listed import ask_lists
from app.web.search_modes import Scope

PATIENCE_S = 2.0  # for the model, which may have to be loaded first


async def find_meaning(scope: Scope) -> SearchResult:
    """
    Raises:
        BadRequest: it is too long, or a bound does not fit. ClientBusy, ClientRate.
    """
    asked, kept = form.check_short(scope.query), form.kept(scope.query, scope.saes)
    vector, notes = await _embedded(scope, asked)
    lists = await ask_lists(scope, asked)
    comparable = [one.sae_id for one in scope.told.values() if vector is not None and one.model == vector.model]
    literal = embeddings.literal(vector.vectors[0]) if vector is not None else None
    loose = False
    async with state_of(scope.request).database.connect() as db:
        listed = await lists.best(db, kept)
        found = await both(db, kept, asked, literal, comparable, loose=False, listed=listed)
        if not found.words and not comparable and len(asked.split()) > 1:
            loose = True
            found = await both(db, kept, asked, None, [], loose=True, listed=listed)
        after, top = scope.query.after, scope.query.top
        shown = found.found[after : after + top]
        records = await get_hits(db, [_wanted(one) for one in shown], asked, loose=loose)
    if vector is not None:
        for one in scope.told.values():
            if one.missing and one.model == vector.model:
                state_of(scope.request).later(embed_few(state_of(scope.request), one.sae_id))
    by_id = {sae.id: sae for sae in scope.saes}
    return SearchResult(
        found=found.words,
        more=found.more,
        any_word=loose and bool(found.words),
        by_meaning=bool(comparable),
        exact=found.exact,
        lists=lists.shown,
        notes=notes + lists.notes,
        items=[
            build.by_meaning(by_id[one.key[0]], records[one.key], one, lists.why(one))
            for one in shown
            if one.key in records
        ],
        next=after + top if len(found.found) > after + top else None,
    )


def _wanted(one: Found) -> Wanted:
    return Wanted(one.key, one.by_word is not None, one.word_id, one.meaning_id)


async def _embedded(scope: Scope, asked: str) -> tuple[Embedded | None, list[str]]:
    """The vector of what is asked, where any SAE has vectors to compare with; and what is missing."""
    names = {sae.id: sae.address for sae in scope.saes}
    here = [one for one in scope.told.values() if one.sae_id in names]
    explained = [one for one in here if one.explained]
    if not explained:
        return None, ["No explanation is here yet, so only labels have words; 'saescope explain' makes some."]
    if not any(one.model for one in explained):
        return None, ["Not searched by meaning: nothing is embedded yet. 'saescope embed' embeds the explanations."]
    vector, told = None, None
    try:
        with state_of(scope.request).limits.request(client_of(scope.request)) as spend:
            work = asyncio.ensure_future(state_of(scope.request).engine.embed([asked]))
            vector = await asyncio.wait_for(asyncio.shield(work), PATIENCE_S)
            spend(about_tokens(asked))
    except (ClientBusy, ClientRate):
        raise
    except TimeoutError:
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else hears of it
        told = "Not searched by meaning: the sentence model is being loaded; search again in a moment."
    except SaescopeError as error:
        told = f"Not searched by meaning: {error.message}"
    notes = [told] if told else []
    if vector is not None:
        notes += _apart([names[one.sae_id] for one in explained if one.model is None], "are not embedded")
        others = [names[one.sae_id] for one in explained if one.model not in (None, vector.model)]
        notes += _apart(others, "were embedded by another model, whose vectors cannot be compared")
        missing = any(one.missing and one.model == vector.model for one in explained)
        notes += ["Explanations that are not embedded yet are found by words alone; they are embedded now."] * missing
    return vector, notes


def _apart(names: list[str], why: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    command = f"saescope embed {names[0]}" if len(names) == 1 else "saescope embed"
    return [f"The explanations of {', '.join(names[:3])}{more} {why}, so they are found by words alone; '{command}'."]
