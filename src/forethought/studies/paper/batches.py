"""Forethought in small batches, and for single queries at one token price fixed in advance: the loss in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...allocators.price import budgets_at, price_for
from ...core.data import Cost, Curves
from ...core.showing import Progress, silent
from ...evaluation.bootstrap import estimate
from ...evaluation.policies import FORETHOUGHT, Policies, PolicyOutcome
from ...evaluation.resampled import Resampled
from .results import BatchRow

BATCH_SIZES = (8, 16, 64)
STREAM, TOGETHER = "stream", "together"  # `together`: everything planned at the tokens that the stream came to


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The accuracy of forethought if it does not see all queries at once.

    Attributes:
        outcomes: at each level one per batch size, the stream, and everything planned together at the stream's tokens.
        price_of: level -> the stream's price of a token, in right answers.
    """

    outcomes: tuple[PolicyOutcome, ...]
    price_of: dict[float, float]

    def rows(self, resampled: Resampled) -> tuple[BatchRow, ...]:
        """One row for each way of planning and level; `resampled` holds these outcomes among its own."""
        at = {(each.policy, each.level): column for column, each in enumerate(resampled.outcomes)}
        found = resampled.rows()
        rows = []
        for outcome in self.outcomes:
            if outcome.policy == TOGETHER:
                continue
            is_stream = outcome.policy == STREAM
            column, whole, equal = (at[name, outcome.level] for name in (outcome.policy, FORETHOUGHT, TOGETHER))
            lost_R_2 = resampled.accuracy_R_P[:, [whole, equal]] - resampled.accuracy_R_P[:, [column]]
            rows.append(
                BatchRow.of(
                    found[column],
                    planned=outcome.policy,
                    batch_size=None if is_stream else int(outcome.policy.rpartition(" ")[2]),
                    price=self.price_of[outcome.level] if is_stream else None,
                    lost=estimate(lost_R_2[:, 0]),
                    lost_at_equal_tokens=estimate(lost_R_2[:, 1]) if is_stream else None,
                )
            )
        return tuple(rows)


def play(policies: Policies, out_of_fold: Curves, levels: Sequence[float], *, progress: Progress = silent) -> Batches:
    """Plans in batches of each size, in the order of the file, and under one price.

    Args:
        policies: hold forethought's predictions and allocator.
        out_of_fold: predictions for the train queries, each by a fit that had not seen it: what sets the price at
            which the mean budget meets the level.
        levels: mean tokens per query.
        progress: called with what is being done, steps done and steps in all.
    """
    outcomes: list[PolicyOutcome] = []
    price_of: dict[float, float] = {}
    plan = (FORETHOUGHT, policies.predicted, policies.allocator, Cost.GRANTED)
    for number, level in enumerate(levels):
        progress("plans in batches", number, len(levels))
        for size in BATCH_SIZES:
            batched = policies.planned(*plan, level, batch_size=size)
            outcomes.append(replace(batched, policy=f"batches of {size}"))
        price_of[level] = price_for(out_of_fold, mean_tokens=level)
        stream = policies.given(STREAM, budgets_at(policies.predicted, price=price_of[level]), level)
        # Half a token more than the sum, so that no rounding of the mean takes a step away.
        realised = (float(stream.granted_Q.sum()) + 0.5) / len(stream.granted_Q)
        outcomes += [stream, replace(policies.planned(*plan, realised), policy=TOGETHER, level=level)]
    return Batches(tuple(outcomes), price_of)
