"""Re-planning during a run: at fixed points, budgets of questions not yet started change by the tokens used so far."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.codec import MOST, UnfitError, decode, encode, shown
from ..core.data import Cost, Curves, FloatArray, Query
from ..core.files import read_json, write_json
from ..core.menu import Menu
from ..errors import RunError
from ..predictors.parts.folds import hash_order
from ..predictors.usage import Usage, stretched
from ..runs.store import RunDirectory
from .forecast import Forecast
from .plan import Plan
from .planning import allocate

logger = logging.getLogger(__name__)

FIRST_BLOCK = 64  # answers that are seen before anything is decided, at least
SHARES = (8, 4, 2)  # decisions after an eighth, a quarter and a half of the questions: each looks at all before it
FILE = "usage.json"


def block_ends(num_queries: int) -> list[int]:
    """How many questions are done at the end of each block; the last is all of them."""
    ends = {max(FIRST_BLOCK, num_queries // share) for share in SHARES}
    return [*sorted(end for end in ends if end < num_queries), num_queries]


def blocks(queries: Sequence[Query]) -> list[list[Query]]:
    """The questions in the blocks between which budgets may change.

    In the order of a hash of their ids, so that each block is a random part of the batch however its file is sorted.
    """
    order = [queries[row] for row in hash_order([query.id for query in queries], seed=0).tolist()]
    ends = block_ends(len(order))
    return [order[start:end] for start, end in zip([0, *ends], ends)]  # noqa: B905


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided after a block: whether usage had parted from what was predicted, and new budgets, by id."""

    alarm: bool
    usage: Mapping[str, Any]
    budgets: Mapping[str, int]

    @property
    def stretch(self) -> float:
        """How many times as long as predicted thoughts were taken to be; raises UnfitError where it says nonsense."""
        stretch = self.usage.get("stretch")
        if isinstance(stretch, bool) or not isinstance(stretch, int | float) or not 0.0 < stretch <= MOST:
            raise UnfitError(f"must be a number above 0, not {shown(stretch)}", "stretch")
        return float(stretch)


@dataclass(frozen=True, slots=True)
class Decided:
    """RUN/usage.json: the decisions so far, one a block, and what has been seen of usage."""

    decisions: tuple[Decision, ...] = ()
    usage: Mapping[str, Any] | None = None


