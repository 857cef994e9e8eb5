"""Signing in, invitations, tokens, share links and the audit log, as browsers and programs meet them."""

import asyncio
import json
import re
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from app.errors import AddressRefused, BadRequest, LoginThrottled, QuotaReached
from app.main import create_app
from app.outside import check_outside
from app.passwords import hashed, hashed_password
from app.settings import Settings
from app.store import accounts as store
from app.store import lists
from app.store import tables as t
from app.store.engine import async_engine, database_url, sync_engine
from app.store.reader import Reader, reader
from app.web import attempts, signing
from app.web.api_examples import GRAPH
from app.web.attempts import Attempts
from app.web.memory import REMEMBERED_S, Memory
from app.web.shared_pages import opens, shared_page, untitled
from app.web.signing import here
from app.web.uploads import DAY, Uploads
from tests.conftest import LAYERS
from tests.counting import counted_queries
from tests.team import PASSWORD, browser, done, keep_cookie, make_account, make_token, team

NEXT = "another horse battery"
FEATURE = f"/saes/{LAYERS[0]}/features/11"


@pytest.fixture(scope="module")
def own(layered):
    return team(layered, account_kept=3)


@pytest.fixture(scope="module")
def site(own):
    with TestClient(create_app(own)) as client:
        yield client


@pytest.fixture(autouse=True)
def fresh(site):
    site.app.state.saescope.attempts = Attempts()


@pytest.fixture
def nobody(site, own):
    with browser(site, own) as client:
        yield client


def login(client, name, password=PASSWORD, **more):
    return client.post("/login", data={"name": name, "password": password, **more})


def secret_of(page):
    return re.search(r"<textarea id=\"secret\"[^>]*>([^<]*)<", page.text)[1]


def audit(own, who):
    engine = sync_engine(database_url(own))
    with engine.connect() as connection:
        query = text("SELECT action, address, detail FROM audit WHERE who = :who ORDER BY id")
        rows = [tuple(row) for row in connection.execute(query, {"who": who})]
    engine.dispose()
    return rows


def stored(own):
    """Everything the tables of accounts hold, as text."""
    engine = sync_engine(database_url(own))
    with engine.connect() as connection:
        names = ("account", "account_session", "account_link", "api_token", "share", "audit")
        rows = [str(tuple(row)) for name in names for row in connection.execute(text(f"SELECT * FROM {name}"))]
    engine.dispose()
    return "\n".join(rows)


def test_signing_in_sets_a_cookie_that_scripts_and_other_sites_do_not_get(own, nobody):
    make_account(own, "Ada")
    page = nobody.get("/login?next=/lists?q=a%26b")
    assert 'name="next" value="/lists?q=a&amp;b"' in page.text
    answer = login(nobody, "ada", next="/lists?q=a&b")
    assert (answer.status_code, answer.headers["location"]) == (303, "/lists?q=a&b")
    cookie = answer.headers["set-cookie"]
    name, _, attributes = cookie.partition(";")
    assert name.startswith("saescope-session=")
    for wanted in ("HttpOnly", "SameSite=lax", "Path=/", f"Max-Age={14 * 86400}"):
        assert wanted in attributes
    assert "Secure" not in attributes
    assert name.partition("=")[2] not in stored(own)
    assert nobody.get("/account.json").json()["name"] == "Ada"
    assert ("signed in", "", {"to": "/lists"}) in audit(own, "Ada")


def test_behind_tls_the_cookie_is_bound_to_this_host(site, own):
    make_account(own, "Ada")
    with browser(site, own, base_url="https://testserver") as client:
        cookie = login(client, "Ada").headers["set-cookie"]
        assert cookie.startswith("__Host-saescope-session=")
        assert "Secure" in cookie
        assert "Domain" not in cookie
        assert client.get("/account.json").status_code == 200


