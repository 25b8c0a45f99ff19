"""Exact solution of the multiple-choice knapsack by dynamic programming over whole units of cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray


def best_choices(
    cost_N_B: IntArray, value_N_B: NDArray[np.float64], is_allowed_N_B: NDArray[np.bool_], units: int
) -> NDArray[np.int64]:
    """One column for each of N rows, within `units` in all, of the greatest total value; the cheapest such.

    Time is O(allowed columns x units); memory N x units bytes (twice that past 256 columns).

    Args:
        cost_N_B: cost of each choice, 0 or more.
        value_N_B: value of each choice.
        is_allowed_N_B: choices that exist; the cheapest of every row together must fit in `units`.
        units: whole units to divide.
    """
    num_rows, num_columns = cost_N_B.shape
    choice_N_U = np.zeros((num_rows, units + 1), dtype=np.uint8 if num_columns <= 256 else np.uint16)
    # best_U[u]: greatest value of the rows so far at a cost of exactly u. `reach` is the largest u that exists yet.
    best_U, reach = np.full(units + 1, -np.inf), 0
    best_U[0] = 0.0
    for row in range(num_rows):
        columns = np.flatnonzero(is_allowed_N_B[row])
        next_U = np.full(units + 1, -np.inf)
        for column in columns.tolist():
            cost = int(cost_N_B[row, column])
            length = min(reach, units - cost) + 1
            if length <= 0:
                continue
            candidate_U = best_U[:length] + value_N_B[row, column]
            target_U = next_U[cost : cost + length]
            is_better_U = candidate_U > target_U
            np.copyto(target_U, candidate_U, where=is_better_U)
            np.copyto(choice_N_U[row, cost : cost + length], column, where=is_better_U, casting="unsafe")
        best_U = next_U
        reach = min(units, reach + int(cost_N_B[row, columns].max()))

    at, choice_N = int(np.argmax(best_U)), np.empty(num_rows, dtype=np.int64)
    for row in range(num_rows - 1, -1, -1):
        choice_N[row] = choice_N_U[row, at]
        at -= int(cost_N_B[row, choice_N[row]])
    return choice_N
