"""What one client may have: requests at once, tokens a minute; bodies, and whose word is taken on who asks."""

import json
import threading

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from app.errors import ClientBusy, ClientRate, InvalidSetting
from app.main import create_app
from app.settings import Settings
from app.web.limits import Limits, client_of
from tests.conftest import SLUG

TEXT = "Paris is the capital of France"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_as_many_at_once_as_are_allowed_each_client_by_itself():
    limits = Limits(2, 0)
    with limits.request("a"):
        with limits.request("a"):
            with pytest.raises(ClientBusy) as refused, limits.request("a"):
                pass
            assert refused.value.detail["retry_after"] == 1
            with limits.request("b"):
                pass
        with limits.request("a"):
            pass
    with pytest.raises(ZeroDivisionError), limits.request("a"):
        raise ZeroDivisionError
    with limits.request("a"), limits.request("a"):
        pass


def test_debt_is_paid_off_at_the_rate():
    clock = Clock()
    limits = Limits(0, 600, clock=clock)  # 10 a second
    with limits.request("a") as spend:
        spend(599)
    with limits.request("a") as spend:  # one is left, so it may run into debt
        spend(41)
    with pytest.raises(ClientRate, match="600 tokens a minute; try again in 4 s") as refused, limits.request("a"):
        pass
    assert refused.value.detail["retry_after"] == 4
    clock.now += 3.9
    with pytest.raises(ClientRate), limits.request("a"):
        pass
    clock.now += 0.2
    with limits.request("a"):
        pass
    clock.now += 1e6  # no more than a minute's worth is saved up
    with limits.request("a") as spend:
        spend(601)
    with pytest.raises(ClientRate), limits.request("a"):
        pass


def test_few_clients_are_remembered_but_never_one_at_work_forgotten():
    limits = Limits(1, 100, known=3)
    with limits.request("busy"):
        for number in range(50):
            with limits.request(f"other {number}"):
                pass
        assert len(limits) == 3
        with pytest.raises(ClientBusy), limits.request("busy"):
            pass
    assert Limits(1, 0, known=0)._account("only").running == 0


def test_a_client_is_an_address_and_of_ipv6_its_network():
    def client(host):
        return client_of(Request({"type": "http", "client": (host, 1)}))

    assert client("10.0.0.1") != client("10.0.0.2")
    assert client("2001:db8:1:2:3::1") == client("2001:db8:1:2:4::2") != client("2001:db8:1:3::1")
    assert client("::ffff:10.0.0.1") == "10.0.0.1"
    assert client("no address " * 50) == ("no address " * 50)[:100]
    assert client_of(Request({"type": "http", "client": None})) == ""


def test_loopback_has_no_limits_unless_they_are_set():
    def of(**given):
        limits = Limits.of(Settings(**given))
        return limits._requests, limits._tokens

    assert of() == (0, 0)
    assert of(client_requests=3) == (3, 0)
    assert of(proxies="127.0.0.1") == of(host="0.0.0.0") == (8, 100_000)
    assert of(host="0.0.0.0", client_requests=0, client_tokens=5) == (0, 5)


@pytest.fixture
def limited(harvested, settings):
    """A server that lets each client have one request at once and 60 tokens a minute."""
    own = settings.model_copy(update={"client_requests": 1, "client_tokens": 60, "max_new_tokens": 30})
    with TestClient(create_app(own)) as client:
        client.app.state.saescope.limits._clock = Clock()
        yield client


EDITS = [{"feature": f"{SLUG}/3"}]


@pytest.mark.parametrize(
    ("path", "body", "cost"),
    [
        ("/api/inspect", {"sae": SLUG}, 7),
        ("/api/inspect/compare", {"sae": SLUG, "other": TEXT + " now"}, 15),
        ("/api/effect", {"edits": EDITS}, 14),
        ("/api/attribute", {"sae": SLUG, "top": 3}, 35),
        ("/api/generate", {"edits": EDITS, "max_new": 20}, 28),
        ("/api/generate", {"edits": EDITS, "max_new": 20, "stream": True}, 28),
    ],
)
def test_every_request_to_the_model_is_charged_for(limited, path, body, cost):
    state = limited.app.state.saescope
    assert limited.post(path, json={"text": TEXT, **body}).status_code == 200
    account = state.limits._accounts["testclient"]
    assert account.tokens == 60 - cost
    assert account.running == 0
    account.tokens = 0
    refused = limited.post(path, json={"text": "something else", **body})
    assert refused.status_code == 429
    assert refused.json()["code"] == "client_rate"
    assert refused.headers["retry-after"] == "1"
    if path == "/api/inspect":  # what is cached costs nothing
        assert limited.post(path, json={"text": TEXT, **body}).status_code == 200
    account.tokens, account.running = 60, 1
    refused = limited.post(path, json={"text": "something else", **body})
    assert (refused.status_code, refused.json()["code"]) == (429, "client_busy")
    assert account.running == 1
    assert state.engine.pending == 0


