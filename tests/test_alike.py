"""Contexts of the corpus like a prompt, over HTTP, against cosines computed the slow and plain way."""

import re
from html import unescape

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.corpus.sequences import Held, cut
from app.harvest.job import Job, run_job
from app.harvest.parameters import Parameters
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.store.replace import remove
from app.subject.hooks import HookPoint, read_activations
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries
from tests.families import make
from tests.test_cluster import long_text

SLUG, OLD, SIGNED = "new", "old", "signed"
WIDTH, MOST = 16, 6
TEXT = "The river near Paris sat on a warm mat."


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "contexts").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def corpus(tiny):
    return Held(cut(long_text()[:40], tiny.encode, bos_id=tiny.bos_id, context=40))


@pytest.fixture(scope="module")
def client(own, corpus, tiny):
    parameters = Parameters(
        top=3, per_interval=2, width=16, neighbours=4, promoted=5, batch_tokens=512, context_width=WIDTH,
        context_latents=MOST,
    )  # fmt: skip
    engine = sync_engine(database_url(own))
    migrate(engine)
    for slug, sae in ((SLUG, random_sae()), (OLD, random_sae(seed=1)), (SIGNED, make("abstopk"))):
        folder = public_folder() / slug
        saelens.write(folder, sae, matrices=torch.float32, metadata={})
        run_job(Job(slug, folder, "test text", 40, parameters), tiny, corpus, engine, own.home)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE harvest SET facts = facts - 'contexts' FROM sae WHERE sae.id = sae_id AND slug = :s"),
            {"s": OLD},
        )
    engine.dispose()
    with TestClient(create_app(own)) as client:
        yield client


