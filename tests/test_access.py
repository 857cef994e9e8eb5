"""Who may do what, in team mode: every route as everybody, against the table."""

import json
import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.main import create_app
from app.store import tables as t
from app.store.reader import Reader
from app.store.run_queries import add_run
from app.web import access
from app.web.access import ANYBODY, EDITOR, NOBODY, READER, ROWS, VIEWER, needed
from tests.conftest import LAYERS
from tests.team import browser, done, make_token

ROLES = (None, "viewer", "editor", "admin")
GIVEN = {
    "slug": LAYERS[0], "index": "3", "kind": "top", "rank": "0", "score": "1", "number": "1", "run": "1",
    "name": "none-here", "item": "1", "what": "up", "version": "x", "z": "0", "x": "0", "y": "0", "path": "nowhere",
    "circuit": "none", "graph": "none", "scan": "none",
    "secret": "none", "token": "1999999999", "share": "1999999999", "invitation": "1999999999", "account": "1999999999",
}  # fmt: skip
QUERIES = {"/oembed": "?url=x", "/saes/{slug}/jump": "?index=1"}


@pytest.fixture(scope="module")
def team(layered):
    return layered.model_copy(update={"mode": "team"})


@pytest.fixture(scope="module")
def site(team):
    with TestClient(create_app(team)) as client:
        yield client


@pytest.fixture(scope="module")
def public(team):
    return team.model_copy(update={"public_read": True})


@pytest.fixture(scope="module")
def public_site(public):
    with TestClient(create_app(public)) as client:
        yield client


@pytest.fixture(scope="module")
def people(site, team):
    """A browser for each role, and one of nobody."""
    with (
        browser(site, team) as nobody,
        browser(site, team, "walks as viewer", "viewer") as viewer,
        browser(site, team, "walks as editor", "editor") as editor,
        browser(site, team, "walks as admin", "admin") as admin,
    ):
        yield dict(zip(ROLES, (nobody, viewer, editor, admin), strict=True))


def routes(app):
    """(method, path) of every route, however deep it was included."""
    found, waiting = [], list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
            continue
        found += [(method, route.path) for method in sorted(getattr(route, "methods", None) or {"GET"})]
    return sorted(set(found))


def may(role, level, public=False):
    """The table, worked out a second time."""
    order = {"viewer": 2, "editor": 3, "admin": 4}
    wanted = {"ANYBODY": 0, "READER": 0 if public else 2, "VIEWER": 2, "EDITOR": 3, "ADMIN": 4, "NOBODY": 9}[level.name]
    return (order[role] if role else 0) >= wanted


def test_every_route_has_a_row(site):
    assert len(routes(site.app)) > 100
    for method, path in routes(site.app):
        if path != "/{path:path}" and method != "HEAD":
            plain = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: GIVEN[found[1]], path)
            level = needed(plain, method)
            assert level not in (None, NOBODY), (method, path)


def asked(client, method, path):
    url = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: GIVEN[found[1]], path) + QUERIES.get(path, "")
    return client.request(method, url, **({} if method == "GET" else {"content": b""}))


def turned_away(answer):
    to_login = answer.status_code == 303 and answer.headers["location"].startswith("/login?")
    unknown = answer.status_code == 401 and "SAESCOPE_METRICS_TOKEN" not in answer.text
    return to_login or unknown or (answer.status_code == 403 and "takes the role" in answer.text)


@pytest.mark.parametrize("role", ROLES)
def test_every_route_lets_in_whom_the_table_says_and_nobody_else(site, people, team, role):
    walked = 0
    for method, path in routes(site.app):
        if path in ("/{path:path}", "/logout", "/account/sessions/end") or method == "HEAD":
            continue  # the first is no page; the others end the session
        plain = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: GIVEN[found[1]], path)
        answer = asked(people[role], method, path)
        assert turned_away(answer) != may(role, needed(plain, method)), (role, method, path, answer.status_code)
        assert answer.status_code < 500 or path.startswith("/login/provider"), (method, path, answer.text)
        walked += 1
    assert walked > 100


