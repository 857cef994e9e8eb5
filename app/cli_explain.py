"""The command that explains latents."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_explain_llm import Options, explain_llm
from app.cli_explain_people import score_written
from app.cli_runs import given, recorded
from app.settings import load_settings

if TYPE_CHECKING:
    from app.explain.free import Explained


class Method(StrEnum):
    free = "free"
    rules = "rules"
    vocab = "vocab"
    llm = "llm"
    contrastive = "llm-contrastive"
    people = "people"


def explain(
    sae: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="A harvested SAE; its newest revision, or one.")
    ],
    method: Annotated[
        Method,
        typer.Option(
            help="Rules, the vocabulary projection, or both (free), which need no LLM; an LLM; or people, which "
            "scores what they wrote."
        ),
    ] = Method.free,
    tokens: Annotated[int, typer.Option(min=10_000, help="Tokens of its text to look at, at most.")] = 262_144,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the test examples that are drawn.")] = 0,
    base_url: Annotated[
        str | None, typer.Option(help="LLM: an OpenAI-compatible endpoint, such as http://127.0.0.1:8080/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="LLM: the model to ask.")] = None,
    latents: Annotated[str | None, typer.Option(help="LLM: which latents, such as 0-99,512; without it all.")] = None,
    scorers: Annotated[
        str | None,
        typer.Option(
            help="LLM: of detection, fuzzing (both by default), simulation, embedding, surprisal, intervention, by "
            "commas; or none. People: of embedding (default), surprisal, intervention."
        ),
    ] = None,
    best_of: Annotated[int, typer.Option(min=1, max=16, help="LLM: explanations to choose between.")] = 1,
    examples: Annotated[int, typer.Option(min=10, max=200, help="LLM: test examples of either kind.")] = 50,
    control: Annotated[bool, typer.Option(help="LLM: score another latent's explanation as well.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="LLM: estimate requests and cost; send nothing.")] = False,
    max_usd: Annotated[float | None, typer.Option(min=0, help="LLM: what this may cost, never passed.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="LLM: USD for a million tokens of prompt.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="LLM: USD for a million tokens of answer.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="LLM: the variable that holds the key.")] = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="LLM: requests under way, at most.")] = 16,
    timeout: Annotated[float, typer.Option(min=1, help="LLM: seconds to wait for an answer.")] = 120.0,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
    run: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Explain a harvested SAE's features, and score that on text it was not made from; a killed run carries on."""
    settings = load_settings(home=home)
    if method is Method.people:
        return score_written(sae, scorers or "embedding", examples, seed, tokens, control, settings, run)
    if method in (Method.llm, Method.contrastive):
        options = Options(
            base_url, model, latents, scorers or Options.scorers, best_of, examples, control, dry_run, max_usd,
            price_in, price_out, api_key_env, at_once, timeout, seed, tokens,
        )  # fmt: skip
        return explain_llm(sae, method.value, options, settings, run)

    from app.embed.anew import embed_anew
    from app.explain.free import RULES, VOCAB, Recipe, Watch, explain_free
    from app.store.migrate import migrated
    from app.store.revisions import one

    methods = {Method.free: (RULES, VOCAB), Method.rules: (RULES,), Method.vocab: (VOCAB,)}[method]
    command = {"sae": sae, "method": method.value, "tokens": tokens, "seed": seed}
    command = given(command, {"method": "free", "tokens": 262_144, "seed": 0})
    with migrated(settings) as engine:
        slug = one(engine, sae).slug
        with recorded(engine, "explain", [slug], command, run, keeps=True) as work:
            made = explain_free(
                sae, Recipe(methods, tokens, seed), engine, settings.home, device=settings.device,
                watch=Watch(work.doing, work.done),
            )  # fmt: skip
            work.made(made.revision)
            embed_anew(engine, settings, f"{made.slug}@{made.revision}", work.doing, work.done)
            work.tell(told(made))
    return None


def told(made: "Explained") -> list[str]:
    """What was explained, and how good that is."""
    import numpy as np

    lines = [f"{made.slug}@{made.revision}: {made.tokens:,} tokens looked at, {made.kept_apart} kept apart."]
    for name, scored in made.scored.items():
        headline = scored.windows.headline
        few = int(np.isnan(headline).sum())
        lines.append(
            f"{name}: {len(scored.units):,} features scored; on average balanced accuracy {_mean(headline)} on test "
            f"windows (shuffled {_mean(scored.windows.control)}), F1 {_mean(scored.tokens.f1)} and AUPRC "
            f"{_mean(scored.tokens.auprc)} on all test tokens{f'; too few examples for {few:,}' if few else ''}."
        )
    per = 1000 * made.seconds / max(1, max((len(one.units) for one in made.scored.values()), default=1))
    lines.append(
        f"The pass took {made.pass_seconds:.0f} s; learning and scoring {made.seconds:.0f} s, {per:.1f} s per 1,000."
    )
    return lines


def _mean(values: "object") -> str:
    import numpy as np

    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return f"{known.mean():.3f}" if len(known) else "–"