def asked(client, **body):
    answer = client.post("/api/inspect/contexts", json={"text": TEXT, "sae": SLUG, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def dense(tiny, sae, ids):
    """Activations [tokens, latents], 0 at BOS."""
    hook = HookPoint.parse(sae.config.reads[0])
    x = read_activations(tiny.model, torch.tensor([list(map(int, ids))]), [hook])[hook][0]
    return torch.cat([torch.zeros(1, sae.config.n_latents), sae.encode(x[1:]).dense(sae.config.n_latents)]).double()


def strengths(acts, peak, density):
    """acts: [places, latents] -> [latents]: signed strength, all but the strongest MOST set to 0."""
    best = acts.gather(0, acts.abs().argmax(0)[None])[0]
    all_of_it = best / peak * (-density.log10() / 4).clamp(0, 1)
    order = sorted(range(len(best)), key=lambda i: (-abs(float(all_of_it[i])), i))[:MOST]
    kept = torch.zeros_like(all_of_it)
    kept[order] = all_of_it[order]
    return kept


def brute(tiny, sae, corpus, ids, places):
    """[(similarity, sequence, start)], the most alike first, of those that share anything."""
    every = [dense(tiny, sae, corpus[i].token_ids) for i in range(len(corpus))]
    positions = torch.cat([acts[1:] for acts in every])
    peak = positions.abs().amax(0).clamp_min(1e-30)
    density = (positions != 0).double().mean(0).clamp_min(1e-12)
    mine = strengths(dense(tiny, sae, ids)[places], peak, density)
    found = []
    for number, acts in enumerate(every):
        for start in range(0, len(acts), WIDTH):
            theirs = strengths(acts[start : start + WIDTH], peak, density)
            if theirs.norm():
                found.append((float(mine @ theirs / mine.norm() / theirs.norm()), number, start))
    return sorted((one for one in found if one[0] > 1e-9), key=lambda one: (-one[0], *one[1:]))


@pytest.mark.parametrize("slug", [SLUG, SIGNED])
@pytest.mark.parametrize("span", [None, (3, 3), (2, 6)])
def test_the_ranking_is_that_of_cosines_over_every_context(client, tiny, corpus, slug, span):
    sae = random_sae() if slug == SLUG else make("abstopk")
    ids = [tiny.bos_id, *tiny.encode(TEXT)]
    first, last = span or (0, len(ids) - 1)
    wanted = brute(tiny, sae, corpus, ids, slice(first, last + 1))
    given = {} if span is None else {"token": first} if first == last else {"token": first, "to": last}
    answer = asked(client, sae=slug, top=100, **given)
    assert answer["kept"] == answer["seen"] == sum(-(-len(corpus[i].token_ids) // WIDTH) for i in range(len(corpus)))
    assert answer["found"] == len(wanted) > 20
    truth = {(sequence, start): similarity for similarity, sequence, start in wanted}
    found = [(x["sequence"], x["start"], x["similarity"]) for x in answer["items"]]
    assert len(found) == min(100, len(wanted))
    for (sequence, start, similarity), (best, *_) in zip(found, wanted, strict=False):
        assert similarity == pytest.approx(truth[sequence, start], abs=2e-3)
        assert similarity == pytest.approx(best, abs=2e-3)


def test_a_text_of_the_corpus_finds_its_own_context_first(client, tiny, corpus):
    tried = 0
    for number in range(0, len(corpus), 5):
        ids = list(corpus[number].token_ids[1:WIDTH])
        prompt = "".join(tiny.vocabulary.pieces(ids))
        if tiny.encode(prompt) != ids:
            continue
        best = asked(client, text=prompt, top=1)["items"][0]
        assert (best["sequence"], best["start"]) == (number, 0)
        assert best["similarity"] == pytest.approx(1, abs=2e-3)
        assert best["text"] == prompt
        tried += 1
    assert tried >= 5


def test_what_is_shared_adds_up_and_says_where_it_fires(client, tiny, corpus):
    answer = asked(client, top=20)
    sae, ids = random_sae(), [tiny.bos_id, *tiny.encode(TEXT)]
    prompt = dense(tiny, sae, ids)
    assert answer["compared"] == MOST < answer["active"] == int((prompt != 0).any(0).sum())
    for x in answer["items"]:
        assert sum(s["part"] for s in x["shared"]) == pytest.approx(x["similarity"])
        assert sum(x["parts"]) == pytest.approx(x["similarity"])
        there = dense(tiny, sae, corpus[x["sequence"]].token_ids)[x["start"] : x["start"] + WIDTH]
        assert x["token_ids"] == list(corpus[x["sequence"]].token_ids[x["start"] : x["start"] + WIDTH])
        for s in x["shared"]:
            assert int(prompt[:, s["index"]].abs().argmax()) == s["position"]
            assert int(there[:, s["index"]].abs().argmax()) == s["context_position"]
            assert x["parts"][s["context_position"]] != 0
            assert s["context_strength"] <= 1.001


def test_more_goes_on_where_the_first_ended(client):
    all_of_them = asked(client, top=30)["items"]
    pages = [asked(client, top=10, after=after) for after in (0, 10, 20)]
    assert [x for page in pages for x in page["items"]] == all_of_them
    assert [page["next"] for page in pages] == [10, 20, 30]
    found = pages[0]["found"]
    last = asked(client, top=10, after=found - 1)
    assert (len(last["items"]), last["next"]) == (1, None)
    assert asked(client, top=10, after=found + 5)["items"] == []


def test_the_page_and_its_twin_say_the_same_and_ask_little(client):
    client.get("/contexts", params={"text": "what is read first warms", "sae": SLUG})
    with counted_queries(client) as statements:
        page = client.get("/contexts", params={"text": TEXT, "sae": SLUG, "token": 3})
    assert len(statements) <= 6, statements
    assert page.status_code == 200
    twin = client.get("/contexts.json", params={"text": TEXT, "sae": SLUG, "token": 3}).json()
    shown = twin["result"]
    assert shown["items"] == asked(client, token=3)["items"]
    told = unescape(page.text)
    for x in shown["items"]:
        assert f"{x['similarity']:.3f}" in told
        assert all(f'href="{s["url"]}"' in page.text for s in x["shared"])
        assert f"of sequence {x['sequence']}" in told
    assert f"all {shown['kept']:,} contexts" in told
    # What the links and forms of the page lead to is there.
    url = unescape(re.search(r'<a class="pin" href="([^"]+)">Inspect', page.text)[1])
    assert client.get(url).status_code == 200
    twin_url = unescape(re.search(r'<a href="(/contexts\.json[^"]+)">', page.text)[1])
    assert client.get(twin_url).json() == twin
    inspected = client.get("/inspect", params={"text": TEXT, "sae": SLUG, "token": 3}).text
    back = unescape(re.search(r'href="(/contexts[^"]+)">Contexts of the corpus like this token<', inspected)[1])
    assert client.get(back.replace("/contexts", "/contexts.json")).json()["result"]["items"] == shown["items"]


@pytest.mark.parametrize("path", ["/contexts", "/inspect"])
def test_every_token_can_be_called_by_a_name(client, path):
    page = client.get(path, params={"text": "Paris in 1763", "sae": SLUG}).text
    buttons = re.findall(
        r'<button form="state"(?: id="token-\d+")? name="token" value="\d+"([^>]*)>([^<]*)</button>', page
    )
    assert len(buttons) >= 3
    assert any(not shown.strip() for _, shown in buttons)
    assert all(shown.strip() or 'aria-label="space"' in attributes for attributes, shown in buttons)


def test_without_a_text_there_is_a_form_and_its_post_leads_to_an_address(client):
    page = client.get("/contexts")
    assert page.status_code == 200
    assert 'name="text"' in page.text
    form = {"text": TEXT, "sae": SLUG, "token": "2", "to": "", "top": "10"}
    answer = client.post("/contexts", data=form, follow_redirects=False)
    assert answer.status_code == 303
    assert client.get(answer.headers["location"].replace("/contexts", "/contexts.json")).json()["query"]["token"] == 2


def test_a_kept_run_is_compared_as_it_was_read(client, own):
    kept = client.post("/inspect/keep", data={"text": TEXT, "sae": SLUG}, follow_redirects=False).headers["location"]
    run = re.match(r"/inspect/([a-z0-9]+)", kept)[1]
    with counted_queries(client) as statements:
        answer = client.get("/contexts.json", params={"run": run, "token": 3}).json()
    assert len(statements) <= 6, statements
    assert answer["query"]["text"] == TEXT
    mine, theirs = answer["result"]["items"], asked(client, token=3)["items"]
    assert [(x["sequence"], x["similarity"]) for x in mine] == [(x["sequence"], x["similarity"]) for x in theirs]
    assert f"/contexts?run={run}" in client.get(kept).text
    missing = client.get("/contexts.json", params={"run": run, "sae": SIGNED})
    assert (missing.status_code, missing.json()["code"]) == (404, "sae_unknown")
    assert client.get("/contexts.json", params={"run": "none"}).json()["code"] == "inspection_unknown"


def test_a_long_text_is_kept_and_found_by_its_name(own, client):
    wide = own.model_copy(update={"max_prompt_chars": 100_000, "max_prompt_tokens": 4096})
    with TestClient(create_app(wide)) as other:
        form = {"text": "the warm river " * 300, "sae": SLUG, "top": "30"}
        answer = other.post("/contexts", data=form, follow_redirects=False)
        assert re.fullmatch(r"/contexts\?run=[a-z0-9]+&top=30", answer.headers["location"])
        page = other.get(answer.headers["location"])
        assert page.status_code == 200
        assert page.text.count("<article") == 30


def test_a_harvest_from_before_says_to_harvest_again(client):
    told = f"{OLD} was harvested before contexts were kept; harvest it again to search contexts."
    answer = client.post("/api/inspect/contexts", json={"text": TEXT, "sae": OLD})
    assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (409, "contexts_missing", told)
    page = client.get("/contexts", params={"text": TEXT, "sae": OLD})
    assert page.status_code == 409
    assert told in page.text


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"token": 400}, 422, "The text has no token 400; its tokens are 0 to"),
        ({"token": 3, "to": 400}, 422, "The text has no token 400; its tokens are 0 to"),
        ({"token": 3, "to": 2}, 422, "Tokens 3 to 2 are none"),
        ({"to": 2}, 422, "Say with 'token' where"),
        ({"token": -1}, 422, "token does not fit"),
        ({"top": 0}, 422, "top does not fit"),
        ({"after": -1}, 422, "after does not fit"),
        ({"text": ""}, 422, "There is no text"),
        ({"text": "x " * 900}, 413, "tokens"),
        ({"sae": "nothing"}, 404, "There is no SAE 'nothing'"),
        ({"sae": f"{SLUG}@0000000000"}, 404, "has no revision '0000000000'"),
        ({"sae": None}, 422, "Say which SAE"),
    ],
)
def test_bad_input_is_one_sentence(client, body, status, told):
    answer = client.post("/api/inspect/contexts", json={"text": TEXT, "sae": SLUG} | body)
    assert answer.status_code == status
    assert told in answer.json()["message"]
    assert "\n" not in answer.json()["message"]


