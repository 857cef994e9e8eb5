"""The engine as the settings have it, in this process."""

from app.embed.embedder import Embedder
from app.harvest.job import in_dtype, read_sae
from app.harvest.subjects import HASHES
from app.live.engine import Engine
from app.live.residents import Residents
from app.settings import Settings


def local_engine(settings: Settings) -> Engine:
    residents = Residents(
        lambda path: in_dtype(read_sae(path), settings.sae_dtype),
        dtype=settings.dtype,
        device=settings.device,
        budget=None if settings.engine_gb is None else int(settings.engine_gb * 1e9),
        hashes=settings.home / HASHES,
    )
    return Engine(
        residents,
        max_tokens=settings.max_prompt_tokens,
        max_chars=settings.max_prompt_chars,
        batch_tokens=settings.batch_tokens,
        waiting=settings.engine_waiting,
        embedder=Embedder(settings),
    )
