"""Two features and two SAEs side by side, against the decoders they were made from."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save_file
from sqlalchemy import text

from app.corpus.sequences import Held
from app.errors import DecoderUnavailable, TooLarge
from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.store.decoders import Decoder
from app.store.engine import database_url, sync_engine
from app.store.matching import Nearest, check, cosine, nearest
from app.store.migrate import migrate
from app.web.contexts import Example
from app.web.examples import fold
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries

A, B = "first-40", "second-30"


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "comparing")


@pytest.fixture(scope="module")
def client(own, harvested, tiny, sequences):
    _, parameters, _ = harvested
    engine = sync_engine(database_url(own))
    migrate(engine)
    for slug, sae in ((A, random_sae()), (B, random_sae(latents=30, k=3, seed=1))):
        folder = public_folder() / slug
        saelens.write(folder, sae, matrices=torch.float32, metadata={})
        given = parameters if slug == A else replace(parameters, seed=3)
        run_job(Job(slug, folder, "test text", 64, given), tiny, sequences, engine, own.home)
    engine.dispose()
    with TestClient(create_app(own)) as client:
        yield client


def decoders():
    return [sae.W_dec.double().numpy() for sae in (random_sae(), random_sae(latents=30, k=3, seed=1))]


def compared(client, a, b, **query):
    answer = client.get("/compare.json", params={"a": a, "b": b, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_features_of_one_sae(client):
    W, _ = decoders()
    page = client.get(f"/saes/{A}/features/3.json").json()
    for other in (page["neighbours"][0]["index"], *(i for i in range(40) if i != 3)):
        found = compared(client, f"{A}/3", f"/saes/{A}/features/{other}")["features"]
        assert found["cosine"] == pytest.approx(float(W[3] @ W[other]), abs=1e-4)
        kept = {n["index"]: n for n in page["usage"]["coactive"]}
        if other in kept:
            assert found["phi"] == pytest.approx(kept[other]["phi"], rel=1e-5)
            assert found["together"] == kept[other]["together"]
        mine = {e["sequence"] for e in page["examples"] if e["interval"] not in ("random", "near")}
        beside = client.get(f"/saes/{A}/features/{other}.json").json()["examples"]
        theirs = {e["sequence"] for e in beside if e["interval"] not in ("random", "near")}
        assert {s["sequence"] for s in found["shared"]} == mine & theirs
        for s in found["shared"]:
            assert s["a"]["sequence"] == s["b"]["sequence"] == s["sequence"]
            assert s["a"]["activation"] != 0 != s["b"]["activation"]
    assert found["a"]["feature"]["density"] == page["density"]


def test_what_was_not_kept_is_said(client):
    notes = {compared(client, f"{A}/3", f"{A}/{i}")["features"]["phi_note"] for i in range(40)}
    assert "a feature with itself" in notes
    assert len(notes) > 1
    across = compared(client, f"{A}/3", f"{B}/4")["features"]
    W, V = decoders()
    assert across["cosine"] == pytest.approx(float(W[3] @ V[4]), abs=1e-5)
    assert (across["phi"], across["phi_note"]) == (None, "firings together are counted within one SAE only")
    assert across["shared"] is not None


def test_saes_are_matched_like_a_loop_over_all_pairs(client):
    W, V = decoders()
    table = W @ V.T
    pairs = [
        (i, j) for i in range(40) for j in range(30) if table[i].argmax() == j and table[:, j].argmax() == i
    ]  # fmt: skip
    found = compared(client, A, B, top=500)["saes"]
    matching = found["matching"]
    assert {(m["a"]["index"], m["b"]["index"]) for m in matching["mutual"]} == set(pairs)
    assert matching["mutual_count"] == len(pairs)
    for m in matching["mutual"]:
        assert m["cosine"] == pytest.approx(table[m["a"]["index"], m["b"]["index"]], abs=1e-5)
    cosines = [m["cosine"] for m in matching["mutual"]]
    assert cosines == sorted(cosines, reverse=True)
    assert matching["mean_a"] == pytest.approx(table.max(1).mean(), abs=1e-5)
    alive = {item["index"] for item in client.get(f"/saes/{A}/features.json?state=alive&limit=500").json()["items"]}
    lonely = {one["feature"]["index"]: one for one in matching["unmatched_a"]}
    assert set(lonely) == alive - {i for i, _ in pairs}
    for i, one in lonely.items():
        assert one["nearest"]["index"] == table[i].argmax()
    metrics = {m["name"]: m for m in found["metrics"]}
    assert metrics["L0"]["delta"] == pytest.approx(metrics["L0"]["b"] - metrics["L0"]["a"])
    facts = {f["name"]: f for f in found["facts"]}
    assert (facts["Latents"]["a"], facts["Latents"]["b"], facts["Latents"]["same"]) == ("40", "30", False)
    assert facts["Subject"]["same"]


def test_a_match_is_computed_once_and_of_the_revision_named(client, monkeypatch):
    compared(client, A, B)
    monkeypatch.setattr("app.web.matches.nearest", None)
    revision = client.get(f"/saes/{B}.json").json()["revision"]
    found = compared(client, A, f"{B}@{revision}")["saes"]
    assert found["matching"]["mutual"][0]["b"]["url"].startswith(f"/saes/{B}@{revision}/")
    assert compared(client, A, B, top=2)["saes"]["matching"]["mutual_count"] == found["matching"]["mutual_count"]


def test_saes_too_large_or_without_files_still_compare_their_metrics(client, own, monkeypatch):
    monkeypatch.setattr("app.store.matching.MOST", 35)
    client.app.state.saescope.matches._known.clear()  # which knows the pair the other way round
    found = compared(client, B, A)["saes"]
    assert found["matching"] is None
    assert found["matching_note"] == ("Latents are matched one by one up to 35 on a side; these SAEs have 30 and 40.")
    assert found["metrics"]
    monkeypatch.undo()
    engine = sync_engine(database_url(own))
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT path FROM sae WHERE slug = :s"), {"s": B}).scalar_one()
        connection.execute(text("UPDATE sae SET path = 'gone' WHERE slug = :s"), {"s": B})
    try:
        assert "files are gone" in compared(client, B, A)["saes"]["matching_note"]
        assert "files are gone" in compared(client, f"{B}/1", f"{A}/1")["features"]["cosine_note"]
    finally:
        with engine.begin() as connection:
            connection.execute(text("UPDATE sae SET path = :p WHERE slug = :s"), {"s": B, "p": kept})
        engine.dispose()


@pytest.mark.parametrize(
    ("a", "b", "status", "says"),
    [
        (A, f"{A}/3", 422, "is an SAE and"),
        (f"{A}/40", f"{A}/3", 404, "its features are 0 to 39"),
        (f"{A}/x", f"{A}/3", 404, "no feature number"),
        (f"{A}/-1", f"{A}/3", 404, "no feature number"),
        ("nothing", A, 404, "no SAE 'nothing'"),
        ("a/b/c/d", A, 422, "names no feature and no SAE"),
        ("http://[", A, 422, "names no feature and no SAE"),
        ("/", A, 422, "names no feature and no SAE"),
        (f"{A}@0000000000", A, 404, "no revision"),
        ("a" * 401, A, 422, "a does not fit"),
        ("a\0b", A, 404, "no SAE"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_over_the_form(client, a, b, status, says):
    query = {"a": a, "b": b}
    page = client.get("/compare", params=query)
    assert page.status_code == status
    assert says in page.text.replace("&#39;", "'")
    told = client.get("/compare.json", params=query)
    assert told.status_code == status
    assert set(told.json()) == {"code", "message", "detail"}


def test_addresses_are_taken_as_they_are_pasted(client):
    for pasted in (
        f"{A}/5", f" /saes/{A}/features/5 ", f"http://localhost:8000/saes/{A}/features/5?text=a#x",
        f"/saes/{A}/features/5.json", f"{A}/features/5", f"http://x/base/saes/{A}/features/5/card",
    ):  # fmt: skip
        assert compared(client, pasted, f"{A}/6")["features"]["a"]["feature"]["index"] == 5
    assert compared(client, f"/saes/{A}", f"http://h/saes/{B}.json")["saes"]["b"]["sae"] == B
    half = client.get("/compare", params={"a": A})
    assert half.status_code == 200
    assert f'value="{A}"' in half.text
    assert client.get("/compare").status_code == 200


def test_a_number_beside_a_feature_is_one_of_the_same_sae(client):
    for a, b in (("5", f"{B}/6"), (f"/saes/{B}/features/5", " 6 ")):
        found = compared(client, a, b)["features"]
        assert [(found[side]["sae"], found[side]["feature"]["index"]) for side in "ab"] == [(B, 5), (B, 6)]
    beyond = client.get("/compare", params={"a": f"{B}/5", "b": "30"})
    assert beyond.status_code == 404
    assert "its features are 0 to 29" in beyond.text
    for a, b in (("5", "6"), ("5", A)):  # of which of the two SAEs?
        assert "no SAE &#39;5&#39; here; there are: " in client.get("/compare", params={"a": a, "b": b}).text


def test_two_numbers_are_features_of_the_only_sae(settings, harvested, tiny, sequences):
    _, parameters, folder = harvested
    alone = database_beside(settings, "comparing_one")
    engine = sync_engine(database_url(alone))
    migrate(engine)
    run_job(Job("alone", folder, "test text", 64, parameters), tiny, sequences, engine, alone.home)
    engine.dispose()
    with TestClient(create_app(alone)) as client:
        found = compared(client, "5", "6")["features"]
    assert [(found[side]["sae"], found[side]["feature"]["index"]) for side in "ab"] == [("alone", 5), ("alone", 6)]


def test_a_page_asks_at_most_a_few_queries_and_names_both(client):
    with counted_queries(client) as statements:
        shown = client.get("/compare", params={"a": f"{A}/3", "b": f"{B}/4"}).text
    assert len(statements) <= 7  # two for each side, two SAEs, and the list to choose from
    assert re.search(r"computed from the decoders", shown)
    with counted_queries(client) as statements:
        client.get("/compare", params={"a": A, "b": B})
    assert len(statements) <= 7


def test_two_decoders_by_hand():
    a = [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    b = [[0.0, 3.0], [1.0, 1.0]]

    class Rows:
        d = 2

        def __init__(self, rows):
            self._rows = np.array(rows, np.float32)

        def rows(self, start, stop):
            return self._rows[start:stop]

    found = nearest(Rows(a), 3, Rows(b), 2)
    assert found.to_b.tolist() == [1, 0, 0]
    assert found.cosine_b.tolist() == pytest.approx([2**-0.5, 1.0, 0.0])
    assert found.to_a.tolist() == [1, 0]
    assert found.mutual().tolist() == [[1, 0], [0, 1]]
    assert cosine(np.zeros(2, np.float32), np.ones(2, np.float32)) is None
    with pytest.raises(TooLarge, match="16,384 on a side; these SAEs have 16,385 and 2"):
        check(16_385, 2)


def test_two_harvests_of_the_same_weights_are_compared_by_what_they_counted(client):
    found = compared(client, A, f"{A}@{client.get(f'/saes/{A}.json').json()['revision']}")["saes"]
    assert (found["matching"], found["changes"]) == (None, [])
    assert compared(client, A, B)["saes"]["changes"] is None


@pytest.fixture(scope="module")
def again(own, client, harvested, tiny, sequences):
    """The first SAE, harvested once more over half of the text."""
    _, parameters, _ = harvested
    engine = sync_engine(database_url(own))
    folder = public_folder() / A
    saelens.write(folder, random_sae(), matrices=torch.float32, metadata={})
    run_job(
        Job("again-40", folder, "less text", 64, parameters),
        tiny,
        Held(sequences[: len(sequences) // 2]),
        engine,
        own.home,
    )
    engine.dispose()


def test_what_changed_most_comes_first(client, again):
    changes = compared(client, A, "again-40", top=40)["saes"]["changes"]
    assert sorted(c["a"]["index"] for c in changes) == list(range(40))
    assert all(c["a"]["index"] == c["b"]["index"] for c in changes)
    tokens = [client.get(f"/saes/{slug}.json").json()["harvest"]["tokens"] for slug in (A, "again-40")]
    ratios = [
        abs(np.log(max(c["a"]["density"], 0.5 / tokens[0]) / max(c["b"]["density"], 0.5 / tokens[1]))) for c in changes
    ]
    assert np.diff(ratios).max() < 1e-6
    assert ratios[0] > ratios[-1]
    html = client.get("/compare", params={"a": A, "b": "again-40"}).text
    assert "Same weights, two harvests" in html
    assert "Mutual nearest" not in html


def test_two_selected_rows_are_compared_and_other_numbers_are_refused(client):
    chosen = client.get("/compare", params={"sae": A, "index": ["3", "4"]}, follow_redirects=False)
    assert (chosen.status_code, chosen.headers["location"]) == (303, f"/compare?a={A}%2F3&b={A}%2F4")
    for index in (["3"], ["1", "2", "3"]):
        refused = client.get("/compare", params={"sae": A, "index": index})
        assert refused.status_code == 422
        assert f"Select two features to compare; {len(index)} are selected." in refused.text
    refused = client.get("/compare", params={"sae": A})
    assert refused.status_code == 422
    assert f"Choose two features of {A}, or it and another SAE, to compare; it alone is chosen." in refused.text


def test_alike_examples_of_a_compared_feature_are_folded(client):
    for index in range(40):
        found = compared(client, f"{A}/{index}", f"{B}/0")["features"]["a"]
        kept = fold([Example(**e) for e in found["examples"]])
        html = client.get("/compare", params={"a": f"{A}/{index}", "b": f"{B}/0"}).text
        shown = html.count(f'aria-label="{A} {index}, example ')
        assert shown == len(kept)
        if len(kept) < len(found["examples"]):
            assert "left out" in html
            return
    raise AssertionError("no feature had alike examples")


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)

    class Rows:
        def __init__(self, n):
            self.d, self._rows = 6, rng.normal(size=(n, 6)).astype(np.float32)

        def rows(self, start, stop):
            return self._rows[start:stop]

    a, b = Rows(50), Rows(33)
    whole = nearest(a, 50, b, 33)
    monkeypatch.setattr("app.store.matching.BLOCK", 7)
    cut = nearest(a, 50, b, 33)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert isinstance(cut, Nearest)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_decoder_rows_are_read_in_every_dtype(tmp_path, dtype):
    W = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_file({"b_dec": torch.zeros(3), "W_dec": W}, tmp_path / "sae.safetensors")
    rows = Decoder(tmp_path, 5).rows(1, 4)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, W[1:4].float().numpy())


def test_decoders_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DecoderUnavailable, match="files are gone"):
        Decoder(tmp_path, 5)
    file = tmp_path / "sae_weights.safetensors"
    for content, says in (
        (b"", "no W_dec that can be read"),
        ((10**9).to_bytes(8, "little") + b"{}", "longer than the file"),
        ((2).to_bytes(8, "little") + b"{}", "there is no W_dec"),
        (header({"dtype": "I8", "shape": [5, 3], "data_offsets": [0, 15]}), "its dtype is I8"),
        (header({"dtype": "F32", "shape": [5, 3], "data_offsets": [0, 60]}), "does not fit its bytes"),
        (header({"dtype": "F32", "shape": [5, 3], "data_offsets": [0, 15]}), "does not fit its bytes"),
        (header({"shape": [5, 3]}), "no W_dec that can be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(DecoderUnavailable, match=says):
            Decoder(tmp_path, 5)
    save_file({"W_dec": torch.zeros(4, 3)}, file)
    with pytest.raises(DecoderUnavailable, match="one row for each of 5"):
        Decoder(tmp_path, 5)


def header(tensor):
    raw = json.dumps({"W_dec": tensor}).encode()
    return len(raw).to_bytes(8, "little") + raw
