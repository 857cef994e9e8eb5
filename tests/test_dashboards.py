"""Dashboards of other tools: read in the place of a harvest, shown as what they are, written; hostile ones refused."""

import gzip
import json
import struct

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load_file
from sqlalchemy import text

from app import bounded_json as reading
from app.bounded_json import Batch, lines
from app.errors import BadRequest
from app.explain.samples import Codes
from app.harvest.job import Job
from app.harvest.parameters import Parameters
from app.interop import delphi
from app.interop.attach import import_dashboards
from app.interop.exports import export_neuronpedia
from app.interop.strings import CHANGED, Strings
from app.interop.told import found
from app.main import create_app
from app.sae.formats import saelens
from app.web.api_examples import GRAPH
from tests.conftest import SLUG, database_beside, random_sae


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "dashboards")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    saelens.write(folder, random_sae(), matrices=torch.float32, metadata={})
    return folder


def named(tiny, ids):
    """Tokens as SAEDashboard writes them: names of the vocabulary, a space for Ġ and so on."""
    names = {number: name for name, number in tiny.tokenizer.get_vocab().items()}
    out = [names[i] for i in ids]
    for old, new in CHANGED.items():
        out = [name.replace(old, new) for name in out]
    return out


def batch(tiny, words="The cat sat on the mat. Party 🎉 é"):
    ids = tiny.encode(words)
    tokens = named(tiny, ids)
    n = len(ids)

    def values(**at):
        return [at.get(f"t{place}", 0.0) for place in range(n)]

    def activation(bin_min, bin_max, given):
        return {
            "bin_min": bin_min,
            "bin_max": bin_max,
            "bin_contains": -1 if bin_min == -1 else 0.5,
            "tokens": tokens,
            "values": given,
        }

    common = {"n_prompts_total": 100, "n_tokens_in_prompt": 10, "dataset": "some/text", "pos_str": [], "neg_str": []}
    features = [
        {"feature_index": 3, "frac_nonzero": 0.25, **common, "activations": [
            activation(-1, 4.0, values(t1=4.0, t2=1.0)), activation(1, 2, values(t2=1.5)),
            activation(1, 2, values(t2=1.5)), activation(0, 1, values())]},
        {"feature_index": 7, "frac_nonzero": 0.001, **common, "activations": [
            activation(-1, 2.0, values(t4=2.0))]},
        {"feature_index": 9, "frac_nonzero": 0.0, **common, "activations": []},
    ]  # fmt: skip
    return ids, {"model_id": "tiny", "layer": 0, "sae_set": "x", "features": features}


