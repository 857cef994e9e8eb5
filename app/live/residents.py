"""Subjects and SAEs in memory, within a budget: the least recently used make room."""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from app.disk import sha256_of
from app.errors import InvalidSAE, SubjectUnavailable, TooLarge
from app.live.forward import Probe
from app.live.prompt import Target
from app.sae.base import SAE
from app.subject.identity import fingerprint
from app.subject.load import Subject, choose_device, load_subject
from app.subject.prepacked import prepack, prepacked_bytes, unpack

SHARE = 0.6  # of the device's memory, where no budget is set
ARRANGED = 4  # a subject that takes no more than one such part of a CPU's budget has its weights prepacked as well
_GB = 1e9


class NoRoom(Exception):
    """There is none while others are in use; there may be later."""


class Loaded(NamedTuple):
    """What a request runs on. It stays on the device until ``Residents.release``."""

    subject: Subject
    probes: list[Probe]
    keys: list[object]


class _Held(NamedTuple):
    value: Any
    nbytes: int


class Residents:
    """``lease`` loads what is not there. What does not fit the device's budget any more is kept on the host where the
    device is a GPU and ``host_budget`` allows, else forgotten; what is leased stays.

    budget, host_budget: bytes; None is SHARE of what there is. hashes: the file that
    app.subject.identity.fingerprint remembers in.
    """

    def __init__(
        self,
        read_sae: Callable[[Path], SAE],
        *,
        dtype: str = "auto",
        device: str = "auto",
        budget: int | None = None,
        host_budget: int | None = None,
        hashes: Path | None = None,
    ) -> None:
        self._read_sae, self._dtype, self._wanted = read_sae, dtype, device
        self._budget, self._host_budget, self._hashes = budget, host_budget, hashes
        self._device: torch.device | None = None
        self._held: OrderedDict[object, _Held] = OrderedDict()
        self._host: OrderedDict[object, _Held] = OrderedDict()
        self._uses: Counter[object] = Counter()
        self._probes: dict[tuple[tuple[str, Path, str | None], str], Probe] = {}
        self.loads = 0

    def lease(self, targets: Sequence[Target], *, saes: bool = True) -> Loaded:
        """The subject of ``targets`` (they share one) and, with ``saes``, an SAE for each.

        Raises:
            SubjectUnavailable, InvalidSAE: files are gone or broken.
            TooLarge: together they are larger than the budget.
            NoRoom: what is in use leaves too little.
        """
        keys: list[object] = []
        try:
            subject = self._subject(targets[0])
            self._use(keys, _subject_key(targets[0]))
            probes = []
            for target in targets if saes else ():
                probes.append(self._probe(target, subject))
                self._use(keys, _sae_key(target))
        except BaseException:
            self._release(keys)
            raise
        return Loaded(subject, probes, keys)

    def release(self, loaded: Loaded) -> None:
        self._release(loaded.keys)

    def _use(self, keys: list[object], key: object) -> None:
        keys.append(key)
        self._uses[key] += 1

    def _release(self, keys: list[object]) -> None:
        self._uses.subtract(keys)
        self._uses = +self._uses

    def _subject(self, target: Target) -> Subject:
        def load() -> Subject:
            subject = load_subject(target.subject_path, target.subject, self._dtype, self._wanted)
            if target.subject_sha256 not in (None, fingerprint(subject, self._hashes)):
                raise SubjectUnavailable(
                    f"The model at {target.subject_path} is no longer the one that {target.subject} was harvested "
                    "from; put that one back, or harvest its SAEs again.",
                    path=str(target.subject_path),
                )
            return subject

        key, loads = _subject_key(target), self.loads
        found: Subject = self._get(key, load, target.subject_path, target.subject)
        if self.loads > loads:
            self._arrange(key, found, target.subject)
        return found

    def _arrange(self, key: object, subject: Subject, name: str) -> None:
        """Prepack the weights of a subject that takes a small part of a CPU's budget, where those in use leave room."""
        if subject.device.type != "cpu" or ARRANGED * size_of(subject) > self._limit():
            return
        prepack(subject.model)
        self._held[key] = _Held(subject, size_of(subject))
        self._uses[key] += 1
        try:
            self._make_room(0, name)
        finally:
            self._release([key])

    def _probe(self, target: Target, subject: Subject) -> Probe:
        def load() -> SAE:
            sae = self._read_sae(target.sae_path)
            if target.sae_sha256 not in (None, sha256_of(target.sae_path)):
                raise InvalidSAE(
                    f"The SAE at {target.sae_path} is no longer the one that was harvested; put its files back, or "
                    "harvest it again.",
                    path=str(target.sae_path),
                )
            return sae

        sae: SAE = self._get(_sae_key(target), load, target.sae_path, target.sae_path.name)
        key = (_subject_key(target), target.revision)
        known = self._probes.get(key)
        if known is None or known.sae is not sae:
            known = self._probes[key] = Probe.of(sae, subject)
        return known

    @property
    def nbytes(self) -> int:
        """What lies on the device."""
        return sum(held.nbytes for held in self._held.values())

    def forget(self) -> None:
        """Everything that is not in use, after memory ran out all the same."""
        while self._drop():
            pass

    def _get(self, key: object, load: Callable[[], Any], path: Path, name: str) -> Any:
        if (held := self._held.get(key)) is not None:
            self._held.move_to_end(key)
            return held.value
        device = self._where()
        if (parked := self._host.pop(key, None)) is not None:
            self._make_room(parked.nbytes, name)
            held = _Held(_moved(parked.value, device), parked.nbytes)
        else:
            self._make_room(_size_on_disk(path), name)
            value = _moved(load(), device)
            self.loads += 1
            held = _Held(value, size_of(value))
            self._make_room(held.nbytes, name)
        self._held[key] = held
        return held.value

    def _make_room(self, nbytes: int, name: str) -> None:
        """
        Raises:
            TooLarge: ``nbytes`` is more than the whole budget.
            NoRoom: it is more than what is not in use.
        """
        budget = self._limit()
        if nbytes > budget:
            raise TooLarge(
                f"{name} takes {nbytes / _GB:.1f} GB and the engine may use {budget / _GB:.1f}; raise "
                "SAESCOPE_ENGINE_GB.",
                gigabytes=round(nbytes / _GB, 2),
                limit=round(budget / _GB, 2),
            )
        while self.nbytes + nbytes > budget:
            if not (self._drop() or self._unpack()):
                raise NoRoom(
                    f"The subject and the SAEs asked for take more than the {budget / _GB:.1f} GB the engine may use; "
                    "ask for fewer SAEs at once, or raise SAESCOPE_ENGINE_GB."
                )

    def _unpack(self) -> bool:
        """Give up one subject's prepacked weights, which it can do without; whether there was such a subject."""
        for key, held in self._held.items():
            if isinstance(held.value, Subject) and unpack(held.value.model):
                self._held[key] = _Held(held.value, size_of(held.value))
                return True
        return False

    def _drop(self) -> bool:
        """Take what was used longest ago, and is not in use, off the device; whether there was such a thing."""
        key = next((key for key in self._held if not self._uses[key]), None)
        if key is None:
            return False
        held = self._held.pop(key)
        self._probes = {
            names: probe for names, probe in self._probes.items() if key not in (names[0], ("sae", names[1]))
        }
        if self._where().type == "cpu":
            return True
        self._host[key] = _Held(_moved(held.value, torch.device("cpu")), held.nbytes)
        limit = self._host_budget if self._host_budget is not None else int(SHARE * _host_memory())
        while sum(parked.nbytes for parked in self._host.values()) > limit:
            self._host.popitem(last=False)
        torch.cuda.empty_cache()
        return True

    def _where(self) -> torch.device:
        if self._device is None:
            self._device = choose_device(self._wanted)
        return self._device

    def _limit(self) -> int:
        if self._budget is None:
            device = self._where()
            whole = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else _host_memory()
            self._budget = int(SHARE * whole)
        return self._budget


