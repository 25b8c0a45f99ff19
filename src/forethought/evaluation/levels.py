"""The levels that policies are compared at: spread over the costs between the cheapest and the dearest option."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..core.data import FloatArray
from ..core.menu import Menu

FEWEST, MOST = 8, 64  # evenly spaced options that are levels by themselves
NUM_PARTS = 13  # of the way from the cheapest option to the dearest, where the options are no levels by themselves
HEADLINES = (1 / 16, 1 / 5, 1 / 2, 3 / 4)  # shares of that way: the levels shown before all of them
USUAL = 1 / 5  # the one shown where only one is


def spread(menu: Menu, cost_B: FloatArray) -> tuple[float, ...]:
    """Levels in whole tokens, ascending, from the cheapest option's cost to the dearest's; all options are among them.

    Evenly spaced options are the levels, where there are enough of them. Else the way between two neighbours is parted
    in proportion to its length: a level between two options is met by giving each of them to some of the queries. On a
    menu that is shown on a logarithmic axis, lengths are measured along that axis.

    Args:
        menu: the options.
        cost_B: what each costs, tokens, not decreasing, shape (B,).
    """
    costs = np.unique(np.round(cost_B))  # caps that hardly any trace reaches cost the same to a token
    if (menu.is_even and FEWEST <= menu.num_options <= MOST) or len(costs) < 2:
        return tuple(costs.tolist())
    unit = costs[costs > 0][0]
    along = np.log1p(costs / unit) if menu.is_geometric else costs
    whole = along[-1] - along[0]
    if len(costs) > MOST:
        found = np.linspace(along[0], along[-1], NUM_PARTS + 1)
    else:
        parts = [
            np.linspace(left, right, max(1, round(NUM_PARTS * (right - left) / whole)), endpoint=False)
            for left, right in pairwise(along)
        ]
        found = np.concatenate([*parts, along[-1:]])
    levels = np.round(unit * np.expm1(found) if menu.is_geometric else found)
    return tuple(np.unique(levels).tolist())


def at_share(levels: Sequence[float], share: float) -> float:
    """The level nearest to some share of the way between the ends, which leave nothing to choose."""
    wanted = levels[0] + share * (levels[-1] - levels[0])
    return min(levels[1:-1] or levels, key=lambda level: abs(level - wanted))


def token_weights(levels: Sequence[float]) -> FloatArray:
    """Share of each ascending level in a mean over them, summing to 1: the tokens that it is the nearest level to.

    Half of the way to either neighbour; an end stands for as much beyond it. Evenly spaced levels weigh alike.
    """
    if len(levels) == 1:
        return np.ones(1)
    steps = np.diff(levels)
    widths = np.concatenate([steps[:1], steps]) + np.concatenate([steps, steps[-1:]])
    weights: FloatArray = widths / widths.sum()
    return weights