def put(folder, given, name="batch-0.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(given) if not isinstance(given, str) else given)
    return folder


def take(folder, slug, weights, tiny, database, own, **options):
    return import_dashboards(folder, Job(slug, weights, "", 64, Parameters()), tiny, database, own.home, **options)


def rows(database, slug):
    query = text("SELECT e.latent, e.sign, e.interval, e.rank, e.position, e.activation, e.shares, q.token_ids "
                 "FROM example e JOIN sae s ON s.id = e.sae_id JOIN harvest h ON h.sae_id = s.id JOIN sequence q ON "
                 "q.corpus_id = h.corpus_id AND q.id = e.sequence_id WHERE s.slug = :slug "
                 "ORDER BY e.latent, e.sign, e.interval, e.rank")  # fmt: skip
    with database.connect() as connection:
        return connection.execute(query, {"slug": slug}).all()


def test_a_batch_of_saedashboard_is_shown_as_what_it_is(tmp_path, weights, tiny, database, own):
    ids, given = batch(tiny)
    made = take(put(tmp_path / "np", given), "dashed", weights, tiny, database, own)
    assert (made.contexts, made.unread, made.silent, made.missing) == (4, 0, 1, 37)
    kept = rows(database, "dashed")
    assert [tuple(row[:6]) for row in kept] == [(3, 1, 3, 0, 2, 1.5), (3, 1, 10, 0, 1, 4.0), (7, 1, 10, 0, 4, 2.0)]
    assert all(row.token_ids == ids for row in kept)
    assert struct.unpack("<2e", kept[1].shares) == (1.0, 0.25)
    with TestClient(create_app(own)) as client:
        page = client.get("/saes/dashed/features/3.json").json()
        assert (page["density"], page["fired"], page["counted"], page["max"]) == (0.25, 250, 1000, 4.0)
        assert page["mean"] is page["std"] is page["usage"] is None
        assert page["harvest"]["imported"]["tool"] == "SAEDashboard"
        assert "".join(page["examples"][0]["tokens"]) == "The cat sat on the mat. Party 🎉 é"
        assert page["examples"][0]["activations"][1:3] == [4.0, 1.0]
        html = client.get("/saes/dashed/features/3").text
        assert "SAEDashboard wrote: 4 contexts; densities over 1,000 tokens are theirs" in html
        assert "tells no counts of activations" in html
        assert "chosen by SAEDashboard" in html
        assert "holds no context of this feature" in client.get("/saes/dashed/features/12").text
        for path in ("/saes/dashed", "/saes/dashed.json", "/saes/dashed/features", "/saes/dashed/features.csv", "/",
                     "/saes/dashed/features/3/card", "/saes/dashed/features/3/og.png", "/compare?a=dashed/3&b=dashed/7",
                     "/compare.json?a=dashed/3&b=dashed/7", "/saes/dashed/features/3/examples/top/0",
                     "/inspect?sae=dashed&text=A+cat",
                     "/saes/dashed/features.parquet", "/search?q=cat", "/saes/dashed/features/3/embed"):  # fmt: skip
            assert client.get(path).status_code == 200, path
    with pytest.raises(BadRequest, match="imported already, as dashed@"):
        take(tmp_path / "np", "dashed", weights, tiny, database, own)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f[0].update(feature_index=40), "feature 40; this SAE's are 0 to 39"),
        (lambda f: f[1].update(feature_index=3), "holds feature 3 twice"),
        (lambda f: f[0].update(feature_index=-1), "a feature's number was expected"),
        (lambda f: f[0].update(feature_index=True), "a feature's number was expected"),
        (lambda f: f[0].update(frac_nonzero=1.5), "a share lies between 0 and 1"),
        (lambda f: f[0].pop("frac_nonzero"), "no frac_nonzero of feature 3"),
        (lambda f: f[0].pop("activations"), "no activations of feature 3"),
        (lambda f: f[0]["activations"][0].update(values=[1.0]), "1 values at activation 0 of feature 3"),
        (lambda f: f[0]["activations"][0].update(values=[float("nan")] * 3), "NaN is no number"),
        (lambda f: f[0]["activations"][0].update(values="x"), "a list of finite numbers"),
        (lambda f: f[0]["activations"][0].update(tokens=[1]), "a list of texts"),
        (lambda f: f[0]["activations"].append(5), "no object at activation 4 of feature 3"),
        (lambda f: f[0]["activations"][0]["values"].__setitem__(0, -2.0), "a negative activation of feature 3"),
        (lambda f: f[0]["activations"][0]["values"].__setitem__(0, 10**400), "finite numbers"),
        (lambda f: f[1].update(n_prompts_total=7), "counts 70 tokens at feature 7, and 1,000 elsewhere"),
        (lambda f: [a.update(tokens=["no such token!"] * len(a["tokens"])) for x in f for a in x["activations"]],
         "4 of the 4 contexts of .* of another model"),
        (lambda f: [x.update(activations=[]) for x in f], "no context with an activation"),
        (lambda f: [x.pop("n_prompts_total") for x in f], "give --tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name_and_leaves_nothing(tmp_path, weights, tiny, database, own, change, says):
    _, given = batch(tiny)
    change(given["features"])
    with pytest.raises(BadRequest, match=says):
        take(put(tmp_path / "np", given), "refused", weights, tiny, database, own)
    assert not rows(database, "refused")
    with database.connect() as connection:
        assert not connection.execute(text("SELECT 1 FROM sae WHERE slug = 'refused'")).all()
    assert not list(own.home.glob("saes/refused-*"))


@pytest.mark.parametrize("chunk", [5, 64, 1 << 20])
def test_a_file_is_cut_where_its_elements_end(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(reading, "CHUNK", chunk)
    element = {"t": ['a"\\', "}],{", "é\\\\", ""], "n": [[1.5], {}]}
    given = {"model_id": "{", "features": [element | {"i": i} for i in range(40)], "z": {"features": [1]}}
    for indent in (None, 1):
        path = tmp_path / "batch-0.json"
        path.write_text(json.dumps(given, indent=indent))
        read = Batch(path, "features")
        assert list(read.elements()) == given["features"]
        assert read.about == {**given, "features": []}


@pytest.mark.parametrize(
    "given",
    ["", "[]", "{", "}", '{"features": [1]}', '{"features": [{}', '{"features": {}}', '{"features": [{"a": NaN}]}',
     '{"features": [{"a": 1e999}]}', '{"features": [[]]}', '{"features": []]', '"', '{"features": [{}{}]}',
     '{"features": [{},]}', '{"features": [], "features": [{}]}', '{"features": [' + "[" * 5000,
     '{"features": [{"a": ' + "[" * 5000, '{"features": [{"a": ' + "1" * 5000 + "}]}", '{"features": [{"a": "\\'],
)  # fmt: skip
def test_what_is_no_such_json_is_refused_in_one_sentence(tmp_path, given):
    path = tmp_path / "batch-0.json"
    path.write_text(given)
    with pytest.raises(BadRequest) as caught:
        list(Batch(path, "features").elements())
    assert caught.value.message.startswith(str(path))
    assert "\n" not in caught.value.message


def test_a_bomb_a_long_line_and_a_cut_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "FREE", 1 << 16)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * (1 << 23)))
    with pytest.raises(BadRequest, match="unpacks to more than 300 times its size"):
        list(lines(path))
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-9])
    with pytest.raises(BadRequest, match="cannot be read"):
        list(lines(path))
    monkeypatch.setattr(reading, "LONGEST", 100)
    path = tmp_path / "x.jsonl"
    path.write_text("x" * 200)
    with pytest.raises(BadRequest, match="a line 1 of more than"):
        list(lines(path))


