"""Explanations from and to Neuronpedia's JSON lines and delphi's folders."""

import gzip
import json

import pytest
from sqlalchemy import text

from app.errors import BadRequest
from app.explain.exchange import Told, read_told, write_folder, write_lines
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from tests.conftest import SLUG, database_beside


@pytest.fixture(scope="module")
def own(settings, harvested, tiny, sequences):
    from app.harvest.job import Job, run_job

    own, (_, parameters, folder) = database_beside(settings, "exchange"), harvested
    engine = sync_engine(database_url(own))
    migrate(engine)
    run_job(Job(SLUG, folder, "test text", 64, parameters), tiny, sequences, engine, own.home)
    engine.dispose()
    return own


def rows(own, query):
    engine = sync_engine(database_url(own))
    with engine.connect() as connection:
        found = connection.execute(text(query)).all()
    engine.dispose()
    return found


# As Neuronpedia's exports have them.
LINES = [
    {"id": "a", "modelId": "tiny", "layer": "0-res", "index": "3", "description": " cats <b>EXPLANATION: x",
     "typeName": "np", "explanationModelName": "gpt-4o-mini", "embedding": [0.1]},
    {"modelId": "tiny", "layer": "0-res", "index": 7, "description": "dogs"},
    {"modelId": "tiny", "layer": "0-res", "index": "7", "description": "hounds"},
]  # fmt: skip


def written(path, lines):
    whole = "\n".join(map(json.dumps, lines)) + "\n\n"
    path.write_bytes(gzip.compress(whole.encode()) if path.suffix == ".gz" else whole.encode())
    return path


def test_what_is_imported_is_there_without_scores_and_comes_out_again(own, tmp_path, command):
    given = written(tmp_path / "batch-0.jsonl.gz", LINES)
    out, err, status = command("explanations", SLUG, "--import", str(given))
    assert (status, err) == (0, "")
    assert out.endswith("3 explanations imported.\n")
    saved = rows(own, "SELECT latent, text, method, parameters ->> 'model' AS model FROM explanation ORDER BY id")
    assert [tuple(row) for row in saved] == [
        (3, "cats <b> x", "imported", "gpt-4o-mini"), (7, "dogs", "imported", None), (7, "hounds", "imported", None),
    ]  # fmt: skip
    assert rows(own, "SELECT count(*) FROM score")[0][0] == 0
    command("explanations", SLUG, "--import", str(given))
    assert rows(own, "SELECT count(*) FROM explanation")[0][0] == 3  # in the place of the first
    there = tmp_path / "out.jsonl"
    out, _, status = command("explanations", SLUG, "--export", str(there))
    assert (status, out.endswith(f"3 explanations are in {there}.\n")) == (0, True)
    lines = [json.loads(line) for line in there.read_text().splitlines()]
    assert [(line["index"], line["description"], line["layer"]) for line in lines] == [
        ("3", "cats <b> x", SLUG), ("7", "hounds", SLUG), ("7", "dogs", SLUG),
    ]  # fmt: skip
    folder = tmp_path / "delphi"
    assert command("explanations", SLUG, "--export", str(folder))[2] == 0
    assert read_told(folder, 40, None) == [Told(3, "cats <b> x", None, "delphi"), Told(7, "hounds", None, "delphi")]
    assert command("explanations", SLUG, "--import", str(folder))[2] == 0
    assert [row.text for row in rows(own, "SELECT text FROM explanation ORDER BY latent")] == ["cats <b> x", "hounds"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"index": 1, "description": "a"}\n{"index": 2}', "Line 2 of .* has no index and description"),
        ("a.jsonl", "{", "is no JSON at line 1"),
        ("a.jsonl", '{"index": -1, "description": "a"}', "explains latent -1"),
        ("a.jsonl", '{"index": 40, "description": "a"}', "explains latent 40; there are 0 to 39"),
        ("a.jsonl", "", "holds no explanations"),
        ("a.jsonl.gz", "plain", "cannot be read"),
        ("l_latent3.txt", "cats", "is no JSON"),
        ("l_latent3.txt", "[1]", "holds no text"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(BadRequest, match=said):
        read_told(tmp_path if name.endswith(".txt") else path, 40, None)


def test_of_several_layers_one_is_chosen(tmp_path):
    path = written(tmp_path / "a.jsonl", [{**LINES[1], "layer": "1-res"}, LINES[2]])
    with pytest.raises(BadRequest, match="holds explanations of 0-res, 1-res; choose one by --source"):
        read_told(path, 40, None)
    assert [one.text for one in read_told(path, 40, "1-res")] == ["dogs"]
    with pytest.raises(BadRequest, match="holds no explanations of 2-res"):
        read_told(path, 40, "2-res")
    write_folder(tmp_path / "f", "layers.1/mlp", [Told(1, "a", None, None), Told(1, "b", None, None)])
    (tmp_path / "f" / "explanations" / "x_latent.txt").write_text("not one of them")
    assert read_told(tmp_path / "f", 40, "layers.1--mlp") == [Told(1, "a", None, "delphi")]
    write_lines(tmp_path / "b.jsonl.gz", "m", "s", [Told(1, "ä", "m", "k")])
    assert read_told(tmp_path / "b.jsonl.gz", 40, None) == [Told(1, "ä", "m", "k")]


def test_neither_or_both_is_refused(command, tmp_path):
    for given in ((), ("--import", "a", "--export", "b")):
        _, err, status = command("explanations", SLUG, *given)
        assert (status, err) == (1, "saescope: Give either --import or --export.\n")
    _, err, status = command("explanations", SLUG, "--import", str(tmp_path / "gone"))
    assert (status, "cannot be read" in err) == (1, True)
    _, err, status = command("explanations", SLUG, "--export", str(tmp_path / "gone" / "x.jsonl"))
    assert (status, "cannot be written" in err) == (1, True)
