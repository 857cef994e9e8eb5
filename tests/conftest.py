"""Shared pieces: a home with the embedded server, a tiny random Llama with the real tokenizer, a small harvest."""

import json
import os
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch
from fastapi.testclient import TestClient
from filelock import FileLock

from app import cli
from app.corpus.sequences import Held, cut
from app.corpus.sources import Document
from app.demo.run import prepare_subject
from app.embed.folder import fetched_model
from app.harvest.job import Job, run_job
from app.harvest.parameters import Parameters
from app.main import create_app
from app.sae.base import SAEConfig
from app.sae.formats import saelens
from app.sae.topk import TopK
from app.settings import Settings
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.subject.load import load_subject
from tests.lister import plant

hypothesis.settings.register_profile("saescope", deadline=None)  # a machine may be busy
hypothesis.settings.load_profile("saescope")
SLUG = "tiny-l0-topk-40"
LAYERS = "layer-0", "layer-1"
TEXT = [
    Document("cats", "The cat sat on the mat. A cat likes the warm mat. Every cat sleeps a lot in the sun. " * 12),
    Document("paris", "Paris is the capital of France. The river Seine runs through Paris to the sea. " * 12),
    Document("emoji", "Party time 🎉🎉 with friends 😀 and שלום עולם and مرحبا بالعالم again and again. " * 12),
]


# Files of a minute and more, the longest first: what is begun last should be short, or the others wait for it.
LONG = (
    "test_infer", "test_harvest_cli", "test_cli", "test_cluster", "test_jobs", "test_stopping", "test_llm_run",
    "test_browser", "test_layout", "test_families", "test_runs", "test_identity", "test_operations", "test_crash",
    "test_reliability", "test_search", "test_evaluate_run", "test_api", "test_fuzz", "test_lists",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def public_folder() -> Path:
    """A new folder that every user may enter: as root the database runs as another one."""
    folder = Path(tempfile.mkdtemp(prefix="saescope-test-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def cache():
    """Packages and the real subject; kept between runs, like the cache a user has."""
    default = "/var/cache" if hasattr(os, "geteuid") and os.geteuid() == 0 else str(Path.home() / ".cache")
    folder = Path(os.environ.get("SAESCOPE_TEST_CACHE", default)) / "saescope-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def real_folder(cache):
    with FileLock(cache / "preparing"):  # other workers may be at it
        return prepare_subject(cache)


@pytest.fixture(scope="session")
def model_folder(cache):
    """The real sentence model."""
    with FileLock(cache / "preparing"):
        return fetched_model(Settings(home=cache))


@pytest.fixture(scope="session")
def tiny_folder(real_folder):
    """A 2-layer Llama of random weights under the real subject's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = public_folder() / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(real_folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    return load_subject(tiny_folder, "tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def lister(tiny):
    """A subject as wide as the tiny one, with its tokenizer, that lists planted words for a query."""
    folder = public_folder() / "lister"
    plant(tiny.tokenizer, folder)
    return load_subject(folder, "lister", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def gpt2():
    """A 2-layer GPT-2 of random weights, as wide as the tiny Llama; 50 tokens, no tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(1)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, weights in model.named_parameters():
        if ".ln_" in name:  # norms of random weights would be those without any
            weights.add_(0.3 * torch.randn(weights.shape))
    return model


def random_sae(d=32, latents=40, k=4, hook="model.layers.0:out", seed=0):
    g = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(latents, d, generator=g), dim=1)
    config = SAEConfig("topk", d, latents, (hook,), (hook,), "tiny", context=64)
    b_dec = 0.01 * torch.randn(d, generator=g)
    return TopK(config, W_dec.T.contiguous(), torch.zeros(latents), W_dec, b_dec, k=k)


@pytest.fixture
def sae_folder(tmp_path):
    saelens.write(tmp_path / "sae", random_sae(), matrices=torch.float32, metadata={})
    return tmp_path / "sae"


def edit_config(folder: Path, **changes):
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="session")
def home():
    return public_folder()


@pytest.fixture(scope="session")
def settings(home):
    given = Settings(home=home, dtype="float32", device="cpu")
    url = database_url(given)
    return Settings(
        home=home, dtype="float32", device="cpu", max_prompt_tokens=48, max_prompt_chars=2000,
        database_url=url.render_as_string(hide_password=False), allowed_hosts="testserver", worker=False,
    )  # fmt: skip


def database_beside(settings, name):
    """Settings of an empty database of its own on the same server."""
    from sqlalchemy import make_url

    server = sync_engine(database_url(settings))
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    server.dispose()
    url = make_url(settings.database_url).set(database=name)
    return settings.model_copy(update={"database_url": url.render_as_string(hide_password=False)})


@pytest.fixture(scope="session")
def engine(settings):
    engine = sync_engine(database_url(settings))
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def sequences(tiny):
    return Held(cut(TEXT, tiny.encode, bos_id=tiny.bos_id, context=64))


@pytest.fixture(scope="session")
def harvested(tiny, sequences, engine, home):
    folder = public_folder() / "sae"
    saelens.write(folder, random_sae(), matrices=torch.float32, metadata={})
    parameters = Parameters(top=5, per_interval=2, width=16, neighbours=4, promoted=5, batch_tokens=512)
    revision = run_job(Job(SLUG, folder, "test text", 64, parameters), tiny, sequences, engine, home)
    return revision, parameters, folder


@pytest.fixture(scope="session")
def client(harvested, settings):
    with TestClient(create_app(settings), raise_server_exceptions=True) as client:
        yield client


@pytest.fixture(scope="session")
def layered(settings, harvested, tiny, sequences):
    """Settings of a database with an SAE of either layer, LAYERS."""
    own, (_, parameters, _) = database_beside(settings, "layered"), harvested
    engine = sync_engine(database_url(own))
    migrate(engine)
    for number, slug in enumerate(LAYERS):
        folder = public_folder() / slug
        sae = random_sae(hook=f"model.layers.{number}:out", seed=number)
        saelens.write(folder, sae, matrices=torch.float32, metadata={})
        run_job(Job(slug, folder, "test text", 64, parameters), tiny, sequences, engine, own.home)
    engine.dispose()
    return own


@pytest.fixture(scope="session")
def layered_client(layered):
    with TestClient(create_app(layered)) as client:
        yield client


@pytest.fixture(scope="module")
def database(own):
    """The module's own database, migrated."""
    engine = sync_engine(database_url(own))
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def command(own, monkeypatch, capsys):
    """``saescope`` over the module's ``own`` settings, with these arguments; what it printed, and its status."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["saescope", *arguments])
        monkeypatch.setenv("SAESCOPE_HOME", str(own.home))
        monkeypatch.setenv("SAESCOPE_DATABASE_URL", own.database_url)
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
        told = capsys.readouterr()
        return told.out, told.err, status

    return run
