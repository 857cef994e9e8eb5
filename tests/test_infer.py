"""The engine as a service of its own: real processes that are asked, killed, stopped and started again."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.embed.model import SentenceModel
from app.errors import EmbeddingsUnavailable, EngineBusy, EngineUnavailable, InvalidSAE, PathRefused, TextTooLong
from app.infer import client as module
from app.infer import wire
from app.infer.client import Services, _with
from app.live.edit import Edit
from app.live.jobs import GenerateJob, ListJob
from app.live.listing import listing
from app.live.prompt import PromptRun, Target
from app.main import create_app
from app.store import queries as q
from app.store.engine import async_engine, database_url
from app.web.state import target
from tests.conftest import SLUG, public_folder
from tests.services import Process, free_port, http, started

TEXT = "Paris is the capital of France"
SECRET = "a secret"
EDITS = [{"feature": f"{SLUG}/3", "kind": "add", "strength": 5}]


def infer(settings, tiny_folder, tmp, port=None, **given):
    """Arguments of a service over the tests' home; the tiny subject lies outside it."""
    port = port or free_port()
    given = {"infer_folders": tiny_folder.parent, "max_prompt_tokens": 48, "max_prompt_chars": 2000} | given
    return ("infer", "--home", settings.home), {"port": port, "log": tmp / f"infer-{port}.log", **given}


@pytest.fixture(scope="module")
def service(harvested, settings, tiny_folder, tmp_path_factory):
    arguments, given = infer(settings, tiny_folder, tmp_path_factory.mktemp("infer"))
    with started(*arguments, **given) as process:
        yield process


@pytest.fixture(scope="module")
def strict(harvested, settings, tiny_folder, tmp_path_factory):
    """One that others than this machine may ask, if they know its secret, one at a time."""
    arguments, given = infer(settings, tiny_folder, tmp_path_factory.mktemp("strict"), infer_token=SECRET)
    with started(*arguments, "--host", "0.0.0.0", **given, engine_waiting=1) as process:
        yield process


@pytest.fixture(scope="module")
def web(service, settings, tmp_path_factory):
    """The site in a process of its own, which asks the service."""
    given = {"port": free_port(), "log": tmp_path_factory.mktemp("web") / "log", "ready": "/healthz"}
    given |= {"worker": "false", "database_url": settings.database_url, "infer_url": service.url}
    with started("serve", "--home", settings.home, **given) as process:
        yield process


@pytest.fixture(scope="module")
def away(service, settings):
    """A site that asks the service."""
    with TestClient(create_app(settings.model_copy(update={"infer_url": service.url}))) as client:
        yield client


@pytest.fixture(scope="module")
def aim(harvested, settings):
    async def find():
        database = async_engine(database_url(settings))
        async with database.connect() as connection:
            sae = await q.get_sae(connection, SLUG)
        await database.dispose()
        return target(sae, settings.home)

    return asyncio.run(find())


def alike(one, other):
    """Equal, numbers to 1e-6, but for how long it took and who came along."""
    if isinstance(one, dict):
        left_out = {"milliseconds", "batch", "run"}
        assert one.keys() == other.keys()
        for key in one.keys() - left_out:
            alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for x, y in zip(one, other, strict=True):
            alike(x, y)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/inspect", {"sae": SLUG, "top": 40}),
        ("/api/inspect", {"sae": SLUG, "predict": True, "chat": True, "token": 3}),
        ("/api/generate", {"edits": EDITS, "max_new": 6, "seed": 3}),
        ("/api/effect", {"edits": [{**EDITS[0], "positions": [2, 3]}]}),
        ("/api/attribute", {"sae": SLUG, "top": 5, "against": " cat"}),
        ("/api/inspect", {"sae": SLUG, "text": "word " * 60}),
        ("/api/inspect", {"sae": SLUG, "text": "x" * 2001}),
        ("/api/inspect", {"sae": SLUG, "text": " "}),
        ("/api/effect", {"edits": EDITS, "position": 900}),
        ("/api/generate", {"edits": EDITS, "text": "word " * 60, "stream": True}),
        ("/api/attribute", {"sae": SLUG, "token": "two words here"}),
    ],
)
def test_what_the_service_answers_is_what_an_engine_here_answers(client, away, path, body):
    told = [site.post(path, json={"text": TEXT, **body}) for site in (client, away)]
    assert told[0].status_code == told[1].status_code
    alike(told[0].json(), told[1].json())
    assert set(told[0].headers) == set(told[1].headers)


