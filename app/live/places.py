"""Where the columns of one forward pass stand in their texts."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from app.errors import EditUnsupported


class Places(NamedTuple):
    """position [rows, length] int64: a token's place in its own text, from 0, padding not counted, and on from what a
    cache holds; real, special [rows, length] bool: no padding; a special token."""

    position: Tensor
    real: Tensor
    special: Tensor

    @classmethod
    def of(cls, asked: dict[str, Any], special_ids: Tensor) -> "Places":
        """From what a model's forward was given: input_ids, attention_mask [rows, cached + length] or None, and
        past_key_values. Padding may be on either side.

        Raises:
            EditUnsupported: no token ids, or a mask that is no rectangle of rows and columns.
        """
        ids, mask, past = asked.get("input_ids"), asked.get("attention_mask"), asked.get("past_key_values")
        if ids is None:
            raise EditUnsupported(
                "The forward pass was given no input_ids; edits need the tokens to know where they are."
            )
        if mask is None:
            seen = 0 if past is None else int(past.get_seq_length())
            real, position = (
                torch.ones_like(ids, dtype=torch.bool),
                torch.arange(ids.shape[1], device=ids.device) + seen,
            )
            position = position.expand(ids.shape)
        elif mask.ndim != 2:
            raise EditUnsupported(f"The attention mask has {mask.ndim} dimensions; edits need one of [rows, columns].")
        else:
            real = mask[:, -ids.shape[1] :].bool()
            position = (mask.long().cumsum(1) - 1)[:, -ids.shape[1] :]
        return cls(position, real, torch.isin(ids, special_ids.to(ids.device)))