def test_pages_say_so_too_and_refusals_cost_nothing(limited):
    limits = limited.app.state.saescope.limits
    assert limited.post("/api/inspect", json={"text": "word " * 60}).status_code == 413
    assert limits._accounts["testclient"].tokens == 60
    limits._accounts["testclient"].tokens = -1
    for path in ("/inspect", "/attribute", f"/saes/{SLUG}/features/3"):
        page = limited.get(path, params={"text": TEXT})
        assert page.status_code == 429
        assert "Too much at once" in page.text
        assert "60 tokens a minute" in page.text
        assert page.headers["retry-after"] == "1"
    assert limited.get(f"/saes/{SLUG}/features/3").status_code == 200
    answer = limited.post("/api/generate", json={"text": TEXT, "edits": EDITS, "max_new": 31})
    assert answer.json()["message"] == "max_new is 31; a text goes on for at most 30 tokens here."
    assert (
        limited.get("/intervene", params={"text": TEXT, "feature": EDITS[0]["feature"], "max_new": 31}).status_code
        == 422
    )


def test_a_stream_that_is_left_gives_its_place_back(limited):
    body = {"text": TEXT, "edits": EDITS, "max_new": 30, "stream": True}
    with limited.stream("POST", "/api/generate", json=body) as answer:
        next(answer.iter_lines())
    account = limited.app.state.saescope.limits._accounts["testclient"]
    for _ in range(200):
        if account.running == 0:
            break
        limited.get("/healthz")
    assert account.running == 0
    assert 60 - 8 - 30 <= account.tokens < 60


@pytest.mark.parametrize(
    ("proxies", "header", "known"),
    [
        ("", "1.2.3.4", "9.9.9.9"),
        ("8.8.8.8", "1.2.3.4", "9.9.9.9"),
        ("9.9.9.9", "1.2.3.4", "1.2.3.4"),
        ("9.9.9.0/24, 10.0.0.0/8", "6.6.6.6, 1.2.3.4, 10.1.1.1", "1.2.3.4"),
    ],
)
def test_only_proxies_that_are_named_say_who_asks(harvested, settings, proxies, header, known):
    own = settings.model_copy(update={"client_tokens": 60, "proxies": proxies})
    with TestClient(create_app(own), client=("9.9.9.9", 1)) as client:
        client.post("/api/inspect", json={"text": TEXT}, headers={"x-forwarded-for": header})
        assert list(client.app.state.saescope.limits._accounts) == [known]


@pytest.mark.parametrize("proxies", ["*", "localhost", "10.0.0.1/8"])
def test_a_proxy_that_is_no_address_is_refused(settings, proxies):
    with pytest.raises(InvalidSetting, match="SAESCOPE_PROXIES"):
        create_app(settings.model_copy(update={"proxies": proxies}))


def test_a_body_that_is_too_long_is_refused_before_it_is_read(client, monkeypatch):
    big = json.dumps({"text": "a" * (10 << 20), "sae": SLUG}).encode()
    headers = {"content-type": "application/json"}
    for content in (big, iter([big[: 1 << 19]] * 20)):  # told by its length, and in chunks without one
        answer = client.post("/api/inspect", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["code"] == "body_too_long"
        assert "1,047 KiB" in answer.json()["message"]
    page = client.post("/inspect", content=b"text=" + b"a" * (10 << 20))
    assert page.status_code == 413
    assert "Too long" in page.text
    fits = json.dumps({"text": "\\U0001f600" * 1999, "sae": SLUG}).encode()
    assert client.post("/api/inspect", content=fits, headers=headers).json()["code"] == "text_too_long"


def test_limits_hold_from_several_threads():
    limits, together, refused = Limits(4, 0), threading.Barrier(12), []
    done = threading.Event()

    def ask():
        together.wait()
        try:
            with limits.request("a"):
                done.wait(10)
        except ClientBusy:
            refused.append(1)
            if len(refused) == 8:
                done.set()

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 8
