"""Search over HTTP: a real sentence model, a real database, two SAEs of a tiny subject."""

import json
import re
from html import unescape

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.embed.missing import embed_missing
from app.embed.model import SentenceModel
from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.store.embeddings import literal
from app.store.explanation_bulk import make_partitions
from app.store.search import RRF, merge, with_listed
from app.web.assets import install_assets
from tests.chromium import launched
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries
from tests.serving import serving

FIRST, SECOND = "first", "second"
# Of rules' kind and of language models'; none of the three queries shares a word with the one that is meant.
SAID = {
    3: "fires on “helium”, “lithium”, “neon”, “argon”, “sodium”, “uranium”",
    5: "vague, evasive language that avoids commitment",
    7: "fires on “UN”, “UNESCO”, “Security Council”, “General Assembly”",
    9: "fires on “dog”, “cat”, “horse”, “sheep”",
    11: "fires on “Monday”, “Tuesday”, “Friday”",
    13: "fires on “king”, “queen”, “prince”, “throne”",
    15: "fires on “football”, “goal”, “league”, “match”",
    17: "fires on the horse in old songs",
}
OTHERS = {2: "fires on “guitar”, “piano”, “drum”", 4: "promotes “horse”, “pony”; fires before them"}


@pytest.fixture(scope="session")
def model(model_folder):
    return SentenceModel(model_folder)


@pytest.fixture(scope="module")
def own(settings, model_folder):
    return database_beside(settings, "searching").model_copy(
        update={"home": public_folder(), "embeddings": model_folder}
    )


@pytest.fixture(scope="module")
def saes(own, database, lister, sequences, harvested, model):
    """Ids by slug; the first's explanations are embedded, the second's not."""
    for number, slug in enumerate((FIRST, SECOND)):
        folder = public_folder() / slug
        sae = random_sae(hook=f"model.layers.{number}:out", seed=number)
        saelens.write(folder, sae, matrices=torch.float32, metadata={})
        run_job(Job(slug, folder, "test text", 64, harvested[1]), lister, sequences, database, own.home)
    with database.begin() as connection:
        ids = dict(connection.execute(text("SELECT slug, id FROM sae")).all())
        connection.execute(text("UPDATE latent SET label = 'nothing much ' || index, density = 0.001 * (index + 1)"))
        connection.execute(text("UPDATE latent SET label = 'sea, river, horse' WHERE index = 30"))
        for slug, said in ((FIRST, SAID), (SECOND, OTHERS)):
            make_partitions(connection, ids[slug])
            for latent, words in said.items():
                explain(connection, ids[slug], latent, words)
    embed_missing(database, ids[FIRST], model)
    return ids


def explain(connection, sae_id, latent, words, method="token-rules", sign=1):
    return connection.execute(
        text(
            "INSERT INTO explanation (sae_id, latent, sign, method, text, label) "
            "VALUES (:sae, :latent, :sign, :method, :words, :words) RETURNING id"
        ),
        {"sae": sae_id, "latent": latent, "sign": sign, "method": method, "words": words},
    ).scalar_one()


@pytest.fixture(scope="module")
def client(own, saes):
    with TestClient(create_app(own)) as client:
        client.get("/search.json", params={"q": "what is searched first loads the model"})
        for mode in ("tokens", "examples", "text"):
            client.get("/search.json", params={"q": "Paris", "mode": mode})
        yield client