def test_a_stream_is_the_same_events(client, away):
    body = {"text": TEXT, "edits": EDITS, "max_new": 5, "stream": True}
    told = [site.post("/api/generate", json=body).text for site in (client, away)]
    one, other = ([line for line in text.splitlines() if line.startswith("data")] for text in told)
    assert len(one) == 6
    alike(*([json.loads(line.removeprefix("data: ")) for line in lines] for lines in (one, other)))


def test_a_subject_lists_the_same_in_a_service(client, away, service, settings, aim, tiny):
    async def ask():
        services = Services([service.url], settings.home)
        try:
            return [answer async for answer in services.run([aim], ListJob("words for what a cat does"))]
        finally:
            await services.close()

    (told,) = asyncio.run(ask())
    assert told.items
    alike(asdict(told), asdict(listing(tiny, "words for what a cat does")))
    found = [site.get("/search.json", params={"q": "cats", "top": 40}).json() for site in (client, away)]
    alike(*found)
    assert any(hit["listed"] for hit in found[0]["result"]["items"])


def test_pages_are_the_same(client, away):
    for path, query in {
        "/intervene": {"text": TEXT, "feature": f"{SLUG}/3", "kind": "ablate", "max_new": 3},
        "/attribute": {"text": TEXT, "sae": SLUG},
        f"/saes/{SLUG}/features/3": {"text": TEXT},
    }.items():
        pages = [site.get(path, params=query) for site in (client, away)]
        assert [page.status_code for page in pages] == [200, 200]
        assert pages[0].text == pages[1].text


def test_a_web_server_that_asks_elsewhere_has_no_torch_in_it(service, web):
    for path in ("/", f"/saes/{SLUG}/features/3", "/inspect", "/attribute", "/harvests", "/search"):
        answer = http.get(web.url + path, params={"q" if path == "/search" else "text": TEXT}, timeout=300)
        assert answer.status_code == 200, answer.text
    answer = http.post(f"{web.url}/api/effect", json={"text": TEXT, "edits": EDITS}, timeout=300)
    assert answer.status_code == 200
    assert answer.json()["kl"]
    assert "libtorch" in Path(f"/proc/{service.pid}/maps").read_text()
    assert "libtorch" not in Path(f"/proc/{web.pid}/maps").read_text()


@contextmanager
def killed_at_the_end(process):
    try:
        yield
    finally:
        process.kill()


def test_one_that_is_killed_at_work_is_one_sentence_until_it_is_back(harvested, settings, tiny_folder, tmp_path):
    arguments, given = infer(settings, tiny_folder, tmp_path)
    process = Process(*arguments, **given)
    site = create_app(settings.model_copy(update={"infer_url": process.url}))
    with killed_at_the_end(process), TestClient(site) as client:
        body = {"text": TEXT, "sae": SLUG}
        kept = client.post("/api/inspect", json={**body, "keep": True}).json()["run"]
        process.process.send_signal(signal.SIGSTOP)
        told = {}
        asking = threading.Thread(
            target=lambda: told.update(answer=client.post("/api/inspect", json={**body, "text": "cut off"}))
        )
        asking.start()
        engine = client.app.state.saescope.engine
        while not engine.pending:
            time.sleep(0.01)
        process.kill()
        asking.join()
        for answer in (told["answer"], client.post("/api/effect", json={"text": TEXT, "edits": EDITS})):
            assert answer.status_code == 503
            assert answer.json()["code"] == "engine_unavailable"
            assert "does not answer" in answer.json()["message"]
            assert int(answer.headers["retry-after"]) >= 1
        page = client.get("/inspect", params={"text": "not known yet", "sae": SLUG})
        assert page.status_code == 503
        assert "The inference service does not answer" in page.text
        assert str(process.port) not in page.text
        assert client.get(f"/inspect/{kept}").status_code == 200
        assert client.get(f"/inspect/{kept}.json").json()["result"]["saes"][0]["latents"]
        assert client.get(f"/saes/{SLUG}/features/3").status_code == 200
        with started(*arguments, **given):
            assert client.post("/api/inspect", json={**body, "text": "not known yet"}).status_code == 200
        assert engine.pending == 0


def endless():
    """2,000 steps: of random weights, the likeliest token never ends the text."""
    return GenerateJob(TEXT, False, [Edit(0, 3, "add", 5.0)], 2000, 0.0, 1.0, 0)


