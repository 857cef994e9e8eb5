"""Explanations written by a language model that sees train windows alone."""

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from app.explain import prompts
from app.explain.client import Ask, Client
from app.explain.examples import Material, Pieces, bare, contrasting, material, told
from app.explain.failures import Failed, Failure
from app.explain.fence import after_marker, shown, tidy
from app.explain.reply import Reply
from app.explain.samples import Sampler

LLMMethod = Literal["llm", "llm-contrastive"]
WARM = 0.7  # temperature of the candidates after the first


class Written(NamedTuple):
    """An explanation; ``raw``: the model's own words; ``examples``: how many windows it was shown."""

    text: str
    raw: str
    examples: int


def explain_ask(
    given: Material, pieces: Pieces, promoted: Sequence[str], latent: int, largest: float, candidate: int, as_json: bool
) -> Ask:
    quiet = [bare(one, pieces) for one in given.quiet]
    likelier = [text for token in promoted if (text := shown([token]).strip())]
    messages = prompts.explain(told(given.active, pieces, largest), quiet, likelier, as_json=as_json)
    return Ask(
        messages, prompts.VERSION, "explain", prompts.EXPLAIN_TOKENS, latent=latent,
        temperature=WARM if candidate else 0.0, seed=candidate or None, schema=prompts.EXPLANATION if as_json else None,
    )  # fmt: skip


def gathered(method: LLMMethod, sampler: Sampler, latent: int, sign: int) -> Material:
    return (material if method == "llm" else contrasting)(sampler, latent, sign)


async def write(
    client: Client,
    given: Material,
    pieces: Pieces,
    promoted: Sequence[str],
    latent: int,
    largest: float,
    candidate: int = 0,
) -> Written:
    """
    Raises:
        Failed: no explanation; what is too long for the model was tried with fewer examples.
    """
    as_json = client.capabilities.form == "schema"
    while True:
        ask = explain_ask(given, pieces, promoted, latent, largest, candidate, as_json)
        try:
            reply = await client.ask(ask)
        except Failed as failed:
            fewer = given.fewer()
            if failed.kind is not Failure.too_long or fewer is None:
                raise
            given = fewer
            continue
        return Written(read(reply, as_json), reply.text, len(given.active))


def read(reply: Reply, as_json: bool) -> str:
    """
    Raises:
        Failed: there is no explanation in it.
    """
    if not as_json:
        text = after_marker(reply.text)
        if text is None:
            raise Failed(Failure.no_marker)
        return text
    try:
        told = json.loads(reply.text)["explanation"]
    except (ValueError, KeyError, TypeError):
        raise Failed(Failure.unreadable, 'no JSON of the form {"explanation": "..."}') from None
    if not isinstance(told, str) or not (text := tidy(told)):
        raise Failed(Failure.empty)
    return text
