"""What a job may spend: the most a request can cost is set aside before it is sent."""

import asyncio

from app.errors import BudgetSpent


class Budget:
    """``most`` USD, of which ``spent`` are gone; None is any amount."""

    def __init__(self, most: float | None, spent: float = 0.0) -> None:
        self.most, self.spent, self.reserved = most, spent, 0.0
        self._under_way = 0
        self._changed = asyncio.Condition()

    async def reserve(self, worst: float) -> None:
        """Set ``worst`` aside; waits for others to settle where their reservations alone stand in the way.

        Raises:
            BudgetSpent: it does not fit.
        """
        async with self._changed:
            while self.most is not None and self.spent + self.reserved + worst > self.most:
                if not self._under_way:
                    raise BudgetSpent(
                        f"${self.spent:.4f} of --max-usd {self.most:g} are spent and the next request may cost "
                        f"${worst:.4f}; what is done is saved, and the same command with a larger --max-usd goes on.",
                        spent=self.spent, most=self.most,
                    )  # fmt: skip
                await self._changed.wait()
            self.reserved += worst
            self._under_way += 1

    async def settle(self, worst: float, cost: float) -> None:
        """Of ``worst`` set aside, ``cost`` was spent."""
        async with self._changed:
            self.reserved -= worst
            self.spent += cost
            self._under_way -= 1
            self._changed.notify_all()
