"""The command that makes maps."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli_explain_llm import Options, check_installed, wish
from app.cli_runs import given, recorded
from app.errors import BadRequest
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.atlas.finish import Namer
    from app.atlas.make import Made


class Method(StrEnum):
    pca = "pca"
    umap = "umap"
    tsne = "tsne"


class On(StrEnum):
    decoder = "decoder"
    encoder = "encoder"
    coactivation = "coactivation"
    explanations = "explanations"


class Names(StrEnum):
    terms = "terms"
    llm = "llm"


class Clusters(StrEnum):
    density = "density"
    hdbscan = "hdbscan"


def make_map(
    sae: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="A harvested SAE; its newest revision, or one.")
    ],
    method: Annotated[Method, typer.Option(help="The layout.")] = Method.umap,
    on: Annotated[On, typer.Option(help="What makes two latents near.")] = On.decoder,
    clusters: Annotated[Clusters, typer.Option(help="How regions are found on the layout.")] = Clusters.density,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything that is drawn.")] = 0,
    sample: Annotated[
        int, typer.Option(min=1000, help="At most so many latents are laid out by UMAP or t-SNE; others go to these.")
    ] = 131_072,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME[@REVISION]", help="Another SAE in the same frame; as often as wanted."),
    ] = None,
    onto: Annotated[
        str | None, typer.Option(metavar="NAME[@REVISION]", help="Put the latents on this SAE's map, which stays.")
    ] = None,
    names: Annotated[Names, typer.Option(help="Who names regions: their terms, or a language model.")] = Names.terms,
    base_url: Annotated[str | None, typer.Option(help="LLM: an OpenAI-compatible endpoint.")] = None,
    model: Annotated[str | None, typer.Option(help="LLM: the model to ask.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="LLM: estimate the cost; send and save nothing.")] = False,
    max_usd: Annotated[float | None, typer.Option(min=0, help="LLM: what this may cost, never passed.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="LLM: USD for a million tokens of prompt.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="LLM: USD for a million tokens of answer.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="LLM: the variable that holds the key.")] = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="LLM: requests under way, at most.")] = 16,
    timeout: Annotated[float, typer.Option(min=1, help="LLM: seconds to wait for an answer.")] = 120.0,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
    run: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Lay out a harvested SAE's latents as a map with named regions; a killed run carries on when started again."""
    from app.atlas.make import LAYING, Recipe, Watch, make_maps
    from app.atlas.onto import make_onto
    from app.cli_progress import staged
    from app.store.migrate import migrated
    from app.store.revisions import one
    from app.subject.load import choose_device

    if with_ and onto:
        raise BadRequest("--with lays several SAEs out anew and --onto keeps a map as it is; give one of them.")
    settings = load_settings(home=home)
    asked = Options(
        base_url, model, dry_run=dry_run, max_usd=max_usd, price_in=price_in, price_out=price_out,
        api_key_env=api_key_env, at_once=at_once, timeout=timeout,
    )  # fmt: skip
    naming = _Naming(sae, asked, settings) if names is Names.llm else None
    if dry_run and (naming is None or onto):
        raise BadRequest("--dry-run tells what --names llm would cost, of a map that is laid out here.")
    recipe = Recipe(method.value, on.value, clusters.value, seed=seed, sample=sample)
    command = {
        "sae": sae, "method": recipe.method, "on": recipe.on, "clusters": recipe.clusters, "seed": seed,
        "sample": sample, "with": with_ or None, "onto": onto, "names": names.value, "base_url": base_url,
        "model": model, "max_usd": max_usd, "price_in": price_in, "price_out": price_out, "api_key_env": api_key_env,
    }  # fmt: skip
    usual = {
        "method": "umap", "on": "decoder", "clusters": "density", "seed": 0, "sample": 131_072, "names": "terms",
    }  # fmt: skip
    device = choose_device(settings.device).type
    with migrated(settings) as engine:
        if dry_run:
            with staged() as shown:
                watch = Watch(doing=shown.doing, step=shown.done)
                namer = naming and naming.by(engine, shown.done)
                how: dict[str, Any] = {"device": device, "watch": watch, "namer": namer}
                for made in make_maps([sae, *(with_ or [])], recipe, engine, settings.home, **how, save=False):
                    typer.echo("\n".join(told(made)))
            assert naming is not None
            typer.echo(naming.told())
            return
        slugs = [one(engine, name).slug for name in (sae, *(with_ or []))]
        with recorded(engine, "map", slugs, given(command, usual), run, keeps=False) as work:

            def doing(stage: str) -> None:
                work.doing(stage)
                if stage.startswith(LAYING):  # the graph is kept by then
                    work.worth_resuming()

            watch = Watch(doing=doing, step=work.done)
            how = {"device": device, "watch": watch, "namer": naming and naming.by(engine, work.done)}
            if onto:
                all_made = [make_onto(sae, onto, recipe, engine, settings.home, **how)]
            else:
                all_made = make_maps([sae, *(with_ or [])], recipe, engine, settings.home, **how)
            for made in all_made:
                work.made(made.revision)
                work.tell(told(made))
            if naming:
                work.tell([naming.told()])


