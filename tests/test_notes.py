"""Notes on features: shown with every harvest of the weights, their history kept, nothing in them but text."""

from dataclasses import replace

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.web.prose import prose
from tests.conftest import database_beside, public_folder, random_sae

PAGE = "/saes/noted/features/3"
API = f"/api{PAGE}/note"


@pytest.fixture(scope="module")
def own(settings, harvested):
    return database_beside(settings, "notes")


@pytest.fixture(scope="module")
def harvest(own, database, harvested, tiny, sequences):
    def run(slug="noted", seed=0, **changes):
        folder = public_folder() / slug
        saelens.write(folder, random_sae(seed=seed), matrices=torch.float32, metadata={})
        job = Job(slug, folder, "test text", 64, replace(harvested[1], **changes))
        return run_job(job, tiny, sequences, database, own.home)

    return run


@pytest.fixture(scope="module")
def site(own, harvest):
    harvest()
    with TestClient(create_app(own)) as client:
        yield client


def write(site, text, page=PAGE, **more):
    return site.post(f"/api{page}/note", json={"text": text, **more})


def test_a_note_stands_on_its_feature_and_its_history_is_kept(site):
    assert site.get(f"{PAGE}.json").json()["note"] is None
    first = write(site, "one\n\ntwo", author="me").json()["items"]
    assert [(one["text"], one["author"], one["sae"]) for one in first] == [("one\n\ntwo", "me", "noted")]
    assert '<p dir="auto">one</p>\n<p dir="auto">two</p>' in site.get(PAGE).text
    write(site, "three")
    write(site, "three")
    assert site.get(f"{PAGE}.json").json()["note"]["text"] == "three"
    history = site.get(f"{PAGE}/notes.json").json()["items"]
    assert [one["text"] for one in history] == ["three", "one\n\ntwo"]
    write(site, "")
    assert site.get(f"{PAGE}.json").json()["note"]["text"] == ""
    page = site.get(f"{PAGE}/notes").text
    assert "taken away" in page
    assert "three" in page
    assert site.get("/saes/noted/features/4.json").json()["note"] is None


def test_a_reader_who_has_the_page_gets_the_note_that_is_new(site, own):
    page = "/saes/noted/features/8"
    tag = site.get(page).headers["etag"]
    assert site.get(page, headers={"if-none-match": tag}).status_code == 304
    write(site, "new", page)
    again = site.get(page, headers={"if-none-match": tag})
    assert again.status_code == 200
    assert "new" in again.text


def test_another_harvest_of_the_weights_shows_the_note_and_other_weights_do_not(site, harvest):
    page = "/saes/noted/features/5"
    before = site.get(f"{page}.json").json()["revision"]
    write(site, "of the weights", page)
    after = harvest(top=4)
    shown = site.get(f"{page}.json").json()
    assert (shown["revision"], shown["note"]["text"], shown["note"]["revision"]) == (after, "of the weights", before)
    assert f"noted@{before}" in site.get(page).text
    harvest(slug="copy")
    assert "of the same weights" in site.get("/saes/copy/features/5").text
    harvest(slug="other", seed=5)
    assert site.get("/saes/other/features/5.json").json()["note"] is None


def test_of_two_who_write_at_once_neither_loses_anything(site):
    page = "/saes/noted/features/6"
    assert write(site, "mine", page, after=0).status_code == 200
    refused = write(site, "yours", page, after=0)
    assert (refused.status_code, refused.json()["code"]) == (409, "note_changed")
    shown = site.post(f"{page}/notes", data={"text": "yours <b>", "after": "0"})
    assert shown.status_code == 409
    assert "yours &lt;b&gt;</textarea>" in shown.text
    assert "mine" in shown.text
    version = site.get(f"{page}.json").json()["note"]["id"]
    assert f'name="after" value="{version}"' in shown.text
    kept = site.post(f"{page}/notes", data={"text": "both", "after": str(version)}, follow_redirects=False)
    assert kept.headers["location"] == f"{page}#notes"
    assert site.get(f"{page}.json").json()["note"]["text"] == "both"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (API, {"text": "x" * 10_001}, 422, "bad_request"),
        (API, {"text": "a\0b"}, 422, "bad_request"),
        (API, {"text": "a", "after": -1}, 422, "bad_request"),
        (API, {"text": "a", "after": 2**64}, 422, "bad_request"),
        (API, {"text": "a", "colour": 1}, 422, "bad_request"),
        ("/api/saes/noted/features/40/note", {"text": "a"}, 404, "latent_out_of_range"),
        ("/api/saes/noted/features/x/note", {"text": "a"}, 404, "latent_out_of_range"),
        ("/api/saes/nowhere/features/4/note", {"text": "a"}, 404, "sae_unknown"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(site, database, path, body, status, code):
    def notes():
        with database.connect() as connection:
            return connection.execute(text("SELECT count(*) FROM note")).scalar()

    before = notes()
    answer = site.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert notes() == before


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\nb", "a<br>\nb"),
        ('<script>x</script> & "q"', "&lt;script&gt;x&lt;/script&gt; &amp; &#34;q&#34;"),
        ("see /saes/a/features/3.", 'see <a href="/saes/a/features/3">/saes/a/features/3</a>.'),
        ("(/lists/x-2)", '(<a href="/lists/x-2">/lists/x-2</a>)'),
        ("/inspect?text=a&sae=b", '<a href="/inspect?text=a&amp;sae=b">/inspect?text=a&amp;sae=b</a>'),
        ("//evil.example/saes/a", "//evil.example/saes/a"),
        ("https://evil.example/saes/a", "https://evil.example/saes/a"),
        ("javascript:/saes/a", "javascript:/saes/a"),
        ('/admin /saessel /saes"onclick=x', '/admin /saessel <a href="/saes">/saes</a>&#34;onclick=x'),
        ('/saes/a"onmouseover="x', '<a href="/saes/a">/saes/a</a>&#34;onmouseover=&#34;x'),
        ("/saes/<b>", "/saes/&lt;b&gt;"),
        ("*a* [b](/saes/c) `d`", '*a* [b](<a href="/saes/c">/saes/c</a>) `d`'),
    ],
)
def test_notes_are_text_with_links_to_this_site_alone(given, shown):
    assert prose(given) == f'<p dir="auto">{shown}</p>'


def test_hostile_notes_stay_text_on_the_page(site):
    page = "/saes/noted/features/9"
    write(site, "<img src=x onerror=alert(1)></textarea><script>alert(1)</script>\n\n{{ 7*7 }}", page)
    for shown in (site.get(page).text, site.get(f"{page}/notes").text):
        assert "<img" not in shown
        assert "<script>alert" not in shown
        assert "{{ 7*7 }}" in shown


def test_nothing_is_no_paragraph():
    assert prose("") == ""
    assert prose(" \n\n \n") == ""
