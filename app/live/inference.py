"""What the site asks of an engine, be it in this process or elsewhere."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from app.embed.embedder import Embedded
from app.live.jobs import Job
from app.live.prompt import PromptRun, Target
from app.live.stats import EngineStats

A = TypeVar("A")


class Inference(Protocol):
    """app.live.engine.Engine in this process, app.infer.client.Services elsewhere."""

    @property
    def pending(self) -> int:
        """Requests that are waiting or on their way."""
        ...

    def stats(self) -> EngineStats:
        """What it has counted so far."""
        ...

    async def read(
        self, targets: Sequence[Target], text: str, *, chat: bool = False, predict: bool = False
    ) -> PromptRun:
        """``text`` as the subject of ``targets`` and their SAEs read it; ``chat`` puts it into the subject's chat
        template as a user's message, ``predict`` adds what the subject expects.

        Raises:
            EmptyText, TextTooLong: with the limit and what was given.
            BadRequest: there is no chat template.
            SubjectUnavailable, InvalidSAE, TooLarge: the files are gone or broken, or larger than the memory allowed.
            EngineBusy: too many are waiting. EngineStopped, EngineUnavailable: it is being stopped, or away.
        """
        ...

    def known(
        self, targets: Sequence[Target], text: str, *, chat: bool = False, predict: bool = False
    ) -> PromptRun | None:
        """What ``read`` would answer at once, since it was read before."""
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """Around what leads to a ``read``, to its end: prompts that arrive meanwhile wait a moment for this one."""
        ...

    def run(self, targets: Sequence[Target], job: Job[A]) -> AsyncGenerator[A, None]:
        """What ``job`` gives, as it comes; leaving the loop ends the work.

        Raises:
            as ``read``, and what the job refuses.
        """
        ...

    async def warm(self, target: Target) -> None:
        """Load what ``target`` needs, so that the first prompt does not wait for it."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Texts as vectors of the sentence model.

        Raises:
            EmbeddingsUnavailable: there is none, or it cannot be read.
            TextTooLong, EngineBusy, EngineUnavailable: as ``read``.
        """
        ...

    async def close(self) -> None:
        """Whoever waits is told so."""
        ...
