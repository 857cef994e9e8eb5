"""`saescope map`: from an SAE to the database, what carries on, what is refused, and what goes with the SAE."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sqlalchemy import func, select, text

from app.atlas import finish, knn, layout, make, tiles
from app.atlas.colours import COLOURS
from app.atlas.make import Recipe, Watch, make_map
from app.errors import MapImpossible, MapRunning, UnknownSAE
from app.harvest.job import Job, run_job
from app.sae.formats import saelens
from app.store import tables as t
from app.store.map_bulk import map_lock
from app.store.map_sources import read_company, read_latents
from app.store.replace import remove
from tests.conftest import database_beside, public_folder, random_sae
from tests.test_disk import no_file_above

MAPPED = "mapped"


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "mapping").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def harvest(harvested, database, own, tiny, sequences):
    """Harvests an SAE under a name; the tests' own one where none is given."""
    _, parameters, folder = harvested

    def run(slug, sae=None, **changes):
        if sae is not None:
            saelens.write(own.home / "given" / slug, sae, matrices=torch.float32, metadata={})
        where = folder if sae is None else own.home / "given" / slug
        return run_job(
            Job(slug, where, "test text", 64, replace(parameters, **changes)), tiny, sequences, database, own.home
        )

    return run


@pytest.fixture(scope="module")
def sae(harvest):
    return harvest(MAPPED)


def rows(database, query, **values):
    with database.connect() as connection:
        return connection.execute(text(query) if isinstance(query, str) else query, values).all()


def maps(database):
    return {(row.method, row.on): row for row in rows(database, "SELECT m.* FROM map m")}


def files(own, slug=MAPPED):
    return sorted(path.name for path in (own.home / "saes").glob(f"{slug}-*/maps/*"))


