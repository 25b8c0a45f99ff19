"""The policies that are compared: their budgets, and the result on the measured curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..allocators import Allocator, allocate, pose
from ..allocators.hull import upper_envelope
from ..allocators.price import lp_bound
from ..core.allocation import Allocation
from ..core.data import Cost, Curves, FloatArray, IntArray, usd
from ..core.menu import Menu
from ..core.profile import Profile
from ..errors import InvalidSettingsError
from .frontier import shares_for

UNIFORM, BLIND, FORETHOUGHT, GREEDY = "uniform", "blind", "forethought", "greedy"
GREEDY_ORACLE, ORACLE, FAIR_ORACLE = "greedy-oracle", "oracle", "fair-oracle"
POLICIES = (UNIFORM, BLIND, FORETHOUGHT, GREEDY, GREEDY_ORACLE, ORACLE, FAIR_ORACLE)


@dataclass(frozen=True, slots=True, eq=False)
class PolicyOutcome:
    """The result of one policy at one level: the expectation for each query, by its measured curves.

    Attributes:
        policy: its name.
        level: the budget to divide: mean tokens, or USD, per query.
        accuracy_Q: measured success under the option given, shape (Q,).
        granted_Q: the cap given, shape (Q,).
        spent_Q: measured mean tokens under that option, shape (Q,).
        share_B: share of the queries at each option, shape (B,).
        plans: the plans behind it, one per batch; empty for uniform, blind and the fair oracle.
        usd_Q: measured mean bill under that option in USD, shape (Q,); None where it is not known.
    """

    policy: str
    level: float
    accuracy_Q: FloatArray
    granted_Q: FloatArray
    spent_Q: FloatArray
    share_B: FloatArray
    plans: tuple[Allocation, ...] = ()
    usd_Q: FloatArray | None = None

    def costs_Q(self, cost: Cost) -> FloatArray:
        """What each query realised, counted by `cost`, shape (Q,)."""
        if cost is Cost.USD:
            assert self.usd_Q is not None  # nothing is compared in money where bills are not known
            return self.usd_Q
        return self.granted_Q if cost is Cost.GRANTED else self.spent_Q


class Policies:
    """Plays every policy on one split.

    Args:
        measured: the split that is reported.
        predicted: predicted curves of the same queries; without tokens, the mean train curve's are planned with;
            without the prompts' tokens, those measured, which are known before anything is generated.
        mean_train: the mean train curve, one row, or more whose mean is taken; without tokens, a cap costs itself.
        allocator: makes forethought's plans: a registered name, or an allocator.
        halves: of each query's samples, for the fair oracle, on options of the measured menu; None for no such policy.

    Attributes:
        usd_Q_B: measured bills in USD, shape (Q, B); None where prices or tokens are not known.
    """

    def __init__(
        self,
        measured: Profile,
        predicted: Curves,
        mean_train: Curves,
        allocator: str | Allocator,
        halves: tuple[Profile, Profile] | None = None,
    ) -> None:
        self.halves = halves
        self.measured, self.any_order = measured.curves, measured.menu.is_named
        has_usd = measured.is_spend_measured and self.measured.is_billable
        self.usd_Q_B = self.measured.usd_Q_B if has_usd else None
        self.known = replace(self.measured, tokens_Q_B=self._in_order(measured.tokens_Q_B))
        self.mean_B = mean_train.p_Q_B.mean(axis=0)
        self.mean_tokens_B: FloatArray = measured.menu.budgets_B.astype(np.float64)
        if mean_train.tokens_Q_B is not None:
            self.mean_tokens_B = self._in_order(mean_train.tokens_Q_B.mean(axis=0))
        known = mean_train if mean_train.input_Q_B is not None else self.measured
        self.mean_input_B = None if known.input_Q_B is None else known.input_Q_B.mean(axis=0)
        if predicted.tokens_Q_B is None:
            tokens_Q_B = np.broadcast_to(self.mean_tokens_B, predicted.p_Q_B.shape)
            predicted = replace(predicted, tokens_Q_B=tokens_Q_B)
        if predicted.input_Q_B is None:
            predicted = replace(predicted, input_Q_B=self.measured.input_Q_B)
        self.predicted, self.allocator = predicted, allocator
        self._oracle_shortfall: dict[Cost, float] = {}

    def _in_order(self, tokens: FloatArray) -> FloatArray:
        """Usage curves to plan with: of caps a later one may not look cheaper, as a shorter answer can make it."""
        return tokens if self.any_order else np.maximum.accumulate(tokens, axis=-1)

    def play(self, cost: Cost, level: float) -> Iterator[PolicyOutcome]:
        """Every policy at a mean of `level` per query, counted by `cost`, in the order of POLICIES."""
        yield self.uniform(cost, level)
        yield self.blind(cost, level)
        yield self.planned(FORETHOUGHT, self.predicted, self.allocator, cost, level)
        yield self.planned(GREEDY, self.predicted, "greedy", cost, level)
        yield self.planned(GREEDY_ORACLE, self.known, "greedy", cost, level)
        yield from self.oracles(cost, level)

    def oracles(self, cost: Cost, level: float) -> Iterator[PolicyOutcome]:
        """The oracle and, where there are halves, the fair one."""
        yield self.oracle(cost, level)
        if self.halves is not None:
            yield self.fair_oracle(*self.halves, cost, level)

    def uniform(self, cost: Cost, level: float) -> PolicyOutcome:
        """Neighbours in mean cost at random, so that the mean is `level`: one option for all, or two."""
        return self._mixed(UNIFORM, level, shares_for(self.option_costs(cost), np.arange(len(self.mean_B)), level))

    def blind(self, cost: Cost, level: float) -> PolicyOutcome:
        """Neighbouring vertices of the mean train curve's envelope at random, so that the mean is `level`."""
        return self._mixed(BLIND, level, shares_for(self.option_costs(cost), self.blind_columns(cost), level))

    def option_costs(self, cost: Cost) -> FloatArray:
        """The mean cost of each option per query, as known before any answer of the split is seen, shape (B,)."""
        if cost is Cost.GRANTED:
            return self.measured.menu.budgets_B.astype(np.float64)
        if cost is Cost.SPENT:
            return self.mean_tokens_B
        return usd(self.measured.menu, self.mean_tokens_B, self.mean_input_B)

    def blind_columns(self, cost: Cost) -> IntArray:
        """The options blind ever uses: the vertices of the mean train curve's envelope."""
        return envelope_columns(self.measured.menu, self.option_costs(cost), self.mean_B)

    def costs_Q_B(self, cost: Cost) -> FloatArray:
        """What each query realises under each option, shape (Q, B); caps cost themselves under granted cost."""
        costs_Q_B = self.measured.costs_Q_B(cost)
        assert costs_Q_B is not None
        return costs_Q_B

    def _mixed(self, policy: str, level: float, share_B: FloatArray) -> PolicyOutcome:
        """Options handed out at random in these shares: the exact expectation over all such draws, for each query."""
        budgets_B = self.measured.menu.budgets_B
        return PolicyOutcome(
            policy=policy,
            level=level,
            accuracy_Q=self.measured.p_Q_B @ share_B,
            granted_Q=np.full(len(self.measured.query_ids), float(budgets_B @ share_B)),
            spent_Q=self.costs_Q_B(Cost.SPENT) @ share_B,
            share_B=share_B,
            usd_Q=None if self.usd_Q_B is None else self.usd_Q_B @ share_B,
        )

    def planned(
        self,
        policy: str,
        curves: Curves,
        allocator: str | Allocator,
        cost: Cost,
        level: float,
        *,
        batch_size: int | None = None,
    ) -> PolicyOutcome:
        """What an allocator makes of some curves of the same queries, in batches of `batch_size`, or all at once."""
        plans = tuple(
            allocate(allocator, batch, total=_total(batch, cost, level), cost=cost)
            for batch in _batches(curves, batch_size)
        )
        return replace(self.given(policy, np.concatenate([plan.budget_Q for plan in plans]), level), plans=plans)

    def given(self, policy: str, budget_Q: IntArray, level: float, on: Curves | None = None) -> PolicyOutcome:
        """The result of given budgets, on the measured curves or on others at some of their options."""
        measured = self.measured if on is None else on
        columns_Q_1 = measured.menu.columns(budget_Q)[:, None]

        def taken(cost: Cost) -> FloatArray:
            costs_Q_B = measured.costs_Q_B(cost)
            assert costs_Q_B is not None
            cost_Q: FloatArray = np.take_along_axis(costs_Q_B, columns_Q_1, axis=1)[:, 0]
            return cost_Q

        return PolicyOutcome(
            policy=policy,
            level=level,
            accuracy_Q=np.take_along_axis(measured.p_Q_B, columns_Q_1, axis=1)[:, 0],
            granted_Q=budget_Q.astype(np.float64),
            spent_Q=taken(Cost.SPENT),
            share_B=np.bincount(self.measured.menu.columns(budget_Q), minlength=len(self.mean_B)) / len(budget_Q),
            usd_Q=None if self.usd_Q_B is None else taken(Cost.USD),
        )

    def oracle(self, cost: Cost, level: float) -> PolicyOutcome:
        """The best plan for the measured curves.

        Under spent cost, and in money, that is the envelope allocator's: it counts costs as they are, where the exact
        one has to round each up and so finds a little less. How far from the best it may be is known.
        """
        if cost is Cost.GRANTED:
            try:
                return self.planned(ORACLE, self.known, "exact", cost, level)
            except InvalidSettingsError:  # the batch is too large for it
                pass
        outcome = self.planned(ORACLE, self.known, "envelope", cost, level)
        (plan,) = outcome.plans
        missing = lp_bound(pose(self.known, total=plan.total, cost=cost)) - plan.expected_accuracy
        self._oracle_shortfall[cost] = max(self._oracle_shortfall.get(cost, 0.0), missing)
        return outcome

    def fair_oracle(self, first: Profile, second: Profile, cost: Cost, level: float) -> PolicyOutcome:
        """The best plan for one half of each query's samples, on the other half; the mean of both ways."""
        one, other = (
            self.given(FAIR_ORACLE, self._best(choosing, cost, level).budget_Q, level, judged.curves)
            for choosing, judged in ((first, second), (second, first))
        )
        return replace(
            one,
            accuracy_Q=(one.accuracy_Q + other.accuracy_Q) / 2.0,
            granted_Q=(one.granted_Q + other.granted_Q) / 2.0,
            spent_Q=(one.spent_Q + other.spent_Q) / 2.0,
            share_B=(one.share_B + other.share_B) / 2.0,
            usd_Q=None if one.usd_Q is None or other.usd_Q is None else (one.usd_Q + other.usd_Q) / 2.0,
        )

    def _best(self, profile: Profile, cost: Cost, level: float) -> Allocation:
        curves = replace(profile.curves, tokens_Q_B=self._in_order(profile.tokens_Q_B))
        return allocate("envelope", curves, total=_total(curves, cost, level), cost=cost)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader must know of how the oracle was found, after `play`."""
        return tuple(
            f"{'In USD' if cost is Cost.USD else f'Under {cost.value} cost'} the oracle is the envelope allocator on "
            f"the measured curves; no plan is more than {100 * shortfall:.3f} points better at any level."
            for cost, shortfall in self._oracle_shortfall.items()
        )


def envelope_columns(menu: Menu, cost_B: FloatArray, value_B: FloatArray) -> IntArray:
    """Columns on the upper concave envelope of one curve over cost, from the cheapest to the highest value."""
    curve = Curves(("mean",), menu, value_B[None], cost_B[None])
    envelope = upper_envelope(pose(curve, total=2.0 * float(cost_B.max()), cost=Cost.SPENT))
    columns: IntArray = np.concatenate([envelope.start_M, envelope.column_N])
    return columns[int((envelope.cost_N == 0).sum()) :]  # what costs no more than the first option stands for it


def _batches(curves: Curves, batch_size: int | None) -> Iterator[Curves]:
    num_queries = len(curves.query_ids)
    step = batch_size or num_queries
    for start in range(0, num_queries, step):
        yield curves.select(slice(start, start + step))


def _total(curves: Curves, cost: Cost, level: float) -> float:
    """The total of a batch at `level` per query, and never less than its cheapest options are expected to cost.

    A level made from the train curve can lie below that by a token or so; the plan then gives everyone the cheapest
    option and is compared at what that really costs.
    """
    if cost is Cost.GRANTED:
        return level * len(curves.query_ids)
    costs_Q_B = curves.costs_Q_B(cost)
    assert costs_Q_B is not None
    # In double precision whatever the predictor answers in: a plan may not lack the last digit of its minimums.
    least = float(costs_Q_B.min(axis=1).sum(dtype=np.float64))
    return max(level * len(curves.query_ids), least * (1.0 + 1e-9))
