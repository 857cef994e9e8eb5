"""Captured windows, kept apart from the tables that point at them, so that sorting a table moves no window."""

from typing import Any

import torch
from torch import Tensor


class WindowPool:
    """Rows of [width] fp16 by number. Rows no table names any more are found when the pool is crowded, and reused.

    ``slots`` is how many rows the tables can name in all; memory is taken for them, a quarter more, and used as rows
    are (a CPU's pages come when touched).
    """

    def __init__(self, width: int, device: torch.device | str = "cpu", slots: int = 1024) -> None:
        self.width = width
        self._rows = torch.empty(slots + slots // 4 + 1024, width, dtype=torch.float16, device=device)
        self._used = 0
        self._free = torch.zeros(0, dtype=torch.int64, device=device)
        self._crowded_at = 8192

    def __len__(self) -> int:
        return self._used - len(self._free)

    def add(self, windows: Tensor) -> Tensor:
        """windows: [new, width] -> their numbers [new] int64."""
        reused = self._free[: len(windows)]
        self._free = self._free[len(reused) :]
        end = self._used + len(windows) - len(reused)
        if end > len(self._rows):
            grown = self._rows.new_empty(max(end, len(self._rows) + len(self._rows) // 2), self.width)
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        numbers = torch.cat([reused, torch.arange(self._used, end, device=windows.device)])
        self._rows[numbers] = windows
        self._used = end
        return numbers

    def rows(self, numbers: Tensor) -> Tensor:
        return self._rows[numbers.long()]

    @property
    def crowded(self) -> bool:
        """Whether it is time to look for rows that no table names."""
        return len(self) > self._crowded_at

    def recycle(self, tables: list[Tensor]) -> None:
        """Rows that none of ``tables`` names (entries below 0 name none) may be written over from here on."""
        named = torch.zeros(self._used, dtype=torch.bool, device=self._rows.device)
        for table in tables:
            named[table[table >= 0].long()] = True
        self._free = (~named).nonzero(as_tuple=True)[0]
        self._crowded_at = len(self) + len(self) // 4 + 4096

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows[: self._used].clone(), "free": self._free, "crowded_at": self._crowded_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._used = len(state["rows"])
        if self._used > len(self._rows):
            self._rows = torch.empty(self._used, self.width, dtype=torch.float16, device=self._rows.device)
        self._rows[: self._used] = state["rows"]
        self._free, self._crowded_at = state["free"], state["crowded_at"]
