"""Damaged and made-up files for everything that reads files: each must be read or refused in one sentence.

A file that is fine is damaged in one of a few ways: bytes changed, cut, doubled or put in; a JSON value replaced by
another of any type; a gzipped or zipped file unpacked no further. What runs code would leave a mark beside the files.
"""

import gzip
import io
import json
import random
import shutil
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from app.backup.archive import opened
from app.backup.manifest import MANIFEST
from app.corpus.sources import documents
from app.errors import SaescopeError
from app.explain.exchange import read_told
from app.interop import graphs
from app.interop.told import found
from app.sae.base import SAEFormatError
from app.sae.formats import read as read_sae
from app.sae.formats.files import Options
from app.web.api_examples import GRAPH, LIST
from app.web.list_files import read as read_list

ORACLES = Path(__file__).parents[1] / "tests" / "data" / "oracles"
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, float("nan"), float("inf"), "", "x", "\0", "\ud800", "../../etc/passwd",
    "é" * 300, [], {}, [[]], [None], {"a": {}}, [1] * 1000,
)  # fmt: skip


class Reader(NamedTuple):
    """make: puts files that are fine into a folder; read: reads them, and says nothing."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]


@dataclass
class Told:
    """How many were read or refused, by reader, and what crashed."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def readers() -> list[Reader]:
    cases = sorted(path for path in ORACLES.glob("*/*") if path.is_dir())
    saes = [Reader(f"sae {path.parent.name}/{path.name}", _copied(path), _sae) for path in cases]
    return [
        *saes,
        Reader("corpus jsonl", _jsonl, lambda folder: list(documents(f"jsonl:{folder / 'a.jsonl'}", folder))),
        Reader("corpus text", _text, lambda folder: list(documents(f"text:{folder / 'a.txt'}", folder))),
        Reader("corpus parquet", _parquet, lambda folder: list(documents(f"parquet:{folder / 'a.parquet'}", folder))),
        Reader("list json", _list_json, lambda folder: read_list((folder / "a.json").read_bytes())),
        Reader("list csv", _list_csv, lambda folder: read_list((folder / "a.csv").read_bytes(), "A title")),
        Reader("explanations", _explanations, lambda folder: read_told(folder / "a.jsonl", 40, None)),
        Reader("explanations gz", _explanations_gz, lambda folder: read_told(folder / "a.jsonl.gz", 40, None)),
        Reader("graph", _graph, lambda folder: graphs.read((folder / "a.json").read_bytes())),
        Reader("dashboards batch", _batch, _dashboards),
        Reader("dashboards export", _export, _dashboards),
        Reader("backup", _backup, _opened),
    ]


def fuzz(seconds: float, first: int = 0, *, least: int = 0, only: str = "") -> Told:
    """Every reader in turn, with another damage each time, for so long, and at least ``least`` times each."""
    told, drawn = Told(), random.Random(first)
    chosen = [reader for reader in readers() if only in reader.name]
    end, rounds = time.monotonic() + seconds, 0
    while rounds < least or time.monotonic() < end:
        for reader in chosen:
            one(reader, drawn, told)
        rounds += 1
    return told


def one(reader: Reader, drawn: random.Random, told: Told) -> None:
    """One damaged file for one reader."""
    with tempfile.TemporaryDirectory(prefix="saescope-fuzz-") as made:
        folder = Path(made) / "in"
        folder.mkdir()
        reader.make(folder)
        file = drawn.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        file.write_bytes(data := damaged(file.read_bytes(), drawn))
        before = {path.name for path in Path(made).iterdir()}
        try:
            reader.read(folder)
            told.read[reader.name] += 1
        except (SaescopeError, SAEFormatError) as error:
            told.refused[reader.name] += 1
            if "\n" in str(error):
                told.faults.append(f"{reader.name}: refused in several lines: {error}")
        except Exception as error:
            told.faults.append(f"{reader.name}, {file.name}: {type(error).__name__}: {error}: {data[:300]!r}")
        if {path.name for path in Path(made).iterdir()} != before:
            told.faults.append(f"{reader.name}: a file appeared beside those it was given: {data[:300]!r}")


def damaged(data: bytes, drawn: random.Random) -> bytes:
    packed = data[:2] == b"\x1f\x8b"
    if packed and drawn.random() < 0.5:
        return gzip.compress(damaged(gzip.decompress(data), drawn))
    if drawn.random() < 0.6 and (made := _revalued(data, drawn)) is not None:
        return made
    at = drawn.randrange(len(data) + 1) if data else 0
    while data[at : at + 1] == b"\0" and drawn.random() < 0.9:  # of padding there is much
        at = drawn.randrange(len(data))
    match drawn.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes(drawn.randrange(256) for _ in range(drawn.randrange(1, 9))) + data[at:]
        case 2:
            return data[:at] + bytes([drawn.randrange(256)]) + data[at + 1 :]
        case 3:
            return data[:at] + data[at + drawn.randrange(1, 64) :]
        case 4:
            return data[:at] + data[drawn.randrange(len(data) + 1) :][:200] + data[at:]
        case _:
            head = bytearray(data)
            for _ in range(drawn.randrange(1, 9)):
                if head:
                    head[min(len(head) - 1, drawn.randrange(64))] = drawn.randrange(256)
            return bytes(head)


