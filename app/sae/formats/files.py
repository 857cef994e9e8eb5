"""Reading files that somebody else made: nothing is unpickled, nothing outside the folder is opened, and every
refusal says which file, which tensor or key, what it is and what was wanted."""

import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from app.sae.base import SAEFormatError


@dataclass(frozen=True)
class Options:
    """What the caller knows better than the files. ``hook`` names where the SAE reads (and writes)."""

    subject: str | None = None
    hook: str | None = None
    k: int | None = None
    ignore_unknown: bool = False


@dataclass(frozen=True)
class Source:
    """An SAE's folder (or the folder of its single file) and the files asked for by name."""

    folder: Path
    file: Path | None = None

    @classmethod
    def at(cls, path: Path) -> "Source":
        """The source at ``path``, a folder or a file.

        Raises:
            SAEFormatError: there is nothing.
        """
        try:
            path = path.expanduser()
            if path.is_dir():
                return cls(path)
            if path.is_file():
                return cls(path.parent, path)
        except RuntimeError:
            raise SAEFormatError(f"{path} names a user there is not.") from None
        except OSError as error:  # a name too long, a folder that may not be entered
            raise SAEFormatError(f"{path} cannot be read: {error.strerror}.") from None
        raise SAEFormatError(f"No SAE folder at {path}.")

    def names(self) -> list[str]:
        """The files of the folder, by name; only the file itself where one was given, and JSON beside it."""
        found = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.glob("*") if p.is_file())
        inner = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.glob("*/*") if p.is_file())
        if self.file is not None:
            return [n for n in found if n == self.file.name or n.endswith(".json")]
        return found + inner

    def has(self, *names: str) -> bool:
        return all(name in self.names() for name in names)

    def first(self, suffix: str) -> str | None:
        """The only file with ``suffix`` at the top of the folder, None if there is none or more than one."""
        if self.file is not None:
            return self.file.name if self.file.name.endswith(suffix) else None
        found = [name for name in self.names() if "/" not in name and name.endswith(suffix)]
        return found[0] if len(found) == 1 else None

    def path(self, name: str) -> Path:
        """The file ``name``, which must lie inside the folder."""
        path = self.folder / name
        where = path.resolve()
        # The hub's cache keeps files in blobs/ and links to them from snapshots/COMMIT/.
        blob = where.parent.name == "blobs" and self.folder.resolve().is_relative_to(where.parent.parent)
        if not where.is_relative_to(self.folder.resolve()) and not blob:
            raise SAEFormatError(f"{name!r} in {self.folder} points outside the folder, to {where}; copy it in.")
        if not path.is_file():
            raise SAEFormatError(f"{self.folder} has no {name}.")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """The object in the JSON file ``name``."""
        path = self.path(name)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise SAEFormatError(f"{path} is not JSON: {str(error)[:200]}.") from None
        if not isinstance(value, dict):
            raise SAEFormatError(f"{path} holds a {type(value).__name__}; wanted an object.")
        return value

    def tensors(self, name: str) -> dict[str, Any]:
        """What is in a safetensors, npz or torch file: tensors by name, and plain values from torch files."""
        path = self.path(name)
        if name.endswith(".safetensors"):
            return _safetensors(path)
        return _npz(path) if name.endswith(".npz") else _torch(path)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise SAEFormatError(f"{path} is not a whole safetensors file: {error}.") from None


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise SAEFormatError(
                f"{path} holds Python objects, which could run code; arrays of numbers are read, nothing else."
            ) from None
        raise SAEFormatError(f"{path} is not a whole npz file: {error}.") from None
    except (OSError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise SAEFormatError(f"{path} is not a whole npz file: {error}.") from None


def _torch(path: Path) -> dict[str, Any]:
    try:
        value = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many types for files that are cut or hold code
        told = str(error)
        if "weights_only" in told or "Unsupported" in told or "global" in told.lower():
            raise SAEFormatError(
                f"{path} holds pickled Python objects, which could run code; save the state_dict alone "
                "(torch.save(model.state_dict(), ...)) or as safetensors."
            ) from None
        raise SAEFormatError(f"{path} is not a whole torch file: {told.splitlines()[0]}.") from None
    if not isinstance(value, dict):
        raise SAEFormatError(f"{path} holds a {type(value).__name__}; wanted a state_dict.")
    return value


@dataclass
class Keys:
    """A config whose keys are asked for by name; what nobody asked for is unknown and refused at the end."""

    values: dict[str, Any]
    where: str
    used: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any = None) -> Any:
        self.used.add(key)
        value = self.values.get(key, default)
        return default if value is None else value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1.

        Raises:
            SAEFormatError: the key is missing or something else.
        """
        value = self.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            told = "lacks" if value is None else f"says {key} {value!r}; wanted"
            rest = f"{key}, a whole number of at least 1" if value is None else "a whole number of at least 1"
            raise SAEFormatError(f"{self.where} {told} {rest}.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            told = "lacks " + key if value is None else f"says {key} {value!r}"
            raise SAEFormatError(f"{self.where} {told}; wanted a number.")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise SAEFormatError(f"{self.where} says {key} {value!r}; wanted true or false.")
        return value

    def choice(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        value, choices = self.get(key, default), list(choices)
        if value not in choices:
            wanted = ", ".join(map(repr, choices))
            raise SAEFormatError(f"{self.where} says {key} {value!r}; supported: {wanted}.")
        return str(value)

    def known(self, *keys: str) -> None:
        """Keys that do not change what is computed."""
        self.used.update(keys)

    def finish(self, options: Options) -> None:
        left = sorted(set(self.values) - self.used)
        if left and not options.ignore_unknown:
            raise SAEFormatError(
                f"{self.where} has keys that are not known here: {', '.join(left)}; they may change what is "
                "computed. Leave them out with --ignore-unknown if they do not."
            )


def active(keys: Keys, options: Options, name: str, most: int, default: int | None = None) -> int:
    """How many of ``most`` latents are active at a position: what the files say under ``name``; where they do not, what
    the caller says, else ``default``.

    Raises:
        SAEFormatError: files and caller contradict each other, nobody says it, or there are fewer latents.
    """
    said = keys.get(name) is not None
    if not said and options.k is None and default is None:
        raise SAEFormatError(f"{keys.where} lacks {name}; give --k.")
    k = keys.whole(name) if said else options.k or keys.whole(name, default)
    if options.k not in (None, k):
        raise SAEFormatError(f"--k is {options.k}, but {keys.where} says {name} {k}; leave --k out.")
    if k > most:
        raise SAEFormatError(f"{f'{keys.where} says {name}' if said else '--k is'} {k}, more than the {most} latents.")
    return k


class Tensors:
    """The tensors of a file, taken by name; what nobody took is unknown and refused at the end."""

    def __init__(self, values: dict[str, Any], where: Path | str) -> None:
        self.values, self.where = values, str(where)
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of ``name``, which has ``ndim`` dimensions."""
        tensor = self._named(name)
        if tensor.ndim != ndim:
            raise SAEFormatError(
                f"Tensor {name!r} in {self.where} has shape {list(tensor.shape)}; wanted {ndim} dimensions."
            )
        return tuple(tensor.shape)

    def take(self, name: str, *shape: int) -> Tensor:
        """``name`` as fp32, contiguous.

        Raises:
            SAEFormatError: it is missing, has another shape (said to be transposed where it is), is not of
                numbers, or holds values that are not finite (how many of which kind).
        """
        tensor = self._named(name)
        self.used.add(name)
        if tuple(tensor.shape) != shape:
            hint = "; it is transposed" if tensor.ndim == 2 and tuple(tensor.shape[::-1]) == shape else ""
            raise SAEFormatError(
                f"Tensor {name!r} in {self.where} has shape {list(tensor.shape)}; wanted {list(shape)}{hint}."
            )
        if not tensor.is_floating_point() and tensor.dtype not in (torch.int32, torch.int64):
            raise SAEFormatError(f"Tensor {name!r} in {self.where} is of {tensor.dtype}; wanted numbers.")
        made = tensor.float().contiguous()
        if not made.isfinite().all():
            nan, inf = int(made.isnan().sum()), int(made.isinf().sum())
            told = " and ".join(f"{count:,} {kind}" for count, kind in ((nan, "NaN"), (inf, "infinite")) if count)
            raise SAEFormatError(
                f"Tensor {name!r} in {self.where} holds {told} values of {made.numel():,}; the file is damaged."
            )
        return made

    def maybe(self, name: str, *shape: int) -> Tensor | None:
        return self.take(name, *shape) if name in self.values else None

    def scalar(self, name: str) -> float:
        """A tensor of one element, or a plain number."""
        value = self.values.get(name)
        self.used.add(name)
        if isinstance(value, bool) or not isinstance(value, Tensor | int | float):
            raise SAEFormatError(f"{self.where} has no number {name!r}; it has: {self._names()}.")
        if isinstance(value, Tensor) and value.numel() != 1:
            raise SAEFormatError(f"Tensor {name!r} in {self.where} has shape {list(value.shape)}; wanted one number.")
        return float(value)

    def known(self, *names: str) -> None:
        self.used.update(names)

    def finish(self, options: Options) -> None:
        left = sorted(set(self.values) - self.used)
        if left and not options.ignore_unknown:
            raise SAEFormatError(
                f"{self.where} has tensors that are not known here: {', '.join(left[:12])}; leave them out with "
                "--ignore-unknown if they do not matter."
            )

    def _named(self, name: str) -> Tensor:
        value = self.values.get(name)
        if not isinstance(value, Tensor):
            raise SAEFormatError(f"{self.where} has no tensor {name!r}; it has: {self._names()}.")
        return value

    def _names(self) -> str:
        return ", ".join(sorted(map(str, self.values))[:24]) or "none"