def test_a_wrong_name_and_a_wrong_password_are_answered_alike(own, nobody):
    make_account(own, "Ada")
    gone = make_account(own, "Left us")
    done(own, lambda db: store.change(db, gone, disabled=True))
    told = []
    for name, password in (("Ada", "wrong password"), ("Nobody here", PASSWORD), ("Left us", PASSWORD), ("a\0b", "x")):
        answer = login(nobody, name, password)
        shown = answer.text.replace(f'value="{name}"', "")
        told.append((answer.status_code, re.sub(r'name="name" value="[^"]*"', "", shown)))
        assert "set-cookie" not in answer.headers
    assert told[0][0] == 403
    assert "do not fit together" in told[0][1]
    assert told.count(told[0]) == len(told)


def make_admin(own):
    return make_account(own, "Root", "admin")


def test_the_tenth_wrong_password_is_the_last_for_a_while_of_names_there_are_and_are_not(own, nobody):
    make_account(own, "Ada")
    for name in ("Ada", "Nobody here"):
        statuses = [login(nobody, name, "wrong password").status_code for _ in range(attempts.BY_NAME + 1)]
        assert statuses == [403] * attempts.BY_NAME + [429]
        told = login(nobody, name.upper())  # by then the right one would not do either
        assert told.status_code == 429
        assert 1 <= int(told.headers["retry-after"]) <= 60


def test_tries_are_counted_for_each_name_and_each_address_and_forgotten_with_time():
    now = [0.0]
    counted = Attempts(clock=lambda: now[0])
    for number in range(attempts.BY_ADDRESS):
        counted.begin(f"name {number}", "1.2.3.4")
    with pytest.raises(LoginThrottled):
        counted.begin("yet another", "1.2.3.4")
    counted.begin("yet another", "5.6.7.8")
    now[0] += attempts.SECONDS
    counted.begin("yet another", "1.2.3.4")
    with pytest.raises(LoginThrottled) as waits:
        counted.begin("one more", "1.2.3.4")
    assert waits.value.detail["retry_after"] == attempts.SECONDS
    counted.succeeded("yet another", "5.6.7.8")
    for _ in range(attempts.BY_NAME):
        counted.begin("yet another", "9.9.9.9")