def test_files_outside_the_folder_are_none_of_it(tmp_path):
    put(tmp_path / "other", {"features": []}, "secret.json")
    folder = tmp_path / "np"
    folder.mkdir()
    (folder / "batch-0.json").symlink_to(tmp_path / "other" / "secret.json")
    with pytest.raises(BadRequest, match="neither SAEDashboard's"):
        found(folder)


def test_tokens_come_back_from_their_names_and_from_their_texts(tiny):
    strings = Strings(tiny.tokenizer)
    for words in ("The cat sat.", "Party 🎉🎉 naïve é", "a\n\n\tb", "שלום —“x”"):
        ids = tiny.encode(words)
        written = named(tiny, ids)
        assert strings.ids(written, "names") == ids
        texts = [tiny.vocabulary.text(i) for i in ids]
        assert strings.ids(texts, "texts") == ids
    accent = [tiny.vocabulary.text(i) for i in tiny.encode("éé ñ")]
    assert strings.way([accent] * 3) in ("texts", "names")
    assert strings.way([["The"], named(tiny, tiny.encode("é 🎉"))]) == "names"
    assert strings.way([["The"], [tiny.vocabulary.text(i) for i in tiny.encode("שלום 🎉")]]) == "texts"
    assert strings.ids(["no such token!"], "names") is None


