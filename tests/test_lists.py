"""Lists: made, changed, shared, exported and imported; what their items name may come and go."""

import csv
import io
import json
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.atlas.make import Recipe, make_map
from app.errors import BadRequest
from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.lists import MOST_ITEMS
from app.store.migrate import migrate
from app.store.references import Feature, Region, Run, link, linked, parse
from app.store.replace import remove
from tests.conftest import database_beside, public_folder, random_sae

SAE = "listed"


@pytest.fixture(scope="module")
def own(settings, harvested):
    made = database_beside(settings, "lists")
    engine = sync_engine(database_url(made))
    migrate(engine)
    engine.dispose()
    return made


@pytest.fixture(scope="module")
def harvest(own, database, harvested, tiny, sequences):
    """Harvests SAE (or another name) with these weights; its revision."""

    def run(seed=0, slug=SAE, **changes):
        folder = public_folder() / slug
        saelens.write(folder, random_sae(seed=seed), matrices=torch.float32, metadata={})
        parameters = replace(harvested[1], **changes)
        return run_job(Job(slug, folder, "test text", 64, parameters), tiny, sequences, database, own.home)

    return run


@pytest.fixture(scope="module")
def revision(harvest):
    return harvest()


@pytest.fixture(scope="module")
def site(own, revision):
    with TestClient(create_app(own)) as client:
        yield client


def feature(index, **more):
    return {"kind": "feature", "sae": SAE, "index": index, **more}


def made(site, *items, title="A list", **about):
    answer = site.post("/api/lists", json={"title": title, "items": list(items), **about})
    assert answer.status_code == 200, answer.text
    return answer.json()


def order(page):
    return [one["reference"].rpartition("/")[2] for one in page["items"]]


def count(database, table="list"):
    with database.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()


def test_a_list_holds_features_with_their_label_and_strongest_context(site, revision):
    page = made(site, feature(3, comment="first", tags="B, a ,b"), feature(5), tags=["X", " x "], author="me")
    assert re.fullmatch(r"a-list-[a-z0-9]{5}", page["name"])
    assert (page["tags"], page["author"], page["count"]) == (["x"], "me", 2)
    first = page["items"][0]
    shown = site.get(f"/saes/{SAE}/features/3.json").json()
    assert first["reference"] == f"{SAE}@{revision}/3"
    assert (first["comment"], first["tags"], first["gone"]) == ("first", ["b", "a"], None)
    assert first["feature"]["label"] == first["label"] == shown["label"]
    assert first["feature"]["max"] == shown["max"]
    top = next(one for one in shown["examples"] if one["interval"] == "top")
    glimpse = first["feature"]["example"]
    assert glimpse["activations"][glimpse["position"]] == pytest.approx(top["activation"])
    assert glimpse["tokens"][glimpse["position"]] == top["tokens"][top["position"]]
    assert site.get(first["url"]).status_code == 200
    html = site.get(page["url"]).text
    assert html.count('class="heat example-heat line"') == 2
    assert 'action="/lists/' in html
    assert site.get(page["url"] + ".json").json() == page


def test_features_of_several_saes_need_no_more_queries_than_one(site, harvest, revision, database):
    from sqlalchemy import event

    other = harvest(seed=7, slug="another")
    few = made(site, feature(1))
    items = [feature(i) for i in range(5)] + [{**feature(i), "sae": "another"} for i in range(5)]
    many = made(site, *items, {"kind": "run", "run": "gone"})
    assert many["items"][5]["feature"]["revision"] == other
    asked = []
    engine = site.app.state.saescope.database.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    site.get(few["url"])
    alone = len(asked)
    site.get(many["url"])
    assert len(asked) - alone <= 6
    assert alone <= len(asked) - alone <= alone + 1


