"""Costs of options in whole units, computed from the usage curves when needed, not stored for a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import Cost, Curves, FloatArray, IntArray
from ..errors import InvalidMenuError, InvalidSettingsError

MOST_UNITS = 2**62  # of a whole batch: sums of costs stay inside 64 bits
MOST_EXPONENT = 1000  # 2**exponent stays a number where all tokens are next to nothing
SUM_CHUNK = 65_536
LARGEST = 1e280  # past it the splitting constant of `exact_sum` could overflow

CHUNK = 4096  # queries at once, so that what is read is still in a core's cache when it is read again
EVERY = slice(None)

Rows = slice | NDArray[np.int64]
Pick = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Cost of query q at column b, a whole number of units below 2**53.

    Attributes:
        num_queries: Q.
        unit: tokens, or USD, in one unit.
        shared_B: the costs of every query, int64, where all have the same; else None.
        tokens_Q_B: usage curves, turned into units where they are read; None where costs are shared.
        input_Q_B: tokens of prompts, where these are billed.
        price_2_B: USD per million tokens of prompt and answer under each option; None where tokens are the cost.
    """

    num_queries: int
    unit: float
    shared_B: NDArray[np.int64] | None
    tokens_Q_B: FloatArray | None = None
    input_Q_B: FloatArray | None = None
    price_2_B: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, curves: Curves, cost: Cost, *, is_ordered: bool = True) -> Costs:
        """In the largest unit that divides all caps; spent cost and money in a power of two, as fine as sums allow.

        Raises InvalidSettingsError without a usage curve, InvalidMenuError for caps past counting or without prices.
        """
        num_queries = len(curves.query_ids)
        if cost is Cost.GRANTED:
            units_B = curves.menu.units_B
            if int(units_B[-1]) * num_queries >= MOST_UNITS:
                raise InvalidMenuError(f"budgets up to {curves.menu.largest} are too large for {num_queries} queries")
            return cls(num_queries, float(curves.menu.unit), units_B)
        if cost is Cost.USD:
            _ = curves.select(slice(0)).usd_Q_B  # refuses what cannot be billed
            price_2_B = curves.menu.price_2_B
            bills = cls(num_queries, 1.0, None, curves.tokens_Q_B, curves.input_Q_B, price_2_B)
            return replace(bills, unit=finest_unit(bills.largest(is_ordered=False)))
        if curves.tokens_Q_B is None:
            raise InvalidSettingsError(
                "a total in spent tokens needs a usage curve, and these curves have none (tokens_Q_B is None). "
                "Use --cost granted, or a predictor fitted with token counts."
            )
        spent = cls(num_queries, 1.0, None, curves.tokens_Q_B)
        return replace(spent, unit=finest_unit(spent.largest(is_ordered=is_ordered)))

    def largest(self, *, is_ordered: bool) -> NDArray[np.float64]:
        """The largest cost of each query, in units before rounding, shape (Q,)."""
        if is_ordered:
            return self._scaled(lambda array_Q_B: array_Q_B[:, -1], where=(-1,))
        largest_Q = np.empty(self.num_queries)
        for at in range(0, self.num_queries, CHUNK):
            chunk = slice(at, min(at + CHUNK, self.num_queries))
            self._scaled(lambda array_Q_B, chunk=chunk: array_Q_B[chunk]).max(axis=1, out=largest_Q[chunk])  # type: ignore[misc]
        return largest_Q

    @property
    def is_alike(self) -> bool:
        """Whether every query has the same costs."""
        arrays = (self.tokens_Q_B, self.input_Q_B)
        return all(array_Q_B is None or bool((array_Q_B == array_Q_B[0]).all()) for array_Q_B in arrays)

    def rows(self, rows: Rows) -> NDArray[np.int64]:
        """Costs of some queries at every column, shape (N, B); to be read only."""
        if self.shared_B is not None:
            num_rows = len(range(*rows.indices(self.num_queries))) if isinstance(rows, slice) else rows.size
            return np.broadcast_to(self.shared_B, (num_rows, self.shared_B.size))
        return self._rounded(lambda array_Q_B: array_Q_B[rows]).astype(np.int64)

    def floats(self, rows: Rows, out_B_N: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The same, turned, as floats (exact): shape (B, N), or (B, 1) where costs are shared, for broadcasting.

        Written to `out_B_N` where that is given and costs differ.
        """
        if self.shared_B is not None:
            return self.shared_B[:, None].astype(np.float64)
        return self._rounded(lambda array_Q_B: array_Q_B[rows].T, where=(EVERY, None), out=out_B_N)

    def at(self, row_N: Rows, column_N: IntArray) -> NDArray[np.int64]:
        """Cost of each of some queries at its column, shape (N,)."""
        if self.shared_B is not None:
            return self.shared_B.take(column_N)
        return self._rounded(lambda array_Q_B: entries(array_Q_B, row_N, column_N), where=(column_N,)).astype(np.int64)

    def at_each(self, column_Q: IntArray) -> NDArray[np.int64]:
        """Cost of every query at its column, shape (Q,)."""
        return self.at(np.arange(self.num_queries), column_Q)

    def next_step(self, row_N: NDArray[np.int64], column_N: IntArray) -> NDArray[np.int64]:
        """What one column more costs each of some queries, shape (N,)."""
        return self.at(row_N, column_N + 1) - self.at(row_N, column_N)

    def mean(self) -> Costs:
        """Costs of a batch in which every query has the mean of these, in the same unit."""
        if self.shared_B is not None:
            return self
        assert self.tokens_Q_B is not None
        sum_B = [
            exact_sum(self._rounded(lambda array_Q_B, column=column: array_Q_B[:, column], where=(column,)))  # type: ignore[misc]
            for column in range(self.tokens_Q_B.shape[1])
        ]
        return Costs(self.num_queries, self.unit, np.rint(np.array(sum_B) / self.num_queries).astype(np.int64))

    def _rounded(
        self, pick: Pick, where: tuple[Any, ...] = (EVERY,), out: FloatArray | None = None
    ) -> NDArray[np.float64]:
        scaled = self._scaled(pick, where, out)
        return np.rint(scaled, out=scaled)

    def _scaled(
        self, pick: Pick, where: tuple[Any, ...] = (EVERY,), out: FloatArray | None = None
    ) -> NDArray[np.float64]:
        """What `pick` takes from tables of shape (Q, B), of the columns `where`, in units before rounding."""
        assert self.tokens_Q_B is not None
        how: dict[str, Any] = {"dtype": np.float64, "order": "C"}
        if self.price_2_B is None:
            return np.asarray(np.multiply(pick(self.tokens_Q_B), 1.0 / self.unit, out=out, **how))
        input_C, output_C = (self.price_2_B / 1e6 / self.unit)[EVERY, *where]
        scaled: NDArray[np.float64] = np.multiply(pick(self.tokens_Q_B), output_C, out=out, **how)
        if self.input_Q_B is not None:
            scaled += np.multiply(pick(self.input_Q_B), input_C, dtype=np.float64)
        return scaled


def finest_unit(largest_Q: NDArray[np.float64], all_largest: float | None = None) -> float:
    """A power of two in which the largest costs of the queries are still counted exactly, each and all together.

    Args:
        largest_Q: the largest cost of each query.
        all_largest: their sum; of more queries than these where it is given.
    """
    # 2**52: still exact as a float, for slopes. 2**61: a batch's sum stays far inside 64 bits.
    largest, all_largest = float(largest_Q.max()), exact_sum(largest_Q) if all_largest is None else all_largest
    exponent = min(52 - math.frexp(largest)[1], 61 - math.frexp(all_largest)[1], MOST_EXPONENT)
    return math.ldexp(1.0, -exponent)


def entries(array_Q_B: FloatArray | IntArray, row_N: Rows, column_N: IntArray) -> NDArray[Any]:
    """The entry of each of some rows at its column, shape (N,)."""
    if array_Q_B.flags.c_contiguous and not isinstance(row_N, slice):  # one index is half the work of two
        found_N: NDArray[Any] = array_Q_B.reshape(-1).take(row_N * array_Q_B.shape[1] + column_N)
    else:
        found_N = array_Q_B[row_N, column_N]
    return found_N


def exact_sum(array_N: FloatArray) -> float:
    """The float nearest to the true sum, as `math.fsum` gives, without a Python float for every number.

    Numbers are cut at a common binary place, high enough that the parts above it add up without rounding, and again
    below it until nothing is left (Rump, Ogita and Oishi, "Accurate floating-point summation", 2008).
    """
    parts: list[float] = []
    for at in range(0, array_N.size, SUM_CHUNK):
        rest_N = array_N[at : at + SUM_CHUNK].astype(np.float64)
        while (largest := float(np.abs(rest_N).max())) > 0.0:
            if not largest < LARGEST:
                parts += rest_N.tolist()
                break
            # 2**(exponent) is above twice the sum of all magnitudes: adding it rounds every number at one place.
            place = math.ldexp(1.0, math.frexp(largest)[1] + rest_N.size.bit_length() + 1)
            high_N = (rest_N + place) - place
            parts.append(float(high_N.sum()))
            rest_N -= high_N
    return math.fsum(parts)
