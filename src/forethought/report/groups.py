"""Questions in groups of equal size by measured difficulty, and the mean cost of each group."""

from __future__ import annotations

import numpy as np

from ..core.data import Cost, FloatArray, IntArray
from ..evaluation.results import Evaluation
from .findings import rows_at

NUM_GROUPS = 5


def groups(result: Evaluation) -> list[tuple[IntArray, float]]:
    """Rows of the questions of each group, the hardest first, and their success averaged over all options."""
    is_named, curves = result.menu.is_named, result.measured.curves
    p_Q = curves.p_Q_B.mean(axis=1) if is_named else curves.p_Q_B @ result.menu.width_B
    num_groups = min(NUM_GROUPS, result.num_queries)
    parts = np.array_split(np.argsort(p_Q, kind="stable"), num_groups)
    return [(part, float(p_Q[part].mean())) for part in parts]


def group_costs(result: Evaluation, cost: Cost, policy: str, level: float) -> list[float]:
    """What a question of each group took at one level on average, counted by `cost`."""
    row, costs_Q_B = rows_at(result, cost, level)[policy], result.measured.curves.costs_Q_B(cost)
    assert costs_Q_B is not None
    columns_Q = given(result, cost, policy, level)
    shares_B = np.array(row.shares)
    cost_Q: FloatArray = costs_Q_B @ shares_B
    if columns_Q is not None:
        cost_Q = costs_Q_B[np.arange(result.num_queries), columns_Q]
    return [float(cost_Q[part].mean()) for part, _ in groups(result)]


def given(result: Evaluation, cost: Cost, policy: str, level: float) -> IntArray | None:
    """Column of the option that each question got, shape (Q,); None where options are handed out at random."""
    plans = result.plans.get((cost, policy, level))
    return None if plans is None else result.menu.columns(np.concatenate([plan.budget_Q for plan in plans]))
