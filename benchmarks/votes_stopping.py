"""Published rules of when to stop drawing samples for a vote, to compare with.

A rule that spends a fixed number on all questions at once, Blend-ASC, is in `votes_blending.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import comb
from typing import Self

import numpy as np

from forethought.core.data import FloatArray, IntArray
from forethought.core.stopping import Standing

THRESHOLD = 0.95  # of Adaptive-Consistency, as published


@dataclass(frozen=True, slots=True, eq=False)
class Shown(Standing):
    """What a published rule is shown.

    Attributes:
        streak: the latest samples that all gave the same answer; 0 where the last one abstained.
    """

    streak: IntArray

    @classmethod
    def of(cls, groups: Sequence[int]) -> Self:
        """See `Standing.of`."""
        found, streak = Standing.of(groups), 0
        for before, group in pairwise([None, *groups]):
            streak = 0 if group < 0 else streak + 1 if group == before else 1
        return cls(found.num_drawn, found.top, found.second, np.array(streak))


@dataclass(frozen=True, slots=True)
class FixedSamples:
    """Self-consistency: as many samples for every query (Wang et al., 2022, arXiv 2203.11171)."""

    most: int

    def draw(self, standing: Standing) -> IntArray:
        """All of them at once."""
        return np.maximum(self.most - standing.num_drawn, 0)


@dataclass(frozen=True, slots=True)
class AdaptiveConsistency:
    """Stops where the majority is sure enough to stay one (Aggarwal et al., 2023, arXiv 2305.11860).

    The share of the largest group, against the second alone, has the posterior Beta(top + 1, second + 1): the authors'
    default criterion, an approximation of a Dirichlet posterior over all answers. Sampling stops where it is above 1/2
    with at least the probability `threshold`. Samples are drawn one by one, and one is always drawn.

    Ours to choose, since the paper does not say: an unreadable answer is drawn and counts for no group.
    """

    most: int
    threshold: float = THRESHOLD

    def draw(self, standing: Standing) -> IntArray:
        """One more, or none."""
        is_sure = lead_certainty(self.most)[standing.top, standing.second] >= self.threshold
        is_done = (standing.num_drawn >= self.most) | (is_sure & (standing.num_drawn > 0))
        return np.where(is_done, 0, 1)


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Early-Stopping Self-Consistency: stops after a window in which all agree (Li et al., 2024, arXiv 2401.10480).

    Samples are drawn in windows of `window`, which do not overlap. A window whose answers are all the same has an
    entropy of 0 and ends the sampling; the vote is over all samples of all windows.

    Ours to choose, since the paper does not say: a window with an unreadable answer does not agree, and the last window
    is shorter where `most` is no multiple of its length.
    """

    most: int
    window: int

    def draw(self, standing: Shown) -> IntArray:
        """The next window, or none."""
        is_agreed = (standing.num_drawn > 0) & (standing.streak >= self.window)
        left = np.maximum(self.most - standing.num_drawn, 0)
        return np.where(is_agreed, 0, np.minimum(left, self.window))


@lru_cache(maxsize=8)
def lead_certainty(most: int) -> FloatArray:
    """P(X > 1/2) for X from Beta(top + 1, second + 1), shape (most + 1, most + 1): by top, then second.

    It is the chance that at most `top` of top + second + 1 tosses of a fair coin are heads.
    """
    certain = np.empty((most + 1, most + 1))
    for top in range(most + 1):
        for second in range(most + 1):
            tosses = top + second + 1
            certain[top, second] = sum(comb(tosses, heads) for heads in range(top + 1)) / 2**tosses
    return certain
