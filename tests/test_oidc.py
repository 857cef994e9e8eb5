"""Signing in by a provider that is there, over HTTP."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.errors import LoginRefused
from app.main import create_app
from app.web.answers import KEPT_S, REFUSED_S, Answers
from app.web.attempts import BY_ADDRESS, Attempts
from app.web.provider_signins import Pending
from tests.oidc_provider import CLIENT, OTHER, SECRET, Provider, provider_running
from tests.team import PASSWORD, browser, make_account, team


@pytest.fixture(scope="module")
def provider():
    with provider_running() as running:
        yield running


@pytest.fixture(autouse=True)
def honest(provider):
    fresh = Provider()
    for name in ("person", "claims", "key", "alg", "called"):
        setattr(provider, name, getattr(fresh, name))


@pytest.fixture(scope="module")
def own(layered, provider):
    given = {"oidc_issuer": provider.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET}
    return team(layered, oidc_name="the lab's login", oidc_role="viewer", **given)


@pytest.fixture(scope="module")
def site(own):
    with TestClient(create_app(own)) as client:
        yield client


@pytest.fixture
def client(site, own):
    with browser(site, own) as client:
        yield client


def to_provider(client, then=""):
    """The address at the provider that the site leads to."""
    answer = client.get("/login/provider", params={"next": then} if then else {})
    assert answer.status_code == 303
    return answer.headers["location"]


def back_from(url):
    """What the provider sends the browser back to, without the host."""
    return httpx2.get(url, trust_env=False).headers["location"].removeprefix("http://testserver")


def test_the_first_sign_in_makes_an_account_and_the_next_finds_it_by_subject(provider, site, own, client):
    assert "the lab&#39;s login" in client.get("/login").text
    provider.person = {"sub": "first-1", "preferred_username": "Grete"}
    answer = client.get(back_from(to_provider(client, "/lists?q=x")))
    assert (answer.status_code, answer.headers["location"]) == (303, "/lists?q=x")
    mine = client.get("/account.json").json()
    assert (mine["name"], mine["role"], mine["has_password"]) == ("Grete", "viewer", False)
    provider.person = {"sub": "first-1", "preferred_username": "Another name"}
    with browser(site, own) as again:
        again.get(back_from(to_provider(again)))
        assert again.get("/account.json").json()["name"] == "Grete"
    provider.person = {"sub": "first-2", "preferred_username": "grete", "email": "first@lab"}
    with browser(site, own) as other:  # a name is no proof of who it is
        other.get(back_from(to_provider(other)))
        assert other.get("/account.json").json()["name"] == "grete 2"
    asked = provider.asked[-1]
    assert len(asked["state"]) > 40
    assert len(asked["nonce"]) > 40
    assert asked["code_challenge_method"] == "S256"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"key": OTHER}, "does not hold"),
        ({"alg": "none"}, "does not hold"),
        ({"claims": {"aud": "another-client"}}, "does not hold"),
        ({"claims": {"aud": [CLIENT, "another"], "azp": "another"}}, "does not hold"),
        ({"claims": {"iss": "https://evil.org"}}, "does not hold"),
        ({"claims": {"exp": int(time.time()) - 3600}}, "does not hold"),
        ({"claims": {"nonce": "of another sign-in"}}, "does not hold"),
        ({"claims": {"nonce": None}}, "does not hold"),
        ({"claims": {"sub": None}}, "does not hold"),
        ({"claims": {"sub": ""}}, "does not hold"),
        ({"called": "https://evil.org"}, "calls itself"),
    ],
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(provider, site, client, wrong, says):
    url = to_provider(client)
    for name, value in wrong.items():
        setattr(provider, name, value)
    site.app.state.saescope.provider.answers.forget()
    answer = client.get(back_from(url))
    assert answer.status_code == 403, wrong
    assert says in answer.text or "did not say who" in answer.text
    assert client.get("/account.json").status_code == 401


def test_an_answer_belongs_to_one_browser_and_is_used_once(site, own, client):
    url = to_provider(client)
    answer = back_from(url)
    with browser(site, own) as other:
        assert other.get(answer).status_code == 403  # it began nothing
        to_provider(other)
        assert "another sign-in" in other.get(answer).text  # nor this
    changed = answer.replace("iss=", "iss=https%3A%2F%2Fevil.org&was=")
    assert "another provider" in client.get(changed).text
    assert client.get(answer).status_code == 303
    assert client.get(answer).status_code == 403
    with browser(site, own) as other:
        to_provider(other)
        assert "access_denied" in other.get("/login/provider/back?error=access_denied&state=x").text
        assert Pending.read("no base64") is Pending.read("e30=") is None
        half = Pending("\ud800", "nonce", "verifier", "/").packed()
        assert Pending.read(half) is None


def test_a_code_without_its_verifier_is_worth_nothing(client, provider):
    answer = back_from(to_provider(client))
    pending = Pending.read(client.cookies["saescope-provider"])
    forged = Pending(pending.state, pending.nonce, "another verifier", "/").packed()
    client.cookies.clear()
    client.cookies.set("saescope-provider", forged)
    assert "did not take" in client.get(answer).text


def test_an_account_is_linked_by_who_is_signed_in_and_unlinked(provider, site, own):
    provider.person = {"sub": "linked-1", "preferred_username": "whatever"}
    make_account(own, "Has a password", "editor")
    with browser(site, own, "Has a password", "editor") as mine, browser(site, own) as fresh:
        page = mine.post("/account/provider/link").text
        url = page.split('<a href="http', 1)[1].partition('"')[0].replace("&amp;", "&")
        answer = back_from(f"http{url}")
        assert mine.get(answer).headers["location"] == "/account"
        assert mine.get("/account.json").json()["provider_subject"] == "linked-1"
        fresh.get(back_from(to_provider(fresh)))
        assert fresh.get("/account.json").json()["name"] == "Has a password"
        with browser(site, own, "Someone different", "viewer") as other:
            page = other.post("/account/provider/link").text
            url = page.split('<a href="http', 1)[1].partition('"')[0].replace("&amp;", "&")
            assert other.get(back_from(f"http{url}")).status_code == 409
        assert mine.post("/account/provider/unlink").status_code == 303
        assert mine.get("/account.json").json()["provider_subject"] is None


def test_without_a_role_for_them_nobody_new_comes_in(provider, own):
    provider.person = {"sub": "stranger-1", "preferred_username": "Stranger"}
    closed = own.model_copy(update={"oidc_role": "none"})
    with TestClient(create_app(closed)) as site, browser(site, closed) as client:
        answer = client.get(back_from(to_provider(client)))
        assert answer.status_code == 403
        assert "invitation" in answer.text
        assert client.post("/login", data={"name": "Stranger", "password": PASSWORD}).status_code == 403


def test_a_provider_is_asked_once_for_what_it_says_of_itself_and_not_again_at_once_if_it_fails():
    now, asked = [0.0], []

    def ask(url):
        asked.append(url)
        if url == "gone":
            raise LoginRefused("It does not answer.")
        return {"of": url}

    answers = Answers(ask, clock=lambda: now[0])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answers.get, ["here"] * 8)) == [{"of": "here"}] * 8
    for _ in range(3):
        with pytest.raises(LoginRefused, match="does not answer"):
            answers.get("gone")
    assert asked == ["here", "gone"]
    now[0] = REFUSED_S
    with pytest.raises(LoginRefused):
        answers.get("gone")
    assert answers.get("here") == {"of": "here"}
    now[0] = KEPT_S
    answers.get("here")
    assert asked == ["here", "gone", "gone", "here"]


def test_an_address_begins_so_many_sign_ins_and_then_waits(site, client):
    attempts = site.app.state.saescope.attempts = Attempts()
    statuses = [client.get("/login/provider").status_code for _ in range(BY_ADDRESS + 1)]
    assert statuses == [303] * BY_ADDRESS + [429]
    attempts.begin("by password", "testclient")  # which is counted apart
    site.app.state.saescope.attempts = Attempts()


def test_a_cookie_with_half_a_character_is_no_sign_in(client):
    client.cookies.set("saescope-provider", Pending("\ud800", "n", "v", "/").packed())
    assert client.get("/login/provider/back?code=x&state=y").status_code == 403
