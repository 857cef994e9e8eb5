"""A harvest killed with -9 again and again ends with the same database as one left alone."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from sqlalchemy import make_url

from app.sae.formats import save
from app.store.engine import database_url, sync_engine
from tests.conftest import database_beside, public_folder
from tests.families import make


def contents(settings):
    """Every stored latent, example, context and sequence, in order, without the SAE's number."""
    engine = sync_engine(database_url(settings))
    queries = {
        "latent": "SELECT * FROM latent ORDER BY index",
        "example": "SELECT * FROM example ORDER BY latent, sign, interval, rank",
        "context": "SELECT * FROM context ORDER BY id",
        "posting": "SELECT * FROM posting ORDER BY latent",
        "sequence": "SELECT id, token_ids, document FROM sequence ORDER BY id",
        "harvest": "SELECT parameters, metrics, density_edges, density_counts, tokens, dead FROM harvest",
        "sae": "SELECT slug, revision, reads, config, sha256 FROM sae",
    }
    with engine.connect() as connection:
        found = {
            name: [{k: v for k, v in row._mapping.items() if k != "sae_id"} for row in connection.exec_driver_sql(sql)]
            for name, sql in queries.items()
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("family", ["abstopk"])
def test_killed_at_random_moments_it_ends_with_the_same_database(settings, tiny_folder, tmp_path, family):
    save(tmp_path / "sae", make(family))
    words = random.Random(0)
    known = ["the", "cat", "sat", "on", "a", "warm", "mat", "in", "Paris", "near", "river", "Seine"]
    lines = [" ".join(words.choices(known, k=60)) for _ in range(500)]
    (tmp_path / "text.txt").write_text("\n\n".join(lines))
    chance, kills = random.Random(7), 0
    for name, disturbed in (("calm", False), ("stormy", True)):
        own = database_beside(settings, name)
        environment = {
            **os.environ, "SAESCOPE_DATABASE_URL": own.database_url, "SAESCOPE_BATCH_TOKENS": "1024",
            "SAESCOPE_CHECKPOINT_SECONDS": "0.3", "SAESCOPE_DTYPE": "float32",
        }  # fmt: skip
        command = [sys.executable, "-m", "app.cli", "harvest", "--sae", tmp_path / "sae", "--model", tiny_folder,
                   "--corpus", f"text:{tmp_path / 'text.txt'}", "--context", "64", "--home", public_folder(),
                   "--slug", "crash"]  # fmt: skip
        for attempt in range(30):
            process = subprocess.Popen(
                list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if disturbed and attempt < 6:
                time.sleep(chance.uniform(3.0, 7.0))
                if process.poll() is None:
                    kills += 1
                    process.send_signal(signal.SIGKILL)
            out = process.communicate(timeout=300)[0]
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, out
        assert process.returncode == 0
        if disturbed:
            after = contents(own)
            assert make_url(own.database_url).database == "stormy"
        else:
            before = contents(own)
    assert kills >= 1
    for table, rows in before.items():
        assert after[table] == rows, table
