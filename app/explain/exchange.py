"""Explanations in other tools' files: Neuronpedia's JSON lines and delphi's folders."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from app.bounded_json import lines
from app.errors import BadRequest
from app.explain.fence import tidy

_LATENT = re.compile(r"(.+)_latent(\d+)\.txt")
MOST = 1 << 20  # bytes of a line or file


class Told(NamedTuple):
    """An explanation from a file; model and kind as it names them."""

    latent: int
    text: str
    model: str | None
    kind: str | None


def read_told(path: Path, n_latents: int, source: str | None) -> list[Told]:
    """What ``path`` says: a file of JSON lines, gzipped or not, or a folder. ``source``: the layer or hook point to
    take, where it holds several.

    Raises:
        BadRequest: something in it does not fit; names it.
    """
    try:
        found = list(_folder(path) if path.is_dir() else _lines(path))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise BadRequest(f"{path} cannot be read: {error}.", path=str(path)) from None
    sources = sorted({one for one, _ in found})
    if source is None and len(sources) > 1:
        raise BadRequest(
            f"{path} holds explanations of {', '.join(sources[:10])}; choose one by --source.", path=str(path)
        )
    if source is not None and source not in sources:
        raise BadRequest(f"{path} holds no explanations of {source}, but of {', '.join(sources[:10])}.", path=str(path))
    told = [one for where, one in found if source is None or where == source]
    if not told:
        raise BadRequest(f"{path} holds no explanations.", path=str(path))
    for one in told:
        if one.latent >= n_latents:
            raise BadRequest(f"{path} explains latent {one.latent}; there are 0 to {n_latents - 1}.", path=str(path))
    return told


def _lines(path: Path) -> Iterator[tuple[str, Told]]:
    for number, given in lines(path):
        try:
            latent, text = int(given["index"]), tidy(given["description"])
            layer = str(given.get("layer", ""))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise BadRequest(f"Line {number} of {path} has no index and description.", path=str(path)) from None
        if latent < 0:
            raise BadRequest(f"Line {number} of {path} explains latent {latent}.", path=str(path))
        if text:
            yield layer, Told(latent, text, _name(given.get("explanationModelName")), _name(given.get("typeName")))


def _folder(path: Path) -> Iterator[tuple[str, Told]]:
    inner = path / "explanations"
    for file in sorted((inner if inner.is_dir() else path).glob("*_latent*.txt")):
        named = _LATENT.fullmatch(file.name)
        if named is None:
            continue
        try:
            given = json.loads(file.read_bytes()[:MOST])
        except ValueError:
            raise BadRequest(f"{file} is no JSON.", path=str(file)) from None
        if not isinstance(given, str):
            raise BadRequest(f"{file} holds no text.", path=str(file))
        if text := tidy(given):
            yield named[1], Told(int(named[2]), text, None, "delphi")


def _name(given: Any) -> str | None:
    return tidy(given) if isinstance(given, str) and given else None


def write_lines(path: Path, subject: str, slug: str, told: Iterable[Told]) -> int:
    """Neuronpedia's form; returns how many there were."""
    partial, count = path.with_name(f".{path.name}.partial"), 0
    with gzip.open(partial, "wt") if path.suffix == ".gz" else partial.open("w") as file:
        for one in told:
            line = {
                "modelId": subject, "layer": slug, "index": str(one.latent), "description": one.text,
                "explanationModelName": one.model, "typeName": one.kind,
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count


def write_folder(path: Path, hook: str, told: Iterable[Told]) -> int:
    """delphi's form, which has one explanation a latent: the first told counts."""
    (path / "explanations").mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    for one in told:
        if one.latent not in seen:
            seen.add(one.latent)
            name = f"{hook.replace('/', '--')}_latent{one.latent}.txt"
            (path / "explanations" / name).write_text(json.dumps(one.text, ensure_ascii=False))
    return len(seen)
