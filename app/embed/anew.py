"""Vectors of what has just been explained, where search by meaning is in use."""

from collections.abc import Callable

from sqlalchemy import Engine

from app.embed.folder import check_model
from app.embed.missing import embed_missing
from app.errors import EmbeddingsUnavailable
from app.settings import Settings
from app.store.embeddings import find_saes


def embed_anew(
    engine: Engine, settings: Settings, address: str, doing: Callable[[str], None], step: Callable[[int, int], None]
) -> None:
    """Embed the explanations of the SAE ``address`` that are not; nothing where no sentence model has been fetched."""
    try:
        folder = check_model(settings)
    except EmbeddingsUnavailable:
        return
    from app.embed.model import SentenceModel

    doing("Embedding the explanations")
    model = SentenceModel(folder, settings.device)
    for sae_id, _ in find_saes(engine, address):
        embed_missing(engine, sae_id, model, step=step)
