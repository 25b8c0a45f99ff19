"""An allocation: what an allocator gives a batch, and what that is expected to come to."""

from __future__ import annotations

from dataclasses import dataclass

from .data import IntArray
from .menu import Menu
from .terms import Cost


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Allocation:
    """One budget per query, with what it expects.

    Attributes:
        query_ids: length Q.
        budget_Q: reasoning-token caps on the menu, int, shape (Q,).
        allocator: its registered name.
        cost: what `total` is counted in.
        total: tokens that were to be divided.
        granted: the sum of caps, tokens.
        expected_spent: expected tokens generated, or None without a usage curve.
        expected_accuracy: mean predicted success, weighted as asked, in [0, 1].
        price: success bought per token at the margin, or None where the allocator has none.
        notes: what the user should know, in sentences (budget left over, and why).
        expected_usd: expected bill in USD, or None where options have no price.
    """

    query_ids: tuple[str, ...]
    menu: Menu
    budget_Q: IntArray
    allocator: str
    cost: Cost
    total: float
    granted: int
    expected_spent: float | None
    expected_accuracy: float
    price: float | None = None
    notes: tuple[str, ...] = ()
    expected_usd: float | None = None

    def __repr__(self) -> str:
        return (
            f"Allocation({len(self.query_ids):,} queries, {self.allocator}, {self.cost_words}, "
            f"expected accuracy {self.expected_accuracy:.1%})"
        )

    @property
    def taken(self) -> float:
        """What it takes of its total, counted as that is."""
        known = {Cost.USD: self.expected_usd, Cost.SPENT: self.expected_spent}.get(self.cost)
        return float(self.granted) if known is None else known

    @property
    def cost_words(self) -> str:
        """What it takes of its total: `2,752 of 2,800 tokens granted`, `1.42 of 1.50 USD expected to be spent`."""
        is_granted = self.cost is Cost.GRANTED or (self.cost is Cost.SPENT and self.expected_spent is None)
        counted, _ = self.cost.amount(self.taken).split()
        return f"{counted} of {self.cost.amount(self.total)} {'granted' if is_granted else 'expected to be spent'}"