def test_items_move_are_commented_on_and_go(site):
    page = made(site, *(feature(i) for i in (1, 2, 3, 4)))
    name, ids = page["name"], [one["id"] for one in page["items"]]

    def edit(item, **change):
        answer = site.post(f"/api/lists/{name}/items/{item}/edit", json=change)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert order(edit(ids[2], move="up")) == ["1", "3", "2", "4"]
    assert order(edit(ids[0], move="up")) == ["1", "3", "2", "4"]
    assert order(edit(ids[0], move="down")) == ["3", "1", "2", "4"]
    assert order(edit(ids[3], move="first")) == ["4", "3", "1", "2"]
    assert order(edit(ids[3], move="last")) == ["3", "1", "2", "4"]
    changed = edit(ids[0], comment="why\r\n\r\nso", tags=["T"])
    assert changed["items"][1]["comment"] == "why\n\nso"
    assert edit(ids[0], tags=[])["items"][1]["comment"] == "why\n\nso"
    gone = site.post(f"/api/lists/{name}/items/{ids[1]}/remove")
    assert order(gone.json()) == ["3", "1", "4"]
    again = site.post(f"/api/lists/{name}/items/{ids[1]}/remove")
    assert (again.status_code, again.json()["code"]) == (404, "item_unknown")
    elsewhere = made(site, feature(1))
    assert site.post(f"/api/lists/{elsewhere['name']}/items/{ids[0]}/edit", json={"move": "up"}).status_code == 404


def test_what_is_in_a_list_is_not_added_twice(site):
    name = made(site, feature(1, comment="kept"))["name"]
    page = site.post(f"/api/lists/{name}/items", json={"items": [feature(2), feature(1), feature(2)]}).json()
    assert order(page) == ["1", "2"]
    assert page["items"][0]["comment"] == "kept"


