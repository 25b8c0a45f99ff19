"""The levels at which policies are compared, spread over the costs from the cheapest to the most expensive option."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..core.data import FloatArray
from ..core.menu import Menu

FEWEST, MOST = 8, 64  # evenly spaced options that are levels by themselves
NUM_PARTS = 13  # of the way from the cheapest option to the dearest, where the options are no levels by themselves
HEADLINES = (1 / 16, 1 / 5, 1 / 2, 3 / 4)  # shares of that way: the levels shown before all of them
HALF = 1 / 2  # of the accuracy that tokens buy: the level shown where only one is
USD_DIGITS, SMALLEST_USD = 3, 1e-12


def spread(menu: Menu, cost_B: FloatArray, *, in_usd: bool = False) -> tuple[float, ...]:
    """Levels, ascending, from the cost of the cheapest option to that of the most expensive; all options are included.

    They are whole tokens, or USD to so many digits that neighbours differ. Evenly spaced caps are the levels, where
    there are enough of them. Else the way between two neighbours is parted in proportion to its length: a level between
    two options is met by giving each of them to some of the queries. On a menu that is shown on a logarithmic axis,
    lengths are measured along that axis.

    Args:
        menu: the options.
        cost_B: what each costs, tokens or USD, in any order, shape (B,).
        in_usd: whether that is money.
    """
    costs = np.unique(_rounded(cost_B, in_usd))  # caps that hardly any trace reaches cost the same to a token
    is_even = menu.is_even and not menu.is_named  # named options cost whatever they cost
    if (is_even and FEWEST <= menu.num_options <= MOST) or len(costs) < 2:
        return tuple(costs.tolist())
    unit = costs[costs > 0][0]
    is_geometric = _is_geometric(costs) if menu.is_named else menu.is_geometric
    along = np.log1p(costs / unit) if is_geometric else costs
    whole = along[-1] - along[0]
    if len(costs) > MOST:
        found = np.linspace(along[0], along[-1], NUM_PARTS + 1)
    else:
        parts = [
            np.linspace(left, right, max(1, round(NUM_PARTS * (right - left) / whole)), endpoint=False)
            for left, right in pairwise(along)
        ]
        found = np.concatenate([*parts, along[-1:]])
    levels = _rounded(unit * np.expm1(found) if is_geometric else found, in_usd)
    return tuple(np.unique(levels).tolist())


def _is_geometric(cost_N: FloatArray) -> bool:
    """What `Menu.is_geometric` says of caps: the steps between ascending costs grow with them."""
    positive = cost_N[cost_N > 0]
    return len(positive) >= 3 and bool(positive[-1] - positive[-2] >= 4 * (positive[1] - positive[0]))


def _rounded(cost_N: FloatArray, in_usd: bool) -> FloatArray:
    """To whole tokens; of USD to three digits of each, or of the way from the least to the most where that is finer."""
    if not in_usd:
        return np.round(cost_N)
    span = float(np.ptp(cost_N)) or np.inf
    finest_N = np.minimum(np.maximum(cost_N, SMALLEST_USD), span)
    places_N = USD_DIGITS - 1 - np.floor(np.log10(finest_N)).astype(np.int64)
    return np.array([round(*each) for each in zip(cost_N.tolist(), places_N.tolist(), strict=True)])


def at_share(levels: Sequence[float], share: float) -> float:
    """The level nearest to some share of the way between the ends, which leave nothing to choose."""
    wanted = levels[0] + share * (levels[-1] - levels[0])
    return min(levels[1:-1] or levels, key=lambda level: abs(level - wanted))


def half_way(levels: Sequence[float], cost_B: FloatArray, p_B: FloatArray) -> float:
    """The level shown where only one is: where the mean train curve has come half the way from its least to its most.

    Curves are steep there: below it hardly anything is bought, above it little is left to choose. What is reported has
    no say in it. An end, which leaves nothing to choose, is taken only where there is no other.

    Args:
        levels: ascending.
        cost_B: what each option costs on average, tokens or USD, in any order, shape (B,).
        p_B: accuracy of the mean train curve, shape (B,).
    """
    order = np.argsort(cost_B, kind="stable")
    along, best = cost_B[order], np.maximum.accumulate(p_B[order])
    wanted = float(best[0] + HALF * (best[-1] - best[0]))
    right = int(np.argmax(best >= wanted))
    left = max(right - 1, 0)
    rise = float(best[right] - best[left])
    share = (wanted - float(best[left])) / rise if rise > 0 else 1.0
    at = float(along[left] + share * (along[right] - along[left]))
    return min(levels[1:-1] or levels, key=lambda level: abs(level - at))


def token_weights(levels: Sequence[float]) -> FloatArray:
    """Share of each ascending level in a mean over them, summing to 1: the costs that it is the nearest level to.

    Half of the way to either neighbour; an end stands for as much beyond it. Evenly spaced levels weigh alike.
    """
    if len(levels) == 1:
        return np.ones(1)
    steps = np.diff(levels)
    widths = np.concatenate([steps[:1], steps]) + np.concatenate([steps, steps[-1:]])
    weights: FloatArray = widths / widths.sum()
    return weights