@pytest.mark.parametrize(
    ("given", "leads"),
    [
        ("/saes/a?x=1#b", "/saes/a?x=1#b"), ("", "/"), ("//evil.org", "/"), ("/\\evil.org", "/"),
        ("https://evil.org", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"), ("/\t/evil.org", "/"), ("javascript:alert(1)", "/"), ("/login?next=/x", "/"),
        ("/x\\y", "/"), ("evil.org", "/"), ("/logout", "/"),
    ],
)  # fmt: skip
def test_after_signing_in_nobody_is_led_elsewhere(own, nobody, given, leads):
    make_account(own, "Ada")
    assert here(given) == leads
    answer = login(nobody, "Ada", next=given)
    assert (answer.status_code, answer.headers["location"]) == (303, leads)
    assert "x=1" not in answer.headers["set-cookie"]


def test_other_sites_cannot_post_with_a_readers_cookie(site, own):
    with browser(site, own, "posts", "editor") as client:
        for headers in (
            {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "", "origin": "https://evil.org"}, {"sec-fetch-site": "", "origin": "null"},
        ):  # fmt: skip
            for path in ("/lists", "/account/tokens", "/login", "/logout", "/shares"):
                assert client.post(path, data={"title": "x"}, headers=headers).status_code == 403, (path, headers)
        api = client.post("/api/lists", json={"title": "x"}, headers={"origin": "https://evil.org"})
        assert api.status_code == 403
        assert client.get("/account.json").status_code == 200
        assert client.post("/lists", data={"title": "mine"}).status_code == 303


def test_signing_out_and_a_new_password_end_sessions_at_once(site, own):
    make_account(own, "Grace")
    with browser(site, own, "Grace") as here, browser(site, own, "Grace") as there:
        assert [one.get("/account.json").status_code for one in (here, there)] == [200, 200]
        wrong = here.post("/account/password", data={"now": "not this one", "password": NEXT, "again": NEXT})
        short = here.post("/account/password", data={"now": PASSWORD, "password": "short", "again": "short"})
        apart = here.post("/account/password", data={"now": PASSWORD, "password": NEXT, "again": NEXT + "x"})
        assert (wrong.status_code, short.status_code, apart.status_code) == (403, 422, 422)
        assert there.get("/account.json").status_code == 200
        changed = here.post("/account/password", data={"now": PASSWORD, "password": NEXT, "again": NEXT})
        assert (changed.status_code, changed.headers["location"]) == (303, "/account")
        assert here.get("/account.json").status_code == 200
        assert there.get("/account.json").status_code == 401
        old = here.cookies["saescope-session"]
        assert here.post("/logout").headers["location"] == "/login"
        assert here.get("/account.json").status_code == 401
        keep_cookie(here, old)  # somebody else had copied it
        assert here.get("/account.json").status_code == 401
        assert (login(there, "Grace").status_code, login(there, "Grace", NEXT).status_code) == (403, 303)


def test_a_session_that_has_expired_is_none(site, own):
    with browser(site, own, "Alan") as client:
        digest = hashed(client.cookies["saescope-session"])
        before = datetime(2020, 1, 1, tzinfo=UTC)
        query = update(t.account_session).where(t.account_session.c.hash == digest).values(expires=before)
        done(own, lambda db: db.execute(query))
        assert client.get("/account.json").status_code == 401
        assert digest in stored(own)
        login(client, "Alan")  # what has expired a month ago goes
        assert digest not in stored(own)


def test_what_was_looked_up_is_remembered_for_five_seconds_and_no_longer():
    asyncio.run(remembering())


async def remembering():
    now, asked = [0.0], []
    memory = Memory(most=2, clock=lambda: now[0])

    async def find():
        asked.append(now[0])
        return len(asked)

    assert [await memory.get("a", find), await memory.get("a", find)] == [1, 1]
    now[0] = REMEMBERED_S + 0.01
    assert await memory.get("a", find) == 2
    memory.forget()
    assert await memory.get("a", find) == 3
    for key in "bc":
        await memory.get(key, find)
    assert await memory.get("a", find) == 6  # there was no room for it


def test_an_invitation_makes_one_account_of_its_role(site, own, nobody):
    with browser(site, own, "Root", "admin") as admin:
        made = admin.post("/admin/invitations", data={"role": "editor"})
        link = secret_of(made)
        assert made.headers["cache-control"] == "private, no-store"
        path = link.removeprefix("http://testserver")
        assert "invites you as editor" in nobody.get(path).text
        form = {"name": " Mary  Jackson ", "password": NEXT, "again": NEXT}
        for changes, says in (({"password": "short"}, "10 to 1,000"), ({"again": "x"}, "not the same"),
                              ({"name": "root"}, "already"), ({"name": "\u202e"}, "can be seen")):  # fmt: skip
            answer = nobody.post(path, data=form | changes)
            assert answer.status_code in (409, 422)
            assert says in answer.text
        joined = nobody.post(path, data=form)
        assert joined.status_code == 303
        mine = nobody.get("/account.json").json()
        assert (mine["name"], mine["role"]) == ("Mary Jackson", "editor")
        assert nobody.get(path).status_code == 410
        assert nobody.post(path, data=form | {"name": "Another"}).status_code == 410
        assert path.rpartition("/")[2] not in stored(own)
        assert ("joined as editor", "", {"to": "/"}) in audit(own, "Mary Jackson")
        second = secret_of(admin.post("/admin/invitations", data={"role": "viewer"})).removeprefix("http://testserver")
        (listed,) = [one for one in admin.get("/admin.json").json()["invitations"] if one["role"] == "viewer"]
        admin.post(f"/admin/invitations/{listed['id']}/revoke")
        assert nobody.get(second).status_code == 410


def test_a_password_link_sets_a_password_once_and_signs_the_account_out(site, own, nobody):
    account = make_account(own, "Forgot it", "editor")
    with browser(site, own, "Root", "admin") as admin, browser(site, own, "Forgot it") as signed_in:
        link = secret_of(admin.post(f"/admin/accounts/{account}/link")).removeprefix("http://testserver")
        other = secret_of(admin.post(f"/admin/accounts/{account}/link")).removeprefix("http://testserver")
        assert "Forgot it" in nobody.get(link).text
        assert nobody.post(link, data={"password": NEXT, "again": NEXT}).status_code == 303
        assert nobody.get("/account.json").json()["role"] == "editor"
        assert signed_in.get("/account.json").status_code == 401
        assert nobody.post(link, data={"password": NEXT, "again": NEXT}).status_code == 410
        assert nobody.get(other).status_code == 410  # nor does one that was made before


def test_a_disabled_account_is_out_with_its_tokens_and_the_last_admin_stays(site, own, nobody):
    account, root = make_account(own, "Disabled soon", "editor"), make_admin(own)
    bearer = {"authorization": f"Bearer {make_token(own, 'Disabled soon', 'editor', 'write')}"}
    with browser(site, own, "Root", "admin") as admin, browser(site, own, "Disabled soon", "editor") as client:
        link = secret_of(client.post("/shares", data={"address": FEATURE, "days": 3})).removeprefix("http://testserver")
        assert nobody.get("/saes.json", headers=bearer).status_code == client.get("/saes.json").status_code == 200
        assert admin.post(f"/admin/accounts/{account}", data={"disabled": "true"}).status_code == 303
        assert nobody.get("/saes.json", headers=bearer).status_code == client.get("/saes.json").status_code == 401
        assert nobody.get(link).status_code == 410
        assert login(nobody, "Disabled soon").status_code == 403
        admin.post(f"/admin/accounts/{account}", data={"disabled": "false"})
        assert nobody.get("/saes.json", headers=bearer).status_code == 401
        assert login(nobody, "Disabled soon").status_code == 303
        others = [one["id"] for one in admin.get("/admin.json").json()["accounts"] if one["role"] == "admin"]
        for other in set(others) - {root}:
            admin.post(f"/admin/accounts/{other}", data={"role": "viewer"})
        for change in ({"disabled": "true"}, {"role": "editor"}):
            answer = admin.post(f"/admin/accounts/{root}", data=change)
            assert answer.status_code == 403
            assert "Nobody would be left" in answer.text
        assert admin.get("/admin").status_code == 200


def test_a_token_is_shown_once_kept_as_a_hash_and_revoked_at_once(site, own, nobody):
    with browser(site, own, "Programs", "editor") as client:
        page = client.post("/account/tokens", data={"name": "nightly <b>", "scope": "write", "days": "5"})
        secret = secret_of(page)
        assert secret.startswith("sae_")
        assert secret not in stored(own)
        bearer = {"authorization": f"Bearer {secret}"}
        assert nobody.post("/api/lists", json={"title": "by a program"}, headers=bearer).status_code == 200
        (told,) = client.get("/account.json").json()["tokens"]
        assert (told["name"], told["scope"]) == ("nightly <b>", "write")
        assert told["used"] is not None
        days = (datetime.fromisoformat(told["expires"]) - datetime.now(UTC)).total_seconds() / 86400
        assert days == pytest.approx(5, abs=0.1)
        shown = client.get("/account").text
        assert "nightly &lt;b&gt;" in shown
        assert secret not in shown
        entry = audit(own, "Programs")[-1]
        assert entry[0] == "POST /api/lists"
        assert re.fullmatch(r"/lists/\*-[a-z0-9]{5}", entry[1])
        assert entry[2]["token"] == told["id"]
        with browser(site, own, "Someone else", "admin") as other:
            other.post(f"/account/tokens/{told['id']}/revoke")  # not theirs
            assert nobody.get("/saes.json", headers=bearer).status_code == 200
            other.post(f"/admin/tokens/{told['id']}/revoke")
        assert nobody.get("/saes.json", headers=bearer).status_code == 401


@pytest.mark.parametrize("kind", ["feature", "sae", "list", "run"])
def test_a_share_link_opens_one_page_with_what_belongs_to_it_until_it_is_revoked(site, own, kind):
    with browser(site, own, f"Shares a {kind}", "editor") as editor, browser(site, own) as nobody:
        own_list = editor.post("/api/lists", json={"title": "Shared", "visibility": "private"}).json()["name"]
        other_list = editor.post("/api/lists", json={"title": "Not shared"}).json()["name"]
        run = editor.post("/api/inspect", json={"text": "Paris", "sae": LAYERS[0], "keep": True}).json()["run"]
        editor.post(f"/inspect/{run}/visibility", data={"visibility": "private"})
        page, opened = {
            "feature": (FEATURE, [".json", "/notes", "/card", "/og.png", "/embed"]),
            "sae": (f"/saes/{LAYERS[0]}", [".json", "/features", "/features.json"]),
            "list": (f"/lists/{own_list}", [".json", "/export.csv", "/export.json"]),
            "run": (f"/inspect/{run}", [".json"]),
        }[kind]
        link = secret_of(editor.post("/shares", data={"address": page, "days": 3})).removeprefix("http://testserver")
        assert nobody.get(page).status_code == 303  # to the login
        answer = nobody.get(link)
        assert (answer.status_code, answer.headers["location"]) == (303, page)
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert link.rpartition("/")[2] not in stored(own)
        for path in ("", *opened):
            assert nobody.get(page + path).status_code == 200, path
        shut = {FEATURE, f"/saes/{LAYERS[0]}", f"/lists/{own_list}", f"/inspect/{run}"} - {page}
        shut |= {"/", "/lists", "/lists.json", f"/lists/{other_list}", f"/saes/{LAYERS[1]}", FEATURE + "2", page + "x"}
        shut |= {f"/saes/{LAYERS[0]}/features/12", "/account", "/admin", f"/saes/{LAYERS[0]}/features.csv"}
        for path in shut:
            assert nobody.get(path).status_code in (303, 401, 404), path
        assert nobody.post(f"{page}/edit", data={"title": "taken"}).status_code in (401, 404)
        (listed,) = [one for one in editor.get("/account.json").json()["shares"] if one["address"] == page]
        editor.post(f"/shares/{listed['id']}/revoke")
        assert nobody.get(page).status_code == 303
        assert nobody.get(link).status_code == 410
        assert ("made a share link", untitled(page), {}) in audit(own, f"Shares a {kind}")


def test_what_one_may_not_see_one_cannot_share(site, own):
    with browser(site, own, "Hides", "editor") as editor, browser(site, own, "Peeks", "editor") as other:
        hidden = editor.post("/api/lists", json={"title": "Hidden", "visibility": "private"}).json()["name"]
        team = editor.post("/api/lists", json={"title": "For the team"}).json()["name"]
        address = {"address": f"/lists/{hidden}"}
        assert other.post("/api/shares", json=address).status_code == 404
        link = other.post("/api/shares", json={"address": f"/lists/{team}"}).json()["url"]
        with browser(site, own) as nobody:
            nobody.get(link.removeprefix("http://testserver"))
            assert nobody.get(f"/lists/{team}").status_code == 200
            editor.post(f"/api/lists/{team}/edit", json={"visibility": "private"})
            assert nobody.get(f"/lists/{team}").status_code == 404  # the one who shared it sees it no more
        for path in (
            "/account",
            "/",
            "/lists",
            "/lists/add",
            "//evil.org/saes/x",
            "https://evil.org/saes/x",
            "/saes/a/b",
        ):
            assert other.post("/api/shares", json={"address": path}).status_code == 422, path
        assert other.post("/api/shares", json=address | {"days": 400}).status_code == 422


def test_a_features_page_names_no_list_that_is_hidden(site, own):
    page = f"/saes/{LAYERS[0]}/features/17"
    item = {"kind": "feature", "sae": LAYERS[0], "index": 17}

    def titles(client):
        return [one["title"] for one in client.get(f"{page}.json").json()["lists"]]

    with browser(site, own, "Sorts", "editor") as editor, browser(site, own, "Peeks", "editor") as other:
        names = [
            editor.post("/api/lists", json={"title": title, "visibility": title, "items": [item]}).json()["name"]
            for title in ("private", "team", "public")
        ]
        assert (titles(editor), titles(other)) == (["private", "public", "team"], ["public", "team"])
        known = other.get(page).headers["etag"]
        editor.post(f"/api/lists/{names[1]}/edit", json={"visibility": "private"})
        assert other.get(page, headers={"if-none-match": known}).status_code == 200
        assert titles(other) == ["public"]
        assert "/lists/" + names[0] not in other.get(page).text
        for name in names:
            editor.post(f"/lists/{name}/delete")


def test_shared_pages_are_told_from_those_beside_them():
    feature = shared_page("/saes/a%20b@12/features/3?text=x")
    assert feature.path == "/saes/a b@12/features/3"
    assert opens(feature, "/saes/a b@12/features/3/examples/top/0.json")
    assert not opens(shared_page("/lists/a-b"), "/lists/a-b/link")
    for beside in ("/saes/a b@12/features/31", "/saes/a b@12", "/saes/a b@12/features/3/explanations/1/votes",
                   "/saes/a b@12/features/3/../4", "/saes/a b@12/features/3/card/x"):  # fmt: skip
        assert not opens(feature, beside)
    for no in ("/saes/a%2Fb", "/saes/a%0Ab", "/saes/", "/inspect/keep", "/lists/shared", "/lists/../admin"):
        with pytest.raises(BadRequest):
            shared_page(no)


def test_the_audit_log_has_every_change_and_no_secret(site, own):
    with browser(site, own, "Watched", "editor") as editor, browser(site, own, "Root again", "admin") as admin:
        name = editor.post("/lists", data={"title": "Watched <i>"}).headers["location"]
        editor.post(f"{name}/edit", data={"title": ""})  # refused: no entry
        editor.post(f"{name}/delete")
        editor.post("/search", data={"q": "a"})  # changes nothing
        assert audit(own, "Watched") == [
            ("POST /lists", "/lists", {"to": f"/lists/*-{name[-5:]}"}),
            ("POST /lists/{name}/delete", f"/lists/*-{name[-5:]}/delete", {"to": "/lists"}),
        ]
        page = admin.get("/admin/audit.json").json()
        assert page["items"][0]["who"] == "Watched"
        assert page["items"][0]["client"] == "testclient"
        lines = [json.loads(line) for line in admin.get("/admin/audit.jsonl").text.splitlines()]
        assert [one["id"] for one in lines] == sorted(one["id"] for one in lines)
        assert page["items"] == lines[::-1][: len(page["items"])]
        assert admin.get("/admin/audit").status_code == 200
        assert editor.get("/admin/audit.jsonl").status_code == 403


def test_a_feature_page_asks_six_queries_and_a_session_one_in_five_seconds(site, own):
    with browser(site, own, "Counts", "viewer") as client:
        with counted_queries(site) as first:
            client.get(FEATURE)
        with counted_queries(site) as second:
            client.get(FEATURE)
        assert len([one for one in first if "account_session" in one]) == 1
        assert [one for one in second if "account" in one and "session" in one] == []
        assert len(second) <= 6


def test_an_account_keeps_as_many_lists_and_runs_as_it_may(site, own):
    with browser(site, own, "Keeps much", "editor") as client:
        made = [client.post("/api/lists", json={"title": f"{number}"}).status_code for number in range(4)]
        assert made == [200, 200, 200, 429]
        body = {"text": "Paris", "sae": LAYERS[0], "keep": True}
        kept = [client.post("/api/inspect", json=body) for _ in range(4)]
        assert [one.status_code for one in kept] == [200, 200, 200, 429]
        assert kept[-1].json()["code"] == "quota_reached"


def test_uploads_are_counted_by_the_day():
    now = [0.0]
    counted = Uploads(1_000_000, clock=lambda: now[0])
    for _ in range(100):
        counted.charge(1, 60_000)  # forms
    counted.charge(1, 700_000)
    with pytest.raises(QuotaReached) as refused:
        counted.charge(1, 400_000)
    assert refused.value.detail["retry_after"] == 8640
    counted.charge(2, 400_000)
    now[0] = DAY / 2
    counted.charge(1, 400_000)
    with pytest.raises(QuotaReached):
        counted.charge(1, 500_000)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://models.org/v1", True), ("https://models.org/v1/chat", True), ("https://models.org:443/v1", True),
        ("http://10.0.0.5:8000/v1", True), ("http://here.lab/anything", True), ("https://models.org/v10", False),
        ("https://models.org", False), ("http://models.org/v1", False), ("https://models.org.evil.org/v1", False),
        ("https://models.org@evil.org/v1", False), ("https://models.org/v1/../admin", False),
        ("https://models.org/v1/%2e%2E/admin", False), ("http://169.254.169.254/latest", False),
        ("http://10.0.0.5/v1", False), ("file:///etc/passwd", False), ("http://here.lab\\@evil.org/", False),
        ("https://models.org:99999/v1", False),
        ("https://models.org/v1/%2f..", False), ("https://models.org/v1/%252e%252e/admin", False),
        ("https://models.org/v1/%5c..", False),
    ],
)  # fmt: skip
def test_in_team_mode_only_listed_servers_are_asked(url, allowed):
    settings = Settings(
        mode="team", llm_url="https://models.org/v1", outside="http://10.0.0.5:8000/v1, http://here.lab"
    )
    if allowed:
        check_outside(settings, url)
    else:
        with pytest.raises(AddressRefused):
            check_outside(settings, url)
    check_outside(settings.model_copy(update={"mode": "local"}), url)


