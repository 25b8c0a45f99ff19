"""What a query of which nothing is known is taken for: the mean curve, shaped so that all such get the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .card import PredictorCard

BEND = 0.01  # success that the bend adds at most: enough to break every straight line, too little to matter otherwise


def concave_mean(card: PredictorCard) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Success and spend curve, shape (B,) each, with which every budget pays less than the one before it.

    The mean training curves, made concave (their upper concave envelopes): spend over the cap, success over spend, so
    that success is concave over both costs. An allocator that is given one strictly concave curve for all divides
    evenly. A straight stretch would not do, since any split along it is worth the same: a root of the spend, of weight
    BEND, bends it.
    """
    budget_B = card.menu.budgets_B.astype(np.float64)
    tokens_B = None
    cost_B = budget_B
    if card.mean_tokens_B is not None:
        tokens_B = _envelope(budget_B, np.maximum.accumulate(np.array(card.mean_tokens_B, dtype=np.float64)))
        cost_B = tokens_B + 1e-3 * budget_B  # late caps that no thought reaches cost nothing more: keep them apart
    p_B = _envelope(cost_B, np.maximum.accumulate(np.array(card.mean_p_B, dtype=np.float64)))
    return (1.0 - BEND) * p_B + BEND * np.sqrt(cost_B / cost_B[-1]), tokens_B


def _envelope(x_B: NDArray[np.float64], y_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper concave envelope of points of ascending `x_B`, at each of them (Andrew's monotone chain, 1979)."""
    corners: list[int] = []
    for point in range(len(x_B)):
        while len(corners) > 1 and _is_below(corners[-1], corners[-2], point, x_B, y_B):
            corners.pop()
        corners.append(point)
    envelope_B: NDArray[np.float64] = np.interp(x_B, x_B[corners], y_B[corners])
    return envelope_B


def _is_below(middle: int, left: int, right: int, x_B: NDArray[np.float64], y_B: NDArray[np.float64]) -> bool:
    rise, run = y_B[right] - y_B[left], x_B[right] - x_B[left]
    return bool((y_B[middle] - y_B[left]) * run <= rise * (x_B[middle] - x_B[left]))
