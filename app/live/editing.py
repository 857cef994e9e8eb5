"""The subject running with latents edited."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.errors import BadRequest, EditUnsupported, InvalidEdit
from app.live.edit import Edit
from app.live.edits import Added, Projected, applied, changes, check, check_writes
from app.live.places import Places
from app.sae.base import SAE
from app.sae.unit_rows import decoder_row
from app.subject.hook_names import hook_point
from app.subject.hooks import HookPoint, read_activations, tap
from app.subject.stream import rewrite

_reading: ContextVar[bool] = ContextVar("reading", default=False)  # while set, no editing does anything


class Editing:
    """``with Editing(...): model(...)`` runs the subject edited; outside of the ``with`` it is the subject it was. It
    may be entered again and again, for the forwards of one text read on from a cache.

    Edits of one SAE compose in their order, SAEs at one hook point in the order in which edits first name them, and
    those at several in the order of the forward pass: each SAE encodes what the ones before it left. An SAE that reads
    several places may write one before it has read all (crosscoders, CLTs). It is therefore read beforehand, in a
    forward of its own that ends at its last read, on the unedited subject and the same text; what follows from that is
    added at each place it writes. So a crosscoder on the residual stream is added to what its earlier writes have
    moved there already.
    """

    def __init__(
        self,
        model: nn.Module,
        saes: Sequence[SAE],
        edits: Sequence[Edit],
        *,
        special_ids: Sequence[int] = (),
        generated_from: int | Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        """``rows``: the rows of the batch that are edited, all if None. ``generated_from``: the length of the prompt,
        or of each row's; with None nothing counts as generated.

        Raises:
            InvalidEdit, LatentOutOfRange, EditUnsupported, SubjectUnavailable: see ``check`` and ``check_writes``.
        """
        check(edits, saes)
        self._model, self._rows = model, None if rows is None else sorted(set(rows))
        self._special = torch.tensor(sorted(special_ids), dtype=torch.int64)
        self._from = generated_from
        self._courses = [
            _Course(model, saes[number], [edit for edit in edits if edit.sae == number])
            for number in dict.fromkeys(edit.sae for edit in edits)
        ]
        self._handles: list[RemovableHandle] = []
        self._arguments = list(inspect.signature(model.forward).parameters)
        self._cache: Any = None  # of the unedited subject, for what is read ahead

    def __enter__(self) -> "Editing":
        try:
            self._handles.append(self._model.register_forward_pre_hook(self._begin, with_kwargs=True))
            for course in self._courses:
                self._handles += course.install()
            for course in self._courses:  # a norm's unit is of its input as edited, so these come last
                self._handles += course.install_units()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        for course in self._courses:
            course.forget()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each forward: where each edit applies, and what has to be read ahead."""
        if _reading.get():
            return
        asked = {**dict(zip(self._arguments, args, strict=False)), **kwargs}
        places = Places.of(asked, self._special)
        for course in self._courses:
            course.begin([self._where(edit, places) for edit in course.edits])
        ahead = [course for course in self._courses if course.ahead]
        if ahead:
            found = self._read_ahead(asked, list(dict.fromkeys(p for course in ahead for p in course.reads)))
            for course in ahead:
                for point in course.reads:
                    course.read(point, found[point], self._rows)

    def _where(self, edit: Edit, places: Places) -> Tensor:
        """[rows, length] bool."""
        device = places.position.device
        where = places.real
        if self._rows is not None:
            rows = torch.tensor(self._rows, dtype=torch.int64, device=device)
            where = where & torch.isin(torch.arange(len(where), device=device), rows)[:, None]
        if edit.encodes or isinstance(edit.positions, str):
            where = where & ~places.special
        if edit.positions == "generated":
            if self._from is None:
                return torch.zeros_like(where)
            return where & (places.position >= torch.tensor(self._from, device=device).reshape(-1, 1))
        if isinstance(edit.positions, frozenset):
            return where & torch.isin(places.position, torch.tensor(sorted(edit.positions), device=device))
        return where

    def _read_ahead(self, asked: dict[str, Any], points: list[HookPoint]) -> dict[HookPoint, Tensor]:
        from transformers import DynamicCache

        past = asked.get("past_key_values")
        seen = 0 if past is None else int(past.get_seq_length())
        if seen == 0:
            self._cache = DynamicCache(config=self._model.config)
        elif self._cache is None or self._cache.get_seq_length() != seen:
            raise EditUnsupported(
                f"The cache holds {seen} tokens read without these edits; an SAE that reads several places is edited "
                "from the first token on."
            )
        ids = asked["input_ids"]
        rows = slice(None) if self._rows is None else self._rows
        mask, places = (
            None if given is None else given.expand(len(ids), -1)[rows]
            for given in (asked.get("attention_mask"), asked.get("position_ids"))
        )  # fmt: skip
        cached = {"past_key_values": self._cache} | ({} if places is None else {"position_ids": places})
        token = _reading.set(True)
        try:
            return read_activations(self._model, ids[rows], points, mask, **cached)
        finally:
            _reading.reset(token)