def test_a_path_without_a_row_is_there_for_nobody(site, people, monkeypatch):
    monkeypatch.delitem(access._BY_PARTS, ("compare",))
    for client in people.values():
        assert client.get("/compare").status_code == 404
        assert client.get("/compare.json").json()["code"] == "not_found"
    monkeypatch.undo()
    assert people["viewer"].get("/compare").status_code in (200, 303)
    assert people["viewer"].get("/nowhere").status_code == 404
    assert people[None].get("/nowhere").status_code == 404


def test_rows_fit_the_longest_beginning_and_no_other_segment():
    assert needed("/lists", "GET") is READER
    assert needed("/lists.json", "HEAD") is READER
    assert needed("/lists/add", "GET") is EDITOR
    assert needed("/lists/addx", "GET") is READER
    assert needed("/lists/x/items/1/up", "POST") is EDITOR
    assert needed("/inspect/abc/visibility", "POST") is ROWS["/inspect/*/visibility"].write
    assert needed("/admin.json", "GET") is ROWS["/admin"].read
    assert needed("/admin/audit.jsonl", "POST") is NOBODY
    assert needed("/administer", "GET") is None
    assert needed("//admin", "GET") is None
    for odd in ("/inspect/keep\n", "/training\n", "*", "lists", "/lists\u2028"):
        assert needed(odd, "POST") is None
    assert needed("/training", "GET") is VIEWER
    assert needed("/", "POST") is NOBODY
    assert needed("/healthz", "GET") is ANYBODY


def test_who_is_not_signed_in_is_led_to_the_login_and_back(site, people):
    nobody = people[None]
    answer = nobody.get("/saes/a%20b/features?sort=max&q=x")
    assert (answer.status_code, answer.headers["location"]) == (
        303, "/login?next=%2Fsaes%2Fa%2520b%2Ffeatures%3Fsort%3Dmax%26q%3Dx",
    )  # fmt: skip
    twin = nobody.get("/lists.json")
    assert (twin.status_code, twin.json()["code"], twin.headers["www-authenticate"]) == (401, "login_needed", "Bearer")
    fragment = nobody.get("/lists", headers={"hx-request": "true"})
    assert (fragment.status_code, fragment.headers["hx-redirect"]) == (401, "/login")
    assert nobody.get("/login").status_code == nobody.get("/healthz").status_code == 200
    assert nobody.post("/lists", data={"title": "x"}).status_code == 401


def test_a_role_that_is_too_little_is_told_which_is_wanted(people):
    answer = people["viewer"].post("/api/lists", json={"title": "x"})
    assert answer.status_code == 403
    assert answer.json()["detail"] == {"needed": "editor", "role": "viewer"}
    assert "takes the role admin" in people["editor"].post("/harvests", data={}).text


def test_tokens_may_what_their_scope_says_and_never_more_than_their_account(site, team):
    with browser(site, team) as program:
        for role, scope, statuses in (
            ("viewer", "admin", (200, 403, 403, 403)),
            ("editor", "read", (200, 403, 403, 403)),
            ("editor", "write", (200, 200, 403, 403)),
            ("admin", "write", (200, 200, 403, 403)),
            ("admin", "admin", (200, 200, 422, 403)),
        ):
            secret = make_token(team, f"has a token as {role}", role, scope)
            bearer = {"authorization": f"Bearer {secret}"}
            answers = (
                program.get("/saes.json", headers=bearer),
                program.post("/api/lists", json={"title": "by token"}, headers=bearer),
                program.post("/api/harvests", json={"sae": 1}, headers=bearer),
                program.get("/admin.json", headers=bearer),  # no token may do that
            )
            assert tuple(answer.status_code for answer in answers) == statuses, (role, scope)
        wrong = program.get("/saes.json", headers={"authorization": "Bearer sae_wrong"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "token_wrong")
        assert "www-authenticate" in wrong.headers


def test_reading_without_an_account_shows_pages_and_public_lists_and_changes_nothing(public_site, public):
    site = public_site
    with browser(site, public) as nobody, browser(site, public, "publishes", "editor") as editor:
        for method, path in routes(site.app):
            if path not in ("/{path:path}", "/logout") and method != "HEAD":
                plain = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: GIVEN[found[1]], path)
                answer = asked(nobody, method, path)
                assert turned_away(answer) != may(None, needed(plain, method), public=True), (method, path)
        names = {
            seen: editor.post("/api/lists", json={"title": f"Seen by {seen}", "visibility": seen}).json()["name"]
            for seen in ("private", "team", "public")
        }
        shown = nobody.get("/lists.json?q=Seen by").json()["items"]
        assert [one["title"] for one in shown] == ["Seen by public"]
        statuses = [nobody.get(f"/lists/{name}.json").status_code for name in names.values()]
        assert statuses == [404, 404, 200]
        asked_for = {"text": "Paris", "sae": LAYERS[0]}
        kept = nobody.post("/api/inspect", json=asked_for | {"keep": True})
        assert (kept.status_code, kept.json()["code"]) == (401, "login_needed")
        assert nobody.post("/api/inspect", json=asked_for).status_code == 200