def test_markup_and_line_ends_in_names_stay_text(site, own):
    name = '<script>alert(1)</script>"'
    with browser(site, own, name, "admin") as client:
        for path in ("/account", "/admin", "/lists", "/admin/audit"):
            shown = client.get(path).text
            assert "<script>alert" not in shown
            assert "&lt;script&gt;alert(1)" in shown
        made = client.post("/account/tokens", data={"name": "a\r\nSet-Cookie: b=1", "scope": "read"})
        assert "set-cookie" not in made.headers
        assert client.post("/account/tokens", data={"name": "a\0b", "scope": "read"}).status_code == 422
        assert client.post("/account/tokens", data={"name": "x", "scope": "root"}).status_code == 422
    for bad in (
        "",
        " ",
        "x" * 61,
        "\u0000",
        "a\u0007b",
        "Ro\u034fot",
        "\u2800",
        "Root\u3164",
        "R\u043e\u043et",
        "Ro\u03bft",
    ):
        with pytest.raises(BadRequest):
            store.checked_name(bad)
    assert store.checked_name(" A\r\n b ") == "A b"
    assert store.checked_name("Ольга \u674e") == "Ольга \u674e"


def test_a_websocket_is_closed(site):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), site.websocket_connect("/lists"):
        pass


def test_the_command_line_makes_the_first_admin(own, command, nobody):
    out, _, status = command("account", "add", "First", "--role", "admin", "--link", "--url", "http://testserver/")
    assert (status, "First is an account now, as admin." in out) == (0, True)
    path = re.search(r"http://testserver(/join/\S+)", out)[1]
    assert nobody.post(path, data={"password": NEXT, "again": NEXT}).status_code == 303
    assert nobody.get("/admin").status_code == 200
    assert "another name" in command("account", "add", "FIRST", "--link")[1]
    assert "First  admin  password" in command("account", "list")[0]
    assert "/join/" in command("account", "link", "First")[0]
    assert command("account", "set", "First", "--disable")[2] == 0
    assert "First  admin  disabled" in command("account", "list")[0]
    assert "no account 'Nobody'" in command("account", "set", "Nobody", "--role", "viewer")[1]
    assert "Say what" in command("account", "set", "First")[1]
    assert [action for action, _, _ in audit(own, "the command line")][:2] == [
        "made an account: admin", "made a password link",
    ]  # fmt: skip


