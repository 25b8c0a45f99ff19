"""Which columns of the menu each query may have: minimums and maximums in tokens, made into column ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray
from ..core.menu import Menu
from ..errors import InvalidInputError, InvalidMenuError

Columns = NDArray[np.int64]


def column_ranges(
    query_ids: tuple[str, ...],
    menu: Menu,
    min_budget_Q: IntArray | None,
    max_budget_Q: IntArray | None,
) -> tuple[Columns, Columns]:
    """First and last column each query may have, both inclusive, int64, shape (Q,) each.

    A minimum off the menu rounds up and a maximum rounds down, so that neither bound is ever broken. A minimum under
    one window means one window; a maximum above the menu means the menu's own.

    Raises:
        InvalidInputError: a bound of another length than the queries, or one that is not a number.
        InvalidMenuError: a query whose maximum is under one window, or under its minimum.
    """
    num_queries, last_column = len(query_ids), menu.num_options - 1
    first_Q = np.zeros(num_queries, dtype=np.int64)
    last_Q = np.full(num_queries, last_column, dtype=np.int64)
    if min_budget_Q is not None:
        minimum_Q = _checked(query_ids, min_budget_Q, "min_budget_Q")
        first_Q = menu.first_at_least(minimum_Q)
    if max_budget_Q is not None:
        maximum_Q = _checked(query_ids, max_budget_Q, "max_budget_Q")
        last_Q = menu.last_at_most(maximum_Q)
    impossible = np.flatnonzero(first_Q > last_Q)
    if impossible.size:
        row = int(impossible[0])
        raise InvalidMenuError(
            f"query {query_ids[row]!r} has no budget to choose from: at least "
            f"{_told(min_budget_Q, row, menu.smallest)} and at most {_told(max_budget_Q, row, menu.largest)} tokens "
            f"leave nothing of {menu} ({impossible.size} such in this batch). Lower --min-tokens or its own "
            "min_budget, or raise --max-tokens or its own max_budget."
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