def test_one_of_two_that_hangs_or_is_killed_is_noticed_by_nobody(
    monkeypatch, service, settings, tiny_folder, tmp_path, aim
):
    arguments, given = infer(settings, tiny_folder, tmp_path)
    other = Process(*arguments, **given)

    async def ask():
        services = Services([other.url, service.url], settings.home)

        async def one(number):
            return await services.read([aim], f"{number} Paris is a cat")

        async def loads():
            return [await asyncio.to_thread(process.pending) for process in (other, service)]

        assert len(await asyncio.gather(*map(one, range(20)))) == 20
        holding = services.run([aim], endless())
        await anext(holding)
        assert await loads() == [1, 0]
        second = services.run([aim], endless())
        await anext(second)
        assert await loads() == [1, 1]  # where there was less to do
        await second.aclose()
        os.kill(other.pid, signal.SIGSTOP)
        assert (await one(100)).readings  # the other one has less to do
        lone = Services([other.url], settings.home)
        with monkeypatch.context() as hurried:
            hurried.setattr(module, "PATIENCE_S", 0.5)
            hurried.setattr(module, "THERE_S", 0.5)
            hurried.setattr(module, "ALONE_S", 1.0)
            with pytest.raises(EngineUnavailable):
                await lone.read([aim], "who hangs is given up")
            both = Services([other.url, service.url], settings.home)
            assert (await both.read([aim], "and passed over")).readings
            hurried.setattr(module, "ALONE_S", 60.0)
            slow = asyncio.create_task(lone.read([aim], "but one that is slow is waited for where there is no other"))
            assert not (await asyncio.wait([slow], timeout=2))[0]
            os.kill(other.pid, signal.SIGCONT)
            assert (await slow).readings
        assert (await lone.read([aim], "and asked again")).readings
        os.kill(other.pid, signal.SIGSTOP)
        waiting = [asyncio.create_task(one(number)) for number in range(200, 206)]
        await asyncio.sleep(0.1)
        other.kill()
        assert all(run.readings for run in await asyncio.gather(*waiting))
        assert len(await asyncio.gather(*map(one, range(300, 320)))) == 20
        assert len([step async for step in services.run([aim], short())]) == 3
        with pytest.raises(EngineUnavailable, match="does not answer"):  # its answers had begun
            [step async for step in holding]
        assert services.pending == 0
        for made in (services, lone, both):
            await made.close()

    with killed_at_the_end(other):
        asyncio.run(ask())


def short():
    return GenerateJob(TEXT, False, [Edit(0, 3, "add", 5.0)], 3, 0.0, 1.0, 0)