def _revalued(data: bytes, drawn: random.Random) -> bytes | None:
    """The JSON, or one of the lines of JSON, with a value replaced, left out or doubled; None where it is none."""
    lines = data.split(b"\n")
    whole = len(lines) < 3 or not lines[0].rstrip().endswith(b"}")
    place = 0 if whole else drawn.randrange(len(lines))
    try:
        value = json.loads(data if whole else lines[place])
    except ValueError:
        return None
    value = _changed(value, drawn)
    lines[place] = json.dumps(value).encode()
    return lines[0] if whole else b"\n".join(lines)


def _changed(value: Any, drawn: random.Random) -> Any:
    if isinstance(value, dict) and value and drawn.random() < 0.8:
        name = drawn.choice(sorted(value))
        if drawn.random() < 0.15:
            return {key: inner for key, inner in value.items() if key != name}
        return value | {name: _changed(value[name], drawn)}
    if isinstance(value, list) and value and drawn.random() < 0.8:
        at = drawn.randrange(len(value))
        if drawn.random() < 0.15:
            return [*value[:at], *value[at:], value[at]]
        return [*value[:at], _changed(value[at], drawn), *value[at + 1 :]]
    return drawn.choice(VALUES)


def _copied(case: Path) -> Callable[[Path], None]:
    files = [path for path in case.rglob("*") if path.suffix in (".json", ".pt", ".safetensors")]
    path = min((file.parent for file in files), key=lambda folder: len(folder.parts))

    def make(folder: Path) -> None:
        shutil.copytree(path, folder / path.name)

    return make


def _sae(folder: Path) -> None:
    (inside,) = folder.iterdir()
    read_sae(inside, Options(subject="tiny", hook="model.layers.0:out"))


def _jsonl(folder: Path) -> None:
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"Text {i}", "title": f"t{i}"}) + "\n" for i in range(5))
    )


def _text(folder: Path) -> None:
    (folder / "a.txt").write_text("A text of some words. é 🎉\n" * 5)


def _parquet(folder: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    pq.write_table(pa.table({"text": ["one text", "another"], "title": ["a", "b"]}), folder / "a.parquet")


def _list_json(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps(next(iter(LIST.values()))["value"]))


def _list_csv(folder: Path) -> None:
    (folder / "a.csv").write_text("kind,sae,index,comment,tags\r\nfeature,an-sae,3,=1+1,a; b\r\nrun,,,,\r\n")


def _told() -> Iterator[str]:
    for index in range(4):
        yield (
            json.dumps({"modelId": "m", "layer": "9-x", "index": str(index), "description": f"fires on {index}"}) + "\n"
        )


def _explanations(folder: Path) -> None:
    (folder / "a.jsonl").write_text("".join(_told()))


def _explanations_gz(folder: Path) -> None:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("".join(_told()).encode()))


def _graph(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps(GRAPH["small"]["value"]))


def _activation(index: int, names: tuple[str, str, str]) -> dict[str, Any]:
    low, high, share = names
    return {"tokens": ["a", " b", "é"], "values": [0.0, 1.5 + index, 0.25], low: -1, high: 2.0, share: -1}


def _batch(folder: Path) -> None:
    features = [
        {"feature_index": i, "frac_nonzero": 0.25, "n_prompts_total": 10, "n_tokens_in_prompt": 10, "dataset": "x",
         "activations": [_activation(i, ("bin_min", "bin_max", "bin_contains"))]} for i in range(3)
    ]  # fmt: skip
    (folder / "batch-0.json").write_text(json.dumps({"model_id": "m", "layer": 0, "features": features}))


def _export(folder: Path) -> None:
    for name, rows in (
        ("features", [{"index": str(i), "frac_nonzero": 0.5, "maxActApprox": 2.0} for i in range(3)]),
        ("activations", [{"index": i, **_activation(i, ("binMin", "binMax", "binContains"))} for i in range(3)]),
    ):
        (folder / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "batch-0.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "source.jsonl").write_text(json.dumps({"num_prompts": 10, "num_tokens_in_prompt": 10, "dataset": "x"}))


def _dashboards(folder: Path) -> None:
    files = found(folder)
    for _ in files.features():
        pass
    for _ in files.contexts():
        pass


def _backup(folder: Path) -> None:
    import hashlib

    held = {"home/saes/a/cfg.json": b"{}", "database.dump": b"PGDMP" * 20}
    entries = [{"name": n, "size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in held.items()]
    manifest = {
        "format": 1, "saescope": "0.1.0", "made": "2026-11-21T00:00:00Z", "schema_revision": "0017", "postgres": "18.4",
        "database_bytes": 100, "left_out": [], "entries": entries,
    }  # fmt: skip
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in (*held.items(), (MANIFEST, json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _opened(folder: Path) -> None:
    with opened(folder / "a.tar") as archive:
        archive.verify()
        archive.extract(folder / "out")