def _subject_key(target: Target) -> tuple[str, Path, str | None]:
    return ("subject", *target.model)


def _sae_key(target: Target) -> tuple[str, str]:
    return ("sae", target.revision)


def size_of(value: Any) -> int:
    """Bytes of all tensors of a subject or an SAE, each storage once, and of weights that are prepacked."""
    storages: dict[int, int] = {}
    prepacked = 0

    def add(thing: Any) -> None:
        nonlocal prepacked
        if isinstance(thing, Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, torch.nn.Module):
            for tensor in (*thing.parameters(), *thing.buffers()):
                add(tensor)
            prepacked += prepacked_bytes(thing)
        elif is_dataclass(thing) and not isinstance(thing, type):
            for entry in fields(thing):
                add(getattr(thing, entry.name))
        elif isinstance(thing, list | tuple):
            for item in thing:
                add(item)

    add(value)
    return prepacked + sum(storages.values())


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Subject):
        return value if value.device == device else replace(value, model=value.model.to(device), device=device)
    return value.to(device)


def _size_on_disk(path: Path) -> int:
    """The weights' files, from which what they take in memory is guessed before they are read."""
    try:
        return sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    except OSError:
        return 0


def _host_memory() -> int:
    """Bytes this process may use: the machine's, or its control group's if that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return whole