def test_whoever_leaves_ends_the_work_on_the_service(service, web, settings, aim):
    async def ask():
        services = Services([service.url], settings.home)
        stream = services.run([aim], endless())
        assert (await anext(stream)).number == 0
        assert await asyncio.to_thread(service.pending) == 1
        assert (await services.read([aim], "read in the meantime")).readings
        await stream.aclose()
        assert await asyncio.to_thread(service.idle)
        os.kill(service.pid, signal.SIGSTOP)
        left = [asyncio.create_task(services.read([aim], f"left {n}")) for n in range(5)]
        await asyncio.sleep(0.2)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        os.kill(service.pid, signal.SIGCONT)
        assert await asyncio.to_thread(service.idle)
        assert services.pending == 0
        await services.close()

    asyncio.run(ask())
    # A reader of the site goes, and the site's request to the service goes with it.
    body = json.dumps({"text": TEXT, "edits": EDITS, "max_new": 512, "temperature": 0, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", web.port)) as reader:
        reader.sendall(
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )  # fmt: skip
        got = b""
        while b"event: step" not in got:
            got += reader.recv(4096)
        assert service.pending() == 1
    assert service.idle()


def test_full_is_said_with_when_to_come_back_and_only_if_all_are(service, strict, settings, aim):
    async def ask():
        alone = Services([strict.url], settings.home, SECRET)
        holding = alone.run([aim], endless())
        await anext(holding)
        with pytest.raises(EngineBusy, match="1 requests are waiting") as refused:
            await alone.read([aim], "no room")
        assert refused.value.detail["retry_after"] >= 1
        both = Services([strict.url, service.url], settings.home, SECRET)
        assert (await both.read([aim], "room elsewhere")).readings
        site = settings.model_copy(update={"infer_url": strict.url, "infer_token": SECRET})

        def through_the_site():
            with TestClient(create_app(site)) as client:
                return client.post("/api/inspect", json={"text": "no room", "sae": SLUG})

        answer = await asyncio.to_thread(through_the_site)
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_busy")
        assert int(answer.headers["retry-after"]) >= 1
        await holding.aclose()
        await alone.close()
        await both.close()

    asyncio.run(ask())
    assert strict.idle()


def test_the_token_is_asked_for_and_a_wrong_one_is_said_so(strict, settings, aim):
    ask = wire.written(wire.ReadAsk([wire.place(aim, settings.home)], TEXT, False, False))
    headers = {"content-type": "application/json"}
    for token in (None, "Bearer wrong", "Bearer", SECRET, f"Bearer {SECRET}s", f"Bearer {SECRET}"):
        given = headers | ({"authorization": token} if token else {})
        answer = http.post(f"{strict.url}/read", content=ask, headers=given, timeout=300)
        right = token == f"Bearer {SECRET}"
        assert answer.status_code == (200 if right else 401)
        if not right:
            assert answer.json()["code"] == "token_wrong"
            assert "SAESCOPE_INFER_TOKEN" in answer.json()["message"]
    assert http.post(f"{strict.url}/run", content=b"{}", headers=headers).status_code == 401

    async def through(secret):
        services = Services([strict.url], settings.home, secret)
        try:
            return await services.read([aim], TEXT)
        finally:
            await services.close()

    assert asyncio.run(through(SECRET)).readings
    for secret in ("another", None):
        with pytest.raises(EngineUnavailable, match="does not take this server's token") as refused:
            asyncio.run(through(secret))
        assert refused.value.status == 503
    assert SECRET not in strict.log.read_text()


def test_being_stopped_lets_what_is_under_way_end(strict, settings, aim, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.002)  # so that it is asked whether it is there when it takes no more

    async def ask():
        services = Services([strict.url], settings.home, SECRET)
        job = GenerateJob(TEXT, False, [Edit(0, 3, "add", 5.0)], 200, 0.0, 1.0, 0)
        steps = services.run([aim], job)
        await anext(steps)
        strict.process.terminate()
        assert [step.number async for step in steps][-1] == 199
        await services.close()

    asyncio.run(ask())
    assert strict.process.wait(timeout=300) == 143
    assert "Traceback" not in strict.log.read_text()


def test_beyond_this_machine_it_does_not_start_without_a_token(monkeypatch, capsys):
    from app import cli

    monkeypatch.setattr("sys.argv", ["saescope", "infer", "--host", "0.0.0.0", "--port", str(free_port())])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "set SAESCOPE_INFER_TOKEN" in told[0]
    monkeypatch.setattr("sys.argv", ["saescope", "infer", "--replicas", "2"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--replicas goes with --ray" in capsys.readouterr().err


def changed(aim, **changes):
    return Target(**{name: changes.get(name, getattr(aim, name)) for name in Target.__dataclass_fields__})


def test_paths_outside_and_other_weights_are_refused(service, settings, aim):
    async def ask():
        services = Services([service.url], settings.home)
        elsewhere = public_folder()
        (settings.home / "way-out").symlink_to(elsewhere)
        for path in (
            Path("/etc"), settings.home / ".." / "etc", elsewhere, settings.home / "way-out", settings.home / "a\0b",
            Path(f"{settings.home}-beside"),
        ):  # fmt: skip
            for name in ("subject_path", "sae_path"):
                with pytest.raises(PathRefused, match="outside the folders") as refused:
                    await services.read([changed(aim, **{name: path})], "out of bounds")
                assert (refused.value.status, refused.value.code) == (403, "path_refused")
        (settings.home / "way-out").unlink()
        assert (await services.read([aim], "these are the weights")).readings
        fresh = Services([service.url], settings.home)  # who knows nothing of what was read
        with pytest.raises(InvalidSAE, match="no longer the one"):
            await fresh.read([changed(aim, sae_sha256="0" * 64)], "these are the weights")
        with pytest.raises(Exception, match="no longer the one"):
            await fresh.read([changed(aim, subject_sha256="0" * 64)], "these are the weights")
        await fresh.close()
        await services.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "says"),
    [
        ("/read", b"{", {}, 422, "the body does not fit"),
        ("/read", b"{}", {}, 422, "targets does not fit"),
        ("/read", b'{"targets": [], "text": "", "chat": false, "predict": false}', {}, 422, "targets"),
        ("/run", b'{"targets": [], "job": {"job": "burn"}}', {}, 422, "does not fit"),
        ("/read", b"{}", {"content-type": "text/plain"}, 422, "as JSON"),
        ("/read", b"x" * (1 << 21), {}, 413, "longer than"),
        ("/read", b"{}", {"origin": "http://elsewhere.example"}, 403, "another site"),
        ("/read", b"{}", {"host": "elsewhere.example"}, 421, "not called"),
        ("/nowhere", b"{}", {}, 404, "nothing here"),
        ("/healthz", b"{}", {}, 405, "nothing here"),
    ],
)
def test_what_does_not_fit_is_one_sentence_of_json(service, path, content, headers, status, says):
    given = {"content-type": "application/json"} | headers
    answer = http.post(service.url + path, content=content, headers=given)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["message"]
    assert answer.json()["status"] == status


def test_a_server_that_is_no_inference_service_is_one_that_does_not_answer(web, settings, aim):
    async def ask():
        services = Services([web.url], settings.home)
        for work in (services.read([aim], "who is there"), anext(services.run([aim], short()))):
            with pytest.raises(EngineUnavailable):
                await work
        await services.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"null", ""), (b"[]", ""), (b"{}\n", ""), (b'{"seconds": 1, "batch": 1}\nPK', ""), (b'{"answer": 1}\n', ""),
     (b'{"error": 5}\n', ""), (b"no gzip", "gzip")],
)  # fmt: skip
def test_one_that_answers_something_else_is_one_that_does_not_answer(settings, aim, body, encoding):
    class Other(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            if encoding:
                self.send_header("content-encoding", encoding)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def ask():
        services = Services([f"http://127.0.0.1:{server.server_port}"], settings.home)
        for work in (services.read([aim], "who is there"), anext(services.run([aim], short()))):
            with pytest.raises(EngineUnavailable):
                await work
        await services.close()

    asyncio.run(ask())
    server.shutdown()
    server.server_close()


def test_a_run_without_a_reading_that_was_asked_for_is_none():
    run = PromptRun([0], ["a"], [True])
    assert _with(run, []) is run
    with pytest.raises(KeyError):
        _with(run, ["revision"])


def test_errors_come_over_as_they_were():
    for error in (
        TextTooLong("The text is too long; it has 9.", tokens=9, limit=3), InvalidSAE("No.", path="/a"),
        EngineBusy("Later.", retry_after=4),
    ):  # fmt: skip
        again = wire.error_read(json.loads(json.dumps(wire.error_json(error))))
        assert type(again) is type(error)
        assert (again.message, again.detail, again.code, again.status) == (
            error.message, error.detail, error.code, error.status,
        )  # fmt: skip
    newer = wire.error_read({"code": "of_tomorrow", "message": "Well.", "detail": {}, "status": 418})
    assert (newer.code, newer.status, newer.message) == ("of_tomorrow", 418, "Well.")


def test_addresses_that_are_none_are_refused_by_name(monkeypatch):
    from app.errors import InvalidSetting
    from app.settings import load_settings

    monkeypatch.setenv("SAESCOPE_INFER_URL", "http://one:8100/, https://two/behind")
    assert load_settings().infer_urls == ["http://one:8100", "https://two/behind"]
    for wrong in ("localhost:8100", "http://", "ftp://one", "http://a b"):
        monkeypatch.setenv("SAESCOPE_INFER_URL", wrong)
        with pytest.raises(InvalidSetting, match="SAESCOPE_INFER_URL"):
            load_settings()


def test_texts_are_embedded_by_a_service_and_one_without_a_model_says_so(
    service, settings, tiny_folder, tmp_path, model_folder
):
    arguments, given = infer(settings, tiny_folder, tmp_path, embeddings=model_folder)
    texts = ["chemical elements", "שלום 🎉"]

    async def ask(*urls):
        asking = Services(urls, settings.home)
        try:
            first = await asking.embed(texts)
            return first, await asking.embed(texts)
        finally:
            await asking.close()

    with started(*arguments, **given) as other:
        found, again = asyncio.run(ask(other.url))
    here = SentenceModel(model_folder)
    assert found.model == here.name
    assert np.allclose(found.vectors, here.encode(texts), atol=1e-5)
    assert np.array_equal(again.vectors, found.vectors)
    with pytest.raises(EmbeddingsUnavailable, match="'saescope embed' fetches it"):
        asyncio.run(ask(service.url))
    with pytest.raises(EngineUnavailable):
        asyncio.run(ask(other.url))
