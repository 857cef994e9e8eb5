"""A sentence model for the web: one request at a time beside the engine, what was embedded before remembered by its
text."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.embed.folder import check_model
from app.errors import EngineBusy, TextTooLong
from app.settings import Settings

if TYPE_CHECKING:
    from app.embed.model import SentenceModel

KNOWN = 4096  # texts
WAITING = 32  # requests
MOST, LONGEST = 64, 2000  # texts at once, characters of one


@dataclass(frozen=True)
class Embedded:
    """vectors: [texts, d] fp32 of norm 1; model: its name, without which they cannot be compared."""

    model: str
    vectors: npt.NDArray[np.float32]


class Memory:
    """Vectors by text, of one model."""

    def __init__(self) -> None:
        self._model, self._lock = "", threading.Lock()
        self._vectors: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()

    def get(self, texts: Sequence[str]) -> Embedded | None:
        """Those of all ``texts``, if all are known."""
        with self._lock:
            if any(text not in self._vectors for text in texts):
                return None
            for text in texts:
                self._vectors.move_to_end(text)
            return Embedded(self._model, np.stack([self._vectors[text] for text in texts]))

    def add(self, texts: Sequence[str], found: Embedded) -> None:
        with self._lock:
            if found.model != self._model:
                self._vectors.clear()
                self._model = found.model
            self._vectors.update(zip(texts, found.vectors, strict=True))
            while len(self._vectors) > KNOWN:
                self._vectors.popitem(last=False)


class Embedder:
    """Loads the settings' model when it is first asked.

    Each request runs in a thread that ends with it, one at a time. OpenMP keeps a team of threads for every thread that
    has used it for as long as that lives, and where a process has more of them than it has cores, libgomp lets all of
    them sleep while they wait: the engine's forward of 128 tokens took 59 ms beside a second team and 44 without (2
    cores).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._closed = False
        self._model: SentenceModel | None = None
        self._memory = Memory()
        self._waiting = 0

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """
        Raises:
            EmbeddingsUnavailable: there is no model, or it cannot be read.
            TextTooLong, EngineBusy: too much is asked.
        """
        check_texts(texts)
        if (known := self._memory.get(texts)) is not None:
            return known
        if self._waiting >= WAITING:
            raise EngineBusy("Too many texts are being embedded; try again in a second.", retry_after=1)
        self._waiting += 1
        try:
            answer: Future[Embedded] = Future()
            threading.Thread(
                target=self._answer, args=(answer, list(texts)), name="saescope-embed", daemon=True
            ).start()
            found = await asyncio.wrap_future(answer)
        finally:
            self._waiting -= 1
        self._memory.add(texts, found)
        return found

    def close(self) -> None:
        """Wait for what is under way; what waits for its turn is cancelled."""
        self._closed = True
        with self._turn:
            pass

    def _answer(self, answer: "Future[Embedded]", texts: list[str]) -> None:
        with self._turn:
            if self._closed:
                answer.cancel()
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self._work(texts))
            except BaseException as error:  # whoever waits must hear of it, whatever it is
                answer.set_exception(error)

    def _work(self, texts: list[str]) -> Embedded:
        if self._model is None:
            folder = check_model(self._settings)
            from app.embed.model import SentenceModel

            self._model = SentenceModel(folder, self._settings.device)
        return Embedded(self._model.name, self._model.encode(texts))


def check_texts(texts: Sequence[str]) -> None:
    """
    Raises:
        TextTooLong: too many, or one is too long.
    """
    if len(texts) > MOST or any(len(text) > LONGEST for text in texts):
        raise TextTooLong(f"At most {MOST} texts of {LONGEST:,} characters are embedded at once.", limit=LONGEST)
