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

from app.demo.run import SAE_FOLDER, SLUG, SUBJECT, prepare_subject
from app.harvest.job import read_sae
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
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    subject = load_subject(prepare_subject(settings.home), SUBJECT, settings.dtype, settings.device)
    sae = read_sae(SAE_FOLDER).to(subject.device)
    hook = HookPoint.parse(sae.config.reads[0])
    out: dict[str, object] = {}
    engine = sync_engine(database_url(settings))
    with engine.connect() as connection:
        newest = connection.execute(text("SELECT max(id) FROM sae WHERE slug = :s"), {"s": SLUG}).scalar_one()
        size = text("SELECT pg_total_relation_size(:a) + pg_total_relation_size(:b)")
        bytes_ = connection.execute(size, {"a": f"latent_{newest}", "b": f"example_{newest}"}).scalar_one()
    out["bytes_per_latent"] = round(bytes_ / sae.config.n_latents)
    prompt = "The lighthouse keeper wrote in his journal that the storm had finally passed over the sea. "
    with TestClient(create_app(settings), base_url="http://localhost") as client:
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
