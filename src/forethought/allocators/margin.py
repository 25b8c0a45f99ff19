"""Finds the segment at the margin of a batch whose segments are in many places, by histograms of their prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 12  # 2**12 bins a histogram: 64 KB
FEW = 4096  # segments that are sent as they are
ALL = 2**64 - 1

Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Segments whose keys lie in a range.

    Segments are granted by rising keys: of their price (a higher price has a smaller key), and of one price by the tie
    keys of their queries (`problem.tie_keys`), and of one tie key by row.

    Attributes:
        low, high: first and last key in the range; whole numbers of 64 bits.
        price: of all segments in it, whose tie keys are then meant; None where the keys are those of prices.
    """

    low: int
    high: int
    price: float | None = None

    @property
    def shift(self) -> int:
        """A bin holds 2**shift keys."""
        return max(0, (self.high - self.low).bit_length() - BITS)

    def bin(self, index: int) -> Interval:
        """One bin of a histogram; all ties at its price where that has one key."""
        low = self.low + (index << self.shift)
        if self.price is None and self.shift == 0:
            return Interval(0, ALL, price_of(low))
        return replace(self, low=low, high=min(self.high, low + (1 << self.shift) - 1))

    @property
    def is_single(self) -> bool:
        """Whether it cannot be divided."""
        return self.low == self.high and self.price is not None


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Segments in an interval: how many are in each bin, and what they cost together in units; int64, shape (H,)."""

    number_H: NDArray[np.int64]
    cost_H: NDArray[np.int64]

    @classmethod
    def of(cls, key_N: Keys, cost_N: NDArray[np.int64], interval: Interval) -> Histogram:
        """Of keys that lie in `interval`."""
        bin_N = ((key_N - np.uint64(interval.low)) >> np.uint64(interval.shift)).astype(np.int64)
        size = ((interval.high - interval.low) >> interval.shift) + 1
        cost_H = np.zeros(size, dtype=np.int64)
        np.add.at(cost_H, bin_N, cost_N)  # `bincount` adds floats, which are not exact
        return cls(np.bincount(bin_N, minlength=size), cost_H)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.number_H + other.number_H, self.cost_H + other.cost_H)


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Some segments: keys of price and tie, rows in the batch, costs in units; shape (N,) each."""

    price_N: NDArray[np.float64]
    tie_N: Keys
    row_N: NDArray[np.int64]
    cost_N: NDArray[np.int64]

    def __add__(self, other: Segments) -> Segments:
        pairs = zip(self.arrays, other.arrays, strict=True)
        return Segments(*map(np.concatenate, pairs))

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All four."""
        return self.price_N, self.tie_N, self.row_N, self.cost_N


@dataclass(frozen=True, slots=True)
class Margin:
    """The first segment that does not fit: its price, its query's tie key and row. With price 0 all of them fit.

    Attributes:
        blocked: what it costs, in units.
        left: units that the segments before it leave.
    """

    price: float
    tie: int
    row: int
    blocked: int
    left: int

    def grants(
        self, price_N: NDArray[np.float64], row_N: NDArray[np.int64], ties: Callable[[], Keys]
    ) -> NDArray[np.bool_]:
        """Which segments come before it; `ties` gives the tie keys of those at its own price, in their order."""
        is_granted_N = price_N > self.price
        tied = np.flatnonzero(price_N == self.price)
        if tied.size:
            tie_N, limit = ties(), np.uint64(self.tie)
            is_granted_N[tied] = (tie_N < limit) | ((tie_N == limit) & (row_N[tied] < self.row))
        return is_granted_N


def price_key(price_N: NDArray[np.float64]) -> Keys:
    """Whole numbers that fall as the prices, which are not negative, rise: the bits of the floats, inverted."""
    return ~np.asarray(price_N, dtype=np.float64).view(np.uint64)


def price_of(key: int) -> float:
    """The price of a key."""
    return float((~np.array([key], dtype=np.uint64)).view(np.float64)[0])


def find_margin(
    low: float,
    high: float,
    *,
    number: int,
    cost: int,
    left: int,
    histogram: Callable[[Interval], Histogram],
    segments: Callable[[Interval], Segments],
) -> Margin:
    """The margin of all segments together; each histogram divides the interval that holds it by up to 4,096.

    Args:
        low: no price is lower.
        high: no price is higher.
        number: of segments.
        cost: what they cost together, in units.
        left: units of the total that they may take; at least 0.
        histogram: of the segments in an interval, wherever they are.
        segments: those in an interval that holds few.
    """
    if cost <= left:
        return Margin(0.0, 0, 0, 0, left - cost)
    keys = price_key(np.array([high, low]))
    interval = Interval(*keys.tolist())
    while number > FEW and not interval.is_single:
        found = histogram(interval)
        spent_H = np.cumsum(found.cost_H)
        index = int(np.searchsorted(spent_H, left, side="right"))
        left -= int(spent_H[index - 1]) if index else 0
        number, interval = int(found.number_H[index]), interval.bin(index)
    some = segments(interval)
    order = np.lexsort((some.row_N, some.tie_N, price_key(some.price_N)))
    spent_N = np.cumsum(some.cost_N[order])
    num_fit = int(np.searchsorted(spent_N, left, side="right"))
    at = order[num_fit]
    return Margin(
        price=float(some.price_N[at]),
        tie=int(some.tie_N[at]),
        row=int(some.row_N[at]),
        blocked=int(some.cost_N[at]),
        left=left - (int(spent_N[num_fit - 1]) if num_fit else 0),
    )
