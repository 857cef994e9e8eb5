"""The command that makes maps."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_progress import staged
from app.settings import load_settings

if TYPE_CHECKING:
    from app.atlas.make import Made


class Method(StrEnum):
    pca = "pca"
    umap = "umap"
    tsne = "tsne"


class On(StrEnum):
    decoder = "decoder"
    encoder = "encoder"
    coactivation = "coactivation"


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
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Lay out a harvested SAE's latents as a map with named regions; a killed run carries on when started again."""
    from app.atlas.make import Recipe, Watch
    from app.atlas.make import make_map as make
    from app.store.migrate import migrated
    from app.subject.load import choose_device

    settings = load_settings(home=home)
    recipe = Recipe(method.value, on.value, clusters.value, seed=seed, sample=sample)
    with migrated(settings) as engine, staged() as shown:
        watch = Watch(doing=shown.doing, step=shown.done)
        device = choose_device(settings.device).type
        made = make(sae, recipe, engine, settings.home, device=device, watch=watch)
    for line in told(made):
        typer.echo(line)


def told(made: "Made") -> list[str]:
    """What the map is, and how good."""
    row = made.row
    sizes = [sum(one.level == level for one in made.clusters) for level in (0, 1)]
    apart = f", {row.unplaced:,} have no place" if row.unplaced else ""
    lines = [f"{made.slug}@{made.revision}: {row.placed:,} latents on the map{apart}."]
    if row.facts:
        how = "exact" if row.facts["exact"] else f"approximate, recall {row.facts['recall']:.2f} on a sample"
        lines.append(f"Neighbours: {how}.")
    for name, kept in row.quality.items():
        lines.append(
            f"{name}: trustworthiness {kept['trustworthiness']:.3f}, {kept['knn_preservation']:.1%} of the {kept['k']} "
            f"nearest kept ({kept['sample']:,} latents)."
        )
    lines.append(
        f"{_many(sizes[0], 'region')}, {_many(sizes[1], 'cluster')}; {row.placed - row.clustered:,} latents in no "
        f"cluster. {'Saved' if made.fresh else 'It was there already'} as version {row.version}."
    )
    return lines


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
