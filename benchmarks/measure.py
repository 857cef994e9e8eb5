"""The first rows of docs/benchmarks.md, as ratios within one run."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.corpus.sequences import cut
from app.corpus.sources import documents
from app.demo.run import CONTEXT, CORPUS, SAE_FOLDER, SLUG, SUBJECT, prepare_subject
from app.harvest.batches import counted, groups, pad
from app.harvest.job import read_sae
from app.harvest.run import Parameters, harvest
from app.main import create_app
from app.settings import load_settings
from app.store.engine import database_url, sync_engine
from app.subject.hooks import HookPoint, read_activations
from app.subject.load import load_subject


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--tokens", type=int, default=65_536)
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    subject = load_subject(prepare_subject(settings.home), SUBJECT, settings.dtype, settings.device)
    sae = read_sae(SAE_FOLDER).to(subject.device)
    hook = HookPoint.parse(sae.config.reads[0])
    texts = documents(CORPUS, settings.home / "packages")
    sequences = list(cut(texts, subject.encode, bos_id=subject.bos_id, context=CONTEXT, tokens=given.tokens))
    special = torch.tensor(subject.special_ids, device=subject.device)

    def bare() -> None:
        for _, rows in groups(sequences, settings.batch_tokens):
            padded = pad(rows, subject.device)
            acts = read_activations(subject.model, padded.token_ids, [hook], padded.attention)[hook]
            sae.encode(acts[counted(padded, special)])

    bare()
    bares, harvests = [], []
    for _ in range(3):
        bares.append(seconds(bare))
        harvests.append(seconds(lambda: harvest(subject, sae, sequences, Parameters())))
    total = sum(len(s.token_ids) for s in sequences)
    out: dict[str, object] = {
        "tokens": total,
        "bare_tok_s": round(total / statistics.median(bares)),
        "harvest_tok_s": round(total / statistics.median(harvests)),
        "harvest_over_bare": round(statistics.median(h / b for h, b in zip(harvests, bares, strict=True)), 3),
    }
    engine = sync_engine(database_url(settings))
    with engine.connect() as connection:
        newest = connection.execute(text("SELECT max(id) FROM sae WHERE slug = :s"), {"s": SLUG}).scalar_one()
        size = text("SELECT pg_total_relation_size(:a) + pg_total_relation_size(:b)")
        bytes_ = connection.execute(size, {"a": f"latent_{newest}", "b": f"example_{newest}"}).scalar_one()
    out["bytes_per_latent"] = round(bytes_ / sae.config.n_latents)
    prompt = "The lighthouse keeper wrote in his journal that the storm had finally passed over the sea. "
    with TestClient(create_app(settings)) as client:
        client.post("/api/inspect", json={"text": prompt})
        pages = [seconds(partial(client.get, f"/saes/{SLUG}/features/{i * 37}")) for i in range(100)]
        out["feature_page_ms_median"] = round(1000 * statistics.median(pages), 1)
        out["feature_page_ms_p95"] = round(1000 * sorted(pages)[94], 1)
        inspections, forwards = [], []
        for i in range(30):
            body = {"text": f"{i} {prompt * 4}"}
            ids = torch.tensor([[subject.bos_id, *subject.encode(body["text"])]], device=subject.device)

            def alone(ids: torch.Tensor) -> None:
                sae.encode(read_activations(subject.model, ids, [hook])[hook][0, 1:])

            forwards.append(seconds(partial(alone, ids)))
            inspections.append(seconds(partial(client.post, "/api/inspect", json=body)))
        out["prompt_tokens"] = ids.shape[1]
        out["bare_ms"] = round(1000 * statistics.median(forwards), 1)
        out["inspect_ms"] = round(1000 * statistics.median(inspections), 1)
        out["inspect_over_bare"] = round(
            statistics.median(a / b for a, b in zip(inspections, forwards, strict=True)), 2
        )
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
