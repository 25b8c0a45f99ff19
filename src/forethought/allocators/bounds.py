"""Which columns of the grid each query may have: minimums and maximums in tokens, made into column ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import BudgetGrid, IntArray
from ..errors import InvalidGridError, InvalidInputError

Columns = NDArray[np.int64]


def column_ranges(
    query_ids: tuple[str, ...],
    grid: BudgetGrid,
    min_budget_Q: IntArray | None,
    max_budget_Q: IntArray | None,
) -> tuple[Columns, Columns]:
    """First and last column each query may have, both inclusive, int64, shape (Q,) each.

    A minimum off the grid rounds up and a maximum rounds down, so that neither bound is ever broken. A minimum under
    one window means one window; a maximum above the grid means the grid's own.

    Raises:
        InvalidInputError: a bound of another length than the queries, or one that is not a number.
        InvalidGridError: a query whose maximum is under one window, or under its minimum.
    """
    num_queries, last_column = len(query_ids), grid.num_budgets - 1
    first_Q = np.zeros(num_queries, dtype=np.int64)
    last_Q = np.full(num_queries, last_column, dtype=np.int64)
    if min_budget_Q is not None:
        minimum_Q = _checked(query_ids, min_budget_Q, "min_budget_Q")
        first_Q = np.maximum(np.ceil(minimum_Q / grid.window).astype(np.int64) - 1, 0)
    if max_budget_Q is not None:
        maximum_Q = _checked(query_ids, max_budget_Q, "max_budget_Q")
        last_Q = np.minimum(np.floor(maximum_Q / grid.window).astype(np.int64) - 1, last_column)
    impossible = np.flatnonzero(first_Q > last_Q)
    if impossible.size:
        row = int(impossible[0])
        raise InvalidGridError(
            f"query {query_ids[row]!r} has no budget to choose from: at least {_told(min_budget_Q, row, grid.window)} "
            f"and at most {_told(max_budget_Q, row, grid.maximum)} tokens leave nothing on the grid {grid} "
            f"({impossible.size} such in this batch). Lower --min-tokens or its own min_budget, or "
            "raise --max-tokens or its own max_budget."
        )
    return first_Q, last_Q


def _checked(query_ids: tuple[str, ...], bound_Q: IntArray, name: str) -> NDArray[np.float64]:
    values_Q: NDArray[np.float64] = np.asarray(bound_Q, dtype=np.float64)
    if values_Q.shape != (len(query_ids),):
        raise InvalidInputError(f"{name} has shape {values_Q.shape}; {len(query_ids)} queries need one entry each")
    wrong = np.flatnonzero(~np.isfinite(values_Q))
    if wrong.size:
        row = int(wrong[0])
        raise InvalidInputError(f"{name} of query {query_ids[row]!r} is {values_Q[row]}; give a number of tokens")
    return values_Q


def _told(bound_Q: Any, row: int, default: int) -> int:
    return default if bound_Q is None else int(bound_Q[row])