def test_a_private_list_is_there_for_its_owner_alone_whatever_others_ask(site, team):
    with browser(site, team, "owns a list", "editor") as owner, browser(site, team, "is an admin", "admin") as other:
        made = owner.post(
            "/api/lists", json={"title": "Mine alone", "visibility": "private", "tags": ["secret-tag"], "author": "Eve"}
        ).json()
        name = made["name"]
        assert (made["author"], made["visibility"]) == ("owns a list", "private")
        assert [one["name"] for one in owner.get("/lists.json?q=Mine alone").json()["items"]] == [name]
        for path in ("/lists.json?q=Mine alone", "/lists.json?tag=secret-tag"):
            assert other.get(path).json()["items"] == []
        assert "secret-tag" not in other.get("/lists.json").json()["tags"]
        for path in (f"/lists/{name}", f"/lists/{name}.json", f"/lists/{name}/export.json", f"/lists/{name}/export.csv",
                     f"/lists/{name}/link", f"/lists/{name}/delete"):  # fmt: skip
            assert other.get(path).status_code == 404, path
        items = {"items": [{"kind": "run", "run": "x"}]}
        for what, body in (("edit", {"title": "taken"}), ("delete", {}), ("items", items),
                           ("items/1/edit", {"comment": "x"}), ("items/1/remove", {})):  # fmt: skip
            assert other.post(f"/api/lists/{name}/{what}", json=body).status_code == 404, what
        assert owner.get(f"/lists/{name}.json").json()["title"] == "Mine alone"


def test_a_teams_list_is_changed_by_editors_and_hidden_or_removed_by_its_owner(site, team):
    with browser(site, team, "began it", "editor") as owner, browser(site, team, "joins in", "editor") as other:
        name = owner.post("/api/lists", json={"title": "Ours"}).json()["name"]
        assert other.post(f"/api/lists/{name}/edit", json={"title": "Ours too"}).json()["title"] == "Ours too"
        hidden = other.post(f"/api/lists/{name}/edit", json={"visibility": "private"})
        removed = other.post(f"/api/lists/{name}/delete", json={})
        assert (hidden.status_code, removed.status_code) == (403, 403)
        assert owner.get(f"/lists/{name}.json").json()["author"] == "began it"
        assert owner.post(f"/api/lists/{name}/delete", json={}).status_code == 200
        assert owner.get(f"/lists/{name}.json").status_code == 404