def check_finite(log_probabilities: Tensor) -> None:
    """
    Raises:
        InvalidEdit: they are no numbers: an edit went beyond what the subject's dtype holds.
    """
    if bool(log_probabilities.isnan().any()):
        raise InvalidEdit("The edits drive the subject's activations out of range; give smaller amounts.")


@contextmanager
def edited(
    model: nn.Module,
    saes: Sequence[SAE],
    edits: Sequence[Edit],
    *,
    special_ids: Sequence[int] = (),
    generated_from: int | Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[None]:
    """The subject edited within the ``with``; see ``Editing`` for what the arguments mean and what is refused."""
    with Editing(model, saes, edits, special_ids=special_ids, generated_from=generated_from, rows=rows):
        yield


class _Course:
    """One SAE's edits through a forward pass."""

    def __init__(self, model: nn.Module, sae: SAE, edits: list[Edit]) -> None:
        check_writes(sae, model)
        self._model, self._sae, self.edits = model, sae, edits
        self.reads = [hook_point(name, model) for name in sae.config.reads]
        self.writes = [hook_point(name, model) for name in sae.config.writes]
        self.ahead = len(self.reads) > 1
        self.forget()

    def forget(self) -> None:
        self._where: Tensor | None = None
        self._inside: list[Tensor] = []
        self._found: dict[HookPoint, Tensor] = {}
        self._made: list[Added | Projected] | None = None

    def begin(self, where: list[Tensor]) -> None:
        """where: for each edit, [rows, length] bool."""
        self.forget()
        union = torch.stack(where).any(0)
        self._where = union if bool(union.any()) else None
        self._inside = [one[union] for one in where]

    def install(self) -> list[RemovableHandle]:
        handles = []
        if not self.ahead and (point := self.reads[0]) not in self.writes and point.side != "unit":
            handles.append(tap(self._model, point, partial(self.read, point)))
        for point in self.writes:
            handles += rewrite(self._model, point, partial(self._write, point))
        return handles

    def install_units(self) -> list[RemovableHandle]:
        if self.ahead or self.reads[0].side != "unit":
            return []
        return [tap(self._model, self.reads[0], partial(self.read, self.reads[0]))]

    def read(self, point: HookPoint, value: Tensor, rows: list[int] | None = None) -> None:
        """value: [rows, length, d], of all rows or of ``rows`` alone, in which the others have no place."""
        if self._where is not None and not _reading.get():
            self._found[point] = _at(point, value, self._where if rows is None else self._where[rows])

    def _write(self, point: HookPoint, value: Tensor) -> Tensor | None:
        """value: [rows, length, d] -> the same edited; None where nothing is."""
        if self._where is None or _reading.get():
            return None
        if not self.ahead and point == self.reads[0]:
            self.read(point, value)
        if self._made is None:
            self._made = changes(self._sae, self.edits, self._inside, self._x())
        if (d_out := value.shape[-1] * len(self.writes)) != (own := len(decoder_row(self._sae, self.edits[0].latent))):
            raise BadRequest(
                f"The SAE writes {own} dimensions but {', '.join(map(str, self.writes))} has {d_out}.",
                d_out=own,
                found=d_out,
            )
        changed = value.clone()
        y = applied(self._made, _at(point, value, self._where), self.writes.index(point), len(self.writes))
        changed[self._where] = y.to(value.dtype)
        return changed

    def _x(self) -> Tensor:
        """[positions, d_in]: the reads side by side."""
        missing = [str(point) for point in self.reads if point not in self._found]
        if missing:
            raise EditUnsupported(
                f"The SAE writes {', '.join(map(str, self.writes))} before it has read {', '.join(missing)}, so it "
                "cannot be edited."
            )
        x = torch.cat([self._found[point] for point in self.reads], dim=1)
        if x.shape[1] != self._sae.config.d_in:
            raise BadRequest(
                f"The SAE reads {self._sae.config.d_in} dimensions but {', '.join(map(str, self.reads))} has "
                f"{x.shape[1]}.",
                d_in=self._sae.config.d_in,
                found=x.shape[1],
            )
        return x


def _at(point: HookPoint, value: Tensor, where: Tensor) -> Tensor:
    if value.shape[:2] != where.shape:
        raise EditUnsupported(
            f"The activation at {point} has the shape {list(value.shape)}, not one of {list(where.shape)} tokens each, "
            "so its positions cannot be told apart; load an SAE of another hook point."
        )
    return value[where]