def asked(client, q, **query):
    answer = client.get("/search.json", params={"q": q, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def names(result):
    return [(hit["sae"], hit["index"]) for hit in result["items"]]


@pytest.mark.parametrize(("query", "latent"), [("chemical elements", 3), ("hedging words", 5), ("United Nations", 7)])
def test_a_feature_is_found_by_what_it_means_where_no_word_is_the_same(client, query, latent):
    result = asked(client, query)
    assert names(result)[0] == (FIRST, latent)
    best = result["items"][0]
    assert best["words"] is None
    assert not set(query.lower().split()) & set(re.findall(r"\w+", SAID[latent].lower()))
    assert "".join(piece["text"] for piece in best["meaning"]["pieces"]) == SAID[latent]
    assert best["cosine"] > result["items"][1]["cosine"]
    assert result["found"] == 0
    assert result["by_meaning"]


def test_cosines_are_those_of_the_sentence_model(client, model):
    vectors = model.encode(["hedging words", *SAID.values()])
    exact = dict(zip(SAID, vectors[1:] @ vectors[0], strict=True))
    result = asked(client, "hedging words", sae=FIRST, top=100)
    assert {hit["index"]: hit["cosine"] for hit in result["items"]} == pytest.approx(exact, abs=2e-3)


def test_what_has_the_words_and_is_near_comes_first_and_the_words_are_marked(client):
    result = asked(client, "horse")
    assert names(result)[0] in {(FIRST, 17), (FIRST, 9)}
    by_word = {(hit["sae"], hit["index"]): hit for hit in result["items"] if hit["words"]}
    assert set(by_word) == {(FIRST, 9), (FIRST, 17), (SECOND, 4), (FIRST, 30), (SECOND, 30)}
    assert result["found"] == 5
    assert not result["more"]
    for hit in by_word.values():
        assert [piece["text"] for piece in hit["words"]["pieces"] if piece["marked"]] == ["horse"]
    assert by_word[FIRST, 30]["words"]["method"] is None  # found by its label alone
    assert by_word[FIRST, 9]["words"]["method"] == "token-rules"
    assert by_word[SECOND, 4]["cosine"] is None  # not embedded, so found by words alone
    both = [key for key, hit in by_word.items() if hit["cosine"] is not None]
    assert names(result)[: len(both)] == sorted(both, key=names(result).index)


def test_lists_are_merged_by_reciprocal_ranks():
    found = merge([((1, 7), 70), ((1, 8), None), ((1, 7), 71), ((1, 8), 80)], [((1, 9), 90, 0.9), ((1, 8), 81, 0.8)])
    assert [one.key for one in found] == [(1, 8), (1, 9), (1, 7)]
    assert found[0].merged == pytest.approx(1 / (RRF + 2) + 1 / (RRF + 2))
    assert [one.merged for one in found[1:]] == pytest.approx([1 / (RRF + 1)] * 2)  # the nearer of equal ones first
    assert (found[0].word_id, found[0].meaning_id, found[2].word_id) == (80, 81, 70)


def test_what_fires_on_a_list_has_as_much_of_a_vote_as_all_that_is_written():
    told = merge([((1, 7), 70), ((1, 8), 80)], [((1, 8), 81, 0.8), ((1, 9), 90, 0.7)])  # 8, 7, 9
    found = with_listed(told, [(1, 4), (1, 9), (1, 7)])
    assert [one.key for one in found] == [(1, 7), (1, 9), (1, 8), (1, 4)]  # of equal ones what is written is first
    wanted = [1 / (RRF + 2) + 1 / (RRF + 3), 1 / (RRF + 3) + 1 / (RRF + 2), 1 / (RRF + 1), 1 / (RRF + 1)]
    assert [one.merged for one in found] == pytest.approx(wanted)
    assert [one.by_list for one in found] == [2, 1, None, 0]
    assert (found[1].meaning_id, found[2].word_id, found[3].cosine) == (90, 80, None)
    assert with_listed(told, []) == told
    assert [one.key for one in with_listed([], [(1, 4), (2, 1)])] == [(1, 4), (2, 1)]


def test_filters_keep_what_they_say(client, saes, database):
    assert set(names(asked(client, "horse", sae=SECOND))) == {(SECOND, 4), (SECOND, 30)}
    assert {sae for sae, _ in names(asked(client, "horse", layer=1))} == {SECOND}
    assert names(asked(client, "horse", layer=7)) == []
    dense = asked(client, "horse", density_min="1.75%", density_max="0.0315")
    assert set(names(dense)) == {(FIRST, 17), (FIRST, 30), (SECOND, 30)}
    assert set(names(asked(client, "horse", method="token-rules"))) == {*((FIRST, i) for i in SAID), (SECOND, 4)}
    assert names(asked(client, "horse", method="nobody")) == []
    assert names(asked(client, "horse", fires="negative")) == []
    with database.begin() as connection:
        connection.execute(text("UPDATE latent SET label_score = 0.75 WHERE index = 9"))
    assert names(asked(client, "horse", score_min="0.7", score_max="0.8")) == [(FIRST, 9)]


def test_pages_follow_one_another_and_hold_each_feature_once(client):
    whole = asked(client, "animals in the sun", top=100)
    pages = [asked(client, "animals in the sun", top=3, after=after) for after in (0, 3, 6)]
    assert [one for page in pages for one in names(page)] == names(whole)[:9]
    assert len(set(names(whole))) == len(whole["items"]) == 8
    assert [page["next"] for page in pages] == [3, 6, None]


@pytest.mark.parametrize(
    "query",
    [
        "'; DROP TABLE explanation; --", '"', "a & | ! <-> :*", "\\", "%_", "שלום عالم", "🎉\u200d🎉", "the", "e\u0301",
        "-horse", '"horse in old"', "ſ" * 400, "\ue000horse\ue001", "<script>alert(1)</script>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["meaning", "tokens", "examples"])
def test_whatever_is_typed_is_searched_or_refused_in_one_sentence(client, query, mode):
    answer = client.get("/search", params={"q": query, "mode": mode})
    assert answer.status_code in (200, 422)
    assert "<script>alert" not in answer.text
    assert client.get("/search.json", params={"q": "horse"}).json()["result"]["found"] == 5


def test_quotes_and_minus_are_understood(client):
    assert next(one for one in asked(client, '"horse in old"')["items"] if one["words"])["index"] == 17
    without = {one["index"] for one in asked(client, "horse -songs")["items"] if one["words"]}
    assert 9 in without
    assert 17 not in without


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ({"q": "horse", "density_min": "much"}, 422, "which is no number"),
        ({"q": "horse", "score_min": "2", "score_max": "1"}, 422, "holds nothing"),
        ({"q": "horse " * 200}, 422, "at most 500"),
        ({"q": "horse", "sae": "nowhere"}, 404, "There is no SAE"),
        ({"q": "horse", "mode": "smell"}, 422, "mode does not fit"),
        ({"q": "a\0b"}, 422, "no text holds a nul"),
        ({"q": "no such token at all", "mode": "tokens"}, 422, "No token of"),
        ({"q": "[1, 2]", "mode": "vector"}, 422, "The direction has 2 numbers; the decoders searched have 32"),
        ({"q": "[0, 0]", "mode": "vector"}, 422, "length is 0"),
        ({"q": "north", "mode": "vector"}, 422, "A direction is SLUG/NUMBER"),
        ({"q": '{"a": 1}', "mode": "vector"}, 422, "another kind of JSON"),
        ({"q": "[1e999, 1]", "mode": "vector"}, 422, "not finite"),
        ({"q": f"{FIRST}/400", "mode": "vector"}, 404, "has no feature 400"),
        ({"q": "x " * 900, "mode": "text"}, 413, "tokens"),
    ],
)
def test_bad_input_is_one_sentence_on_the_page_and_in_json(client, query, status, told):
    answer = client.get("/search.json", params=query)
    assert (answer.status_code, told in answer.json()["message"]) == (status, True), answer.text
    page = client.get("/search", params=query)
    assert page.status_code == status
    assert told in unescape(page.text)


def test_tokens_find_what_fires_on_them_or_promotes_them(client, database, saes, tiny):
    token = tiny.encode(" Paris")[0]
    with database.begin() as connection:
        promoted = text("UPDATE latent SET promoted_ids = ARRAY[:t] || promoted_ids[2:] WHERE index = 21")
        connection.execute(promoted, {"t": token})
        rows = connection.execute(
            text(
                "SELECT s.slug, l.index FROM latent l JOIN sae s ON s.id = l.sae_id "
                "WHERE :t = ANY(coalesce(token_probability_ids, '{}') || promoted_ids)"
            ),
            {"t": token},
        ).all()
    result = asked(client, "Paris", mode="tokens", top=100)
    assert {t["token"] for t in result["meant"]} >= {" Paris"}
    assert set(names(result)) >= set(map(tuple, rows))
    hit = next(hit for hit in result["items"] if (hit["sae"], hit["index"]) == (FIRST, 21))
    assert "promotes" in hit["tokens"]
    assert result["found"] == len(result["items"])
    assert {one for one, _ in names(asked(client, "Paris", mode="tokens", sae=SECOND, top=100))} == {SECOND}


def test_a_text_finds_what_the_inspector_finds(client):
    prompt = "Paris is the capital of France"
    there = client.post("/api/inspect", json={"text": prompt, "sae": FIRST, "top": 10}).json()
    result = asked(client, prompt, mode="text", sae=FIRST, top=10)
    assert [one["index"] for one in there["saes"][0]["latents"]] == [hit["index"] for hit in result["items"]]
    assert result["found"] == there["saes"][0]["active"]
    assert result["items"][0]["fires"]["strength"] == there["saes"][0]["latents"][0]["strength"]
    some = asked(client, prompt, mode="text", sae=FIRST, top=10, density_max="0.0205")
    assert some["items"]
    assert all(hit["index"] < 20 for hit in some["items"])


def test_examples_find_every_latent_whose_windows_hold_the_phrase(client, database, saes, tiny, harvested):
    phrase, width = "capital of France", harvested[1].width
    variants = {tuple(tiny.encode(f"{space}{phrase}")) for space in ("", " ")}
    wanted = {}
    with database.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT slug, latent, e.position, e.start, s.token_ids FROM example e JOIN sae ON sae.id = e.sae_id "
                "JOIN sequence s ON s.id = e.sequence_id WHERE interval <= 10"
            )
        )
        for slug, latent, position, start, ids in rows:
            window = ids[start : start + width]
            for variant in variants:
                places = [i for i in range(len(window)) if tuple(window[i : i + len(variant)]) == variant]
                if places:
                    count, peaks = wanted.get((slug, latent), (0, 0))
                    peak = any(start + i <= position < start + i + len(variant) for i in places)
                    wanted[slug, latent] = (count + 1, peaks + peak)
    assert wanted
    result = asked(client, phrase, mode="examples", top=100)
    assert {
        (hit["sae"], hit["index"]): (hit["mentions"]["examples"], hit["mentions"]["peaks"]) for hit in result["items"]
    } == wanted
    assert result["found"] == len(wanted)
    ranks = [(-hit["mentions"]["peaks"], -hit["mentions"]["examples"]) for hit in result["items"]]
    assert ranks == sorted(ranks)
    for hit in result["items"]:
        m = hit["mentions"]
        assert phrase in "".join(m["example"]["tokens"][m["first"] : m["end"]])
    assert asked(client, "capital of Spain", mode="examples")["items"] == []
    assert names(asked(client, "CAPITAL OF FRANCE".lower(), mode="examples", sae=SECOND)) == []
    assert asked(client, "Capital Of france", mode="examples")["items"] == []  # only whole cases are tried


