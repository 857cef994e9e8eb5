"""What is kept, for how long, how it is sent, and what an answer costs the database."""

import gzip

import pytest
from sqlalchemy import select, update

from app.store import tables as t
from app.web import freshness
from tests.conftest import SLUG
from tests.counting import counted_queries

SAE = f"/saes/{SLUG}"
FEATURE = f"{SAE}/features/3"
EXPORT = f"{SAE}/features.csv"
TAGGED = [
    SAE,
    f"{SAE}.json",
    f"{SAE}?sort=density",
    f"{SAE}/features",
    f"{SAE}/features.json?sort=max",
    FEATURE,
    f"{FEATURE}.json",
    f"{FEATURE}/card",
    f"{FEATURE}/card.json",
    f"{FEATURE}/embed",
    f"{FEATURE}/og.png",
    f"{SAE}/og.png",
]
PAGES = [
    *TAGGED,
    "/",
    "/index.json",
    "/saes.json",
    f"{FEATURE}?text=Paris",
    f"{SAE}?q=the&density_min=0.001",
    "/inspect",
    "/inspect?text=Paris&token=1",
    "/harvests",
    "/harvests.json",
    "/api/docs",
    f"/compare?a={SLUG}/3&b={SLUG}/4",
    f"/compare.json?a={SLUG}&b={SLUG}",
    "/patterns",
    f"{SAE}/features.csv",
    f"{SAE}/random",
    f"{SAE}/jump?index=3",
    f"/oembed?url=http%3A%2F%2Ftestserver{FEATURE}",
]


@pytest.mark.parametrize("path", TAGGED)
def test_a_reader_who_has_the_page_is_told_so_after_one_query(client, path, monkeypatch):
    first = client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "private, max-age=0, must-revalidate"
    assert "HX-Request" in first.headers["vary"]

    def never(*arguments, **named):
        raise AssertionError("rendered")

    for place in ("routes.render_page", "rendering.render_page", "rendering.render_block", "routes.json_of"):
        monkeypatch.setattr(f"app.web.{place}", never)
    monkeypatch.setattr("app.web.build.glimpse", never)
    with counted_queries(client) as seen:
        again = client.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    assert again.status_code == 304
    assert again.content == b""
    assert len(seen) == 1
    assert again.headers["etag"] == first.headers["etag"]
    # A browser would put these in the place of those its copy came with.
    assert "content-security-policy" not in again.headers


def test_tags_differ_where_pages_do(client, harvested):
    def tag(path, **headers):
        return client.get(path, headers=headers).headers["etag"]

    tags = [
        tag(FEATURE),
        tag(f"{SAE}/features/4"),
        tag(f"{FEATURE}.json"),
        tag(f"{SAE}@{harvested[0]}/features/3"),
        tag(f"{SAE}/features"),
        tag(f"{SAE}/features", **{"hx-request": "true"}),
        tag(f"{SAE}/features", **{"hx-request": "true", "hx-history-restore-request": "true"}),
        tag(f"{SAE}/features?sort=max"),
        tag(FEATURE, host="localhost"),
    ]
    assert len(set(tags)) == len(tags)
    assert tag(FEATURE) == tags[0]


def test_a_change_to_any_latent_changes_the_tags_of_its_sae(client, engine):
    def tags():
        return [client.get(path).headers["etag"] for path in TAGGED]

    before = tags()
    latent, sae = t.latent.c, select(t.sae.c.id).where(t.sae.c.slug == SLUG).scalar_subquery()
    with engine.begin() as connection:
        label = connection.execute(select(latent.label).where(latent.sae_id == sae, latent.index == 30)).scalar_one()
        change = update(t.latent).where(latent.sae_id == sae, latent.index == 30)
        connection.execute(change.values(label="changed"))
    try:
        assert not set(before) & set(tags())
    finally:
        with engine.begin() as connection:
            connection.execute(change.values(label=label))


def test_a_new_template_changes_every_tag(client, monkeypatch):
    before = client.get(FEATURE).headers["etag"]
    monkeypatch.setattr(freshness, "site_version", lambda: "another")
    assert client.get(FEATURE).headers["etag"] != before


def test_a_readers_own_text_is_kept_nowhere(client):
    for path in (f"{FEATURE}?text=Paris", f"{FEATURE}.json?text=Paris"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "private, no-store"
        assert "etag" not in answer.headers


def test_refusals_have_no_tag(client):
    assert "etag" not in client.get(f"{SAE}/features/40").headers
    assert "etag" not in client.get(f"{SAE}?cursor=junk").headers


@pytest.mark.parametrize("path", PAGES)
def test_no_page_asks_the_database_more_than_six_times(client, path):
    client.get(path, follow_redirects=False)  # vocabularies and scales are read once a process
    with counted_queries(client) as seen:
        answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (200, 303)
    assert len(seen) <= 6, seen


def test_pages_are_sent_compressed_to_those_who_can_read_it(client):
    packed = client.get(FEATURE, headers={"accept-encoding": "gzip"})
    plain = client.get(FEATURE, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    for answer in (packed, plain):
        assert {"HX-Request", "Accept-Encoding"} <= set(answer.headers["vary"].split(", "))
    assert packed.headers["etag"] == plain.headers["etag"]
    assert "content-encoding" not in client.get("/healthz").headers
    sent = [client.get(EXPORT, headers={"accept-encoding": how}) for how in ("gzip", "identity")]  # in parts
    assert [answer.headers.get("content-encoding") for answer in sent] == ["gzip", None]
    assert sent[0].text == sent[1].text
    assert sent[0].text.count("\n") > 4
    assert "content-encoding" not in client.get(f"{FEATURE}/og.png").headers


def test_static_files_are_kept_for_good_by_their_hash_and_compressed(client):
    from app.web.rendering import ROOT, static

    for name in ("site.css", "js/cards.js", "leafing.speculationrules"):
        on_disk = (ROOT / "static" / name).read_bytes()
        with client.stream("GET", static(name), headers={"accept-encoding": "gzip"}) as answer:
            sent = b"".join(answer.iter_raw())
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["vary"] == "Accept-Encoding"
        assert gzip.decompress(sent) == on_disk
        assert client.get(static(name), headers={"accept-encoding": "identity"}).content == on_disk
        assert client.get(static(name), headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert "immutable" not in client.get(f"/static/{name}").headers.get("cache-control", "")
    assert client.get(static("leafing.speculationrules")).headers["content-type"] == "application/speculationrules+json"
    part = client.get(static("site.css"), headers={"range": "bytes=0-9", "accept-encoding": "gzip"})
    assert (part.status_code, len(part.content)) == (206, 10)


@pytest.mark.parametrize("path", [f"/saes/{SLUG}", "/static/site.css"])
@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("br, gzip; q=0.000", False),
        ("identity", False),
        ("", False),
        ("nogzip", False),
    ],
)
def test_compressed_is_what_is_accepted_so(client, path, accepted, packed):
    answer = client.get(path, headers={"accept-encoding": accepted})
    assert answer.status_code == 200
    assert (answer.headers.get("content-encoding") == "gzip") == packed
    assert "accept-encoding" in answer.headers.get("vary", "").lower()