def test_an_invitation_ends_with_the_admin_who_made_it(site, own, nobody):
    make_admin(own)
    account = make_account(own, "Invites", "admin")
    other = make_account(own, "Somebody")
    with browser(site, own, "Root", "admin") as root, browser(site, own, "Invites", "admin") as admin:
        paths = [
            secret_of(admin.post(path, data=data)).removeprefix("http://testserver")
            for path, data in (("/admin/invitations", {"role": "admin"}), (f"/admin/accounts/{other}/link", {}))
        ]
        assert [nobody.get(path).status_code for path in paths] == [200, 200]
        hidden = update(t.account).where(t.account.c.id == account)
        done(own, lambda db: db.execute(hidden.values(role="viewer")))  # as if the link were made just then
        assert [nobody.get(path).status_code for path in paths] == [410, 410]
        form = {"name": "Back again", "password": NEXT, "again": NEXT}
        assert nobody.post(paths[0], data=form).status_code == 410
        done(own, lambda db: db.execute(hidden.values(role="admin")))
        assert nobody.get(paths[0]).status_code == 200
        root.post(f"/admin/accounts/{account}", data={"role": "viewer"})
        root.post(f"/admin/accounts/{account}", data={"role": "admin"})
        assert [nobody.get(path).status_code for path in paths] == [410, 410]
        root.post(f"/admin/accounts/{account}", data={"role": "viewer"})


