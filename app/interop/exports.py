"""An SAE in a folder for another tool; all of it or nothing."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, select

from app.explain.codes import read_codes
from app.interop import delphi, neuronpedia
from app.interop.folders import beside
from app.store import tables as t
from app.store.explain_sources import check_harvested, find_explain_source
from app.store.queries import sae_of
from app.store.revisions import known
from app.subject.load import load_vocabulary

Step = Callable[[int, int], None]


def export_neuronpedia(engine: Engine, home: Path, address: str, out: Path, step: Step) -> str:
    """Write it, and say where.

    Raises:
        UnknownSAE, BadRequest: there is no such SAE, or ``out`` is not free. DiskFull.
    """
    slug, _, revision = address.partition("@")
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        known(connection, slug, revision or None)
        sae = sae_of(connection, slug, revision or None)
        with beside(out) as folder:
            vocabulary = load_vocabulary(home / sae.subject_path)
            place = neuronpedia.write(folder, connection, sae, vocabulary, step)
            inner = place.relative_to(folder)
    return f"{sae.slug}@{sae.revision}: what Neuronpedia imports is in {out / inner}."


def export_delphi(engine: Engine, home: Path, address: str, out: Path, tokens: int, device: str, step: Step) -> str:
    """Read at most ``tokens`` tokens of the harvest's text, write every activation on them, and say where.

    Raises:
        UnknownSAE, BadRequest, SubjectUnavailable, InvalidSAE, CorpusUnavailable, DiskFull.
    """
    slug, _, revision = address.partition("@")
    with engine.connect() as connection:
        known(connection, slug, revision or None)
        source = find_explain_source(connection, slug, revision or None)
        check_harvested(source)
        reads = connection.execute(select(t.sae.c.reads).where(t.sae.c.id == source.id)).scalar_one()
    with beside(out) as folder:
        read = read_codes(engine, source, home, tokens, device=device, step=step)
        about = {"dataset_repo": source.corpus_sha256, "model_name": source.subject}
        made = delphi.write(folder, read.codes, source.n_latents, delphi.hook_name(reads[0]), about, step)
        inner = made.folder.relative_to(folder)
    left = f"; {made.shorter:,} shorter sequences were left out" if made.shorter else ""
    return (
        f"{source.slug}@{source.revision}: {made.activations:,} activations on {made.rows:,} sequences of "
        f"{made.context} tokens are in {out / inner}{left}."
    )