def test_where_nothing_fires_there_is_nothing_to_compare(client):
    answer = asked(client, token=0)
    assert (answer["active"], answer["found"], answer["items"], answer["next"]) == (0, 0, [], None)
    page = client.get("/contexts", params={"text": TEXT, "sae": SLUG, "token": 0})
    assert "No feature fires at token 0" in page.text


def test_an_sae_that_is_removed_takes_its_contexts_along(client, own, tiny, corpus):
    engine = sync_engine(database_url(own))
    folder = public_folder() / "gone"
    saelens.write(folder, random_sae(seed=3), matrices=torch.float32, metadata={})
    run_job(Job("gone", folder, "test text", 40, Parameters(top=3, width=16)), tiny, corpus, engine, own.home)

    def tables():
        with engine.connect() as connection:
            names = connection.execute(
                text("SELECT relname FROM pg_class WHERE relname ~ '^(context|posting)_[0-9]+$'")
            )
            counts = [
                connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in ("context", "posting")
            ]
            return len(names.scalars().all()), counts

    before = tables()
    assert asked(client, sae="gone")["kept"] > 0
    remove(engine, own.home, "gone")
    after = tables()
    assert after[0] == before[0] - 2
    assert all(some < more for some, more in zip(after[1], before[1], strict=True))
    assert client.get("/contexts", params={"text": TEXT, "sae": "gone"}).status_code == 404
    engine.dispose()
