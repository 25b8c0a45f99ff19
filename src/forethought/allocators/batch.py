"""A batch in parts, each with a way to load its curves: what holds for all of its queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import Cost, Curves
from ..core.menu import Menu
from .costs import Costs
from .problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Consecutive queries of a batch.

    Attributes:
        start: position of the first of them in the batch.
        num_queries: of them.
        load: their curves; called in each pass, from any thread, with whether usage is needed beside the chances of a
            right answer. Ids need only be there when they are asked for.
    """

    start: int
    num_queries: int
    load: Callable[[bool], Curves]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What holds for all queries of a batch.

    Attributes:
        menu: the options, and which of them every query may have:
        first, last: columns, inclusive.
        is_bounded: whether that is less than the whole menu.
        cost, total: what is divided.
        unit: tokens, or USD, in a unit.
        is_shared: whether every query has the same costs.
        is_ordered: whether no query's costs fall along the menu.
    """

    menu: Menu
    first: int
    last: int
    is_bounded: bool
    cost: Cost
    total: float
    unit: float
    is_shared: bool
    is_ordered: bool

    @property
    def is_usage_needed(self) -> bool:
        """Whether costs depend on the curves."""
        return self.cost is not Cost.GRANTED

    def problem(self, curves: Curves) -> Problem:
        """Some of its queries, in the units of all."""
        num_queries = len(curves.query_ids)
        if self.is_shared:
            costs = Costs(num_queries, self.unit, self.menu.units_B)
        else:
            prices = self.menu.price_2_B if self.cost is Cost.USD else None
            prompts = curves.input_Q_B if self.cost is Cost.USD else None
            costs = Costs(num_queries, self.unit, None, curves.tokens_Q_B, prompts, prices)
        first_Q, last_Q = (np.broadcast_to(np.int64(column), num_queries) for column in (self.first, self.last))
        return Problem(
            curves,
            self.cost,
            self.total,
            None,
            curves.p_Q_B,
            costs,
            0,
            first_Q,
            last_Q,
            self.is_bounded,
            is_ordered=self.is_ordered,
        )


def joined(parts: Sequence[Curves]) -> Curves:
    """The curves of several places, one after the other."""

    def tables(name: str) -> Any:
        arrays = [getattr(each, name) for each in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    ids = tuple(query_id for each in parts for query_id in each.query_ids)
    return Curves(ids, parts[0].menu, tables("p_Q_B"), tables("tokens_Q_B"), tables("input_Q_B"))


def without_ids(curves: Curves, row_N: NDArray[np.int64]) -> Curves:
    """Some rows of a part's curves; ids are not read."""
    arrays = (None if array is None else array[row_N] for array in (curves.p_Q_B, curves.tokens_Q_B, curves.input_Q_B))
    return Curves(("",) * row_N.size, curves.menu, *arrays)  # type: ignore[arg-type]