def test_no_session_begins_with_a_password_that_was_just_replaced(site, own, nobody, monkeypatch):
    account = make_account(own, "Races")
    fits = signing.verify

    def while_it_changes(password, known):
        answer = fits(password, known)
        done(own, lambda db: store.set_password(db, account, hashed_password(NEXT)))
        return answer

    monkeypatch.setattr(signing, "verify", while_it_changes)
    answer = login(nobody, "Races")
    assert answer.status_code == 403
    assert "changed just now" in answer.text
    assert nobody.get("/account.json").status_code == 401
    monkeypatch.undo()
    assert (login(nobody, "Races").status_code, login(nobody, "Races", NEXT).status_code) == (403, 303)


def test_who_signed_in_here_before_is_not_locked_out_by_others(site, own, nobody):
    make_account(own, "Known here")
    with browser(site, own) as mine:
        assert login(mine, "Known here").status_code == 303
        mine.post("/logout")
        tries = ("Known here", "KNOWN HERE", "\uff2bnown here", "Known \u2003here")  # all of them find the account
        statuses = [login(nobody, tries[n % 4], "wrong password").status_code for n in range(attempts.BY_NAME + 4)]
        assert statuses == [403] * attempts.BY_NAME + [429] * 4
        assert login(mine, "Known here").status_code == 303
        nobody.cookies.set("saescope-device", "made.up", domain="testserver.local", path="/")
        assert login(nobody, "Known here").status_code == 429
        change = {"now": "wrong password", "password": NEXT, "again": NEXT}
        assert mine.post("/account/password", data=change).status_code == 403  # the others' tries do not count here