class _Naming:
    """``--names llm``: who is asked, and what came of it."""

    def __init__(self, sae: str, options: Options, settings: Settings) -> None:
        from app.explain.map_names import Estimate, Named

        self.wanted = wish(sae, "llm", options, settings, asks="--names llm")
        check_installed()
        self.dry = options.dry_run
        self.estimate, self.named = Estimate(), Named()

    def by(self, engine: "Engine", step: Callable[[int, int], None]) -> "Namer":
        from app.explain.map_names import estimating, namer

        return estimating(self.wanted, self.estimate) if self.dry else namer(engine, self.wanted, self.named, step)

    def told(self) -> str:
        if self.dry:
            found = self.estimate
            cost = "the price is not known" if found.most is None else f"at most ${found.most:.4f} without retries"
            asked = f"{found.requests:,} requests, about {found.prompt_tokens:,} tokens of prompts"
            return f"{asked}; {cost}. Nothing was sent."
        named = self.named
        kept = f", {named.failures:,} of them kept their terms" if named.failures else ""
        cost = f"${named.spent:.4f} spent" if named.known else "cost not known"
        by = self.wanted.endpoint.model
        return f"{named.groups:,} groups named by {by}{kept}; {named.sent:,} requests sent, {cost}."


def told(made: "Made") -> list[str]:
    """What the map is, and how good."""
    row = made.row
    sizes = [sum(one.level == level for one in made.clusters) for level in (0, 1)]
    apart = f", {row.unplaced:,} have no place" if row.unplaced else ""
    lines = [f"{made.slug}@{made.revision}: {row.placed:,} latents on the map{apart}."]
    if row.beside:
        lines.append(f"In one frame with {', '.join(row.beside)}.")
    if "exact" in row.facts:
        how = "exact" if row.facts["exact"] else f"approximate, recall {row.facts['recall']:.2f} on a sample"
        lines.append(f"Neighbours: {how}.")
    for name, kept in row.quality.items():
        lines.append(
            f"{name}: trustworthiness {kept['trustworthiness']:.3f}, {kept['knn_preservation']:.1%} of the {kept['k']} "
            f"nearest kept ({kept['sample']:,} latents)."
        )
    spread = row.structure
    lines.append(
        f"Nearest latents: cosine {spread['nearest_cosine']:.3f} (median). Spread {spread['spread']:.3f}, silhouette "
        f"{'–' if spread['silhouette'] is None else format(spread['silhouette'], '.3f')}."
    )
    lines.append(
        f"{_many(sizes[0], 'region')}, {_many(sizes[1], 'cluster')}; {row.placed - row.clustered:,} latents in no "
        f"cluster. {'Saved' if made.fresh else 'It was there already'} as version {row.version}."
    )
    return lines


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