def test_a_direction_finds_the_decoder_rows_of_greatest_cosine(client):
    rows = random_sae(seed=0).W_dec
    near = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(rows[3] + 0.2 * rows[8], dim=0)
    direction = (rows[3] + 0.2 * rows[8]).tolist()
    result = asked(client, json.dumps(direction), mode="vector", sae=FIRST, top=5)
    best = torch.topk(near, 5)
    assert [hit["index"] for hit in result["items"]] == best.indices.tolist()
    assert [hit["cosine"] for hit in result["items"]] == pytest.approx(best.values.tolist(), abs=1e-5)
    named = asked(client, f"{FIRST}/3", mode="vector", sae=FIRST, top=100)
    assert 3 not in {hit["index"] for hit in named["items"]}
    assert len(named["items"]) == 39
    some = asked(client, json.dumps(direction), mode="vector", density_min="0.0095", density_max="0.0125")
    assert {index for _, index in names(some)} == {9, 10, 11}


def test_a_number_jumps_and_so_does_an_address(client):
    one = client.get("/search", params={"q": "12", "sae": FIRST}, follow_redirects=False)
    assert (one.status_code, one.headers["location"]) == (303, f"/saes/{FIRST}/features/12")
    two = client.get("/search", params={"q": f"{SECOND}/7"}, follow_redirects=False)
    assert two.headers["location"] == f"/saes/{SECOND}/features/7"
    several = client.get("/search", params={"q": "12"})
    assert f'href="/saes/{FIRST}/features/12"' in several.text
    assert f'href="/saes/{SECOND}/features/12"' in several.text
    assert client.get("/search", params={"q": "99999999"}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"q": "horse"},
        {"q": "horse", "density_min": "0.001", "method": "token-rules"},
        {"q": "Paris", "mode": "tokens"},
        {"q": "Paris is warm", "mode": "text", "density_min": "0.001"},
        {"q": "capital of France", "mode": "examples"},
        {"q": f"{FIRST}/3", "mode": "vector", "density_min": "0.001"},
    ],
)
def test_a_page_asks_little_and_says_what_its_twin_says(client, query):
    client.get("/search", params=query)
    with counted_queries(client) as statements:
        page = client.get("/search", params=query)
    assert page.status_code == 200
    assert len(statements) <= 6, statements
    twin = client.get("/search.json", params=query).json()
    assert twin["result"]["items"]
    for hit in twin["result"]["items"]:
        assert f'href="{hit["url"]}"' in page.text
    url = unescape(re.search(r'<a href="(/search\.json[^"]+)">', page.text)[1])
    assert client.get(url).json() == twin
    fragment = client.get("/search", params=query, headers={"hx-request": "true"})
    assert "<html" not in fragment.text
    assert fragment.headers["hx-push-url"].startswith("/search?q=")
    assert fragment.text.strip() in page.text


