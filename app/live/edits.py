"""What edits of an SAE's latents do to activations, and which are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from app.errors import EditUnsupported, InvalidEdit, LatentOutOfRange
from app.live.edit import MAX_AMOUNT, MAX_EDITS, Edit, Kind
from app.sae.acts import Acts
from app.sae.base import SAE
from app.sae.unit_rows import decoder_row, unit_row
from app.subject.hook_names import hook_point


def check(edits: Sequence[Edit], saes: Sequence[SAE]) -> None:
    """Refuse what cannot be meant. Several edits of one latent compose in their order; the same one twice is refused.

    Raises:
        InvalidEdit: too many, an SAE that is not there, an unknown kind, an amount or position that is no number, a
            repetition.
        LatentOutOfRange: the SAE has no such latent.
    """
    if len(edits) > MAX_EDITS:
        raise InvalidEdit(f"There are {len(edits)} edits; at most {MAX_EDITS} go at once.", limit=MAX_EDITS)
    for number, edit in enumerate(edits, 1):
        if not 0 <= edit.sae < len(saes):
            raise InvalidEdit(f"Edit {number} is of SAE {edit.sae}; there are {len(saes)}, from 0.", edit=number)
        if edit.kind not in get_args(Kind):
            raise InvalidEdit(
                f"Edit {number} is of kind {edit.kind!r}; kinds are {', '.join(get_args(Kind))}.", edit=number
            )
        if not abs(edit.amount) <= MAX_AMOUNT:  # nor is NaN
            raise InvalidEdit(
                f"Edit {number} has the amount {edit.amount}; give a number of at most {MAX_AMOUNT:.0e}.", edit=number
            )
        n = saes[edit.sae].config.n_latents
        if not 0 <= edit.latent < n:
            raise LatentOutOfRange(f"Edit {number} is of latent {edit.latent}; the SAE has 0 to {n - 1}.", edit=number)
        if isinstance(edit.positions, str):
            known = edit.positions in ("all", "generated")
        else:
            whole = isinstance(edit.positions, frozenset) and all(isinstance(p, int) for p in edit.positions)
            known = whole and min(edit.positions, default=-1) >= 0
        if not known:
            raise InvalidEdit(
                f"Edit {number} is at positions {edit.positions!r}; give all, generated or places from 0.", edit=number
            )
        if edit in edits[: number - 1]:
            raise InvalidEdit(
                f"Edit {number} repeats edit {edits.index(edit) + 1}; leave one out or change its amount.", edit=number
            )


def check_writes(sae: SAE, model: nn.Module) -> None:
    """
    Raises:
        EditUnsupported: what the SAE writes is read by no module, so nothing would follow from an edit.
        SubjectUnavailable: the subject has no such place.
    """
    for name in sae.config.writes:
        if (point := hook_point(name, model)).side == "unit":
            raise EditUnsupported(
                f"What the SAE writes, {point}, is no module's input or output, so it cannot be edited; load an SAE "
                "of another hook point.",
                hook_point=str(point),
            )


@dataclass(frozen=True)
class Added:
    """Added to what the SAE writes: [positions, d_out] fp32."""

    delta: Tensor


@dataclass(frozen=True)
class Projected:
    """Taken out of what the SAE writes, where ``inside`` [positions] bool: the component along ``row`` [d_out] fp32, in
    each place the SAE writes by itself."""

    row: Tensor
    inside: Tensor


def changes(sae: SAE, edits: Sequence[Edit], inside: Sequence[Tensor], x: Tensor) -> list[Added | Projected]:
    """What ``edits`` of one SAE do to what it writes, to be done in this order.

    x: [positions, d_in], what it reads; inside: for each edit where it applies, [positions] bool. x is encoded once;
    each edit finds the activations as the ones before it left them.
    """
    acts: Acts | None = None
    made: list[Added | Projected] = []
    for edit, where in zip(edits, inside, strict=True):
        if edit.kind == "project":
            made.append(Projected(decoder_row(sae, edit.latent), where))
        elif edit.kind == "steer":
            made.append(Added(unit_row(sae, edit.latent, x) * edit.amount * where[:, None]))
        else:
            acts = sae.encode(x) if acts is None else acts
            values = acts.column(edit.latent)
            after = acts.with_column(edit.latent, torch.where(where, edit.of(values), values))
            made.append(Added(sae.decode(after, x) - sae.decode(acts, x)))
            acts = after
    return made


def applied(made: Sequence[Added | Projected], y: Tensor, part: int, parts: int) -> Tensor:
    """y: [positions, d], what stands at the ``part``-th of ``parts`` places the SAE writes -> the same edited, fp32."""
    y = y.float()
    for change in made:
        match change:
            case Added(delta):
                y = y + delta.tensor_split(parts, dim=1)[part]
            case Projected(row, inside):
                d = torch.nn.functional.normalize(row.tensor_split(parts)[part], dim=0)
                y = torch.where(inside[:, None], y - (y @ d)[:, None] * d, y)
    return y
