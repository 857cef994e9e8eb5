"""``saescope explain --method llm``: what the options mean and what is said about a run."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from app.cli_progress import staged
from app.cli_runs import given, recorded
from app.errors import BadRequest
from app.outside import check_outside
from app.settings import Settings

if TYPE_CHECKING:
    from app.explain.llm_job import Done, Estimate, Wanted

SCORERS = "detection", "fuzzing", "simulation", "embedding", "surprisal", "intervention"


@dataclass(frozen=True)
class Options:
    """The command's options that have to do with a language model, as they were given."""

    base_url: str | None = None
    model: str | None = None
    latents: str | None = None
    scorers: str = "detection,fuzzing"
    best_of: int = 1
    examples: int = 50
    control: bool = True
    dry_run: bool = False
    max_usd: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    api_key_env: str | None = None
    at_once: int = 16
    timeout: float = 120.0
    seed: int = 0
    tokens: int = 262_144


def explain_llm(sae: str, method: str, options: Options, settings: Settings, run: int | None = None) -> None:
    """Explain and score latents of ``sae``; ``method`` is llm or llm-contrastive."""
    from app.embed.anew import embed_anew
    from app.explain.llm_job import dry_run, explain_sae
    from app.explain.llm_run import Watch
    from app.store.migrate import migrated
    from app.store.revisions import one
    from app.subject.load import choose_device

    wanted = wish(sae, method, options, settings)
    check_installed()
    device = choose_device(settings.device).type
    with migrated(settings) as engine:
        if options.dry_run:
            with staged() as shown:
                watch = Watch(doing=shown.doing, step=shown.done)
                lines = estimated(dry_run(engine, settings.home, wanted, device=device, watch=watch))
            for line in lines:
                typer.echo(line)
            return
        slug = one(engine, sae).slug
        with recorded(engine, "explain", [slug], recall(sae, method, options), run, keeps=True) as work:
            watch = Watch(doing=work.doing, step=work.done)
            done = explain_sae(engine, settings.home, wanted, device=device, dtype=settings.dtype, watch=watch)
            work.made(done.revision)
            work.tell(told(done))
            embed_anew(engine, settings, f"{done.slug}@{done.revision}", work.doing, work.done)


def recall(sae: str, method: str, options: Options) -> dict[str, Any]:
    """The options that ask for the same again. No key is among them, only the variable that holds one."""
    usual = asdict(Options()) | {"no_control": False}
    command = asdict(options) | {"no_control": not options.control, "control": True}
    return {"sae": sae, "method": method, **given(command, usual)}


def wish(sae: str, method: str, options: Options, settings: Settings, asks: str | None = None) -> "Wanted":
    """``asks``: the option that wants a language model, as it was written.

    Raises:
        BadRequest: an option is missing or is not one.
    """
    from app.explain.client import Endpoint
    from app.explain.llm_job import Wanted
    from app.explain.llm_run import Plan

    if method not in ("llm", "llm-contrastive"):
        raise BadRequest(f"--method {method!r} asks no language model.", method=method)
    base_url, model = options.base_url or settings.llm_url, options.model or settings.llm_model
    if not base_url or not model:
        raise BadRequest(
            f"{asks or f'--method {method}'} asks a language model: give --base-url (such as http://127.0.0.1:8080/v1) "
            "and --model, or set SAESCOPE_LLM_URL and SAESCOPE_LLM_MODEL."
        )
    if not base_url.startswith(("http://", "https://")):
        raise BadRequest(f"--base-url {base_url} is no address; it begins with http:// or https://.", base_url=base_url)
    try:
        known = bool((parts := urlsplit(base_url)).hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is none
        known = False
    if not known:
        raise BadRequest(f"--base-url {base_url} is no address: its host or its port cannot be.", base_url=base_url)
    given = () if options.scorers == "none" else tuple(dict.fromkeys(options.scorers.replace(" ", "").split(",")))
    for scorer in given:
        if scorer not in SCORERS:
            raise BadRequest(f"There is no scorer {scorer!r}; there are {', '.join(SCORERS)} and none.", scorer=scorer)
    # The secret of the settings goes to the endpoint of the settings alone.
    check_outside(settings, base_url)
    key = settings.llm_key if base_url == settings.llm_url else None
    if options.api_key_env:
        key = os.environ.get(options.api_key_env)
        if not key:
            raise BadRequest(
                f"--api-key-env names {options.api_key_env}, which is not set.", variable=options.api_key_env
            )
    prices = options.price_in, options.price_out
    if prices == (None, None) and (base_url, model) == (settings.llm_url, settings.llm_model):
        prices = settings.llm_price_in, settings.llm_price_out
    plan = Plan(
        "llm" if method == "llm" else "llm-contrastive", given, options.examples, options.best_of, options.control,
        options.seed,
    )  # fmt: skip
    return Wanted(
        sae, plan, Endpoint(base_url.rstrip("/"), model, key, options.timeout), options.latents,
        prices, options.max_usd, options.at_once, options.tokens, sentences(settings),
    )  # fmt: skip


def sentences(settings: Settings) -> Path | None:
    """The sentence model's folder; None where none has been fetched."""
    from app.embed.folder import check_model
    from app.errors import EmbeddingsUnavailable

    try:
        return check_model(settings)
    except EmbeddingsUnavailable:
        return None


def check_installed() -> None:
    """
    Raises:
        BadRequest: the package that speaks to endpoints is not there.
    """
    from importlib.util import find_spec

    if find_spec("openai") is None:
        raise BadRequest("Asking language models needs the package openai: install saescope[llm].")


def estimated(found: "Estimate") -> list[str]:
    lines = [
        f"{found.latents:,} latents: about {found.requests:,} requests, {found.prompt_tokens:,} tokens of prompts and "
        f"{found.completion_tokens:,} of answers."
    ]
    if found.likely is None or found.most is None:
        return [*lines, "The price is not known; give --price-in and --price-out, USD for a million tokens."]
    return [
        *lines,
        f"About ${found.likely:.2f} at ${found.price.prompt:g} and ${found.price.completion:g} for a million tokens "
        f"({found.price.source}); not more than ${found.most:.2f} without retries. Nothing was sent.",
    ]


def told(done: "Done") -> list[str]:
    """What became of the latents, and what it cost."""
    outcome = done.outcome
    failed = sum(outcome.failures.values())
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.failures.items()))
    lines = [
        f"{done.slug}@{done.revision}: {outcome.explained:,} explained, {outcome.scored:,} scored"
        + (f", {outcome.silent:,} do not fire in the sample" if outcome.silent else "")
        + "."
    ]
    if failed:
        lines.append(f"{failed:,} {'reply' if failed == 1 else 'replies'} held no explanation ({kinds}).")
    cost = f"${done.spent:.4f} spent ({done.price.source})" if done.price.known else "cost not known"
    lines.append(f"{done.sent:,} requests sent, {cost}.")
    return lines
