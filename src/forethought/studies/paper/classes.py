"""The difficulty policy: one budget for each class of queries, optimised on the train curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.menu import Menu

CLASSES = ("easy", "medium", "hard")


def class_budgets(
    rate_Q_B: FloatArray,
    train_labels: Sequence[str],
    labels: Sequence[str],
    *,
    menu: Menu,
    mean_tokens: float,
) -> dict[str, int]:
    """The budgets that expect most of queries with these labels, by the mean train curve of each class.

    Every combination is tried (B to the number of classes); of equals the cheapest. The mean budget is at most
    `mean_tokens` and usually a little less, since a class has one budget. A class that no train query has is given
    the smallest. In the manner of arXiv 2602.01237, whose LoRA classifier and prompted model give such labels.

    Args:
        rate_Q_B: measured success of the train queries, shape (Q, B).
        train_labels: their classes, length Q.
        labels: the classes of the queries to divide over, known before any of them is answered.
        menu: the budgets.
        mean_tokens: mean cap, at least the smallest budget.
    """
    names = [name for name in CLASSES if name in labels]
    share_C = np.array([np.mean([label == name for label in labels]) for name in names])
    curve_C_B = np.stack([_mean_curve(rate_Q_B, train_labels, name) for name in names])
    columns_N_C = np.indices((menu.num_options,) * len(names)).reshape(len(names), -1).T
    cost_N = menu.budgets_B[columns_N_C] @ share_C
    value_N = curve_C_B[np.arange(len(names)), columns_N_C] @ share_C
    fits = np.flatnonzero(cost_N <= mean_tokens * (1 + 1e-12))
    best = fits[np.lexsort((cost_N[fits], -np.round(value_N[fits], 12)))[0]]
    return {name: int(menu.budgets_B[column]) for name, column in zip(names, columns_N_C[best], strict=True)}


def budgets_of(labels: Sequence[str], budgets: dict[str, int]) -> IntArray:
    """The budget of each query by its class, shape (Q,)."""
    return np.array([budgets[label] for label in labels], dtype=np.int64)


def _mean_curve(rate_Q_B: FloatArray, labels: Sequence[str], name: str) -> FloatArray:
    is_member_Q = np.array([label == name for label in labels])
    if not is_member_Q.any():
        return np.zeros(rate_Q_B.shape[1])
    curve_B: FloatArray = rate_Q_B[is_member_Q].mean(axis=0)
    return curve_B
