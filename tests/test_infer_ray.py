"""The service as two replicas of a real Ray Serve on this machine."""

import asyncio
import contextlib
import json
import os
import signal
import time

import pytest

from app.errors import EngineUnavailable
from app.infer.client import Services
from app.live.edit import Edit
from app.live.jobs import GenerateJob
from tests.conftest import SLUG
from tests.services import Process, http
from tests.test_infer import TEXT, aim, infer

pytest.importorskip("ray.serve")
__all__ = ["aim"]


@contextlib.contextmanager
def on_ray(*arguments, **given):
    """Begun once more where one of Ray's own actors died as it began, as happens on a machine with much else to do."""
    try:
        process = Process(*arguments, **given)
    except AssertionError as error:
        if "ActorDiedError" not in str(error):
            raise
        process = Process(*arguments, **given)
    try:
        yield process
    finally:
        process.end()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a replica takes a core, and there is one")
def test_two_replicas_answer_as_one_engine_does(client, settings, tiny_folder, tmp_path, aim):
    arguments, given = infer(settings, tiny_folder, tmp_path, infer_token="a secret")
    with on_ray(*arguments, "--ray", "auto", "--replicas", "2", **given) as served:

        def replicas():
            told = [http.get(f"{served.url}/readyz", timeout=300) for _ in range(20)]
            return {answer.json()["process"] for answer in told if answer.status_code == 200}

        async def ask():
            services = Services([served.url], settings.home, "a secret")
            runs = await asyncio.gather(*(services.read([aim], f"{n} {TEXT}") for n in range(8)))
            for number, run in enumerate(runs):
                here = client.post("/api/inspect", json={"text": f"{number} {TEXT}", "sae": SLUG, "top": 40}).json()
                found = run.readings[aim.revision]
                values = {
                    (int(p), int(i)): float(x)
                    for p, i, x in zip(found.position, found.latent, found.value, strict=True)
                }
                for latent in here["saes"][0]["latents"]:
                    for place, value in latent["activations"]:
                        assert values.pop((place, latent["index"])) == pytest.approx(value, rel=1e-6, abs=1e-6)
                assert not values
            stream = services.run([aim], GenerateJob(TEXT, False, [Edit(0, 3, "add", 5.0)], 2000, 0.0, 1.0, 0))
            seen = [(await anext(stream)).number for _ in range(5)]
            assert seen == [0, 1, 2, 3, 4]
            await stream.aclose()
            for _ in range(600):
                told = [http.get(f"{served.url}/readyz", timeout=300).json()["pending"] for _ in range(8)]
                if not any(told):
                    break
                await asyncio.sleep(0.05)
            assert not any(told)
            await services.close()

        until = time.monotonic() + 300
        while "2 replicas" not in served.log.read_text():  # the first answers before the second is there
            assert time.monotonic() < until
            time.sleep(0.1)
        two = replicas()
        assert len(two) == 2
        asyncio.run(ask())
        refused = http.post(f"{served.url}/read", content=json.dumps({}), headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (401, "token_wrong")
        killed = two.pop()
        os.kill(killed, signal.SIGKILL)

        async def again():
            services = Services([served.url], settings.home, "a secret")
            try:
                for number in range(200):
                    with contextlib.suppress(EngineUnavailable):
                        return await services.read([aim], f"after the death of one {number}")
                    await asyncio.sleep(0.1)
            finally:
                await services.close()

        assert asyncio.run(again()).readings
        assert killed not in replicas()
    assert "Traceback" not in served.log.read_text()
