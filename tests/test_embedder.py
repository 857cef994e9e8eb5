"""The sentence model beside the engine: threads that end, one request at a time, what happens at the end."""

import asyncio
import threading
import time

import numpy as np
import pytest

from app.embed.embedder import WAITING, Embedded, Embedder
from app.errors import EmbeddingsUnavailable, EngineBusy


class Slow(Embedder):
    """Embeds when it is let."""

    def __init__(self, settings):
        super().__init__(settings)
        self.go, self.at_once, self.most, self.asked = threading.Event(), 0, 0, []

    def _work(self, texts):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.asked.append(texts)
        self.go.wait(60)
        self.at_once -= 1
        if texts == ["bad"]:
            raise EmbeddingsUnavailable("No model.")
        return Embedded("a model", np.full((len(texts), 2), float(len(self.asked)), np.float32))


def threads():
    return [one for one in threading.enumerate() if one.name == "saescope-embed"]


def test_requests_run_one_at_a_time_in_threads_that_end_and_are_remembered(settings):
    embedder = Slow(settings)

    async def ask():
        waiting = [asyncio.create_task(embedder.embed([f"text {n}"])) for n in range(3)]
        bad = asyncio.create_task(embedder.embed(["bad"]))
        while len(threads()) < 4:
            await asyncio.sleep(0.01)
        embedder.go.set()
        found = await asyncio.gather(*waiting)
        assert len({float(one.vectors[0, 0]) for one in found}) == 3
        with pytest.raises(EmbeddingsUnavailable, match="No model"):
            await bad
        assert (await embedder.embed(["text 1"])).vectors.tolist() == found[1].vectors.tolist()

    asyncio.run(ask())
    for one in threads():
        one.join(60)
    assert threads() == []
    assert embedder.most == 1
    assert len(embedder.asked) == 4


def test_more_than_may_wait_are_refused_and_closing_cancels_who_waits(settings):
    embedder = Slow(settings)

    async def ask():
        waiting = [asyncio.create_task(embedder.embed([f"text {n}"])) for n in range(WAITING)]
        while not embedder.asked:
            await asyncio.sleep(0.01)
        with pytest.raises(EngineBusy):
            await embedder.embed(["one more"])
        left = next(task for n, task in enumerate(waiting) if [f"text {n}"] not in embedder.asked)
        left.cancel()  # who goes away takes nobody's turn
        closing = asyncio.create_task(asyncio.to_thread(embedder.close))
        while not embedder._closed:
            await asyncio.sleep(0.01)
        embedder.go.set()
        await closing
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(one, Embedded) for one in told) == len(embedder.asked) == 1
        assert sum(isinstance(one, asyncio.CancelledError) for one in told) == WAITING - 1

    asyncio.run(ask())
    end = time.monotonic() + 60
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert threads() == []