def test_a_list_is_renamed_at_its_address_and_removed_after_being_asked(site, database):
    page = made(site, feature(1), title="Before")
    edited = site.post(f"/api/lists/{page['name']}/edit", json={"title": "After", "tags": "a,b"}).json()
    assert (edited["name"], edited["title"], edited["tags"], edited["count"]) == (page["name"], "After", ["a", "b"], 1)
    items, asked = count(database, "list_item"), site.get(f"{page['url']}/delete")
    assert "After" in asked.text
    assert site.get(page["url"]).status_code == 200
    done = site.post(f"{page['url']}/delete", follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/lists")
    assert site.get(page["url"]).status_code == 404
    assert count(database, "list_item") == items - 1


def test_a_features_page_names_the_lists_it_is_on_and_is_new_when_they_change(site, revision):
    page, other = f"/saes/{SAE}/features/21", f"/saes/{SAE}/features/22"

    def titles():
        return [one["title"] for one in site.get(f"{page}.json").json()["lists"]]

    def changed(act):
        """What ``act`` gives; a reader who had the page gets another."""
        tag = site.get(page).headers["etag"]
        assert site.get(page, headers={"if-none-match": tag}).status_code == 304
        done = act()
        assert site.get(page, headers={"if-none-match": tag}).status_code == 200
        return done

    assert titles() == []
    changed(lambda: made(site, feature(21, revision=revision), feature(23), title="Later <b>"))
    first = changed(lambda: made(site, feature(22), feature(21), title="Earlier"))
    assert titles() == ["Earlier", "Later <b>"]
    assert f'<a href="{first["url"]}">Earlier</a>, <a href="' in site.get(page).text
    assert "Later &lt;b&gt;</a>." in site.get(page).text
    changed(lambda: site.post(f"/api/lists/{first['name']}/edit", json={"title": "Now last"}))
    assert titles() == ["Later <b>", "Now last"]
    item = next(one["id"] for one in first["items"] if one["reference"].endswith("/21"))
    changed(lambda: site.post(f"/api/lists/{first['name']}/items/{item}/remove"))
    assert titles() == ["Later <b>"]
    assert [one["title"] for one in site.get(f"{other}.json").json()["lists"]] == ["Now last"]
    site.post(f"{first['url']}/delete")
    assert site.get(f"{other}.json").json()["lists"] == []
    for number in range(25):
        made(site, feature(24), title=f"Of many {number:02}")
    assert len(site.get(f"/saes/{SAE}/features/24.json").json()["lists"]) == 20


def test_lists_are_found_by_text_and_tag_and_paged(site):
    names = [
        made(site, feature(1, comment="unmistakable"), title=f"Number {i}", tags=["paged"])["name"] for i in range(31)
    ]
    first = site.get("/lists.json", params={"tag": "Paged"}).json()
    assert [one["name"] for one in first["items"]] == names[:0:-1]
    rest = site.get("/lists.json", params={"tag": "paged", "cursor": first["next"]}).json()
    assert ([one["name"] for one in rest["items"]], rest["next"]) == (names[:1], None)
    assert "paged" in first["tags"]
    assert [one["name"] for one in site.get("/lists.json?q=number+17").json()["items"]] == [names[17]]
    assert len(site.get("/lists.json?q=UNMISTAKABLE").json()["items"]) == 30
    assert site.get("/lists.json?q=100%25").json()["items"] == []
    refused = site.get("/lists.json?cursor=x")
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_request")
    for page in ("/lists?tag=paged", f"/lists?tag=paged&cursor={first['next']}"):
        assert "Number" in site.get(page).text


def test_a_long_list_is_paged_in_its_order(site):
    page = made(site, *({"kind": "run", "run": f"r{i}"} for i in range(120)))
    seen, cursor = [], None
    while True:
        found = site.get(f"{page['url']}.json", params={"cursor": cursor} if cursor else {}).json()
        seen += order(found)
        cursor = found["next"]
        if cursor is None:
            break
    assert seen == [f"r{i}" for i in range(120)]
    assert site.get(f"{page['url']}?cursor=50").text.count("Run r") == 50


def test_a_new_harvest_changes_no_list_and_is_pointed_to(site, harvest, database, own):
    before = harvest(slug="moving")
    page = made(site, {**feature(3), "sae": "moving"})
    after = harvest(slug="moving", top=4)
    assert after != before
    [item] = site.get(page["url"] + ".json").json()["items"]
    assert item["reference"] == f"moving@{before}/3"
    assert (item["newer"], item["newer_says"]) == ("/saes/moving/features/3", "the same feature, harvested again")
    harvest(seed=9, slug="moving")
    [item] = site.get(page["url"] + ".json").json()["items"]
    assert item["newer_says"] == "another feature, of other weights"
    assert item["feature"]["revision"] == before
    label = item["label"]
    remove(database, own.home, "moving", before)
    [item] = site.get(page["url"] + ".json").json()["items"]
    assert (item["feature"], item["label"], item["gone"]) == (None, label, f"moving@{before} is not here.")
    assert f"moving@{before} is not here." in site.get(page["url"]).text


def test_a_region_outlives_its_map_and_says_so(site, revision, database, own):
    make_map(SAE, Recipe("pca"), database, own.home)
    version = site.get(f"/saes/{SAE}/maps.json").json()["items"][0]["version"]
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO map_cluster (map_id, level, id, name, terms, scores, size, alive, centre, x, y) "
                "SELECT id, 0, 77, 'cats and mats', '{cat}', '{1}', 12, 12, 0, 1, 1 FROM map WHERE version = :version"
            ),
            {"version": version},
        )
    page = made(site, {"kind": "region", "sae": SAE, "map": version, "level": 0, "region": 77})
    [item] = page["items"]
    assert (item["label"], item["region"]["size"], item["region"]["method"]) == ("cats and mats", 12, "pca")
    assert "12 features" in site.get(page["url"]).text
    added = site.get("/lists/add", params={"sae": SAE, "map": version, "level": 0, "region": 77})
    assert "cats and mats" in added.text
    with database.begin() as connection:
        connection.execute(text("DELETE FROM map"))
    [item] = site.get(page["url"] + ".json").json()["items"]
    assert (item["region"], item["label"]) == (None, "cats and mats")
    assert item["gone"] == f"{SAE}@{revision}: its map {version} is not here any more."


def test_a_run_is_kept_and_added_in_one_go(site):
    kept = site.post("/inspect/keep?then=list", data={"text": "Paris is <big>", "sae": SAE}, follow_redirects=False)
    assert kept.headers["location"].startswith("/lists/add?run=")
    page = site.get(kept.headers["location"])
    assert "Paris is &lt;big&gt;" in page.text
    given = re.search(r'name="items" value="([^"]+)"', page.text)[1]
    done = site.post("/lists/add", data={"items": given, "title": "Runs", "comment": "look"}, follow_redirects=False)
    [item] = site.get(done.headers["location"] + ".json").json()["items"]
    assert (item["kind"], item["comment"], item["run"]["text"]) == ("run", "look", "Paris is <big>")
    assert site.get(item["url"]).status_code == 200