def test_the_form_of_a_long_direction_is_answered_where_no_address_holds_it(client):
    long = json.dumps([float(f"{x:.15f}") for x in np.linspace(0.1, 1, 32)])
    short = client.post("/search", data={"q": long, "mode": "vector"}, follow_redirects=False)
    assert short.status_code == 303
    padded = long.replace(",", "," + " " * 200)
    answer = client.post("/search", data={"q": padded, "mode": "vector", "sae": FIRST}, follow_redirects=False)
    assert answer.status_code == 200
    assert answer.text.count('<p class="name">') == 20
    assert 'name="after" value="20"' in answer.text


def test_empty_fields_leave_the_address(client):
    answer = client.get("/search?q=horse&sae=&method=&density_min=", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/search?q=horse")
    assert 'name="q"' in client.get("/search").text


# Vectors that are missing, or of another model.


def test_saes_that_are_not_embedded_are_found_by_words_and_it_is_said_how_to_embed_them(client):
    told = asked(client, "horse")["notes"]
    said = f"The explanations of {SECOND} are not embedded, so they are found by words alone"
    assert told == [f"{said}; 'saescope embed {SECOND}'."]
    alone = asked(client, "guitars and other things", sae=SECOND)
    assert "'saescope embed' embeds the explanations" in alone["notes"][0]
    assert names(alone) == [(SECOND, 2)]
    assert alone["any_word"]
    assert not alone["by_meaning"]


def test_vectors_of_another_model_are_never_compared(client, database, saes):
    with database.begin() as connection:
        connection.execute(text("UPDATE embedding SET model = 'other@0000000000'"))
    try:
        result = asked(client, "chemical elements", sae=FIRST)
        assert result["items"] == []
        assert "were embedded by another model" in result["notes"][0]
    finally:
        with database.begin() as connection:
            name = client.app.state.saescope.engine._embedder._model.name
            connection.execute(text("UPDATE embedding SET model = :m"), {"m": name})
    assert names(asked(client, "chemical elements", sae=FIRST))[0] == (FIRST, 3)


def test_without_a_model_words_are_searched_and_it_is_said_how_to_get_one(own, saes):
    for given, told in ((None, "'saescope embed' fetches it"), (own.home, "holds no modules.json")):
        bare = own.model_copy(update={"embeddings": given})
        with TestClient(create_app(bare)) as client:
            result = asked(client, "horse", sae=FIRST)
            assert told in result["notes"][0]
            assert {index for _, index in names(result)} == {9, 17, 30}


def test_embedding_again_does_what_is_missing_and_what_has_changed(database, saes, model):
    sae = saes[FIRST]
    assert embed_missing(database, sae, model).embedded == 0
    with database.begin() as connection:
        one = explain(connection, sae, 20, "fires on “bread”, “butter”", method="person")
    steps = []
    assert embed_missing(database, sae, model, step=lambda done, total: steps.append((done, total))).embedded == 1
    assert steps == [(1, 1)]
    with database.begin() as connection:
        connection.execute(text("UPDATE explanation SET text = 'fires on “bridges”' WHERE id = :i"), {"i": one})
        assert connection.execute(text("SELECT embedding FROM explanation WHERE id = :i"), {"i": one}).scalar() is None
        connection.execute(
            text("UPDATE explanation SET model = 'x' WHERE id <> :i AND sae_id = :s"), {"i": one, "s": sae}
        )
    told = embed_missing(database, sae, model)
    assert (told.embedded, told.there, told.other) == (1, len(SAID), None)
    with database.begin() as connection:
        query = text("SELECT 1 - (embedding <=> CAST(:v AS halfvec)) FROM explanation WHERE id = :i")
        vector = literal(model.encode(["fires on “bridges”"])[0])
        assert connection.execute(query, {"v": vector, "i": one}).scalar() == pytest.approx(1, abs=1e-3)
        connection.execute(text("DELETE FROM explanation WHERE id = :i"), {"i": one})


def test_of_a_rule_its_label_is_embedded(client, database, saes, model):
    with database.begin() as connection:
        one = explain(connection, saes[FIRST], 24, "fires on “bread”, and much else")
        rule = text("UPDATE explanation SET rule = '{}', label = 'bread, butter' WHERE id = :i")
        connection.execute(rule, {"i": one})
    embed_missing(database, saes[FIRST], model)
    with database.begin() as connection:
        query = text("SELECT 1 - (embedding <=> CAST(:v AS halfvec)) FROM explanation WHERE id = :i")
        vector = literal(model.encode(["bread, butter"])[0])
        assert connection.execute(query, {"v": vector, "i": one}).scalar() == pytest.approx(1, abs=1e-3)
        connection.execute(text("DELETE FROM explanation WHERE id = :i"), {"i": one})


def test_another_model_takes_all_vectors_anew(database, saes, model):
    class Other:
        name = "other@1111111111"

        def encode(self, texts):
            return -model.encode(texts)

    sae = saes[FIRST]
    told = embed_missing(database, sae, Other())
    assert (told.embedded, told.there, told.other) == (len(SAID), 0, model.name)
    told = embed_missing(database, sae, model)
    assert (told.embedded, told.other) == (len(SAID), Other.name)


def test_what_somebody_has_just_written_is_embedded_after_the_next_search(client, database, saes):
    with database.begin() as connection:
        one = explain(connection, saes[FIRST], 22, "fires on “waltz”, “tango”, “polka”", method="person")
    try:
        first = asked(client, "dances", sae=FIRST)
        assert "are embedded now" in first["notes"][0]
        settled(client)
        assert names(asked(client, "ballroom dances", sae=FIRST))[0] == (FIRST, 22)
        assert asked(client, "dances", sae=FIRST)["notes"] == []
    finally:
        with database.begin() as connection:
            connection.execute(text("DELETE FROM explanation WHERE id = :i"), {"i": one})


def test_what_is_written_on_a_page_is_found_by_meaning_and_so_is_what_it_was_changed_to(client, database, saes):
    page = f"/saes/{FIRST}/features/26/explanations"
    client.post(page, data={"text": "comets, asteroids and moons", "author": "Ada"})
    settled(client)
    assert names(asked(client, "celestial bodies", sae=FIRST))[0] == (FIRST, 26)
    with database.begin() as connection:
        number = connection.execute(text("SELECT id FROM explanation WHERE author = 'Ada'")).scalar_one()
    client.post(f"{page}/{number}", data={"text": "bread, cheese and soup", "author": "Ada"})
    settled(client)
    best = asked(client, "meals", sae=FIRST)["items"][0]
    assert best["index"] == 26
    assert best["meaning"]["author"] == "Ada"
    with database.begin() as connection:
        connection.execute(text("DELETE FROM explanation WHERE author = 'Ada'"))


def settled(client):
    """Wait until what pages have begun is done."""
    for _ in range(2000):
        if not client.app.state.saescope.tasks:
            return
        client.get("/healthz")
    raise AssertionError("it does not end")


# In a browser.

SHOWN = (
    "/search",
    "/search?q=horse",
    "/search?q=horse&density_min=x",
    "/search?q=Paris&mode=tokens",
    "/search?q=Paris+is+warm&mode=text",
    "/search?q=capital+of+France&mode=examples",
    f"/search?q={FIRST}%2F3&mode=vector",
)


@pytest.fixture(scope="module")
def site(client, own):
    install_assets()
    with serving(create_app(own)) as base:
        yield base


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_axe_finds_nothing(chromium, site, scheme):
    from axe_playwright_python.sync_playwright import Axe

    viewport = {"width": 380, "height": 800}
    context = chromium.new_context(base_url=site, color_scheme=scheme, bypass_csp=True, viewport=viewport)
    page = context.new_page()
    for path in SHOWN:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        assert [(path, v["id"], v["nodes"][0]["html"]) for v in Axe().run(page).response["violations"]] == []
    context.close()


def test_without_javascript_the_form_and_the_links_do(chromium, site):
    context = chromium.new_context(base_url=site, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Search features").fill("horse")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url("**/search?q=horse")
    assert page.locator(".hits mark").first.inner_text() == "horse"
    page.get_by_role("radio", name="Examples").check()
    page.get_by_role("searchbox").fill("capital of France")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url("**mode=examples**")
    assert page.locator(".hits .heat .peak").count() > 0
    context.close()


def test_a_change_of_the_form_brings_its_results_alone_and_the_address_follows(chromium, site):
    context = chromium.new_context(base_url=site)
    page = context.new_page()
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto("/search?q=Paris")
    page.evaluate("() => { document.body.dataset.kept = 'yes' }")
    page.get_by_role("radio", name="Tokens").check()
    page.locator("#results", has_text="taken as").wait_for()
    assert "mode=tokens" in page.url
    assert page.locator("body").get_attribute("data-kept") == "yes"
    page.get_by_role("searchbox").fill("no such token at all")
    page.get_by_role("searchbox").press("Enter")
    page.locator("#results [role=alert]").wait_for()
    page.go_back()
    page.locator("#results", has_text="taken as").wait_for()
    assert [text for text in errors if "422" not in text] == []
    context.close()
