"""The pass over a real Ray cluster of two workers on this machine, one of which is killed at its work."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.conftest import random_sae

ray = pytest.importorskip("ray")

SCRIPT = """
import json, os, signal, sys, threading, time
from pathlib import Path

import torch

torch.set_num_threads(1)  # as Ray's workers have it: sums are then added in one order
import ray

from app.corpus.sequences import Held, cut
from app.harvest.cluster import LOCAL, cluster
from app.harvest.parameters import Parameters
from app.harvest.run import Watch, harvest
from app.subject.load import load_subject
from tests.conftest import random_sae
from tests.families import make
from tests.test_cluster import long_text, stored

folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
subject = load_subject(folder, "tiny", dtype="float32", device="cpu")
corpus = Held(cut(long_text(), subject.encode, bos_id=subject.bos_id, context=64))
saes = [random_sae(), make("abstopk")]
parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=256, reconstruct_every=2)
total = corpus.counted(subject.special_ids)
one = harvest(subject, saes, corpus, parameters, context=64)

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=LOCAL)


def a_worker():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().split(b"\\0")[0]
        except OSError:
            continue
        if line == b"ray::read_shard":
            return int(path.parent.name)
    return None


def over_the_cluster(progress, checkpoint):
    options = {"context": 64, "total": total, "checkpoint": checkpoint, "checkpoint_seconds": 1e9}
    return cluster("auto")(subject, saes, corpus, parameters, watch=Watch(progress=progress), **options)


def same(many):
    pairs = zip(one.harvesters, many.harvesters, strict=True)
    return all(stored(a, subject, corpus) == stored(b, subject, corpus) for a, b in pairs)


killed, told = [], []


def kill_one():
    while not killed:  # a worker is called so only while it is at a shard
        if (found := a_worker()) is not None:
            os.kill(found, signal.SIGKILL)
            killed.append(found)
        time.sleep(0.01)


threading.Thread(target=kill_one, daemon=True).start()
many = over_the_cluster(lambda progress: told.append(progress.tokens), checkpoint.with_name("killed.pt"))
killing = {"same": same(many), "waves": len(told), "killed": len(killed), "tokens": told[-1]}

before, after = [], []


def stop_at_the_second(progress):
    before.append(progress.tokens)
    return len(before) == 2


def go_on(progress):
    after.append(progress.tokens)
    return False


try:
    over_the_cluster(stop_at_the_second, checkpoint)
    stopped = False
except KeyboardInterrupt:
    stopped = True
many = over_the_cluster(go_on, checkpoint)
stopping = {"same": same(many), "stopped": stopped, "before": before[-1], "first": after[0], "tokens": after[-1]}
print(json.dumps({"total": total, "killing": killing, "stopping": stopping}))
"""


def long_text():
    from app.corpus.sources import Document

    words = ["the", "cat", "sat", "on", "a", "warm", "mat", "in", "Paris", "near", "river", "Seine"]
    g = torch.Generator().manual_seed(0)
    picks = [[words[i] for i in torch.randint(0, 12, (150,), generator=g).tolist()] for _ in range(120)]
    return [Document(f"d{number}", " ".join(some)) for number, some in enumerate(picks)]


def stored(harvester, subject, corpus):
    """The columns that would go to the database; sums, which may differ in their last bit, to six digits."""
    from app.harvest.context_columns import context_columns, posting_columns, vectors
    from app.harvest.examples import example_columns
    from app.harvest.latents import facts, latent_columns
    from app.store.copying import Raw

    out = {}
    contexts = vectors(harvester.contexts, harvester.stats, 8)
    chunks = [
        latent_columns(harvester, subject), *example_columns(harvester, corpus.lengths()),
        context_columns(contexts), *posting_columns(contexts),
    ]  # fmt: skip
    for number, chunk in enumerate(chunks):
        for name, column in chunk.items():
            values = column.data if isinstance(column, Raw) else column.values
            rounded = [float(f"{v:.6g}") for v in values.tolist()] if values.dtype.kind == "f" else values.tolist()
            out[number, name] = repr(rounded)
    metrics = {name: float(f"{v:.6g}") for name, v in harvester.reconstruction.result().items()}
    return out, facts(harvester), metrics


def test_two_workers_end_with_what_one_machine_does(tiny_folder, tmp_path):
    """Shards, a worker killed with -9 at its shard, and a stop with a checkpoint that is carried on from."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tiny_folder), str(tmp_path / "checkpoint.pt")],
        capture_output=True, text=True, timeout=900, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    killing, stopping = found["killing"], found["stopping"]
    assert killing.pop("waves") >= 2
    assert killing == {"same": True, "killed": 1, "tokens": found["total"]}
    assert stopping.pop("first") > stopping.pop("before") > 0
    assert stopping == {"same": True, "stopped": True, "tokens": found["total"]}


def test_no_cluster_at_an_address_is_one_sentence(tiny, sequences):
    from app.errors import BadRequest
    from app.harvest.cluster import cluster
    from app.harvest.parameters import Parameters

    with pytest.raises(BadRequest, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        cluster("127.0.0.1:1")(tiny, [random_sae()], sequences, Parameters(), context=64)


BUSY = """
import base64, json, os
from pathlib import Path

from app.harvest.cluster import connected


def below(number):
    found = [int(one) for one in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return [*found, *(further for one in found for further in below(one))]


with connected("auto") as ray:
    niceness = ray.get(ray.remote(lambda: os.getpriority(os.PRIO_PROCESS, 0)).remote())
    for number in below(os.getpid()):
        words = Path(f"/proc/{number}/cmdline").read_text().split("\\0")
        if words[0].endswith("gcs_server"):
            given = next(word for word in words if word.startswith("--config_list="))
            given = json.loads(base64.b64decode(given.partition("=")[2]))
    print(json.dumps([given, niceness, os.getpriority(os.PRIO_PROCESS, 0)]))
"""


def test_beside_other_work_ray_goes_on_and_its_workers_have_their_share():
    """By default Ray ends the driver, without a word, when its node is stopped for a minute."""
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told, niceness, mine = json.loads(done.stdout)
    assert niceness == mine
    assert told["health_check_timeout_ms"] * told["health_check_failure_threshold"] >= 3_600_000
