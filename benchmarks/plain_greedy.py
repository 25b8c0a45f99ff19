"""The greedy of arXiv 2602.01237, written down as its text reads: what other allocators' speed is measured against.

Every query starts at one window. Then, until the total is spent, all queries are looked at, each claims what its next
window gains (where that gains nothing, what the first longer budget that does gain would give), and the query with the
largest claim gets one window. When nobody claims anything, what is left goes round, one window each.

Neither function is slow on purpose. A heap would do the same in far less time, since a query's claim changes only when
it gets a window; the registered `greedy` has one. Ties go to the first query of the batch, the granted cost counts, and
there are no bounds or weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from forethought.core.data import Curves

Columns = NDArray[np.int64]


def scan(curves: Curves, *, total: float, most_steps: int | None = None) -> Columns:
    """Columns by plain Python, one query after the other, shape (Q,); stops after `most_steps` windows, if given."""
    p_Q_B: list[list[float]] = curves.p_Q_B.tolist()
    column_Q = [0] * len(p_Q_B)
    left = windows_left(curves, total)
    if most_steps is not None:
        left = min(left, most_steps)
    while left > 0:
        best_query, best_claim = -1, 0.0
        for query, p_B in enumerate(p_Q_B):
            claim = claim_of(p_B, column_Q[query])
            if claim > best_claim:
                best_query, best_claim = query, claim
        if best_query < 0:
            break
        column_Q[best_query] += 1
        left -= 1
    return _round_robin(np.array(column_Q), left, curves.menu.num_options)


def claim_of(p_B: list[float], column: int) -> float:
    """What a query claims that stands at `column`; 0 where no longer budget gains."""
    here = p_B[column]
    for longer in p_B[column + 1 :]:
        if longer > here:
            return longer - here
    return 0.0


def scan_by_argmax(curves: Curves, *, total: float, most_steps: int | None = None) -> Columns:
    """The same columns, with every claim tabulated beforehand and the scan left to NumPy."""
    claim_Q_B = np.array([[claim_of(p_B, column) for column in range(len(p_B))] for p_B in curves.p_Q_B.tolist()])
    rows_Q = np.arange(len(claim_Q_B))
    column_Q = np.zeros(len(claim_Q_B), dtype=np.int64)
    left = windows_left(curves, total)
    if most_steps is not None:
        left = min(left, most_steps)
    while left > 0:
        claim_Q = claim_Q_B[rows_Q, column_Q]
        best_query = int(claim_Q.argmax())
        if claim_Q[best_query] <= 0.0:
            break
        column_Q[best_query] += 1
        left -= 1
    return _round_robin(column_Q, left, curves.menu.num_options)


def windows_left(curves: Curves, total: float) -> int:
    """Windows to give once every query has its first."""
    num_windows = int(total // curves.menu.smallest)
    return min(num_windows, len(curves.query_ids) * curves.menu.num_options) - len(curves.query_ids)


def expected_accuracy(curves: Curves, column_Q: Columns) -> float:
    """Mean success at these columns."""
    return float(curves.p_Q_B[np.arange(len(column_Q)), column_Q].mean())


def _round_robin(column_Q: Columns, left: int, num_budgets: int) -> Columns:
    while left > 0:
        for query in range(len(column_Q)):
            if left > 0 and column_Q[query] < num_budgets - 1:
                column_Q[query] += 1
                left -= 1
    return column_Q


WAYS: dict[str, Callable[..., Columns]] = {"plain Python": scan, "NumPy argmax": scan_by_argmax}
