"""An SAE as Neuronpedia's importer reads it: ``{model}/{source}/`` with the rows of its tables as JSON lines.

The form is that of sae_dashboard/neuronpedia/neuronpedia_export.py in https://github.com/jbloomAus/SAEDashboard (2026):
release, model, sourceset and source of a line each, and features, activations and explanations in gzipped batches.
Contexts in which a feature does not fire have no place in it, nor have statistics that are not Neuronpedia's.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from app.errors import BadRequest
from app.explain.llm_exchange import read_all
from app.store import tables as t
from app.store.queries import ExampleRecord, SAERecord, example_columns, example_of, example_record, sequence_of
from app.subject.tokens import Vocabulary

BATCH = 1024  # features in a file
TOP_BIN = -1


def write(
    folder: Path,
    connection: Connection,
    sae: SAERecord,
    vocabulary: Vocabulary,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Everything of ``sae`` below ``folder``; returns the source's own folder.

    Raises:
        BadRequest: the files could not be written.
    """
    layer = re.search(r"\.(\d+)(?=[.:]|$)", sae.reads[0])
    model = safe(sae.subject)
    source = f"{layer[1]}-{safe(sae.slug)}" if layer else safe(sae.slug)
    place = folder / model / source
    about = {"modelId": model, "layer": source}
    try:
        _about(place, sae, model, source)
        for number, first in enumerate(range(0, sae.n_latents, BATCH)):
            last = min(first + BATCH, sae.n_latents)
            features = _features(connection, sae, vocabulary, about, first, last)
            _lines(place / "features" / f"batch-{number}.jsonl.gz", features)
            rows = _activations(connection, sae, vocabulary, about, first, last, number)
            _lines(place / "activations" / f"batch-{number}.jsonl.gz", rows)
            step(last, sae.n_latents)
        explained = ({
            **about, "index": str(one.latent), "description": one.text, "explanationModelName": one.model,
            "typeName": one.kind,
        } for one in read_all(connection, sae.id))  # fmt: skip
        _lines(place / "explanations" / "batch-0.jsonl.gz", explained)
    except OSError as error:
        raise BadRequest(f"{place} cannot be written: {error.strerror or error}.", path=str(place)) from None
    return place


def safe(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "unnamed"


def _about(place: Path, sae: SAERecord, model: str, source: str) -> None:
    """Who and what it is: a line each."""
    made = sae.finished.isoformat()
    # As many tokens as the densities are over; sequences are not all of one length.
    tokens = {"num_prompts": 1, "num_tokens_in_prompt": sae.tokens}
    release, base = f"saescope-{safe(sae.slug)}", {"creatorId": "", "createdAt": made}
    title = f"{sae.slug}@{sae.revision}, {sae.architecture} SAE of {sae.subject} at {', '.join(sae.reads)}"
    _lines(
        place / "release.jsonl",
        [{"name": release, "description": title, "descriptionShort": title, "creatorName": "", "urls": [], **base}],
    )
    _lines(
        place / "model.jsonl",
        [
            {
                "id": model,
                "displayName": sae.subject,
                "displayNameShort": sae.subject,
                "instruct": "nstruct" in model,
                "layers": sae.subject_facts.get("layers", 0),
                "dimension": sae.d_in,
                **base,
                "updatedAt": made,
            }
        ],
    )
    _lines(
        place / "sourceset.jsonl",
        [
            {
                "modelId": model,
                "name": safe(sae.slug),
                "description": title,
                "releaseName": release,
                "creatorName": "",
                "visibility": "PRIVATE",
                **base,
            }
        ],
    )
    _lines(place / "source.jsonl", [
        {"id": source, "modelId": model, "setName": safe(sae.slug), "dataset": sae.corpus, "visibility": "PRIVATE",
         "notes": f"weights {sae.sha256}", **tokens, **base}])  # fmt: skip


def _features(
    connection: Connection, sae: SAERecord, vocabulary: Vocabulary, about: dict[str, str], first: int, last: int
) -> Iterator[dict[str, Any]]:
    c = t.latent.c
    query = (
        select(
            c.index, c.density, c.maximum, c.minimum, c.promoted_ids, c.promoted_logits, c.suppressed_ids,
            c.suppressed_logits, c.neighbour_ids, c.neighbour_cosines,
        )
        .where(c.sae_id == sae.id, c.index >= first, c.index < last)
        .order_by(c.index)
    )  # fmt: skip
    for row in connection.execute(query):
        yield {
            **about, "index": str(row.index), "sourceSetName": safe(sae.slug),
            "maxActApprox": max(row.maximum, -row.minimum), "frac_nonzero": row.density, "hasVector": False,
            "vector": [], "hookName": None, "pos_str": [vocabulary.text(i) for i in row.promoted_ids],
            "pos_values": row.promoted_logits, "neg_str": [vocabulary.text(i) for i in row.suppressed_ids],
            "neg_values": row.suppressed_logits, "topkCosSimIndices": row.neighbour_ids,
            "topkCosSimValues": row.neighbour_cosines, "freq_hist_data_bar_heights": [],
            "freq_hist_data_bar_values": [], "logits_hist_data_bar_heights": [], "logits_hist_data_bar_values": [],
            "decoder_weights_dist": [],
            **{f"{what}_{of}": [] for what, names in (
                ("neuron_alignment", ("indices", "values", "l1")), ("correlated_neurons", ("indices", "pearson", "l1")),
                ("correlated_features", ("indices", "pearson", "l1"))) for of in names},
        }  # fmt: skip


def _activations(
    connection: Connection,
    sae: SAERecord,
    vocabulary: Vocabulary,
    about: dict[str, str],
    first: int,
    last: int,
    number: int,
) -> Iterator[dict[str, Any]]:
    e = t.example.c
    query = (
        select(*example_columns(), e.latent, t.latent.c.maximum, t.latent.c.minimum)
        .join(t.sequence, sequence_of)
        .join(t.latent, (t.latent.c.sae_id == e.sae_id) & (t.latent.c.index == e.latent))
        .where(example_of, e.latent >= first, e.latent < last, e.interval <= t.TOP)
        .order_by(e.latent, e.sign.desc(), (e.interval == t.TOP).desc(), e.interval.desc(), e.rank)
    )
    asked = {"sae": sae.id, "corpus": sae.corpus_id, "width": int(sae.parameters["width"])}
    for count, row in enumerate(connection.execution_options(yield_per=500).execute(query, asked)):
        yield _activation(example_record(row), row.latent, row.maximum, row.minimum, vocabulary, about) | {
            "id": f"c{sae.revision}{number:06x}{count:08x}"
        }


def _activation(
    record: ExampleRecord, latent: int, maximum: float, minimum: float, vocabulary: Vocabulary, about: dict[str, str]
) -> dict[str, Any]:
    values, peak = record.activations, maximum if record.sign > 0 else minimum
    top = record.interval == t.TOP
    low, high = peak * record.interval / 10, peak * (record.interval + 1) / 10
    return {
        **about, "index": str(latent), "tokens": [vocabulary.text(i) for i in record.token_ids], "values": values,
        "maxValue": max(values), "maxValueTokenIndex": values.index(max(values)), "minValue": min(values),
        "binMin": TOP_BIN if top else min(low, high), "binMax": peak if top else max(low, high),
        "binContains": -1 if top else None, "qualifyingTokenIndex": record.position - record.start,
        "dataIndex": str(record.sequence_id), "dataSource": record.document, "dfaValues": [], "dfaTargetIndex": None,
        "dfaMaxValue": None, "lossValues": [], "logitContributions": None, "creatorId": "",
    }  # fmt: skip


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", 5, encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