def test_selected_rows_go_to_an_old_list_or_a_new_one(site, revision):
    name = made(site, feature(4), title="Old")["name"]
    page = site.get(f"/lists/add?sae={SAE}&index=3&index=4")
    assert f'<option value="{name}">Old (1)</option>' in page.text
    given = re.search(r'name="items" value="([^"]+)"', page.text)[1]
    assert given == f"{SAE}@{revision}/3,4"
    site.post("/lists/add", data={"items": given, "list": name})
    assert order(site.get(f"/lists/{name}.json").json()) == ["4", "3"]
    new = site.post("/lists/add", data={"items": given, "list": name, "title": "New"}, follow_redirects=False)
    assert new.headers["location"].startswith("/lists/new-")
    fragment = site.post("/lists/add", data={"items": given, "list": name}, headers={"hx-request": "true"})
    assert "already in" in fragment.text
    assert "<html" not in fragment.text
    for bad in ({"items": given}, {"items": "", "list": name}, {"items": f"{SAE}/40", "list": name}):
        assert site.post("/lists/add", data=bad).status_code == 422
    assert "tick features" in site.get(f"/lists/add?sae={SAE}").text


def test_references_and_links_say_the_same():
    wanted = [Feature("a-b.c", "0123456789", 3), Feature("a-b.c", "0123456789", 5), Run("x2y"),
              Region("a", "ab", "m1", 1, 4), Feature("a", "", 7)]  # fmt: skip
    held = link(wanted)
    assert held == "a-b.c@0123456789/3,5~run/x2y~a@ab/map/m1/1/4~a/7"
    assert linked(held) == wanted
    assert [parse(str(one)) for one in wanted] == wanted
    assert link(Run("a" * 30) for _ in range(201)) is None
    for bad in ("", "~", "x", "a/1,,2", "a@/1", "A/1", "a/1~../2", "a@0g/1", "a/-1", "a/1/2", "run/A", "a/9999999999",
                "a/map/m/2/1", "a\n/1", "a/1\n", "é/1"):  # fmt: skip
        with pytest.raises(BadRequest):
            linked(bad)
    with pytest.raises(BadRequest, match="at most 200"):
        linked("a/" + ",".join(map(str, range(201))))
    with pytest.raises(BadRequest, match="4,000"):
        linked("a/" + "1," * 2000 + "1")


def test_a_list_in_an_address_needs_no_database_and_can_be_kept(site, revision, database):
    page = made(site, feature(3, comment="not in the link"), feature(5), {"kind": "run", "run": "r1"}, title="Sh & <i>")
    before = count(database)
    to = site.get(page["share"], follow_redirects=False)
    address = to.headers["location"]
    assert unquote(address).endswith(f"items={SAE}@{revision}/3,5~run/r1")
    shown = site.get(address)
    assert "Sh &amp; &lt;i&gt;" in shown.text
    assert "not in the link" not in shown.text
    twin = site.get(address.replace("shared?", "shared.json?")).json()
    assert [one["reference"] for one in twin["items"]] == [one["reference"] for one in page["items"]]
    assert count(database) == before
    given = re.search(r'name="items" value="([^"]+)"', shown.text)[1]
    kept = site.post("/lists/add", data={"items": given, "title": "Sh & <i>"}, follow_redirects=False)
    assert order(site.get(kept.headers["location"] + ".json").json()) == ["3", "5", "r1"]
    assert site.get(f"/lists/shared.json?items={SAE}/3").json()["given"] == f"{SAE}@{revision}/3"
    for bad in ("", "x", f"{SAE}/40", "nowhere/1", "a/1\0", "\ud800".encode("utf-8", "surrogatepass")):
        answer = site.get("/lists/shared.json", params={"items": bad})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")


