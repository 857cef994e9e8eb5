"""saescope import: what it shows and keeps, what it refuses and that a refusal leaves nothing, and the hub."""

import hashlib
import http.server
import json
import pickle
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from app import cli
from app.errors import HubUnavailable
from app.harvest import hub
from app.harvest.imports import describe
from app.sae.formats import read, save
from tests.conftest import database_beside, public_folder
from tests.families import make
from tests.test_oracles import DATA, folder_of


def run(monkeypatch, capsys, *arguments):
    """Exit status, standard output, last line of standard error."""
    monkeypatch.setattr("sys.argv", ["saescope", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out, (told.err.strip().splitlines() or [""])[-1]


def fingerprint(folder):
    """Every file below ``folder`` with the hash of its content."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*")) if p.is_file()
    }  # fmt: skip


class Code:
    def __reduce__(self):
        return print, ("this must never run",)


def saelens(folder, change=None, **config):
    save(folder, make("topk"))
    if change:
        weights = folder / "sae_weights.safetensors"
        save_file(change(load_file(weights)), weights)
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def poked(tensors, name, value):
    tensors[name].view(-1)[:3] = value
    return tensors


def truncated(folder):
    path = saelens(folder) / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def dictionary_learning(folder, case, **trainer):
    source = folder_of("dictionary_learning", case)
    folder.mkdir()
    (folder / "ae.pt").write_bytes((source / "ae.pt").read_bytes())
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"trainer": config["trainer"] | trainer}))
    return folder


def pickled(folder):
    folder.mkdir()
    torch.save({"encoder": Code()}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder"}}))
    return folder


def objects(folder):
    folder.mkdir()
    np.savez(folder / "params.npz", W_enc=np.array([Code(), {}], dtype=object))
    return folder


def raw_pickle(folder):
    folder.mkdir()
    (folder / "sae.pt").write_bytes(pickle.dumps(Code()))
    (folder / "config.json").write_text(json.dumps({"class": "SAE", "kwargs": {}}))
    return folder


def outside(folder):
    secret = folder.parent / "secret.safetensors"
    save_file({"W_enc": torch.zeros(1)}, secret)
    saelens(folder)
    (folder / "sae_weights.safetensors").unlink()
    (folder / "sae_weights.safetensors").symlink_to(secret)
    return folder


def empty(folder):
    folder.mkdir()
    (folder / "README.md").write_text("nothing")
    return folder


REFUSALS = {
    "pickle with code": (pickled, "holds pickled Python objects, which could run code"),
    "a bare pickle": (raw_pickle, "pickled Python objects"),
    "npz with objects": (objects, "holds Python objects, which could run code"),
    "another architecture": (lambda f: saelens(f, architecture="gated"), "no tensor 'b_gate'"),
    "unknown architecture": (lambda f: saelens(f, architecture="vae"), "architecture 'vae'"),
    "transposed": (
        lambda f: saelens(f, lambda t: t | {"W_enc": t["W_enc"].T.contiguous()}),
        "shape [40, 32]; wanted [32, 40]; it is transposed",
    ),
    "NaN": (lambda f: saelens(f, lambda t: poked(t, "W_dec", float("nan"))), "'W_dec'"),
    "how many NaN": (lambda f: saelens(f, lambda t: poked(t, "W_dec", float("nan"))), "3 NaN values of 1,280"),
    "unknown key": (lambda f: saelens(f, soft_cap=3), "keys that are not known here: soft_cap"),
    "a key of two lines": (lambda f: saelens(f, **{"soft\ncap": 3}), "keys that are not known here: soft cap;"),
    "unknown tensor": (lambda f: saelens(f, lambda t: t | {"extra": torch.zeros(3)}), "not known here: extra"),
    "no k": (lambda f: saelens(f, k=None), "lacks k"),
    "threshold -1": (lambda f: dictionary_learning(f, "dl-batchtopk"), "-1: it was never set"),
    "other k": (lambda f: dictionary_learning(f, "dl-topk", k=6), "says k 6; ae.pt says 5"),
    "other sizes": (lambda f: dictionary_learning(f, "dl-topk", dict_size=41), "dict_size 41"),
    "unknown class": (lambda f: dictionary_learning(f, "dl-topk", dict_class="Odd"), "dict_class 'Odd'"),
    "truncated": (truncated, "is not a whole safetensors file"),
    "outside the folder": (outside, "points outside the folder"),
    "no format": (empty, "in no format known here (it holds: README.md)"),
    "nothing": (lambda f: f / "nowhere", "No SAE folder at"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_sentence_and_leaves_nothing(case, tmp_path, monkeypatch, capsys):
    build, says = REFUSALS[case]
    home = public_folder()
    save(tmp_path / "good", make("relu"))
    assert run(monkeypatch, capsys, "import", tmp_path / "good", "--home", home, "--slug", "good")[0] == 0
    before = fingerprint(home)
    code, out, line = run(monkeypatch, capsys, "import", build(tmp_path / "bad"), "--home", home, "--slug", "bad")
    assert code == 1
    assert line.startswith("saescope: ")
    assert says in line
    assert out == ""
    assert fingerprint(home) == before


def test_a_refused_sae_leaves_the_database_as_it_was(tmp_path, monkeypatch, capsys, tiny_folder, engine, settings):
    def rows():
        tables = ("sae", "harvest", "latent", "example", "corpus", "sequence", "subject")
        with engine.connect() as connection:
            return {t: connection.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar_one() for t in tables}

    monkeypatch.setenv("SAESCOPE_DATABASE_URL", settings.database_url)
    (tmp_path / "text.txt").write_text("The cat sat on the mat. " * 40)
    before, home = rows(), public_folder()
    for number, (build, _) in enumerate(REFUSALS.values()):
        bad = build(tmp_path / f"bad{number}")
        arguments = ["harvest", "--sae", bad, "--model", tiny_folder, "--corpus", f"text:{tmp_path / 'text.txt'}"]
        assert run(monkeypatch, capsys, *arguments, "--home", home)[0] == 1
    assert rows() == before
    assert fingerprint(home) == {}


def test_unknown_keys_pass_where_they_are_said_to_not_matter(tmp_path, monkeypatch, capsys):
    folder = saelens(tmp_path / "sae", lambda t: t | {"extra": torch.zeros(3)}, soft_cap=3)
    assert run(monkeypatch, capsys, "import", folder, "--dry-run", "--ignore-unknown")[0] == 0


def test_a_hook_the_subject_lacks_is_refused_with_what_is_near(tmp_path, monkeypatch, capsys, tiny_folder):
    folder = saelens(tmp_path / "sae")
    for hook, says in {
        "model.layers.7:out": "no module 'model.layers.7'; near it are: model.layers",
        "model.layers.0.mpl:out": "near it are: model.layers.0.mlp",
        "blocks.9.hook_resid_post": "its blocks are 0 to 1",
        "blocks.0.hook_odd": "it has: blocks.0.hook_resid_pre",
    }.items():
        arguments = ["import", folder, "--hook", hook, "--subject", tiny_folder, "--home", public_folder()]
        code, _, line = run(monkeypatch, capsys, *arguments)
        assert code == 1
        assert says in line


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "imports")


def test_import_shows_keeps_and_is_harvested_by_its_slug(tmp_path, monkeypatch, capsys, tiny_folder, own):
    home = public_folder()
    (tmp_path / "text.txt").write_text("The cat sat on the mat. Paris is the capital of France. " * 40)
    save(tmp_path / "sae", make("abstopk"))
    given = ["import", tmp_path / "sae", "--subject", tiny_folder, "--check", "--slug", "kept", "--home", home]
    given += ["--corpus", f"text:{tmp_path / 'text.txt'}"]
    code, out, _ = run(monkeypatch, capsys, *given)
    assert code == 0
    rows = dict(line.split(None, 1) for line in out.splitlines() if "  " in line)
    assert rows["architecture"] == "abstopk (TopK)"
    assert rows["reads"] == "model.layers.0:out"
    assert rows["k"] == "5"
    assert rows["L0"] == "5.0"
    assert float(rows["FVU"]) > 1
    code, _, line = run(monkeypatch, capsys, *given)
    assert (code, "imported already" in line) == (1, True)
    assert run(monkeypatch, capsys, *given, "--replace")[0] == 0
    monkeypatch.setenv("SAESCOPE_DATABASE_URL", own.database_url)
    monkeypatch.setenv("SAESCOPE_DTYPE", "float32")
    code, out, _ = run(monkeypatch, capsys, "harvest", "--sae", "kept", "--model", tiny_folder, "--corpus",
                       f"text:{tmp_path / 'text.txt'}", "--home", home)  # fmt: skip
    assert code == 0
    assert out.startswith("kept@")
    code, _, line = run(monkeypatch, capsys, "harvest", "--sae", "lost", "--model", tiny_folder, "--corpus", "text:x",
                        "--home", home)  # fmt: skip
    assert (code, "there are: kept" in line) == (1, True)


def test_absurd_numbers_are_warned_of(tiny, sequences):
    from dataclasses import replace

    from app.harvest.imports import check

    sae = make("jumprelu")
    silent = check(replace(sae, threshold=torch.tensor(1e6)), tiny, sequences[:4])
    assert silent.l0 == 0
    assert any("No latent fires" in w for w in silent.warnings)
    everything = check(replace(sae, threshold=torch.tensor(0.0), b_enc=sae.b_enc + 9), tiny, sequences[:4])
    assert any("L0 40 of 40" in w for w in everything.warnings)
    assert any("worse than predicting the mean" in w for w in everything.warnings)


def test_formats_are_listed(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "formats")
    for name in ("saelens", "sparsify", "openai", "gemma-scope", "llama-scope", "openmoss", "recsae"):
        assert name in out


def test_every_family_can_be_described():
    from tests.families import FAMILIES

    for name in FAMILIES:
        rows = dict(describe(make(name), "saescope"))
        assert rows["latents"] in ("40", "80")


BIG = bytes(range(256)) * 120_000  # more than the client takes at once


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub of one repository on this machine; ``faults`` holds paths' next answers."""

    commit = "c" * 40
    root = folder_of("sae-lens", "jumprelu")
    faults: dict[str, list[int]] = {}  # noqa: RUF012
    ranges: list[str | None] = []  # noqa: RUF012
    cuts = 0

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        if self.faults.get(path):
            return self.send(self.faults[path].pop(0), b"{}", body)
        if path.startswith("/api/models/org/saes"):
            names = [f"layer_0/{p.name}" for p in self.root.iterdir()] + ["layer_1/other.json", "layer_2/big.bin"]
            told = {"id": "org/saes", "sha": self.commit, "siblings": [{"rfilename": n} for n in names]}
            return self.send(200, json.dumps(told).encode(), body)
        if path == f"/org/saes/resolve/{self.commit}/layer_2/big.bin":
            return self.part(BIG, body)
        if path.startswith(f"/org/saes/resolve/{self.commit}/layer_0/"):
            data = (self.root / path.rpartition("/")[2]).read_bytes()
            return self.part(data, body)
        return self.send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

    def part(self, data, body):
        """The file, from where the Range asks; cut in the middle where a fault says so."""
        self.ranges.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        cut = body and self.cuts > 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if cut:
            type(self).cuts -= 1
            self.wfile.write(data[start : (start + len(data)) // 2])
            self.wfile.flush()
            self.connection.close()
        elif body:
            self.wfile.write(data[start:])

    def send(self, status, data, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def local_hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    yield server
    server.shutdown()
    server.server_close()


def test_the_hub_is_read_pinned_to_a_commit(local_hub, tmp_path):
    got = hub.fetch(hub.parse("hf:org/saes/layer_0"), tmp_path)
    assert got.commit == Hub.commit
    assert read(got.folder).config.architecture == "jumprelu"
    assert {p.name for p in got.folder.iterdir() if p.is_file()} == {p.name for p in Hub.root.iterdir()}


def test_a_download_that_was_cut_goes_on_from_there(local_hub, monkeypatch, tmp_path):
    monkeypatch.setattr(Hub, "cuts", 1)
    monkeypatch.setattr(Hub, "ranges", [])
    spec = hub.parse("hf:org/saes/layer_2")
    try:
        got = hub.fetch(spec, tmp_path)
    except HubUnavailable:  # the client may give up after a cut; the next try goes on
        got = hub.fetch(spec, tmp_path)
    assert (got.folder / "big.bin").read_bytes() == BIG
    assert any(r and not r.startswith("bytes=0-") for r in Hub.ranges)


@pytest.mark.parametrize(
    ("spec", "faults", "says"),
    [
        ("hf:org/nothing/layer_0", {}, "no repository org/nothing"),
        ("hf:org/saes/layer_9", {}, "no files in layer_9; it has folders such as: layer_"),
        ("hf:org/saes/layer_0", {"/api/models/org/saes": [500] * 9}, "answered 500"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(local_hub, monkeypatch, tmp_path, capsys, spec, faults, says):
    monkeypatch.setattr(Hub, "faults", faults)
    code, _, line = run(monkeypatch, capsys, "import", spec, "--home", tmp_path)
    assert code == 1
    assert says in line


def test_without_a_network_the_way_by_hand_is_told(monkeypatch, tmp_path, capsys):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, line = run(monkeypatch, capsys, "import", "hf:org/saes/layer_0", "--home", tmp_path)
    assert code == 1
    assert "cannot be reached" in line
    assert "download layer_0 of org/saes" in line
    code, _, line = run(monkeypatch, capsys, "import", "hf:odd", "--home", tmp_path)
    assert "not of the form" in line


def test_the_data_of_the_oracles_says_what_made_it():
    for library in ("sae-lens", "sparsify", "dictionary_learning", "overcomplete"):
        for told in json.loads((DATA / library / "cases.json").read_text()).values():
            assert told["version"]
