"""The command that explains latents."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_progress import staged
from app.settings import load_settings

if TYPE_CHECKING:
    from app.explain.free import Explained


class Method(StrEnum):
    free = "free"
    rules = "rules"
    vocab = "vocab"


def explain(
    sae: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="A harvested SAE; its newest revision, or one.")
    ],
    method: Annotated[
        Method, typer.Option(help="Rules, the vocabulary projection, or both, which need no LLM.")
    ] = Method.free,
    tokens: Annotated[int, typer.Option(min=10_000, help="Tokens of its text to look at, at most.")] = 262_144,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the test examples that are drawn.")] = 0,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Explain a harvested SAE's features, and score that on text it was not made from; a killed run carries on."""
    from app.explain.free import RULES, VOCAB, Recipe, Watch, explain_free
    from app.store.migrate import migrated

    settings = load_settings(home=home)
    methods = {Method.free: (RULES, VOCAB), Method.rules: (RULES,), Method.vocab: (VOCAB,)}[method]
    with migrated(settings) as engine, staged() as shown:
        made = explain_free(
            sae, Recipe(methods, tokens, seed), engine, settings.home, device=settings.device,
            watch=Watch(shown.doing, shown.done),
        )  # fmt: skip
    for line in told(made):
        typer.echo(line)


def told(made: "Explained") -> list[str]:
    """What was explained, and how good that is."""
    import numpy as np

    lines = [f"{made.slug}@{made.revision}: {made.tokens:,} tokens looked at, {made.kept_apart} kept apart."]
    for name, scored in made.scored.items():
        headline = scored.windows.headline
        few = int(np.isnan(headline).sum())
        lines.append(
            f"{name}: {len(scored.units):,} features scored; balanced accuracy {_mean(headline)} on test windows "
            f"(shuffled {_mean(scored.windows.control)}), F1 {_mean(scored.tokens.f1)} and AUPRC "
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
