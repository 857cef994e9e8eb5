"""The harvest against the bare forward + encode of the same tokens: seconds, shares of each stage, peak memory.

    scripts/bench-harvest --home DIR                       the demo's SAE over 131,072 tokens
    scripts/bench-harvest --home DIR --tokens 50k,100k     how cost grows with the text
    scripts/bench-harvest --home DIR --latents 4k,16k      random SAEs of as many latents, TopK, k = 32
    scripts/bench-harvest --synthetic --latents 128k       the accumulators' memory when their tables are full
    scripts/bench-harvest --home DIR --copy                what writing to Postgres takes

Bare is the forward to the hook, and the encoder with its top-k; the harvest is the same with every accumulator. Both
run in turn, three times each; the ratio is the median of the pairs. Every case has a process of its own, so that peak
memory is its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app.corpus.sequences import Held, cut
from app.corpus.sources import documents
from app.demo.run import CONTEXT, CORPUS, SAE_FOLDER, SUBJECT, prepare_subject
from app.harvest.batches import Padded, assemble, counted, groups, pad
from app.harvest.harvester import Harvester
from app.harvest.job import read_sae
from app.harvest.latents import latent_columns
from app.harvest.parameters import Parameters
from app.harvest.run import Watch, harvest
from app.harvest.stages import Stages
from app.sae.acts import Acts
from app.sae.base import SAE, SAEConfig
from app.sae.topk import TopK
from app.settings import Settings, load_settings
from app.subject.hooks import HookPoint, read_activations
from app.subject.load import Subject, load_subject


def seconds(run: Callable[[], object], settle: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    settle()
    return time.perf_counter() - start


def number(text: str) -> int:
    """``131k`` -> 131,072; ``400000`` -> 400,000."""
    return int(float(text[:-1]) * 1024) if text.endswith("k") else int(text)


def random_sae(latents: int, d: int, hook: str, k: int = 32) -> SAE:
    """A TopK SAE of random unit directions: what it finds means nothing, what it costs is real."""
    g = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(latents, d, generator=g), dim=1)
    config = SAEConfig("topk", d, latents, (hook,), (hook,), SUBJECT, context=CONTEXT)
    return TopK(config, W_dec.T.contiguous(), torch.zeros(latents), W_dec, torch.zeros(d), k=k)


def corpus(subject: Subject, settings: Settings, tokens: int) -> Held:
    """Documents of the demo's corpus; read again from the start where it is too short for ``tokens``."""

    def forever() -> Any:
        while True:
            yield from documents(CORPUS, settings.home / "packages")

    return Held(cut(forever(), subject.encode, bos_id=subject.bos_id, context=CONTEXT, tokens=tokens))