def firing(client, slug, index):
    """What is shown of a feature's contexts in which it fires."""
    page = client.get(f"/saes/{slug}/features/{index}.json").json()
    examples = [
        (e["interval"], e["sign"], e["token_ids"], e["activations"], e["position"])
        for e in page["examples"]
        if e["interval"] not in ("random", "near")
    ]
    # Of contexts that are the same in everything, in several texts, a harvest may keep several, an import one.
    values = {}
    for interval, sign, ids, activations, position in sorted(examples, key=lambda e: e[3]):
        held = values.setdefault((interval, sign, tuple(ids), position), [])
        if not held or held[-1] != pytest.approx(activations, rel=1e-6):
            held.append(activations)
    return page["max"], page["density"], values


def test_what_is_exported_for_neuronpedia_comes_back_the_same(
    tmp_path, harvested, client, settings, engine, tiny, database, own
):
    _, _, folder = harvested
    told = export_neuronpedia(engine, settings.home, SLUG, tmp_path / "out", lambda done, total: None)
    source = tmp_path / "out" / "tiny" / f"0-{SLUG}"
    assert str(source) in told
    files = found(source)
    assert files.tool == "Neuronpedia"
    made = take(source, "returned", folder, tiny, database, own)
    assert (made.unread, made.silent, made.missing) == (0, 0, 0)
    with TestClient(create_app(own)) as other:
        for index in range(40):
            (most, density, here), (their_most, their_density, there) = (
                firing(client, SLUG, index), firing(other, "returned", index))  # fmt: skip
            assert (their_most, their_density) == pytest.approx((most, density), rel=1e-6)
            assert there.keys() == here.keys(), index
            for key, contexts in here.items():
                assert len(there[key]) == len(contexts), (index, key)
                for returned, sent in zip(there[key], contexts, strict=True):
                    assert returned == pytest.approx(sent, rel=1e-6)
    for name in ("release", "model", "sourceset", "source"):
        (line,) = (source / f"{name}.jsonl").read_text().splitlines()
        assert json.loads(line)["createdAt"]
    with pytest.raises(BadRequest, match="is not empty"):
        export_neuronpedia(engine, settings.home, SLUG, tmp_path / "out", lambda done, total: None)


def test_delphi_gets_every_activation_of_the_sample(tmp_path):
    codes = Codes(
        sequence=np.array([0, 1, 2]), begin=np.array([0, 3, 5, 8]), split=np.zeros(3, np.int8),
        document=np.zeros(3, np.int32), token_ids=np.arange(8, dtype=np.int32), counted=np.ones(8, bool),
        indptr=np.array([0, 2, 2, 3, 5, 5, 5, 6]), place=np.array([1, 6, 4, 0, 7, 2], np.int32),
        value=np.array([1.0, 2.0, 9.0, 3.0, 4.0, 5.0], np.float32),
    )  # fmt: skip
    made = delphi.write(tmp_path, codes, 7, "layers.0", {"model_name": "tiny"}, lambda done, total: None)
    assert (made.rows, made.context, made.shorter, made.activations) == (2, 3, 1, 5)
    seen = set()
    for file in sorted(made.folder.glob("*.safetensors")):
        first, last = map(int, file.stem.split("_"))
        held = load_file(file)
        assert held["tokens"].tolist() == [[0, 1, 2], [5, 6, 7]]
        assert held["activations"].dtype == np.float16
        for (row, place, latent), value in zip(held["locations"].tolist(), held["activations"].tolist(), strict=True):
            assert first <= first + latent <= last
            seen.add((row, place, first + latent, value))
    # latent 0 at places 1 and 6, 3 at 0 and 7, 6 at 2; what fires in the shorter sequence is left out
    assert seen == {(0, 1, 0, 1.0), (1, 1, 0, 2.0), (0, 0, 3, 3.0), (1, 2, 3, 4.0), (0, 2, 6, 5.0)}
    assert json.loads((made.folder / "config.json").read_text())["ctx_len"] == 3
    assert delphi.hook_name("model.layers.9:out") == "layers.9"
    assert delphi.hook_name("model.layers.9.mlp:out") == "model.layers.9.mlp"


