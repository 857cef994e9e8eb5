"""Search by what subjects would list for a query: whether they are asked, what they answer, and why they did not."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import SaescopeError
from app.live.jobs import ListAnswer, Listed, ListJob
from app.live.listed_scores import Scored, on_list, scored
from app.store.queries import SAERecord
from app.store.search import DEPTH, Found, Kept, Key
from app.store.search_hits import kept_latents
from app.store.token_shares import TokenShares
from app.web.intervention import first_of
from app.web.routes import state_of
from app.web.search_contexts import SubjectList
from app.web.search_modes import Scope, by_subject
from app.web.state import target

PATIENCE_S = 3.0
LARGEST = 262_144  # latents that are all scored
SUBJECTS = 2  # that are asked
FIRST = 12  # words of a list that are shown
_EXACT = re.compile(r'"|(?:^|\s)-\S')  # whoever writes so wants these very words


@dataclass
class Lists:
    """By SAE's id its token shares and its subject's list, and all that these find."""

    shown: list[SubjectList] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: dict[int, tuple[TokenShares, list[Listed]]] = field(default_factory=dict)
    found: Scored | None = None

    async def best(self, connection: AsyncConnection, kept: Kept) -> list[Key]:
        """The first of what the filters keep."""
        found = self.found
        if found is None:
            return []
        if kept:
            found = await asyncio.to_thread(found.within, await kept_latents(connection, kept))
        return found.keys(DEPTH)

    def why(self, one: Found) -> list[tuple[str, float]]:
        """The words by which it was found, with the shares of its firings."""
        if one.by_list is None:
            return []
        shares, listed = self.parts[one.key[0]]
        return on_list(shares, one.key[1], listed)


async def ask_lists(scope: Scope, asked: str) -> Lists:
    """Nothing that keeps a subject from listing is an error: the answer says what it was."""
    query, out = " ".join(asked.split()), Lists()
    if _EXACT.search(query):
        return out
    if sum(sae.n_latents for sae in scope.saes) > LARGEST:
        told = f"More than {LARGEST:,} features are searched, which are not compared with what their model lists"
        out.notes.append(f"{told}; choose an SAE.")
        return out
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    shares = await _shares(scope, out, deadline)
    groups = by_subject([sae for sae in scope.saes if sae.id in shares])
    for some in groups[:SUBJECTS]:
        if (answer := await _answer(scope, some, query, out, deadline)) is not None:
            first = sorted(answer.items, key=lambda one: -one.probability * one.weight)[:FIRST]
            out.shown.append(SubjectList(subject=some[0].subject, words=[one.text for one in first]))
            out.parts |= {sae.id: (shares[sae.id], answer.items) for sae in some}
    if groups[SUBJECTS:]:
        asked_of = " and ".join(some[0].subject for some in groups[:SUBJECTS])
        out.notes.append(f"Only {asked_of} were asked what they list; choose an SAE to ask its model.")
    if out.parts:
        out.found = await asyncio.to_thread(scored, [(number, *part) for number, part in out.parts.items()])
    return out


async def _shares(scope: Scope, out: Lists, deadline: float) -> dict[int, TokenShares]:
    try:
        async with asyncio.timeout_at(deadline):
            shares = await state_of(scope.request).token_shares.get(scope.saes)
    except TimeoutError:
        told = "Not compared with what the model lists: the tokens that features fire on are being read"
        out.notes.append(f"{told}; search again in a moment.")
        return {}
    left = [sae.address for sae in scope.saes if sae.id not in shares]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        told = f"The harvest of {', '.join(left[:3])}{more} did not count on which tokens features fire"
        out.notes.append(f"{told}, so they are not compared with what the model lists.")
    return shares


async def _answer(
    scope: Scope, saes: Sequence[SAERecord], query: str, out: Lists, deadline: float
) -> ListAnswer | None:
    """What the subject of ``saes`` lists; None where it does not, which ``out`` notes."""
    state, subject = state_of(scope.request), saes[0].subject
    model = target(saes[0], state.settings.home).model
    if (known := state.listings.get(model, query)) is not None:
        return known
    try:
        async with asyncio.timeout_at(deadline):
            answer = await first_of(scope.request, saes[:1], ListJob(query), lambda told: told.read)
    except TimeoutError:
        why = "it has not answered in time; search again in a moment."
    except SaescopeError as error:
        why = error.message
    else:
        state.listings.add(model, query, answer)
        return answer
    out.notes.append(f"Not compared with what {subject} lists: {why}")
    return None