def test_what_people_write_is_signed_by_their_account(site, team):
    with browser(site, team, "writes", "editor") as editor, browser(site, team, "reads", "viewer") as viewer:
        page = f"/saes/{LAYERS[0]}/features/7"
        editor.post(f"/api{page}/note", json={"text": "Seen by the team.", "author": "Somebody else"})
        assert viewer.get(f"{page}.json").json()["note"]["author"] == "writes"
        editor.post(f"{page}/explanations", data={"text": "commas", "author": "Somebody else"})
        (said,) = [e for e in viewer.get(f"{page}.json").json()["explanations"] if e["text"] == "commas"]
        assert said["author"] == "writes"
        editor.post(f"{page}/explanations/{said['id']}/votes", data={"value": "1", "author": "One"})
        editor.post(f"{page}/explanations/{said['id']}/votes", data={"value": "1", "author": "Two"})
        (said,) = [e for e in viewer.get(f"{page}.json").json()["explanations"] if e["text"] == "commas"]
        assert said["votes"] == 1
        assert "Your name" not in editor.get(page).text


def test_notes_and_kept_runs_are_the_teams_until_they_are_public(public_site, public):
    site = public_site
    with (
        browser(site, public, "annotates", "editor") as editor,
        browser(site, public) as nobody,
        browser(site, public, "looks on", "viewer") as viewer,
    ):
        page = f"/saes/{LAYERS[1]}/features/5"
        editor.post(f"/api{page}/note", json={"text": "For all.", "visibility": "public"})
        editor.post(f"/api{page}/note", json={"text": "For us."})
        assert editor.get(f"{page}.json").json()["note"]["text"] == "For us."
        assert nobody.get(f"{page}.json").json()["note"] is None  # what was public is taken back
        assert nobody.get(f"{page}/notes.json").json()["items"] == []
        editor.post(f"/api{page}/note", json={"text": "For all again.", "visibility": "public"})
        assert nobody.get(f"{page}.json").json()["note"]["text"] == "For all again."
        editor.post(f"/api{page}/note", json={"text": "", "visibility": "public"})
        assert [one["text"] for one in nobody.get(f"{page}/notes.json").json()["items"]] == [""]
        assert [one["text"] for one in editor.get(f"{page}/notes.json").json()["items"]] == [
            "", "For all again.", "For us.", "For all.",
        ]  # fmt: skip
        run = viewer.post("/api/inspect", json={"text": "Paris is", "sae": LAYERS[1], "keep": True}).json()["run"]
        assert editor.get(f"/inspect/{run}.json").status_code == 200
        assert nobody.get(f"/inspect/{run}.json").status_code == 404
        items = {"items": [{"kind": "run", "run": run}]}
        listed = editor.post("/api/lists", json={"title": "Runs", "visibility": "public"} | items).json()
        assert listed["items"][0]["run"]["text"] == "Paris is"
        seen = nobody.get(f"/lists/{listed['name']}.json").json()["items"][0]
        assert (seen["run"], seen["gone"]) == (None, f"Run {run} is not here.")
        assert editor.post(f"/inspect/{run}/visibility", data={"visibility": "private"}).status_code == 403
        assert viewer.post(f"/inspect/{run}/visibility", data={"visibility": "private"}).status_code == 303
        assert editor.get(f"/inspect/{run}.json").status_code == 404
        assert viewer.post(f"/inspect/{run}/visibility", data={"visibility": "public"}).status_code == 303
        assert nobody.get(f"/inspect/{run}.json").status_code == 200


def test_readers_who_may_see_different_things_have_different_keys():
    readers = [Reader(), Reader(1, "a", "viewer"), Reader(2, "b", "viewer"), Reader(1, "a", "editor"),
               Reader(1, "a", "viewer", shared=("list", "x", 3)), Reader(everything=True)]  # fmt: skip
    assert len({one.key for one in readers}) == len(readers)


