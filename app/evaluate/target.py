"""What is evaluated: an SAE by name or path, the subject it reads, and the text it is looked at on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, select

from app.corpus.sequences import CorpusHash, Sequence
from app.corpus.sources import Skipped
from app.errors import BadRequest, CorpusUnavailable
from app.harvest.artefact import artefact
from app.harvest.job import in_dtype, read_sae, resolved
from app.harvest.names import Known, Named, imported
from app.harvest.subjects import HASHES
from app.harvest.text import Text, sequences
from app.sae.base import SAE
from app.settings import Settings
from app.store import tables as t
from app.store.engine import explained
from app.store.explain_sources import ExplainSource, corpus_index, find_explain_source, read_sequences
from app.subject.identity import fingerprint
from app.subject.load import Subject, load_subject

CONTEXT = 128  # tokens of a sequence where no harvest says
SPARE = 8  # times the tokens wanted are read of a corpus that is given, to draw from


@dataclass(frozen=True, eq=False)
class Target:
    """address: what it is called in messages. weights, subject_sha256: hashes; dtype: the subject's and the SAE's.
    source: its harvest, None where it was not harvested. sequences: those drawn, of the corpus called ``corpus``."""

    address: str
    sae: SAE
    subject: Subject
    weights: str
    subject_sha256: str
    dtype: str
    source: ExplainSource | None
    own_text: bool  # whether the text is the harvest's
    corpus: str
    sequences: list[Sequence]
    sha256: str
    home: Path


@dataclass(frozen=True)
class Asked:
    """name: of a harvested SAE, of an import, or a path. corpus: a spec; None for the harvest's text."""

    name: str
    tokens: int
    seed: int
    corpus: str | None = None
    model: str | None = None


def find_target(asked: Asked, settings: Settings, engine: Engine) -> Target:
    """
    Raises:
        InvalidSAE, UnknownSAE, SubjectUnavailable: the SAE or its subject is not there, or they do not fit.
        BadRequest: no subject or no text is known.
        CorpusUnavailable: there is no text.
    """
    home = settings.home
    with explained(), engine.connect() as connection:
        known = Known.read(connection, home, imported(home))
        slug, _, revision = asked.name.partition("@")
        found = next((one for one in known.harvested if one.slug == slug and revision in ("", one.revision)), None)
        named = known.sae(asked.name) if found is None else Named(found.folder, found.slug, found.model)
        source = None if found is None else find_explain_source(connection, found.slug, found.revision)
    dtypes = source.parameters if source and not asked.model else {}
    sae = read_sae(named.folder)
    folder = known.model(asked.model, [named.model or known.subjects.get(sae.config.subject)])
    name = source.subject if source and not asked.model else folder.name
    subject = load_subject(folder, name, dtypes.get("dtype", settings.dtype), settings.device)
    sae = resolved(sae, subject).to(subject.device)
    weights = _weights(sae, source, engine, home)
    half = dtypes.get("sae_dtype", settings.sae_dtype)
    corpus, chosen = _text(asked, named, source, sae, subject, settings, engine)
    digest = CorpusHash()
    for sequence in chosen:
        digest.add(sequence)
    return Target(
        asked.name, in_dtype(sae, half), subject, weights, fingerprint(subject, home / HASHES),
        f"{str(subject.dtype).removeprefix('torch.')} {half}", source, asked.corpus is None and not asked.model, corpus,
        chosen, digest.hexdigest(), home,
    )  # fmt: skip


def _weights(sae: SAE, source: ExplainSource | None, engine: Engine, home: Path) -> str:
    if source is None:
        with artefact(sae, home) as (_, sha256):
            return sha256
    with explained(), engine.connect() as connection:
        return str(connection.execute(select(t.sae.c.sha256).where(t.sae.c.id == source.id)).scalar_one())


def _text(
    asked: Asked, named: Named, source: ExplainSource | None, sae: SAE, subject: Subject, settings: Settings,
    engine: Engine,
) -> tuple[str, list[Sequence]]:  # fmt: skip
    if asked.corpus is not None:
        return asked.corpus, _given(asked, sae, subject, settings.home)
    if source is None:
        raise BadRequest(
            f"{named.folder} was not harvested, so its text is not known: give one by --corpus.", field="corpus"
        )
    with explained(), engine.connect() as connection:
        index = corpus_index(connection, source.corpus_id)
        numbers = draw(np.maximum(index.lengths - 1, 0), asked.tokens, asked.seed)
        ids = read_sequences(connection, source.corpus_id, numbers)
        name = connection.execute(select(t.corpus.c.name).where(t.corpus.c.id == source.corpus_id)).scalar_one()
    return name, [Sequence(row, index.names[n], n) for row, n in zip(ids, numbers, strict=True)]


def _given(asked: Asked, sae: SAE, subject: Subject, home: Path) -> list[Sequence]:
    context = min(sae.config.context or CONTEXT, subject.max_context)
    text = Text(str(asked.corpus), context, SPARE * asked.tokens, prepend_bos=sae.config.prepend_bos)
    with sequences(text, subject, home, Skipped()) as corpus:
        lengths: list[int] = []
        while True:
            try:
                lengths.append(len(corpus[len(lengths)].token_ids))
            except IndexError:
                break
        chosen = draw(np.maximum(np.array(lengths) - 1, 0), asked.tokens, asked.seed)
        rows = [corpus[number] for number in chosen]
        return [row._replace(token_ids=row.token_ids.copy()) for row in rows]  # the corpus's file is about to go


def draw(sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]", tokens: int, seed: int) -> list[int]:
    """Numbers of sequences of about ``tokens`` tokens together, at random and ascending: as many as fit, one at least.

    Raises:
        CorpusUnavailable: there is no sequence.
    """
    if not len(sizes):
        raise CorpusUnavailable("The corpus holds no text of at least 16 tokens.")
    order = np.random.default_rng([seed, 18]).permutation(len(sizes))
    fits = np.cumsum(sizes[order]) <= tokens
    return sorted(order[: max(1, int(fits.sum()))].tolist())