def test_both_files_bring_back_the_list_that_was_exported(site, revision):
    hostile = '=1+1, "quoted"\nsecond line'
    page = made(
        site, feature(3, comment=hostile, tags=["-x", "y"]), {"kind": "run", "run": "r1", "label": "'=x"},
        {"kind": "region", "sae": "else.where", "revision": "00ff", "map": "m", "level": 1, "region": 0, "label": "@r"},
        title="Out", description="d\n\ne", tags=["t"], author="me",
    )  # fmt: skip
    exported = site.get(f"{page['url']}/export.json")
    assert "attachment" in exported.headers["content-disposition"]
    body = exported.json()
    again = site.post("/api/lists", json=body).json()
    assert site.get(f"{again['url']}/export.json").json() == body
    told = site.get(f"{page['url']}/export.csv").text
    rows = list(csv.DictReader(io.StringIO(told, newline="")))
    assert rows[0]["comment"] == "'" + hostile
    assert (rows[0]["index"], rows[0]["revision"], rows[1]["label"]) == ("3", revision, "''=x")
    for upload in ({"files": {"file": ("l.csv", told.encode())}}, {"data": {"text": "\ufeff" + told}}):
        data = {"title": "Out", **upload.pop("data", {})}
        back = site.post("/lists/import", data=data, **upload, follow_redirects=False)
        assert back.status_code == 303, back.text
        body2 = site.get(back.headers["location"] + "/export.json").json()
        assert body2["items"] == body["items"]
    back = site.post("/lists/import", files={"file": ("l.json", exported.content)}, follow_redirects=False)
    assert site.get(back.headers["location"] + "/export.json").json() == body