def test_answers_are_kept_for_one_reader_alone(site, team):
    page = f"/saes/{LAYERS[0]}/features/9"
    with browser(site, team, "reads first", "viewer") as first, browser(site, team, "reads second", "viewer") as second:
        answer = first.get(page)
        assert "reads first" in answer.text.split("<main")[0]
        assert answer.headers["cache-control"].startswith("private")
        assert {"Cookie", "Authorization"} <= {one.strip() for one in answer.headers["vary"].split(",")}
        known = {"if-none-match": answer.headers["etag"]}
        assert first.get(page, headers=known).status_code == 304
        other = second.get(page, headers=known)
        assert other.status_code == 200
        assert "reads second" in other.text.split("<main")[0]
        with browser(site, team) as nobody:
            assert nobody.get(page, headers=known).status_code == 303
        for path in ("/saes.json", "/lists", "/index.json"):
            told = first.get(path).headers
            assert "public" not in told["cache-control"]
            assert "Cookie" in told["vary"]
    assert site.get("/static/site.css?v=1").headers["cache-control"].startswith("public")


def test_local_mode_has_no_accounts_and_asks_nothing_of_them(layered_client):
    for path in ("/login", "/account", "/admin", "/share/x", "/join/x"):
        assert layered_client.get(path).status_code == 404
    answer = layered_client.get(f"/saes/{LAYERS[0]}/features/3")
    assert "set-cookie" not in answer.headers
    assert "Cookie" not in answer.headers["vary"]
    assert "Sign in" not in answer.text
    assert json.loads(layered_client.get("/api/openapi.json").text)["paths"].keys().isdisjoint({"/admin.json"})


def test_a_list_tells_nothing_of_a_run_to_who_may_not_see_it(site, team):
    with browser(site, team, "keeps a run", "editor") as owner, browser(site, team, "reads lists", "editor") as other:
        run = owner.post("/api/inspect", json={"text": "Secret Paris", "sae": LAYERS[0], "keep": True}).json()["run"]
        items = {"items": [{"kind": "run", "run": run, "label": "Secret Paris"}]}
        name = owner.post("/api/lists", json={"title": "With a run"} | items).json()["name"]
        assert "Secret Paris" in other.get(f"/lists/{name}").text
        assert other.get(f"/lists/{name}/export.json").json()["items"][0]["label"] == "Secret Paris"
        owner.post(f"/inspect/{run}/visibility", data={"visibility": "private"})
        for path in ("", ".json", "/export.json", "/export.csv"):
            assert "Secret" not in other.get(f"/lists/{name}{path}").text, path
            assert "Secret" in owner.get(f"/lists/{name}{path}").text, path
        assert other.post(f"/inspect/{run}/delete").status_code == 404
        assert owner.post(f"/inspect/{run}/delete").status_code == 303
        assert "Secret" not in owner.get(f"/lists/{name}.json").text
        assert owner.get(f"/inspect/{run}.json").status_code == 404


def test_an_admin_who_hides_anothers_list_is_answered_and_written_down(site, team):
    with browser(site, team, "had a list", "editor") as owner, browser(site, team, "hides it", "admin") as admin:
        name = owner.post("/api/lists", json={"title": "Soon hidden"}).json()["name"]
        answer = admin.post(f"/api/lists/{name}/edit", json={"visibility": "private"})
        assert (answer.status_code, answer.json()["visibility"]) == (200, "private")
        assert admin.get(f"/lists/{name}.json").status_code == 404
        entries = admin.get("/admin/audit.json").json()["items"]
        assert [one["action"] for one in entries if one["who"] == "hides it"] == ["POST /api/lists/{name}/edit"]
        kept = {"title": "Renamed", "tags": "", "description": ""}  # a form that says nothing of who may see it
        assert owner.post(f"/lists/{name}/edit", data=kept).status_code == 303
        exported = owner.get(f"/lists/{name}/export.json").json()
        assert (exported["title"], exported["visibility"]) == ("Renamed", "private")


def test_what_is_nobodys_any_more_is_shown_to_admins(site, team):
    with browser(site, team, "leaves", "editor") as owner, browser(site, team, "inherits", "admin") as admin:
        name = owner.post("/api/lists", json={"title": "Left", "visibility": "private"}).json()["name"]
        assert admin.get(f"/lists/{name}.json").status_code == 404
        left = update(t.list_).where(t.list_.c.slug == name).values(owner_id=None)
        done(team, lambda db: db.execute(left))
        assert owner.get(f"/lists/{name}.json").status_code == 404
        assert admin.post(f"/api/lists/{name}/delete", json={}).status_code == 200


