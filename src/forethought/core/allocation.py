"""An allocation: what an allocator gives a batch, and what that is expected to come to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .data import Curves, FloatArray, IntArray
from .menu import Menu
from .terms import Cost, percent

ROUNDING = 1e-6  # of a spent total: predictions are kept with fewer digits than they were planned with


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
            f"expected accuracy {percent(self.expected_accuracy)})"
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

    def with_budgets(self, budget_Q: IntArray, curves: Curves, weight_Q: FloatArray) -> Allocation:
        """The same with other budgets, and what these grant and are expected to give; a note says how many are others.

        The total grows where they cost more.

        Args:
            budget_Q: caps on the menu, shape (Q,).
            curves: the predicted curves.
            weight_Q: what a right answer to each query is worth, shape (Q,).
        """
        num_changed = int((budget_Q != self.budget_Q).sum())
        column_Q = np.array([self.menu.index(int(budget)) for budget in budget_Q])
        row_Q = np.arange(len(budget_Q))
        accuracy = float(np.average(curves.p_Q_B[row_Q, column_Q], weights=weight_Q))
        made = replace(
            self,
            budget_Q=budget_Q,
            granted=int(budget_Q.sum()),
            expected_spent=None if curves.tokens_Q_B is None else float(curves.tokens_Q_B[row_Q, column_Q].sum()),
            expected_usd=float(curves.usd_at(column_Q).sum()) if curves.is_billable else None,
            expected_accuracy=accuracy,
            price=None if num_changed else self.price,
        )
        total = self.total if made.taken <= self.total * (1 + ROUNDING) else made.taken
        note = f"{num_changed} budgets were set by hand: {made.compared(self, 'before')}"
        return replace(made, total=total, notes=(*self.notes, note) if num_changed else self.notes)

    def compared(self, old: Allocation, when: str) -> str:
        """What its budgets grant, or are expected to cost, and to give, beside those of another."""
        counts = f"{self.granted:,} tokens are granted ({old.granted:,} {when})"
        if self.cost is Cost.USD or self.menu.is_named:
            taken, before = self.cost.amount(self.taken), self.cost.amount(old.taken)
            counts = f"{taken} are expected to be spent ({before} {when})"
        gain = f"an accuracy of {percent(self.expected_accuracy)} is expected ({percent(old.expected_accuracy)} {when})"
        return f"{counts}, and {gain}"