def test_what_was_looked_up_while_something_was_revoked_is_not_remembered():
    async def looked_up():
        memory = Memory()

        async def revoked_meanwhile():
            memory.forget()
            return "old"

        async def now():
            return "new"

        return [await memory.get("a", revoked_meanwhile), await memory.get("a", now)]

    assert asyncio.run(looked_up()) == ["old", "new"]


def test_as_many_are_kept_as_may_be_however_many_ask_at_once(site, own):
    account = make_account(own, "Hurries", "editor")

    async def several(_):
        engine = async_engine(database_url(own))
        who = reader.set(Reader(account, "Hurries", "editor", quota=3))

        async def one(number):
            async with engine.begin() as other:
                await lists.create(other, lists.ListDraft(f"{number}"))

        try:
            made = await asyncio.gather(*(one(number) for number in range(6)), return_exceptions=True)
        finally:
            reader.reset(who)
            await engine.dispose()
        return sum(isinstance(one, QuotaReached) for one in made)

    assert done(own, several) == 3


def test_the_audit_log_and_admins_learn_no_title_of_a_private_list(site, own):
    with browser(site, own, "Hides titles", "editor") as editor, browser(site, own, "Root again", "admin") as admin:
        private = {"title": "Unheard of", "visibility": "private"}
        name = editor.post("/api/lists", json=private).json()["name"]
        editor.post(f"/api/lists/{name}/edit", json={"description": "x"})
        editor.post("/shares", data={"address": f"/lists/{name}", "days": 3})
        assert len(audit(own, "Hides titles")) == 3
        assert "unheard" not in str(audit(own, "Hides titles"))
        for path in ("/admin", "/admin.json", "/admin/audit", "/admin/audit.jsonl"):
            shown = admin.get(path).text
            assert "Hides titles" in shown
            assert "unheard" not in shown


def test_graphs_that_are_kept_have_an_entry(site, own):
    with browser(site, own, "Draws", "editor") as editor:
        given = json.loads(json.dumps(next(iter(GRAPH.values()))["value"]))
        made = editor.post("/api/graphs", json=given).json()
        assert audit(own, "Draws") == [("POST /api/graphs", made["url"], {})]