def test_the_commands_import_show_and_refuse(tmp_path, weights, tiny, tiny_folder, database, own, command):
    _, given = batch(tiny)
    folder = put(tmp_path / "np", given)
    asked = ("import-dashboard", str(folder), "--sae", str(weights), "--model", str(tiny_folder), "--slug", "commanded")
    out, _, status = command(*asked)
    assert status == 0
    assert "4 contexts, 1 context left out, without an activation, 37 features that the files do not tell of" in out
    out, error, status = command(*asked)
    assert (out, status) == ("", 1)
    assert "imported already" in error
    out, error, status = command("explain", "commanded")
    assert status == 1
    assert "was imported from SAEDashboard" in error
    out, error, status = command("export", "commanded", "--delphi", str(tmp_path / "d"))
    assert "was imported from SAEDashboard" in error
    assert not (tmp_path / "d").exists()
    out, error, status = command("export", "commanded")
    assert "Give one of --static, --neuronpedia and --delphi" in error
    out, error, status = command("export", "commanded", "--neuronpedia", str(tmp_path / "n"))
    assert status == 0
    assert (tmp_path / "n" / "tiny" / "0-commanded" / "source.jsonl").is_file()
    (tmp_path / "g.json").write_text(json.dumps(GRAPH["small"]["value"]))
    out, _, status = command("graph", str(tmp_path / "g.json"))
    assert status == 0
    with TestClient(create_app(own)) as client:
        assert client.get(out.strip()).status_code == 200
    (tmp_path / "g.json").write_text("{}")
    out, error, status = command("graph", str(tmp_path / "g.json"))
    assert (status, error) == (1, "saescope: The graph's metadata is missing, or no object.\n")


def exported(folder, tiny, explanations):
    """One source of Neuronpedia's exports, its numbers as texts and without a top group, as older ones are."""
    ids = tiny.encode("The cat sat on the mat")
    tokens = [tiny.vocabulary.text(i) for i in ids]
    values = [0.0, 3.0, *[0.5] * (len(ids) - 2)]
    rows = {
        "features": [{"index": "5", "frac_nonzero": 0.125, "maxActApprox": 6.0}],
        "activations": [{"index": "5", "tokens": tokens, "values": values, "binMin": None},
                        {"index": "5", "tokens": tokens[1:], "values": values[1:], "binMin": 0.0, "binMax": 3.1}],
        "explanations": explanations,
    }  # fmt: skip
    for name, given in rows.items():
        (folder / name).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in given)
        (folder / name / "batch-0.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_an_export_of_neuronpedia_brings_its_explanations(tmp_path, weights, tiny, database, own):
    said = [
        {"index": "5", "layer": "0-x", "description": "fires on pets", "explanationModelName": "gpt", "typeName": "t"}
    ]
    folder = exported(tmp_path / "np", tiny, said)
    with pytest.raises(BadRequest, match="give --tokens"):
        take(folder, "explained", weights, tiny, database, own)
    made = take(folder, "explained", weights, tiny, database, own, tokens=800)
    assert (made.contexts, made.explanations, made.missing) == (2, 1, 39)
    with TestClient(create_app(own)) as client:
        page = client.get("/saes/explained/features/5.json").json()
    assert (page["max"], page["fired"], page["counted"]) == (6.0, 100, 800)
    assert [(e["text"], e["method"]) for e in page["explanations"]] == [("fires on pets", "imported")]
    assert [(e["interval"], e["activation"]) for e in page["examples"]] == [("top", 3.0), ("5", 3.0)]


def test_explanations_that_do_not_fit_leave_nothing(tmp_path, weights, tiny, database, own):
    folder = exported(tmp_path / "np", tiny, [{"index": "99", "layer": "0-x", "description": "too far"}])
    with pytest.raises(BadRequest, match="explains latent 99"):
        take(folder, "misexplained", weights, tiny, database, own, tokens=800)
    assert not rows(database, "misexplained")