HEAD = "kind,sae,index,comment\r\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "empty"),
        ('{"title": "x", "items": [', "Line 1 is no JSON"),
        ('{"title": "x",\n "items": [{"kind": "feature",}]}', "Line 2 is no JSON"),
        ('{"items": []}', "Title: does not fit: field required"),
        ('{"title": "x", "items": [{"kind": "feature", "sae": "listed"}]}', "Item 1: A feature needs 'index'"),
        ('{"title": "x", "items": [{"kind": "run", "run": "a"}, {"kind": "thing"}]}', "Item 2, kind: 'thing'"),
        (
            '{"title": "x", "items": [{"kind": "run", "run": "a", "index": 2}]}',
            "Item 1: A run has no 'index'; it is '2'",
        ),
        ('{"title": "x", "colour": "red"}', "Colour is nothing a list has"),
        ('{"title": "x", "items": [{"kind": "feature", "sae": "listed", "index": 40}]}', "Item 1: listed@"),
        ('{"title": "x", "items": [{"kind": "feature", "sae": "nowhere", "index": 4}]}', "must name its revision"),
        ('{"title": "x\\u0000"}', "a nul"),
        ('{"title": "x", "items": ' + "[" * 100_000, "nested too deeply"),
        ("sae,index\r\nlisted,3\r\n", "Line 1: a column 'kind' is missing"),
        ("kind,colour\r\nrun,red\r\n", "Line 1: 'colour' is no column"),
        ("kind,kind\r\nrun,run\r\n", "twice"),
        (HEAD + "feature,listed,3,fine\r\nfeature,listed,x,\r\n", "Line 3: index 'x' does not fit"),
        (HEAD + 'feature,listed,3,"two\r\nlines"\r\nfeature,listed,99,\r\n', "Line 4: listed@"),
        (HEAD + "feature,listed,3,a,b,c\r\n", "Line 2: there are more values than columns"),
        (HEAD + 'feature,listed,3,"open\r\n', "no CSV"),
        (HEAD + "run,,,\r\n", "Line 2: A run needs 'run'"),
        (HEAD + "run,listed,,\r\n", "Line 2: A run has no 'sae'; it is 'listed'"),
        (HEAD + f"feature,listed,3,{'x' * 1001}\r\n", "Line 2: comment"),
        (HEAD + "feature,listed,3,a\0b\r\n", "Line 2"),
        (HEAD.encode() + b"feature,listed,3,\xff\r\n", "Line 2 is not UTF-8"),
        ("kind,run\r\n" + "run,a\r\n" * (MOST_ITEMS + 1), "at most 1,000 items"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_line_and_value_and_leaves_nothing(site, database, given, says):
    before = count(database), count(database, "list_item")
    data = given if isinstance(given, bytes) else given.encode()
    title = "Imported" if given[:1] not in ("{", b"{") else ""
    answer = site.post("/lists/import", data={"title": title}, files={"file": ("list", data)}, follow_redirects=False)
    assert answer.status_code == 422, answer.text
    told = re.search(r'id="import-error">([^<]*)<', answer.text)[1].replace("&#39;", "'")
    assert says in told
    assert len(told) < 400
    assert (count(database), count(database, "list_item")) == before


def test_an_import_that_is_refused_keeps_what_was_pasted(site):
    answer = site.post("/lists/import", data={"title": "Mine", "text": "kind\nnothing <b>"})
    assert answer.status_code == 422
    assert "nothing &lt;b&gt;" in answer.text
    assert 'value="Mine"' in answer.text
    assert "give a title" in site.post("/lists/import", data={"text": "kind,run\nrun,a\n"}).text
    assert site.post("/lists/import", content=b"--x\r\nbroken", headers={
        "content-type": "multipart/form-data; boundary=x"}).status_code == 422  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/api/lists", {"title": " "}, "title"),
        ("/api/lists", {"title": "x" * 201}, "title"),
        ("/api/lists", {"title": "a\0"}, "a nul"),
        ("/api/lists", {"title": "a", "tags": ["x" * 41]}, "40 characters"),
        ("/api/lists", {"title": "a", "tags": [f"t{i}" for i in range(21)]}, "20 tags"),
        ("/api/lists", {"title": "a", "description": "x" * 4001}, "description"),
        ("/api/lists", {"title": "a", "items": [{"kind": "feature", "sae": "../x", "index": 1}]}, "nothing a list"),
        ("/api/lists", {"title": "a", "items": [{"kind": "feature", "sae": SAE, "index": 40}]}, "0 to 39"),
        ("/api/lists", {"title": "a", "colour": 1}, "colour"),
        ("/api/lists/NAME/items", {"items": []}, "items"),
        ("/api/lists/NAME/items/0/edit", {"move": "sideways"}, "move"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(site, database, path, body, says):
    name, before = made(site, title="Refusing")["name"], count(database)
    answer = site.post(path.replace("NAME", name), json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert says in answer.json()["message"]
    assert count(database) == before


@pytest.mark.parametrize("item", ["x", "99999999999999999999", "-1", "12345"])
def test_items_that_there_are_not_are_refused(site, item):
    name = made(site)["name"]
    assert site.post(f"/api/lists/{name}/items/{item}/remove").status_code == 404
    assert site.post(f"/lists/{name}/items/{item}/up").status_code == 404
    assert site.post("/api/lists/nowhere-abcde/edit", json={"title": "x"}).json()["code"] == "list_unknown"
    assert site.get("/lists/%00").status_code == 404


def test_a_list_never_holds_more_than_it_may(site):
    name = made(site, *({"kind": "run", "run": f"r{i}"} for i in range(MOST_ITEMS - 1)))["name"]
    more = [{"kind": "run", "run": "x"}, {"kind": "run", "run": "y"}]
    answer = site.post(f"/api/lists/{name}/items", json={"items": more})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_large")
    assert site.get(f"/lists/{name}.json").json()["count"] == MOST_ITEMS - 1
    assert site.get(f"/lists/{name}.json").json()["share"] is None
    assert "export it" in site.get(f"/lists/{name}/link").text


def test_another_site_can_change_no_list(site, database):
    page, before = made(site, feature(1)), count(database)
    elsewhere = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}
    for path in ("/lists", "/lists/add", "/lists/import", f"{page['url']}/delete", f"{page['url']}/edit"):
        assert site.post(path, data={"title": "x"}, headers=elsewhere).status_code == 403
    assert count(database) == before


def test_hostile_text_stays_text_everywhere(site):
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    page = made(
        site, {"kind": "run", "run": "r", "label": hostile, "comment": hostile, "tags": [hostile[:30]]},
        title=hostile, description=hostile, tags=[hostile[:30]], author=hostile,
    )  # fmt: skip
    shared = site.get("/lists/shared", params={"items": "run/r", "title": hostile})
    for shown in (site.get(page["url"]), site.get("/lists"), site.get(f"{page['url']}/delete"), shared,
                  site.get("/lists", params={"q": hostile, "tag": hostile[:30]})):  # fmt: skip
        assert shown.status_code == 200
        assert "<img" not in shown.text
        assert "<script>alert" not in shown.text
    assert json.loads(site.get(f"{page['url']}/export.json").text)["title"] == hostile