def case(settings: Settings, tokens: int, latents: int, top: int, per_interval: int, repeats: int) -> dict[str, Any]:
    subject = load_subject(prepare_subject(settings.home), SUBJECT, settings.dtype, settings.device)
    demo = read_sae(SAE_FOLDER)
    sae = demo if not latents else random_sae(latents, demo.config.d_in, demo.config.reads[0])
    sae = sae.to(subject.device)
    hook = HookPoint.parse(sae.config.reads[0])
    text = corpus(subject, settings, tokens)
    special = torch.tensor(subject.special_ids, device=subject.device)
    cuda = subject.device.type == "cuda"
    settle: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
    parameters = replace(Parameters(batch_tokens=settings.batch_tokens), top=top, per_interval=per_interval)

    def bare() -> None:
        for _, rows in groups(text, settings.batch_tokens):
            padded = pad(rows, subject.device)
            acts = read_activations(subject.model, padded.token_ids, [hook], padded.attention)[hook]
            sae.encode(acts[counted(padded, special)])

    if repeats:
        bare()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bares, harvests, shares = [], [], []
    for _ in range(max(1, repeats)):
        bares.append(seconds(bare, settle) if repeats else float("nan"))
        stages = Stages(settle)
        start = time.perf_counter()
        done = harvest(subject, [sae], text, parameters, context=CONTEXT, watch=Watch(stages=stages))
        settle()
        harvests.append(time.perf_counter() - start)
        shares.append({name: spent / harvests[-1] for name, spent in stages.seconds.items()})
    tail = seconds(lambda: latent_columns(done.harvesters[0], subject), settle)
    counts = int(text.lengths().sum())
    return {
        "tokens": counts,
        "latents": sae.config.n_latents,
        "bare_seconds": round(statistics.median(bares), 2),
        "harvest_seconds": round(statistics.median(harvests), 2),
        "ratio": round(statistics.median(h / b for h, b in zip(harvests, bares, strict=True)), 3),
        "harvest_tok_s": round(counts / statistics.median(harvests)),
        "tail_seconds": round(tail, 2),
        "bare_peak_gb": round(before / 2**20, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "device": str(subject.device),
        "dtype": str(subject.dtype).removeprefix("torch."),
        "shares": {name: round(statistics.median(s.get(name, 0) for s in shares), 4) for name in shares[0]},
    } | ({"peak_gpu_gb": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if cuda else {})


def synthetic(tokens: int, latents: int, top: int, per_interval: int) -> dict[str, Any]:
    """Peak memory of one SAE's accumulators over random activations of 32 latents a position, half-normal in size;
    no subject, no SAE: the memory is theirs alone."""
    g = torch.Generator().manual_seed(0)
    tiny = random_sae(latents, 8, "none:out")
    parameters = replace(Parameters(), top=top, per_interval=per_interval, reconstruct_every=1 << 40)
    harvester = Harvester(tiny, parameters, vocabulary=49_152, longest=CONTEXT, l0=32.0)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, first = 64, 1  # sequence 0 would be reconstructed
    stages = Stages()
    for _ in range(0, tokens, rows * CONTEXT):
        ids = torch.randint(3, 49_152, (rows, CONTEXT), generator=g)
        padded = Padded(ids, torch.ones_like(ids), torch.full((rows,), CONTEXT), torch.full_like(ids, first // 1000))
        mask = torch.ones_like(ids, dtype=torch.bool)
        latent = torch.randint(latents, (ids.numel(), 40), generator=g).sort(1).values
        new = torch.ones_like(latent, dtype=torch.bool)
        new[:, 1:] = latent[:, 1:] != latent[:, :-1]
        position, column = new.nonzero(as_tuple=True)
        value = torch.randn(len(position), generator=g).abs() + 1e-3
        acts = Acts(position, latent[position, column], value, ids.numel())
        harvester.update(assemble(acts, first, padded, mask), torch.zeros(ids.numel(), 8), stages=stages)
        first += rows
    held = sum(int((t.window >= 0).sum()) for t in (harvester.top[1], harvester.samples[1]))
    return {
        "tokens": tokens,
        "latents": latents,
        "top": top,
        "per_interval": per_interval,
        "windows_each": round(held / latents, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "before_gb": round(base / 2**20, 2),
        "accumulate_tok_s": round(tokens / sum(stages.seconds.values())),
        "stages": {name: round(spent, 2) for name, spent in stages.seconds.items()},
    }


def copying(settings: Settings, latents: int) -> dict[str, Any]:
    """Latents a second into a fresh partition, index and all, with 55 examples each."""
    from app.harvest.examples import example_columns
    from app.store import tables as t
    from app.store.bulk import _EXAMPLE_TYPES, _LATENT_TYPES, _rows, fill_partition
    from app.store.engine import database_url, sync_engine
    from app.store.migrate import migrate

    subject = load_subject(prepare_subject(settings.home), SUBJECT, settings.dtype, settings.device)
    demo = read_sae(SAE_FOLDER)
    sae = demo if not latents else random_sae(latents, demo.config.d_in, demo.config.reads[0])
    text = corpus(subject, settings, 131_072)
    parameters = replace(Parameters(), per_interval=4)
    done = harvest(subject, [sae.to(subject.device)], text, parameters, context=CONTEXT)
    engine = sync_engine(database_url(settings))
    migrate(engine)
    rows, out = 0, []
    columns = latent_columns(done.harvesters[0], subject)
    for _ in range(3):
        with engine.connect() as connection, connection.begin() as work:
            chunks = list(example_columns(done.harvesters[0], text.lengths()))
            rows = sum(_rows(chunk) for chunk in chunks)
            start = time.perf_counter()
            fill_partition(connection, t.latent.name, 999_999, _LATENT_TYPES, [columns])
            fill_partition(connection, t.example.name, 999_999, _EXAMPLE_TYPES, iter(chunks))
            out.append(time.perf_counter() - start)
            work.rollback()
    n = sae.config.n_latents
    return {
        "latents": n,
        "examples_each": round(rows / n, 1),
        "copy_seconds": round(min(out), 2),
        "latents_per_second": round(n / min(out)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--tokens", default="131072")
    parser.add_argument("--latents", default="0", help="0 is the demo's SAE")
    parser.add_argument("--top", type=int, default=Parameters().top)
    parser.add_argument("--per-interval", type=int, default=Parameters().per_interval)
    parser.add_argument("--repeats", type=int, default=3, help="0: the harvest once, without the bare pass")
    parser.add_argument("--copy", action="store_true")
    parser.add_argument("--synthetic", action="store_true", help="random activations instead of a subject's")
    parser.add_argument("--json", action="store_true", help="one line a case (the default is indented)")
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    cases = [(tokens, latents) for latents in given.latents.split(",") for tokens in given.tokens.split(",")]
    if len(cases) > 1:
        for tokens, latents in cases:
            line = [sys.executable, "-m", "benchmarks.harvest", *sys.argv[1:], "--tokens", tokens, "--latents", latents]
            subprocess.run(line, check=True)
        return
    tokens, latents = (number(text) for text in cases[0])
    if given.synthetic:
        found = synthetic(tokens, latents, given.top, given.per_interval)
    elif given.copy:
        found = copying(settings, latents)
    else:
        found = case(settings, tokens, latents, given.top, given.per_interval, given.repeats)
    print(json.dumps(found, indent=None if given.json else 1), flush=True)


if __name__ == "__main__":
    main()
