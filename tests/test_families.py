"""Every architecture from its files through the harvest and the database to the feature page and the inspector."""

import re

import pytest
import torch

from app.harvest.batches import counted, pad
from app.harvest.imports import keep
from app.harvest.job import Job, read_sae, resolved, run_job
from app.harvest.parameters import Parameters
from app.harvest.reading import beside
from app.main import create_app
from app.sae.formats import save
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.subject.hook_names import hook_point
from app.subject.hooks import read_activations
from tests.conftest import database_beside, public_folder
from tests.families import FAMILIES, make

PARAMETERS = Parameters(
    top=4, per_interval=2, width=16, neighbours=4, promoted=5, batch_tokens=512, reconstruct_every=1
)


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "families")


@pytest.fixture(scope="module")
def explored(tiny, sequences, own, home):
    """Every family saved, imported and harvested."""
    engine = sync_engine(database_url(own))
    migrate(engine)
    for name in FAMILIES:
        folder = public_folder() / name
        save(folder, make(name))
        imported = keep(read_sae(folder), f"family-{name}", home, {"source": str(folder)})
        job = Job(f"family-{name}", imported, "test text", 64, PARAMETERS)
        run_job(job, tiny, sequences, engine, home)
    engine.dispose()


@pytest.fixture(scope="module")
def site(explored, own):
    from fastapi.testclient import TestClient

    with TestClient(create_app(own)) as client:
        yield client


def activations(tiny, sequences, names):
    """[counted positions, d of all] of the whole text, one sequence at a time."""
    points = [hook_point(name, tiny.model) for name in names]
    rows = []
    for sequence in sequences:
        padded = pad([sequence], torch.device("cpu"))
        found = read_activations(tiny.model, padded.token_ids, list(dict.fromkeys(points)), padded.attention)
        rows.append(beside(found, points, counted(padded, torch.tensor(tiny.special_ids))))
    return torch.cat(rows)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_the_same_on_every_page(site, tiny, sequences, name):
    sae = make(name)
    x, y = activations(tiny, sequences, sae.config.reads), activations(tiny, sequences, sae.config.writes)
    acts = sae.encode(x)
    dense = acts.dense(sae.config.n_latents)
    facts = site.get(f"/saes/family-{name}.json").json()
    assert facts["reads"] == [str(hook_point(n, tiny.model)) for n in sae.config.reads]
    assert facts["alive"] == int((dense != 0).any(0).sum()) > 5
    fvu = float((y - sae.decode(acts, x)).double().pow(2).sum() / (y - y.mean(0)).double().pow(2).sum())
    assert facts["metrics"]["fvu"] == pytest.approx(fvu, rel=1e-3)
    fires = [(dense > 0).sum(0), (dense < 0).sum(0)]
    index = int((torch.minimum(*fires) if sae.config.signed else fires[0]).argmax())
    page = site.get(f"/saes/family-{name}/features/{index}.json").json()
    column = dense[:, index]
    assert page["fired"] == int((column != 0).sum())
    assert page["max"] == pytest.approx(max(float(column.max()), 0), rel=1e-4, abs=1e-6)
    assert page["min"] == pytest.approx(min(float(column.min()), 0), rel=1e-4, abs=1e-6)
    assert sum(page["histogram"]["counts"]) == page["fired"]
    assert (len(page["head_shares"]) if page["head_shares"] else None) == (4 if name == "attention-output" else None)
    assert len(page["promoted"]) == 5
    html = site.get(f"/saes/family-{name}/features/{index}").text
    if sae.config.signed:
        assert page["min"] < 0
        assert {e["sign"] for e in page["examples"]} == {1, -1}
        firing = [e for e in page["examples"] if e["interval"] not in ("random", "near")]
        assert all((e["activation"] < 0) == (e["sign"] < 0) for e in firing)
        assert "Most negative activations" in html
        assert re.search(r'class="n10( m\d+)? peak"', html)
    else:
        assert page["min"] == 0
        assert "Most negative activations" not in html


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_read_as_encoding_it_by_hand(site, tiny, name):
    text, sae = "Paris is a warm cat in France", make(name)
    result = site.post("/api/inspect", json={"text": text, "sae": f"family-{name}", "top": 200, "token": 4}).json()[
        "saes"
    ][0]
    points = [hook_point(n, tiny.model) for n in sae.config.reads]
    found = read_activations(tiny.model, torch.tensor([[tiny.bos_id, *tiny.encode(text)]]), list(dict.fromkeys(points)))
    x = torch.cat([found[p][0, 1:] for p in points], dim=1)
    dense = sae.encode(x).dense(sae.config.n_latents)
    got = {one["index"]: dict(map(tuple, one["activations"])) for one in result["latents"]}
    assert set(got) == set(dense[3].nonzero()[:, 0].tolist())
    for index, row in got.items():
        assert set(row) == {int(p) + 1 for p in dense[:, index].nonzero()[:, 0]}
        for place, value in row.items():
            assert value == pytest.approx(float(dense[place - 1, index]), rel=2e-3, abs=1e-6)
    if name.startswith("matching-pursuit"):
        steps = sae.pursue(x)
        assert [s["index"] for s in result["steps"]] == [i for i in steps.latent[3].tolist() if i >= 0]
        assert [s["residual"] for s in result["steps"]] == pytest.approx(
            steps.residual[3].tolist()[: len(result["steps"])], rel=1e-4
        )
        assert (
            "Order of selection"
            in site.get("/inspect", params={"text": text, "sae": f"family-{name}", "token": 4}).text
        )
    else:
        assert result["steps"] is None


def test_the_saved_form_reads_back_as_the_same_sae(tmp_path, tiny):
    for name in FAMILIES:
        sae = make(name)
        save(tmp_path / name, sae)
        again = resolved(read_sae(tmp_path / name), tiny)
        x = torch.randn(9, sae.config.d_in, generator=torch.Generator().manual_seed(1))
        one, two = sae.encode(x), again.encode(x)
        assert torch.equal(one.latent, two.latent), name
        assert torch.equal(one.value, two.value), name
        assert torch.equal(sae.decode(one, x), again.decode(two, x)), name