def test_a_token_that_reads_changes_nothing_at_all(site, team):
    with browser(site, team) as program, browser(site, team, "has runs", "viewer") as owner:
        asked_for = {"text": "Paris", "sae": LAYERS[0]}
        run = owner.post("/api/inspect", json=asked_for | {"keep": True}).json()["run"]
        bearer = {"authorization": f"Bearer {make_token(team, 'has runs', 'viewer', 'read')}"}
        for path, more in (
            (f"/inspect/{run}/visibility", {"data": {"visibility": "public"}}), (f"/inspect/{run}/delete", {}),
            ("/inspect/keep", {"data": asked_for}), ("/api/inspect", {"json": asked_for | {"keep": True}}),
        ):  # fmt: skip
            answer = program.post(path, headers=bearer, **more)
            assert answer.status_code == 403, path
            assert "may only read" in answer.text
        assert program.post("/api/inspect", json=asked_for, headers=bearer).status_code == 200
        assert owner.get(f"/inspect/{run}.json").status_code == 200


def test_the_link_to_a_run_tells_of_no_other_sae(site, team):
    with browser(site, team, "shares one run", "editor") as editor, browser(site, team) as nobody:
        run = editor.post("/api/inspect", json={"text": "Paris", "sae": LAYERS[0], "keep": True}).json()["run"]
        link = editor.post("/api/shares", json={"address": f"/inspect/{run}"}).json()["url"]
        nobody.get(link.removeprefix("http://testserver"))
        assert [one["slug"] for one in nobody.get(f"/inspect/{run}.json").json()["saes"]] == [LAYERS[0]]
        assert len(editor.get(f"/inspect/{run}.json").json()["saes"]) > 1


def test_a_path_that_only_looks_like_one_is_no_page(site, people):
    assert people["viewer"].post("/inspect/keep%0A", data={"text": "x"}).status_code == 404
    for client in people.values():
        assert client.get("/lists%0A").status_code == 404


def test_what_a_run_said_is_told_to_accounts_alone(public_site, public):
    async def asked_for(db):
        run = await add_run(db, [LAYERS[0]], {"sae": LAYERS[0], "model": "m-secret"}, kind="explain", latent=4)
        said = {"state": "failed", "message": "No answer from 10.0.0.9.", "facts": {"notes": ["asked 10.0.0.9"]}}
        await db.execute(update(t.run).where(t.run.c.id == run).values(**said))

    done(public, asked_for)
    page = f"/saes/{LAYERS[0]}/features/4/ask"
    with browser(public_site, public) as nobody, browser(public_site, public, "looks on", "viewer") as viewer:
        mine, theirs = viewer.get(f"{page}.json").json()["run"], nobody.get(f"{page}.json").json()["run"]
        assert (mine["message"], theirs["message"]) == ("No answer from 10.0.0.9.", None)
        assert mine["command"]["model"] == "m-secret"
        assert (theirs["command"], theirs["notes"], theirs["state"]) == ({}, [], "failed")
        for path in (page, f"{page}.json"):
            shown = nobody.get(path)
            assert shown.status_code == 200
            assert "10.0.0.9" not in shown.text
            assert "m-secret" not in shown.text
        assert nobody.get("/training").status_code == 303


def test_a_list_opened_by_a_link_offers_nothing_the_link_does_not_open(site, team):
    with browser(site, team, "shares a list", "editor") as editor, browser(site, team) as nobody:
        items = {"items": [{"kind": "feature", "sae": LAYERS[0], "index": 3}]}
        name = editor.post("/api/lists", json={"title": "Opened"} | items).json()["name"]
        link = editor.post("/api/shares", json={"address": f"/lists/{name}"}).json()["url"]
        nobody.get(link.removeprefix("http://testserver"))
        assert editor.get(f"/lists/{name}.json").json()["share"] == f"/lists/{name}/link"
        assert nobody.get(f"/lists/{name}.json").json()["share"] is None
