"""A map of an SAE in the frame of another SAE's older map, which stays as it is."""

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from app.atlas import layout
from app.atlas.arrays import Places
from app.atlas.finish import Laid, Namer, Part, Shared, finish
from app.atlas.make import QUIET, Made, check_shared, locked, measured, read_part, saved
from app.atlas.places import Frame
from app.atlas.recipe import Recipe, Watch
from app.errors import MapImpossible, UnknownMap
from app.store.engine import explained
from app.store.map_sources import Old, read_map, share


def make_onto(
    address: str,
    base: str,
    recipe: Recipe,
    engine: Engine,
    home: Path,
    *,
    device: str = "cpu",
    watch: Watch = QUIET,
    namer: Namer | None = None,
) -> Made:
    """Put the latents of ``address`` where their nearest are on the map that ``base`` has of this method and these
    vectors; by PCA where its axes put them.

    Raises:
        UnknownMap: ``base`` has no such map.
        MapImpossible: that map is of other vectors than there are now; and what ``make_maps`` raises.
    """
    with ExitStack() as held:
        new, old = (read_part(*one, recipe, engine, home, watch) for one in locked([address, base], engine, held))
        began = time.monotonic()
        check_shared([new, old], recipe)
        there = _map_of(old, recipe, engine)
        layouts = _layouts(new, old, there, recipe, device, watch)
        watch.doing("measuring what the layout keeps")
        facts = {"onto": old.address, "onto_version": there.version}
        laid = Laid(layouts[recipe.method], measured(new.vectors.rows, layouts, recipe, device), facts)
        together = there.together or there.version
        shared = Shared(Frame(*there.frame), [old.address], together)
        [made] = saved(
            [new], [finish(new, recipe, laid, home, began, watch, shared=shared, namer=namer)], engine, watch
        )
        with explained(), engine.begin() as connection:
            share(connection, there.id, together)
        return made


def _map_of(old: Part, recipe: Recipe, engine: Engine) -> Old:
    with explained(), engine.connect() as connection:
        found = read_map(connection, old.source.id, recipe.method, recipe.on)
    slug = old.source.slug
    if found is None:
        raise UnknownMap(
            f"{old.address} has no map by {recipe.method} on {recipe.on}; "
            f"'saescope map {slug} --method {recipe.method} --on {recipe.on}' makes it.",
            sae=old.address,
        )
    if not np.array_equal(found.latents, old.vectors.latents):
        raise MapImpossible(f"The map of {old.address} is older than its vectors; make it anew first.", sae=old.address)
    return found


def _layouts(new: Part, old: Part, there: Old, recipe: Recipe, device: str, watch: Watch) -> dict[str, Places]:
    watch.doing("finding each latent's nearest on the old map")
    pca = layout.components(old.vectors.rows).places(new.vectors.rows)
    if recipe.method == "pca":
        return {"pca": pca}
    near = layout.into(new.vectors.rows, old.vectors.rows, device=device, step=watch.step)
    return {"pca": pca, recipe.method: near.places(there.places)}
