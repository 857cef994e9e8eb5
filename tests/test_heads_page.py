"""The page that takes a latent on attention outputs apart, over HTTP, against the split itself."""

import re
from dataclasses import replace
from html import unescape

import pytest
import torch
from fastapi.testclient import TestClient

from app.harvest.job import Job, run_job
from app.live.head_split import head_split
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from tests.conftest import database_beside, public_folder, random_sae
from tests.families import make
from tests.test_api import fits

SLUG = "attention-output"
TEXT = "Paris is a warm cat in the sun"


@pytest.fixture(scope="module")
def sae():
    base = make(SLUG)
    return replace(base, config=replace(base.config, heads=4))


@pytest.fixture(scope="module")
def client(settings, harvested, sae, tiny, sequences):
    own = database_beside(settings, "heads")
    engine = sync_engine(database_url(own))
    migrate(engine)
    for slug, one in ((SLUG, sae), ("plain", random_sae())):
        folder = public_folder() / slug
        saelens.write(folder, one, matrices=torch.float32, metadata={})
        run_job(Job(slug, folder, "test text", 64, harvested[1]), tiny, sequences, engine, own.home)
    engine.dispose()
    with TestClient(create_app(own)) as client:
        yield client


def test_the_schemas_example_is_answered(client):
    schema = client.get("/api/openapi.json").json()
    told = schema["paths"]["/api/inspect/heads"]["post"]
    for example in told["requestBody"]["content"]["application/json"]["examples"].values():
        index = example["value"]["feature"].rpartition("/")[2]
        answer = client.post("/api/inspect/heads", json=example["value"] | {"feature": f"{SLUG}/{index}"})
        assert answer.status_code == 200
        fits(schema, told, answer)


def strongest(client):
    shown = client.post("/api/inspect", json={"text": TEXT, "sae": SLUG}).json()["saes"][0]
    assert shown["attention"]
    return shown["latents"][0]


def test_the_page_is_the_split_of_the_latent_where_it_is_strongest(client, tiny, sae):
    latent = strongest(client)
    asked = {"text": TEXT, "feature": f"{SLUG}/{latent['index']}"}
    found = client.post("/api/inspect/heads", json=asked).json()
    assert found["position"] == latent["position"]
    assert found["activation"] == pytest.approx(latent["activation"])
    ids = [tiny.bos_id, *tiny.encode(TEXT)]
    wanted = head_split(tiny.model, sae, ids, latent["position"], latent["index"])
    assert found["pre_act"] == pytest.approx(wanted.pre_act, abs=1e-4)
    assert found["activation"] == pytest.approx(wanted.pre_act, abs=1e-4)  # of a TopK that is what it lets through
    assert found["bias"] == pytest.approx(wanted.bias, abs=1e-5)
    assert sorted(h["head"] for h in found["heads"]) == [0, 1, 2, 3]
    for head in found["heads"]:
        assert head["sources"] == pytest.approx(wanted.pieces[head["head"]].tolist(), abs=1e-5)
        assert head["total"] == pytest.approx(sum(head["sources"]))
    assert found["sources"] == pytest.approx(wanted.pieces.sum(0).tolist(), abs=1e-5)
    assert found["most"] == pytest.approx(float(wanted.pieces.abs().max()), abs=1e-5)
    sizes = [abs(head["total"]) for head in found["heads"]]
    assert sizes == sorted(sizes, reverse=True)
    assert client.get("/inspect/heads.json", params=asked).json()["result"] == found


def test_another_token_a_silent_latent_and_a_chat(client):
    latent = strongest(client)
    feature = f"{SLUG}/{latent['index']}"
    at = client.post("/api/inspect/heads", json={"text": TEXT, "feature": feature, "token": 2}).json()
    assert (at["position"], len(at["sources"])) == (2, 3)
    read = client.post("/api/inspect", json={"text": TEXT, "sae": SLUG, "top": 500}).json()["saes"][0]
    silent = min(set(range(40)) - {x["index"] for x in read["latents"]})
    found = client.post("/api/inspect/heads", json={"text": TEXT, "feature": f"{SLUG}/{silent}"}).json()
    assert (found["activation"], found["position"]) == (0, len(found["tokens"]) - 1)
    page = client.get("/inspect/heads", params={"text": TEXT, "feature": f"{SLUG}/{silent}"}).text
    assert "does not fire there" in page
    chat = client.post("/api/inspect/heads", json={"text": TEXT, "feature": feature, "chat": True}).json()
    assert len(chat["tokens"]) > len(found["tokens"])


def test_pages_lead_there_where_there_are_heads_and_nowhere_else(client):
    latent = strongest(client)
    page = client.get("/inspect", params={"text": TEXT, "sae": SLUG}).text
    link = unescape(re.search(r'href="(/inspect/heads[^"]*)">By head and source', page)[1])
    shown = client.get(link)
    assert shown.status_code == 200
    assert f"at token {latent['position']} " in shown.text
    assert shown.text.count("Head ") >= 4
    attributed = client.get("/attribute", params={"text": TEXT, "sae": SLUG}).text
    link = unescape(re.search(r'href="(/inspect/heads[^"]*)">by head and source', attributed)[1])
    assert client.get(link).status_code == 200
    tested = client.get(f"/saes/{SLUG}/features/{latent['index']}", params={"text": TEXT}).text
    link = unescape(re.search(r'href="(/inspect/heads[^"]*)">Which head', tested)[1])
    assert client.get(link.replace("heads?", "heads.json?")).json()["result"]["position"] == latent["position"]
    for path in ("/inspect", "/attribute"):
        assert "/inspect/heads" not in client.get(path, params={"text": TEXT, "sae": "plain"}).text
    assert client.get("/inspect/heads").status_code == 200


def test_a_page_that_cannot_be_says_so_and_blames_no_fault(client):
    page = client.get("/inspect/heads", params={"text": TEXT, "feature": "plain/3"})
    assert page.status_code == 501
    assert "Not possible here" in page.text
    assert "server's log" not in unescape(page.text)


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"feature": "plain/3"}, 501, "Only an SAE of attention outputs"),
        ({"feature": f"{SLUG}/40"}, 422, "0 to 39"),
        ({"feature": "nowhere/4"}, 404, "no SAE"),
        ({"feature": "4"}, 422, "SLUG/NUMBER"),
        ({"feature": f"{SLUG}/4", "token": 4000}, 422, "Position 4000 is not in the text"),
        ({"feature": f"{SLUG}/4", "text": " "}, 422, "no text"),
        ({"feature": f"{SLUG}/4", "text": "word " * 60}, 413, "limit is 47"),
        ({"text": TEXT}, 422, "Give a text and a feature"),
    ],
)
def test_what_does_not_fit_is_one_sentence(client, query, status, says):
    answer = client.post("/api/inspect/heads", json={"text": TEXT, **query})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["message"]
    assert client.app.state.saescope.engine.pending == 0