class Adaptation:
    """Compares used with predicted tokens, block by block, and makes a new plan if they differ.

    What is seen at a decision is every answer of the blocks before it, in the order of `blocks`; neither the order in
    which answers came back nor the clock has a say. Decisions are kept in RUN/usage.json, and a run that is resumed
    takes them from there.

    Args:
        run: has its plan already.
        plan: as it lies there, with its predictor's card.
        fitting: query id -> the largest cap that its context holds; empty where no context is known.
    """

    def __init__(self, run: RunDirectory, plan: Plan, fitting: Mapping[str, int] | None = None) -> None:
        assert plan.card is not None
        self.usage = Usage(plan.card)
        self._run = run
        self._plan = plan
        self._fitting = fitting or {}
        self._total, self._cost, self._menu = plan.allocation.total, plan.allocation.cost, plan.menu
        self._row_of = {query_id: row for row, query_id in enumerate(plan.allocation.query_ids)}
        self._unseen = {plan.allocation.query_ids[row] for row in plan.forecast.unseen_Q}
        self._decisions = list(kept(run, self._menu, self._row_of.keys()).decisions)

    def decide(
        self,
        number: int,
        block: Sequence[Query],
        rest: Sequence[Query],
        budget_of: Mapping[str, int],
        used_of: Mapping[str, float],
    ) -> dict[str, int]:
        """Looks at a finished block; the new budgets of questions that get others, by id.

        Args:
            number: of the block, from 0.
            block: its questions.
            rest: those that have not begun.
            budget_of: of every question, as it is now.
            used_of: tokens used under it, of every question that was answered.
        """
        for query in block:
            tokens_B = self._tokens(query.id)
            if query.id in used_of and tokens_B is not None and budget_of[query.id]:
                self.usage.see(tokens_B, self._menu.index(budget_of[query.id]), used_of[query.id])
        if number < len(self._decisions):  # decided before this run was resumed
            self.usage.recentre()
            self.usage.stretch = self._decisions[number].stretch
            return {}
        is_alarm, ratio = self.usage.test.is_alarm, self.usage.test.ratio
        budgets: dict[str, int] = {}
        if is_alarm:
            self.usage.recentre()
            budgets = self._replanned(rest, budget_of, used_of) if rest else {}
            logger.warning(
                "note: answers use %.2f times the predicted tokens (n = %d): curves are stretched by "
                "%.2f, and %d of %d questions that have not started get another budget",
                ratio,
                self.usage.num_seen,
                self.usage.stretch,
                len(budgets),
                len(rest),
            )
        self._decisions.append(Decision(is_alarm, self.usage.to_json(), budgets))
        self.keep()
        return budgets

    def _replanned(
        self, rest: Sequence[Query], budget_of: Mapping[str, int], used_of: Mapping[str, float]
    ) -> dict[str, int]:
        """New budgets under what is left of the total; only those that change."""
        begun = budget_of.keys() - {query.id for query in rest}
        left = self._total - sum(self._paid(query_id, budget_of, used_of) for query_id in sorted(begun))
        unseen_Q = np.array([row for row, query in enumerate(rest) if query.id in self._unseen], dtype=np.int64)
        curves = stretched(self._curves(rest), self.usage.stretch)
        bounded = [self._bounded(query, budget_of[query.id]) for query in rest]
        made = allocate(self._plan.terms, bounded, Forecast(curves, unseen_Q), left=left)
        pairs = zip(made.query_ids, made.budget_Q.tolist(), strict=True)
        return {query_id: budget for query_id, budget in pairs if budget != budget_of[query_id]}

    def _bounded(self, query: Query, budget: int) -> Query:
        """The question, with no larger cap allowed than its context holds; the one that it has was checked."""
        if query.id not in self._fitting:
            return query
        most = max(budget, self._fitting[query.id])
        return replace(query, max_budget=most if query.max_budget is None else min(query.max_budget, most))

    def keep(self) -> None:
        """Writes RUN/usage.json."""
        write_json(self._run.path / FILE, encode(Decided(tuple(self._decisions), self.usage.to_json())))

    def _tokens(self, query_id: str) -> FloatArray | None:
        tokens_Q_B = self._plan.forecast.curves.tokens_Q_B
        return None if tokens_Q_B is None else tokens_Q_B[self._row_of[query_id]]

    def _curves(self, queries: Sequence[Query]) -> Curves:
        curves, rows = self._plan.forecast.curves, [self._row_of[query.id] for query in queries]
        tokens_Q_B = None if curves.tokens_Q_B is None else curves.tokens_Q_B[rows]
        return Curves(tuple(query.id for query in queries), self._menu, curves.p_Q_B[rows], tokens_Q_B)

    def _paid(self, query_id: str, budget_of: Mapping[str, int], used_of: Mapping[str, float]) -> float:
        """What a question that has begun takes from the total."""
        budget, tokens_B = budget_of[query_id], self._tokens(query_id)
        if self._cost is Cost.GRANTED or tokens_B is None or not budget:
            return float(budget)
        return float(used_of.get(query_id, tokens_B[self._menu.index(budget)]))


def kept(run: RunDirectory, menu: Menu, query_ids: Set[str]) -> Decided:
    """What RUN/usage.json holds; nothing before the first decision.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path / FILE
    if not path.exists():
        return Decided()
    try:
        found = decode(Decided, read_json(path), lenient=(Decided, Decision))
        for decision in found.decisions:
            assert decision.stretch
            for query_id, budget in decision.budgets.items():
                if query_id not in query_ids or budget not in menu:
                    raise UnfitError(f"{budget} is not a budget of a question of this run, {shown(query_id)}")
    except UnfitError as error:
        raise RunError(
            f"{path} does not belong to this run: {error}. Copy the folder again; or delete the file, and questions "
            "without an answer get their budgets from the first plan"
        ) from error
    return found
