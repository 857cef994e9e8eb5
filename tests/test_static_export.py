"""Lists and SAEs as folders that open without a server."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from app import cli_export
from app.errors import BadRequest, DiskFull
from app.harvest.job import Job, run_job
from app.interop.folders import beside
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.web.relinked import relinked
from tests.conftest import database_beside, public_folder, random_sae
from tests.test_feature_browser import browser  # noqa: F401

SAE = "exported"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def own(settings, harvested, tiny, sequences):
    made = database_beside(settings, "exports")
    engine = sync_engine(database_url(made))
    migrate(engine)
    folder = public_folder() / SAE
    saelens.write(folder, random_sae(), matrices=torch.float32, metadata={})
    run_job(Job(SAE, folder, "test text", 64, harvested[1]), tiny, sequences, engine, made.home)
    engine.dispose()
    return made


@pytest.fixture(scope="module")
def site(own):
    with TestClient(create_app(own)) as client:
        yield client


@pytest.fixture(scope="module")
def listed(site):
    comment = f"see /saes/{SAE}/features/5 {HOSTILE}"
    items = [{"kind": "feature", "sae": SAE, "index": i, "comment": comment} for i in (5, 3)]
    run = site.post("/api/inspect", json={"text": f"Paris {HOSTILE}", "keep": True}).json()["run"]
    items += [{"kind": "run", "run": run}, {"kind": "feature", "sae": "gone", "revision": "0123", "index": 1}]
    site.post(f"/api/saes/{SAE}/features/5/note", json={"text": f"noted {HOSTILE}"})
    return site.post("/api/lists", json={"title": "For a paper", "items": items}).json()


class Links(HTMLParser):
    def __init__(self, file):
        super().__init__()
        self.found, self.ids, self.tags = [], set(), set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        self.ids.add(given.get("id"))
        self.found += [given[name] for name in ("href", "src", "action", "data-card") if name in given]


def check(folder: Path):
    """Every link leads to what is in the folder; nothing needs a server or a script."""
    pages = sorted(folder.rglob("*.html"))
    for page in pages:
        links = Links(page)
        assert links.tags.isdisjoint({"form", "script", "button", "input", "textarea", "iframe"}), page
        for link in links.found:
            if link.startswith("#"):
                assert link[1:] in links.ids
            elif link != "data:,":
                assert not re.match(r"/|[a-z]+:", link), (page, link)
                assert (page.parent / unquote(link)).resolve().is_relative_to(folder.resolve())
                assert (page.parent / unquote(link)).is_file(), (page, link)
    return pages


def test_a_list_becomes_a_folder_whose_links_all_hold(command, listed, site, tmp_path):
    out, err, status = command("export", listed["name"], "--static", str(tmp_path / "paper"))
    assert (status, out.strip()) == (0, str(tmp_path / "paper" / "index.html")), err
    assert re.search(r"Writing 3 pages, about 0\.\d MB", err)
    folder = tmp_path / "paper"
    assert len(check(folder)) == 3
    index = (folder / "index.html").read_text()
    revision = listed["items"][0]["feature"]["revision"]
    assert index.index(f"features/{SAE}@{revision}/5.html") < index.index(f"features/{SAE}@{revision}/3.html")
    assert index.count('class="heat example-heat line"') == 2
    assert "gone@0123 is not here." in index
    body = json.loads((folder / "list.json").read_text())
    assert body == site.get(f"{listed['url']}/export.json").json()
    assert (folder / "list.csv").read_text().count("\n") == 5
    feature = (folder / "features" / f"{SAE}@{revision}" / "5.html").read_text()
    assert "noted &lt;script&gt;" in feature
    twin = json.loads((folder / "features" / f"{SAE}@{revision}" / "5.json").read_text())
    shown = site.get(f"/saes/{SAE}/features/5.json").json()
    assert twin["examples"] == shown["examples"]
    there = {one["index"]: one["url"] for one in twin["neighbours"]}
    assert set(there.values()) <= {None, "3.html"}
    page = site.get(f"/saes/{SAE}/features/5").text
    assert feature.count('class="heat example-heat"') == page.count('class="heat example-heat"') > 5
    assert folder.stat().st_mode & 0o777 == 0o755


def test_an_sae_s_features_are_chosen_and_stand_in_a_table(command, site, tmp_path):
    _, err, status = command("export", SAE, "--static", str(tmp_path / "sae"), "--latents", "3-5, 12,4")
    assert status == 0, err
    folder = tmp_path / "sae"
    assert len(check(folder)) == 5
    data = json.loads((folder / "index.json").read_text())
    assert [one["index"] for one in data["features"]] == [3, 4, 5, 12]
    assert all((folder / one["file"]).is_file() for one in data["features"])
    assert data["metrics"] == site.get(f"/saes/{SAE}.json").json()["metrics"]
    last = (folder / data["features"][-1]["file"]).read_text()
    assert 'rel="prev" href="5.html"' in last
    assert 'rel="next"' not in last


def test_all_of_an_sae_goes_over_several_tables(command, tmp_path, monkeypatch):
    from app.web import static_site

    monkeypatch.setattr(static_site, "ROWS", 15)
    assert command("export", SAE, "--static", str(tmp_path / "all"))[2] == 0
    pages = check(tmp_path / "all")
    assert len(pages) == 43
    second = (tmp_path / "all" / "features-2.html").read_text()
    assert second.count('<th scope="row">') == 15
    assert 'href="features-3.html"' in second


def test_too_many_pages_are_told_and_not_written(command, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_export, "MANY", 40)
    _, err, status = command("export", SAE, "--static", str(tmp_path / "all"))
    assert status == 1
    assert re.search(rf"{SAE} makes 41 pages, about [\d.]+ MB; choose some with --latents", err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--static", "OUT"], "There is no list and no SAE 'nowhere' here."),
        ([f"{SAE}@0000000000", "--static", "OUT"], "has no revision '0000000000'"),
        ([SAE, "--static", "OUT", "--latents", "3,x"], "--latents holds 'x'"),
        ([SAE, "--static", "OUT", "--latents", "5-3"], "--latents holds '5-3'"),
        ([SAE, "--static", "OUT", "--latents", "39-40"], "has no feature 40; its features are 0 to 39"),
        (["LIST", "--static", "OUT", "--latents", "3"], "is a list"),
        ([SAE, "--static", "FULL"], "is not empty"),
        ([SAE, "--static", "FILE"], "is no folder"),
        ([SAE, "--static", "OUT/a/b"], "There is no folder"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(command, listed, tmp_path, arguments, says):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    (tmp_path / "file").write_text("kept")
    places = {"OUT": str(tmp_path / "out"), "FULL": str(tmp_path / "full"), "FILE": str(tmp_path / "file")}
    given = [places.get(one, listed["name"] if one == "LIST" else one) for one in arguments]
    given = [one.replace("OUT", places["OUT"]) for one in given]
    out, err, status = command("export", *given)
    assert (status, out) == (1, "")
    assert says in err
    assert len(err.strip().splitlines()) <= 2
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]


def half_written(out, error):
    with beside(out) as folder:
        (folder / "half").write_text("x")
        raise error


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    for error, shown in ((KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), DiskFull)):
        with pytest.raises(shown):
            half_written(out, error)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with beside(out) as folder:
        (folder / "whole").write_text("x")
        assert list(out.iterdir()) == []
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]
    with pytest.raises(BadRequest, match="not empty"), beside(out):
        pass


def test_links_stay_where_they_lead_somewhere():
    files = {"/a": "x/a.html", "/b": "index.html"}
    given = (
        '<p>1 &amp; &#34; <a class="neighbour" href="/a" data-card="/a/card">A</a> <a href="/c">C</a> '
        '<a href="#d">D</a><a class="values" href="/v">V <b>v</b></a>'
        '<a href="/b"><svg viewBox="0 0"><rect/></svg></a></p>'
    )
    assert relinked(given, "x/y.html", files) == (
        '<p>1 &amp; &#34; <a class="neighbour" href="a.html">A</a> C <a href="#d">D</a>'
        '<a href="../index.html"><svg viewBox="0 0"><rect/></svg></a></p>'
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_from_the_disk_in_either_theme(browser, own, listed, tmp_path, scheme):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    with ThreadPoolExecutor() as elsewhere:  # the browser's own loop runs in this thread
        export = cli_export._export(own, listed["name"], tmp_path / "paper", None, False)
        elsewhere.submit(asyncio.run, export).result()
    context = browser.new_context(color_scheme=scheme, viewport={"width": 380, "height": 800})
    tab, wrong, asked = context.new_page(), [], []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("requestfailed", lambda request: wrong.append(request.url))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "paper" / "index.html").as_uri())
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 29)"}[scheme]
    listed_at = tab.url
    tab.locator("a.neighbour").first.click()
    expect(tab.locator("h1")).to_have_text(re.compile(r"^\s*[53]\s"))
    assert tab.locator(".example .peak").first.is_visible()
    feature_at = tab.url
    tab.get_by_role("link", name="For a paper").click()
    assert (tab.url, wrong) == (listed_at, [])
    for address in (listed_at, feature_at):
        tab.goto(address)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380
        found = Axe().run(tab).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    assert all(url.startswith(("file://", "data:")) for url in asked)
    context.close()
