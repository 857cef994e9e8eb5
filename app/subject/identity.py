"""Which model a subject is, whatever its folder is called: a hash of all that decides what it computes and shows."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from app.errors import SubjectUnavailable
from app.subject.load import Subject, load_tokenizer, special_ids
from app.subject.tokens import Vocabulary

_ELSEWHERE = ("_name_or_path", "transformers_version")  # keys of config.json that say where it comes from


def fingerprint(subject: Subject, known: Path | None = None) -> str:
    """SHA-256 over config and weights in the subject's folder, the bytes of its tokens, and the tokens that do not
    count. Not the dtype, in which the same weights may be loaded.

    ``known`` is a file that remembers the hashes of weight files; one is read again once its size, its inode or the
    times of its last change differ from what is written there.
    """
    return _fingerprint(subject.path, subject.vocabulary, subject.special_ids, known)


def lies_at(path: Path, sha256: str, known: Path | None = None) -> bool:
    """Whether the folder ``path`` holds the subject of that fingerprint."""
    try:
        tokenizer = load_tokenizer(path)
        return _fingerprint(path, Vocabulary.of(tokenizer), special_ids(tokenizer), known) == sha256
    except (OSError, ValueError, KeyError, SubjectUnavailable):
        return False


def _fingerprint(folder: Path, vocabulary: Vocabulary, special: list[int], known: Path | None) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    told: dict[str, Any] = {
        "config": {key: value for key, value in config.items() if key not in _ELSEWHERE},
        "weights": _hashes(weight_files(folder), known),
        "special": special,
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for token in vocabulary.token_bytes:
        digest.update(len(token).to_bytes(4, "little") + token)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files transformers takes the weights from, in its order of preference."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return sorted({folder / shard for shard in shards})
    return sorted(folder.glob("*.safetensors"))


def changed(folder: Path, known: Path) -> bool:
    """Whether a weight file in ``folder`` differs, in size, inode or times, from what ``known`` remembers of it. Of a
    file it remembers nothing of there is nothing to say."""
    entries = _read(known)
    remembered = [(file, entries.get(str(file.resolve()))) for file in weight_files(folder)]
    return any(entry is not None and entry["state"] != _state(file) for file, entry in remembered)


def _state(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _hashes(files: list[Path], known: Path | None) -> list[str]:
    """The SHA-256 of each file."""
    entries = _read(known)
    before, out = json.dumps(entries), []
    for file in files:
        state = _state(file)
        entry = entries.get(str(file.resolve()))
        if entry is None or entry["state"] != state:
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            entry = entries[str(file.resolve())] = {"state": state, "sha256": sha256}
        out.append(entry["sha256"])
    if known is not None and json.dumps(entries) != before:
        _write(known, {path: entry for path, entry in entries.items() if Path(path).is_file()})
    return out


def _read(known: Path | None) -> dict[str, dict[str, Any]]:
    """What ``known`` holds; a file that is damaged holds nothing."""
    try:
        entries = json.loads(known.read_text()) if known is not None else {}
    except (OSError, ValueError):
        return {}
    whole = isinstance(entries, dict) and all(
        isinstance(entry, dict) and entry.keys() == {"state", "sha256"} for entry in entries.values()
    )
    return entries if whole else {}


def _write(known: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Beside and renamed. Of two that write at once one is lost, which costs a file being read again."""
    partial = known.with_name(f"{known.name}.{os.getpid()}")
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entries, indent=1))
        partial.rename(known)
    except OSError:  # a full disk, say: it is only a memory
        partial.unlink(missing_ok=True)