def test_every_latent_is_on_the_map_once_and_in_one_tile(database, own, sae, command):
    out, err, status = command("map", MAPPED, "--method", "tsne")
    assert status == 0, err
    assert "laying out by t-SNE ...\n" in err
    row = maps(database)["tsne", "decoder"]
    assert out.splitlines() == [
        f"mapped@{sae}: 40 latents on the map.",
        "Neighbours: exact.",
        *(
            f"{method}: trustworthiness {kept['trustworthiness']:.3f}, {kept['knn_preservation']:.1%} of the 15 "
            "nearest kept (40 latents)."
            for method, kept in sorted(row.quality.items())
        ),
        f"Nearest latents: cosine {row.structure['nearest_cosine']:.3f} (median). Spread "
        f"{row.structure['spread']:.3f}, silhouette –.",
        f"{out.splitlines()[-1].partition(';')[0]}; {40 - row.clustered} latents in no cluster. Saved as version "
        f"{row.version}.",
    ]
    assert set(row.quality) == {"pca", "tsne"}
    assert (row.placed, row.unplaced) == (40, 0)
    assert (row.facts["exact"], row.facts["recall"], row.facts["k"], row.facts["laid_out"]) == (True, 1.0, 15, 40)
    points = rows(database, select(t.map_point).where(t.map_point.c.map_id == row.id).order_by(t.map_point.c.latent))
    assert [point.latent for point in points] == list(range(40))
    assert sorted(point.rank for point in points) == list(range(40))
    assert len({(point.x, point.y) for point in points}) == 40
    [tile] = rows(database, select(t.map_tile).where(t.map_tile.c.map_id == row.id))
    held = tiles.decoded(tile.points + tile.colours[:40])
    by_rank = sorted(points, key=lambda point: point.rank)
    assert held.latent.tolist() == [point.latent for point in by_rank]
    assert list(zip(held.x.tolist(), held.y.tolist(), strict=True)) == [(point.x, point.y) for point in by_rank]
    assert {point.z for point in points} == {0}
    assert len(tile.colours) == 40 * len(COLOURS)
    raster = np.frombuffer(row.raster, "<u2").reshape(512, 512)
    assert raster.sum() == 40
    assert raster[points[0].y // 128, points[0].x // 128] >= 1
    left, _, side = row.frame
    assert abs((points[0].layout_x - left) / side * 65_536 - points[0].x) < 3 or points[0].x in (0, 65_535)


def test_the_layout_that_is_saved_is_the_one_of_the_weights(database, own, sae, command):
    assert command("map", MAPPED, "--method", "pca", "--on", "encoder")[2] == 0
    row = maps(database)["pca", "encoder"]
    rows_ = torch.nn.functional.normalize(random_sae().W_enc.T, dim=1).numpy()
    places = layout.components(rows_).places(rows_)
    points = rows(database, select(t.map_point).where(t.map_point.c.map_id == row.id).order_by(t.map_point.c.latent))
    assert np.array([(point.layout_x, point.layout_y) for point in points]) == pytest.approx(places, abs=1e-5)
    assert row.facts == {}


def test_the_same_command_again_does_no_work_twice_and_another_layout_takes_the_graph(
    database, own, sae, command, monkeypatch
):
    assert command("map", MAPPED, "--method", "tsne")[2] == 0
    before, kept = maps(database)["tsne", "decoder"], files(own)

    def never(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(layout, "tsne", never)
    monkeypatch.setattr(knn, "graph", never)
    out, _, status = command("map", MAPPED, "--method", "tsne")
    assert status == 0
    assert out.endswith(f"It was there already as version {before.version}.\n")
    assert maps(database)["tsne", "decoder"] == before
    monkeypatch.setattr(layout, "umap", lambda graph, start, seed: start + len(graph.ids))
    assert command("map", MAPPED, "--method", "umap")[2] == 0
    assert len(files(own)) == len(kept) + 1
    assert not [name for name in files(own) if "partial" in name]


def test_a_map_that_was_cut_short_carries_on_and_leaves_nothing_half_written(database, own, sae, command, monkeypatch):
    before = maps(database).keys()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(layout, "tsne", interrupted)
        _, err, status = command("map", MAPPED, "--method", "tsne", "--seed", "5")
    assert status == 130
    assert err.endswith("Stopped. The same command carries on from here.\n")
    graph = [name for name in files(own) if name.startswith("graph")]
    with monkeypatch.context() as cut:
        cut.setattr(make, "save_maps", interrupted)
        assert command("map", MAPPED, "--method", "tsne", "--seed", "5")[2] == 130
    assert [name for name in files(own) if name.startswith("graph")] == graph
    assert maps(database).keys() == before
    monkeypatch.setattr(layout, "tsne", interrupted)  # it is not laid out a second time
    assert command("map", MAPPED, "--method", "tsne", "--seed", "5")[2] == 0
    assert maps(database)["tsne", "decoder"].parameters["seed"] == 5


def test_a_damaged_file_is_made_again(database, own, sae, command):
    assert command("map", MAPPED, "--method", "tsne")[2] == 0
    first = maps(database)["tsne", "decoder"].version
    for path in (own.home / "saes").glob(f"{MAPPED}-*/maps/*"):
        path.write_bytes(path.read_bytes()[:100])
    out, _, status = command("map", MAPPED, "--method", "tsne")
    assert (status, maps(database)["tsne", "decoder"].version) == (0, first)
    assert "It was there already" in out


def test_a_new_map_takes_the_old_ones_place_whole_or_not_at_all(database, own, sae, monkeypatch):
    recipe = Recipe("tsne", seed=1)
    first = make_map(MAPPED, recipe, database, own.home)
    before = maps(database)["tsne", "decoder"]

    def broken(tile, *given):
        raise ValueError("broken")

    with monkeypatch.context() as cut:
        cut.setattr("app.store.map_bulk._tile_chunks", broken)
        with pytest.raises(ValueError, match="broken"):
            make_map(MAPPED, replace(recipe, seed=2), database, own.home)
    assert maps(database)["tsne", "decoder"] == before
    second = make_map(MAPPED, replace(recipe, seed=2), database, own.home)
    after = maps(database)["tsne", "decoder"]
    assert (after.version, first.row.version != after.version) == (second.row.version, True)
    for table in (t.map_point, t.map_tile, t.map_cluster):
        count = select(func.count()).select_from(table).where(table.c.map_id == before.id)
        assert rows(database, count)[0][0] == 0
    assert rows(database, "SELECT count(*) FROM map_point WHERE map_id = :id", id=after.id)[0][0] == 40


def test_more_latents_than_are_laid_out_go_to_their_nearest(database, own, sae, monkeypatch):
    seen = []

    def line(graph, start, *, seed, step=None):
        seen.append(len(start))
        return np.stack([np.arange(len(start)), np.zeros(len(start))], 1).astype(np.float32)

    monkeypatch.setattr(layout, "tsne", line)
    made = make_map(MAPPED, Recipe("tsne", seed=9, sample=25), database, own.home)
    assert seen == [25]
    assert (made.row.facts["laid_out"], made.row.placed) == (25, 40)
    chosen = np.sort(np.random.default_rng(9).permutation(40)[:25])
    points = rows(
        database, "SELECT latent, layout_x FROM map_point WHERE map_id = :id", id=maps(database)["tsne", "decoder"].id
    )
    x = {point.latent: point.layout_x for point in points}
    assert [x[latent] for latent in chosen.tolist()] == list(range(25))
    others = [x[latent] for latent in range(40) if latent not in chosen]
    assert all(0 < one < 24 for one in others)


def test_clusters_have_the_sizes_names_and_densities_of_their_members(database, own, sae, monkeypatch):
    heaps = np.repeat(np.eye(2)[[0, 1]] * 10, 20, axis=0) + np.random.default_rng(0).normal(size=(40, 2)) * 0.1
    monkeypatch.setattr(layout, "tsne", lambda graph, start, seed, step=None: heaps.astype(np.float32))
    made = make_map(MAPPED, Recipe("tsne", seed=11), database, own.home)
    stored = rows(database, "SELECT * FROM map_cluster WHERE map_id = :id", id=maps(database)["tsne", "decoder"].id)
    assert len(stored) == len(made.clusters) > 0
    with database.connect() as connection:
        latents = read_latents(connection, rows(database, "SELECT id FROM sae WHERE slug = 'mapped'")[0].id)
    for one in stored:
        column = "cluster" if one.level else "region"
        query = f"SELECT latent, x, y FROM map_point WHERE map_id = :id AND {column} = :number"
        members = rows(database, query, id=one.map_id, number=one.id)
        density = latents.density[[member.latent for member in members]]
        assert (one.size, one.alive) == (len(members), (density > 0).sum())
        assert one.density == pytest.approx(np.median(density[density > 0]))
        assert (one.centre, one.x, one.y) in members
        assert (one.parent is None) == (one.level == 0)
        assert one.name
        assert len(one.terms) == len(one.scores)
        assert list(one.scores) == sorted(one.scores, reverse=True)


def test_what_latents_tell_is_read_as_it_is_stored(database, sae):
    number = rows(database, "SELECT id FROM sae WHERE slug = 'mapped'")[0].id
    stored = rows(database, "SELECT * FROM latent WHERE sae_id = :id ORDER BY index", id=number)
    with database.connect() as connection:
        latents, (ids, phi, counts) = read_latents(connection, number), read_company(connection, number)
    assert latents.density == pytest.approx([row.density for row in stored])
    assert np.isnan(latents.score).all()
    assert latents.labels == [(row.label, row.label_source) for row in stored]
    parts = np.split(latents.tokens, np.cumsum(latents.counts)[:-1])
    for row, tokens in zip(stored, parts, strict=True):
        fires = [*row.token_probability_ids[:5], *row.token_mean_ids[:5]]
        assert tokens.tolist() == (fires or row.promoted_ids[:5])
    assert counts.tolist() == [len(row.coactive_ids) for row in stored]
    assert ids.tolist() == [one for row in stored for one in row.coactive_ids]
    assert phi == pytest.approx([one for row in stored for one in row.coactive_phi])


def test_a_map_goes_with_its_sae_and_with_its_files(database, own, harvest):
    revision = harvest("going")
    make_map("going", Recipe("tsne"), database, own.home)
    number = rows(database, "SELECT id FROM sae WHERE slug = 'going'")[0].id
    assert files(own, "going")
    assert rows(database, "SELECT to_regclass(:name)", name=f"map_point_{number}")[0][0] is not None
    assert remove(database, own.home, "going") == [revision]
    assert files(own, "going") == []
    assert rows(database, "SELECT to_regclass(:name)", name=f"map_point_{number}")[0][0] is None
    assert rows(database, "SELECT count(*) FROM map WHERE sae_id = :id", id=number)[0][0] == 0
    assert rows(database, "SELECT count(*) FROM map_tile WHERE map_id NOT IN (SELECT id FROM map)")[0][0] == 0


def test_one_that_is_removed_while_it_is_mapped_keeps_nothing(database, own, harvest):
    harvest("vanishing")
    gone = []

    def stage(name):
        if name == "cutting tiles":
            gone.append(remove(database, own.home, "vanishing"))

    with pytest.raises(UnknownSAE, match="was removed while its map was made; nothing of it is kept"):
        make_map("vanishing", Recipe("pca"), database, own.home, watch=Watch(doing=stage))
    assert gone
    parts = rows(database, "SELECT inhrelid FROM pg_inherits WHERE inhparent = 'map_point'::regclass")
    assert len(parts) == len(rows(database, "SELECT DISTINCT sae_id FROM map"))


def test_one_map_at_a_time_is_made_of_an_sae(database, own, sae, command):
    with map_lock(database, MAPPED):
        with pytest.raises(MapRunning):
            make_map(MAPPED, Recipe("pca"), database, own.home)
        _, err, status = command("map", MAPPED, "--method", "pca")
        assert (status, err) == (1, "saescope: A map of mapped is being made already; wait for it or stop it first.\n")
    assert make_map(MAPPED, Recipe("pca"), database, own.home).row.placed == 40


def test_what_cannot_be_mapped_is_one_sentence(database, own, harvest, sae, command):
    assert command("map", "nobody")[1].startswith("saescope: There is no harvested SAE 'nobody' here; there are: ")
    assert "has no revision 'abc' here" in command("map", f"{MAPPED}@abc")[1]
    harvest("three", random_sae(latents=3, k=1))
    told = "saescope: Of 3 latents 3 have a decoder row that is finite and not zero; a map needs 8.\n"
    assert command("map", "three", "--method", "pca")[1].endswith(told)
    alike = random_sae()
    harvest("alike", replace(alike, W_dec=alike.W_dec[:1].expand(40, -1).contiguous()))
    assert "Every decoder row points the same way" in command("map", "alike", "--method", "tsne")[1]
    assert (
        "alike" in {row.slug for row in rows(database, "SELECT slug FROM sae JOIN map ON sae_id = sae.id")}
    ) is False
    _, err, status = command("map", MAPPED, "--method", "cube")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "'cube' is not one of 'pca', 'umap', 'tsne'." in err
    assert files(own, "three") == files(own, "alike") == []


def test_latents_without_a_direction_have_no_place_and_files_that_are_damaged_are_refused(
    database, own, harvest, command
):
    harvest("holes")
    folder = next((own.home / "saes").glob("holes-*"))

    def rewritten(value):
        changed = random_sae()
        changed.W_dec[[4, 7]] = value
        for path in folder.iterdir():
            path.unlink()
        saelens.write(folder, changed, matrices=torch.float32, metadata={})

    rewritten(0)
    out, err, status = command("map", "holes", "--method", "pca")
    assert status == 0, (out, err)
    assert out.startswith("holes@")
    assert "38 latents on the map, 2 have no place." in out
    shutil.rmtree(folder / "maps", ignore_errors=True)
    rewritten(torch.nan)
    _, err, status = command("map", "holes", "--method", "pca")
    assert (status, "holds 64 NaN values of 1,280; the file is damaged." in err) == (1, True)
    shutil.rmtree(folder)
    _, err, status = command("map", "holes", "--method", "pca")
    assert (status, len(err.splitlines())) == (1, 2)
    assert "saescope: The SAE's files cannot be read: " in err


def test_company_can_be_mapped_where_there_is_some(database, own, sae, harvest):
    made = make_map(MAPPED, Recipe("pca", "coactivation"), database, own.home)
    assert made.row.placed + made.row.unplaced == 40
    number = rows(database, "SELECT id FROM sae WHERE slug = 'mapped'")[0].id
    harvest("lonely")
    with database.begin() as connection:
        connection.execute(
            text("UPDATE latent SET coactive_ids = NULL, coactive_phi = NULL WHERE sae_id <> :id"), {"id": number}
        )
    with pytest.raises(
        MapImpossible, match=r"^Of 40 latents 0 are stored as firing with others; a map needs 8\. Older"
    ):
        make_map("lonely", Recipe("pca", "coactivation"), database, own.home)


def test_a_disk_that_is_full_is_told_and_leaves_no_part(database, own, harvest, command):
    harvest("full")
    with no_file_above(3000):
        _, err, status = command("map", "full", "--method", "tsne")
    assert status == 1
    assert "saescope: What the map has so far could not be written to " in err
    assert files(own, "full") == []


def test_versions_differ_with_what_readers_see(database, own, sae):
    first = make_map(MAPPED, Recipe("pca"), database, own.home).row.version
    with database.begin() as connection:
        connection.execute(text("UPDATE latent SET label_score = 0.5 WHERE index = 3"))
    second = make_map(MAPPED, Recipe("pca"), database, own.home).row.version
    assert first != second
    assert json.dumps(maps(database)["pca", "decoder"].parameters)


def test_without_the_subjects_tokenizer_names_are_made_of_labels(tmp_path, tiny_folder):
    assert finish._texts(tmp_path / "gone") == []
    assert " the" in finish._texts(tiny_folder)
