"""The command that measures an SAE."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_progress import staged
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.evaluate.run import Done, Recipe


def evaluate(
    sae: Annotated[
        str,
        typer.Argument(metavar="NAME[@REVISION]|PATH", help="A harvested SAE, an import, or a folder in any format."),
    ],
    metrics: Annotated[
        str | None, typer.Option(help="Groups of metrics, by commas; without it all that need nothing more.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1000, help="Tokens of text to measure on, about.")] = 65_536,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of all that is drawn.")] = 0,
    corpus: Annotated[str | None, typer.Option(help="Other text than the harvest's: a corpus, as of harvest.")] = None,
    model: Annotated[str | None, typer.Option(help="The subject, where the SAE was not harvested.")] = None,
    dictionary: Annotated[
        Path | None, typer.Option(help="Planted features to look for, a matrix in .npy or .safetensors.")
    ] = None,
    imports: Annotated[
        list[Path] | None, typer.Option("--import", help="SAEBench's result files, to show instead of measuring.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Measure an SAE, or import what SAEBench measured; what is there already is not measured again."""
    settings = load_settings(home=home)
    if imports:
        return import_results(sae, imports, settings)

    from app.evaluate.run import Evaluation, Recipe, Watch, chosen
    from app.evaluate.target import Asked, find_target
    from app.store.migrate import migrated

    groups = chosen(metrics)
    with migrated(settings) as engine, staged() as shown:
        shown.doing("loading the subject")
        target = find_target(Asked(sae, tokens, seed, corpus, model), settings, engine)
        recipe = Recipe(groups, tokens, seed, batch_tokens=settings.batch_tokens)
        if dictionary is not None:
            recipe = planted_recipe(recipe, dictionary, target.sae.W_dec.shape[1])
        done = Evaluation(target, recipe, engine, Watch(shown.doing, shown.done)).run()
    for one in done:
        for line in told(one):
            typer.echo(line)
    return None


def planted_recipe(recipe: "Recipe", path: Path, d: int) -> "Recipe":
    """The recipe with the dictionary at ``path``, which is measured too."""
    import hashlib
    from dataclasses import replace

    from app.evaluate.planted import read_dictionary

    found = read_dictionary(path, d)
    name = f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:10]}"
    groups = recipe.groups if "planted" in recipe.groups else (*recipe.groups, "planted")
    return replace(recipe, groups=groups, dictionary=found, dictionary_name=name)


def import_results(sae: str, files: list[Path], settings: Settings) -> None:
    from app.evaluate.imports import import_files
    from app.store.migrate import migrated

    with migrated(settings) as engine:
        for line in import_files(sae, files, engine):
            typer.echo(line)


def told(done: "Done") -> list[str]:
    """A group's headline, or why there is none."""
    from app.evaluate.definitions import GROUPS
    from app.web.formats import number

    group = GROUPS[done.group]
    if done.before:
        return [f"{done.group}: measured before with the same parameters."]
    if done.outcome is None:
        return [f"{done.group}: not measured, since {done.why}."]
    values = done.outcome.values
    parts = [
        f"{group.metrics[name].title} {'not defined' if values[name] is None else number(float(values[name] or 0))}"
        for name in group.headline
        if name in values
    ]
    tokens = f" ({done.outcome.tokens:,} tokens)" if done.outcome.tokens else ""
    return [f"{done.group}: {'; '.join(parts)}{tokens}."]
