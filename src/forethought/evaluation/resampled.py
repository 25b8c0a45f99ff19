"""Policies compared at equal realised costs: rows, savings, losses and means, each with a paired interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..core.data import Cost, FloatArray
from ..core.showing import Progress, silent
from .bootstrap import estimate, ratio, resampled_means
from .frontier import Frontier, times_used
from .levels import token_weights
from .policies import BLIND, FORETHOUGHT, ORACLE, UNIFORM, Policies, PolicyOutcome
from .results import CostSummary, Estimate, Loss, PolicyRow, Saving

SMALLEST_GAP = 0.005  # half a percentage point: below it "share of the gap closed" says nothing
SAME = 1e-9  # accuracies this near differ by rounding alone
VERDICTS = ("worse", "behind", "not proven", "equal")


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Every policy at every level of one cost, on the sample (row 0) and on each resample: R + 1 rows, P outcomes.

    Attributes:
        cost: what the levels are counted in.
        outcomes: what is compared, length P; those of the policy `oracle` are what gaps are measured against.
        accuracy_R_P: mean accuracy.
        realised_R_P: mean cost realised, tokens or USD, counted by `cost`.
        uniform_R_P, blind_R_P: what the baselines reach at that cost.
        uniform, blind: the baselines' frontiers.
        is_spend_measured: whether the tokens generated were measured; rows leave them out otherwise.
    """

    cost: Cost
    outcomes: tuple[PolicyOutcome, ...]
    accuracy_R_P: FloatArray
    realised_R_P: FloatArray
    uniform_R_P: FloatArray
    blind_R_P: FloatArray
    uniform: Frontier
    blind: Frontier
    is_spend_measured: bool = True

    @classmethod
    def make(
        cls,
        policies: Policies,
        outcomes: Sequence[PolicyOutcome],
        cost: Cost,
        *,
        num_resamples: int,
        seed: int,
        is_spend_measured: bool = True,
        progress: Progress = silent,
    ) -> Self:
        """Resamples all results of the policies at once."""
        blocks = (
            policies.measured.p_Q_B,
            policies.costs_Q_B(cost),
            np.stack([outcome.accuracy_Q for outcome in outcomes], axis=1),
            np.stack([outcome.costs_Q(cost) for outcome in outcomes], axis=1),
        )
        means_R_N = resampled_means(
            np.concatenate(blocks, axis=1), num_resamples=num_resamples, seed=seed, progress=progress
        )
        ends = np.cumsum([block.shape[1] for block in blocks])
        accuracy_R_B, cost_R_B, accuracy_R_P, realised_R_P = np.split(means_R_N, ends[:-1], axis=1)
        columns = policies.blind_columns(cost)
        uniform = Frontier.through(cost_R_B, accuracy_R_B)
        blind = Frontier.through(cost_R_B[:, columns], accuracy_R_B[:, columns])
        uniform_R_P, blind_R_P = (
            np.stack([frontier.accuracy_at(realised_R) for realised_R in realised_R_P.T], axis=1)
            for frontier in (uniform, blind)
        )
        found = (accuracy_R_P, realised_R_P, uniform_R_P, blind_R_P, uniform, blind)
        return cls(cost, tuple(outcomes), *found, is_spend_measured)

    def rows(self) -> list[PolicyRow]:
        """One row for each outcome."""
        oracle_column = {o.level: column for column, o in enumerate(self.outcomes) if o.policy == ORACLE}
        return [self._row(column, oracle_column[outcome.level]) for column, outcome in enumerate(self.outcomes)]

    def _row(self, column: int, oracle: int) -> PolicyRow:
        outcome = self.outcomes[column]
        gains, gaps = [], []
        for baseline, reached_R_P in ((UNIFORM, self.uniform_R_P), (BLIND, self.blind_R_P)):
            gain_R_P = self.accuracy_R_P - reached_R_P
            is_other = outcome.policy != baseline
            gains.append(estimate(gain_R_P[:, column]) if is_other else None)
            gaps.append(share_closed(gain_R_P, column, oracle) if is_other and outcome.policy != ORACLE else None)
        return PolicyRow(
            cost=self.cost,
            policy=outcome.policy,
            budget=outcome.level,
            granted=float(outcome.granted_Q.mean()),
            spent=float(outcome.spent_Q.mean()) if self.is_spend_measured else None,
            usd=None if outcome.usd_Q is None else float(outcome.usd_Q.mean()),
            accuracy=estimate(self.accuracy_R_P[:, column]),
            gain=gains[0],
            gain_over_blind=gains[1],
            gap_closed=gaps[0],
            gap_closed_over_blind=gaps[1],
            uniform_at_same_tokens=estimate(self.uniform_R_P[:, column]),
            blind_at_same_tokens=estimate(self.blind_R_P[:, column]),
            shares=tuple(outcome.share_B.tolist()),
        )

    def savings(self) -> list[Saving]:
        """What the baselines need to be as accurate as forethought, at each level."""
        return [
            self._saving(column, name, frontier)
            for column in self.columns(FORETHOUGHT)
            for name, frontier in ((UNIFORM, self.uniform), (BLIND, self.blind))
        ]

    def _saving(self, column: int, baseline: str, frontier: Frontier) -> Saving:
        realised_R, outcome = self.realised_R_P[:, column], self.outcomes[column]
        needed_R = frontier.cost_for(self.accuracy_R_P[:, column])
        return Saving(
            cost=self.cost,
            baseline=baseline,
            budget=outcome.level,
            tokens=float((outcome.granted_Q if self.cost is Cost.GRANTED else outcome.spent_Q).mean()),
            usd=None if outcome.usd_Q is None else float(outcome.usd_Q.mean()),
            accuracy=float(self.accuracy_R_P[0, column]),
            needed=estimate(needed_R),
            ratio=estimate(times_used(needed_R, realised_R)),
            reached=float(np.isfinite(needed_R[1:]).mean()),
        )

    def losses(self) -> list[Loss]:
        """Every level and baseline where forethought is not clearly ahead, worst verdict first."""
        found = [
            Loss(self.cost, self.outcomes[column].level, baseline, _verdict(gain), gain)
            for column in self.columns(FORETHOUGHT)
            for baseline, baseline_R_P in ((UNIFORM, self.uniform_R_P), (BLIND, self.blind_R_P))
            for gain in [estimate(self.accuracy_R_P[:, column] - baseline_R_P[:, column])]
            if gain.low <= SAME
        ]
        return sorted(found, key=lambda loss: (VERDICTS.index(loss.verdict), loss.baseline, loss.budget))

    def summaries(self) -> list[CostSummary]:
        """Each policy's mean gains over the levels."""
        return [
            CostSummary(
                cost=self.cost,
                policy=policy,
                gain=None if policy == UNIFORM else estimate(self.mean_gain_R(policy, UNIFORM)),
                gain_over_blind=None if policy == BLIND else estimate(self.mean_gain_R(policy, BLIND)),
            )
            for policy in dict.fromkeys(outcome.policy for outcome in self.outcomes)
        ]

    def mean_gain_R(self, policy: str, baseline: str, *, levels: Sequence[float] | None = None) -> FloatArray:
        """A policy's accuracy less what uniform or blind reaches at its cost: mean over levels, shape (R + 1,)."""
        reached_R_P = {UNIFORM: self.uniform_R_P, BLIND: self.blind_R_P}[baseline]
        return self._mean_R(self.accuracy_R_P - reached_R_P, policy, levels)

    def mean_accuracy_R(self, policy: str, *, levels: Sequence[float] | None = None) -> FloatArray:
        """A policy's accuracy, mean over levels, shape (R + 1,); the difference of two is a paired lead."""
        return self._mean_R(self.accuracy_R_P, policy, levels)

    def _mean_R(self, values_R_P: FloatArray, policy: str, levels: Sequence[float] | None) -> FloatArray:
        columns = [column for column in self.columns(policy) if levels is None or self.outcomes[column].level in levels]
        mean_R: FloatArray = values_R_P[:, columns] @ token_weights([self.outcomes[each].level for each in columns])
        return mean_R

    def columns(self, policy: str) -> list[int]:
        """Indices of one policy's outcomes among all, by level."""
        return [column for column, outcome in enumerate(self.outcomes) if outcome.policy == policy]


def share_closed(gain_R_P: FloatArray, column: int, oracle: int) -> Estimate | None:
    """One column's gain as a share of the oracle's; None where that is too small to divide by."""
    return ratio(gain_R_P[:, column], gain_R_P[:, oracle], smallest=SMALLEST_GAP)


def _verdict(gain: Estimate) -> str:
    if gain.low > -SAME and gain.high < SAME:
        return "equal"
    if gain.high < 0.0:
        return "worse"
    return "behind" if gain.value < 0.0 else "not proven"
