"""Captured windows, kept apart from the tables that point at them, so that sorting a table moves no window."""

from typing import Any

import torch
from torch import Tensor


class WindowPool:
    """Rows of [width] fp16 by number. Rows no table names any more are dropped when the pool has grown."""

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.width = width
        self._rows = torch.zeros(1024, width, dtype=torch.float16, device=device)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, windows: Tensor) -> Tensor:
        """windows: [new, width] -> their numbers [new] int64."""
        end = self._used + len(windows)
        if end > len(self._rows):
            grown = self._rows.new_zeros(max(end, 2 * len(self._rows)), self.width)
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        self._rows[self._used : end] = windows
        numbers = torch.arange(self._used, end, device=windows.device)
        self._used = end
        return numbers

    def rows(self, numbers: Tensor) -> Tensor:
        return self._rows[numbers]

    def crowded(self, live: int) -> bool:
        """Whether fewer than half of the rows are still named by a table."""
        return self._used > 2 * live + 4096

    def compact(self, tables: list[Tensor]) -> None:
        """Keep the rows that ``tables`` name (entries below 0 name none) and renumber the entries in place."""
        named = [table[table >= 0] for table in tables]
        kept = self._rows[torch.cat(named)]
        start = 0
        for table, numbers in zip(tables, named, strict=True):
            table[table >= 0] = torch.arange(start, start + len(numbers), device=table.device)
            start += len(numbers)
        self._rows, self._used = kept, start

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows[: self._used].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = state["rows"]
        self._used = len(self._rows)
