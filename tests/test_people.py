"""People's explanations: written, edited with their history, voted for, and what labels come of it."""

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.store.people import label_of
from tests.conftest import SLUG, database_beside

PAGE = f"/saes/{SLUG}/features/3"


@pytest.fixture(scope="module")
def site(settings, harvested, tiny, sequences):
    from app.harvest.job import Job, run_job
    from app.store.engine import database_url, sync_engine
    from app.store.migrate import migrate

    own, (_, parameters, folder) = database_beside(settings, "people"), harvested
    engine = sync_engine(database_url(own))
    migrate(engine)
    run_job(Job(SLUG, folder, "test text", 64, parameters), tiny, sequences, engine, own.home)
    engine.dispose()
    with TestClient(create_app(own)) as client:
        yield client


def send(site, where, **fields):
    return site.post(PAGE + where, data=fields, follow_redirects=False)


def shown(site):
    return site.get(PAGE + ".json").json()


def test_what_people_say_is_the_label_and_keeps_its_history(site):
    before = shown(site)
    assert before["explanations"] == []
    etag = site.get(PAGE).headers["etag"]
    answer = send(site, "/explanations", text="all about mats\nand cats", author="Ada")
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE + "#explanations")
    page = shown(site)
    [mine] = page["explanations"]
    assert (page["label"], page["label_source"], page["label_score"]) == ("all about mats", "person", None)
    assert (mine["text"], mine["author"], mine["chosen"]) == ("all about mats\nand cats", "Ada", True)
    assert site.get(PAGE, headers={"if-none-match": etag}).status_code == 200
    assert site.get(f"/saes/{SLUG}.json").json()["scores"]["labels"]["person"] == 1
    assert send(site, f"/explanations/{mine['id']}", text="mats", author="Grace").status_code == 303
    [edited] = shown(site)["explanations"]
    assert (edited["text"], edited["author"], shown(site)["label"]) == ("mats", "Grace", "mats")
    assert [(one["text"], one["author"]) for one in edited["earlier"]] == [("all about mats\nand cats", "Ada")]
    assert "1 earlier text" in site.get(PAGE).text


def test_of_several_the_one_with_the_most_votes_gives_the_label(site):
    send(site, "/explanations", text="rugs", author="Ada")
    page = shown(site)
    first, second = (one["id"] for one in page["explanations"])
    assert page["label"] == "rugs"
    for voter in ("Ada", "Grace", "Ada"):  # a name has one vote
        assert send(site, f"/explanations/{first}/votes", value="1", author=voter).status_code == 303
    page = shown(site)
    assert [one["votes"] for one in page["explanations"]] == [2, 0]
    assert page["label"] == "mats"
    send(site, f"/explanations/{first}/votes", value="-1", author="Ada")
    send(site, f"/explanations/{first}/votes", value="0", author="Grace")
    page = shown(site)
    assert [one["votes"] for one in page["explanations"]] == [-1, 0]
    assert page["label"] == "rugs"
    assert second


@pytest.mark.parametrize(
    ("where", "fields", "status", "told"),
    [
        ("/explanations", {"author": "Ada"}, 422, "The explanation is empty; say what the feature fires on."),
        ("/explanations", {"text": "x" * 2001, "author": "Ada"}, 422, "2,001 characters; 2,000 are the most"),
        ("/explanations", {"text": "x"}, 422, "give a name"),
        ("/explanations", {"text": "x", "author": "n" * 81}, 422, "81 characters; 80 are the most"),
        ("/explanations/999999", {"text": "x", "author": "Ada"}, 404, "Feature 3 has no explanation 999999"),
        ("/explanations/x/votes", {"value": "1", "author": "Ada"}, 404, "Feature 3 has no explanation 0"),
        ("/explanations/1/votes", {"value": "2", "author": "Ada"}, 422, "A vote is 1, -1 or 0, not"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_changes_nothing(site, where, fields, status, told):
    before = shown(site)["explanations"]
    answer = send(site, where, **fields)
    assert answer.status_code == status
    assert told in answer.text
    assert shown(site)["explanations"] == before


def test_another_site_cannot_write_here(site):
    answer = site.post(
        PAGE + "/explanations", data={"text": "x", "author": "y"}, headers={"origin": "http://evil.test"}
    )
    assert answer.status_code == 403


def test_a_label_is_the_first_line_cut_after_a_word():
    assert label_of("short\nlong") == "short"
    cut = label_of("words of a sentence that goes on for longer than a card has room for it")
    assert len(cut) <= 62
    assert cut.endswith(" …")
    assert cut.removesuffix(" …") in "words of a sentence that goes on for longer than a card has room for it"


def test_json_writes_edits_and_votes_and_answers_all_that_is_said(site):
    here = "/api" + PAGE + "/explanations"
    told = site.post(here, json={"text": "words of doubt", "author": "Ada"}).json()
    mine = told["items"][-1]
    assert (told["next"], mine["text"], mine["author"], mine["method"], mine["failure"]) == (
        None, "words of doubt", "Ada", "person", None,
    )  # fmt: skip
    edited = site.post(f"{here}/{mine['id']}", json={"text": "words of certainty", "author": "Grace"}).json()["items"][
        -1
    ]
    assert (edited["text"], [one["text"] for one in edited["earlier"]]) == ("words of certainty", ["words of doubt"])
    voted = site.post(f"{here}/{mine['id']}/votes", json={"author": "Ada", "value": -1}).json()["items"][-1]
    assert voted["votes"] == -1
    for body, status in (({"text": "", "author": "Ada"}, 422), ({"text": "x"}, 422), ({"text": "x", "by": "Ada"}, 422)):
        refused = site.post(here, json=body)
        assert (refused.status_code, refused.json().keys()) == (status, {"code", "message", "detail"})
    assert site.post(f"{here}/999", json={"text": "x", "author": "Ada"}).json()["code"] == "explanation_unknown"
    assert site.post(f"{here}/{mine['id']}/votes", json={"author": "Ada", "value": 2}).status_code == 422
