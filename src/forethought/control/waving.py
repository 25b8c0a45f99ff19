"""Plans and runs in waves: a sample more only where it is worth its tokens at the price that fits what is left."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import numpy as np

from ..core.data import Allocation, Cost, Curves, FloatArray, IntArray, Query, Request
from ..core.menu import Menu
from ..core.protocols import Grader
from ..core.records import Record
from ..core.stopping import Standing
from ..core.votes import ABSTAINS
from ..errors import InvalidSettingsError, InvalidTotalError
from ..graders import group_answers
from ..predictors.parts.folds import hash_order
from ..predictors.parts.wave_table import WaveTable
from .answers import Answer
from .forecast import Forecast
from .plan import Plan
from .profiling import planned_seed
from .voting import Gathering
from .waves import LOWER, Drawing, WavePolicy, choose, marginal, price_for, price_of_options

NAME = "waves"  # of the allocation
Draw = Callable[[Iterable[Request]], AsyncIterator[Record]]
"""Requests -> their records, in any order, each once it is kept."""


def plan_waves(
    queries: Sequence[Query], expected: Forecast, tables: Mapping[str, WaveTable], *, total: float
) -> Allocation:
    """The option by which each query's samples are drawn, and what is expected where they are drawn in waves.

    Each query has the option with the largest number of samples that its cap has: a vote that is settled ends before.

    Args:
        queries: length Q.
        expected: their predicted curves, on a menu with single samples and votes.
        tables: how votes move, by the name of the single option.
        total: tokens that may be spent.

    Raises:
        InvalidSettingsError: the predictor knows no waves, or usage.
        InvalidTotalError: not even a first sample of each query fits.
    """
    curves, menu = expected.curves, expected.curves.menu
    labels = [label for label in menu.labels if label in tables]
    if not labels or curves.tokens_Q_B is None:
        raise InvalidSettingsError(
            "waves need a predictor of votes that knows usage, and how votes move: forethought train PROFILE "
            "--samples 1,2,4,8, on a profile with answers"
        )
    policies = [WavePolicy.of(tables[label]) for label in labels]
    columns = [menu.column_of(label) for label in labels]
    tokens_Q_O, right_Q_O_K = curves.tokens_Q_B[:, columns], _votes(curves, labels)
    price = price_of_options(total, policies, right_Q_O_K, tokens_Q_O)
    if math.isinf(price):
        raise InvalidTotalError(
            f"{total:,.0f} tokens cannot pay for a first sample of {len(queries)} questions, expected to be "
            f"{math.ceil(tokens_Q_O.min(axis=1).sum()):,}"
        )
    each = [_expected_of(policies, right_Q_O_K, tokens_Q_O, at) for at in (price, price * LOWER)]
    is_lower_Q = marginal(total, each[0][2], each[1][2], hash_order(curves.query_ids, seed=0))
    option_Q, right_Q, spent_Q = (np.where(is_lower_Q, low, high) for high, low in zip(*each, strict=True))
    budget_Q = np.array([_largest(menu, labels[number]) for number in option_Q.tolist()], dtype=np.int64)
    weight_Q = np.array([query.weight for query in queries])
    return Allocation(
        query_ids=curves.query_ids,
        menu=menu,
        budget_Q=budget_Q,
        allocator=NAME,
        cost=Cost.SPENT,
        total=total,
        granted=int(budget_Q.sum()),
        expected_spent=float(spent_Q.sum()),
        expected_accuracy=float(np.average(right_Q, weights=weight_Q)),
        price=price,
        notes=expected.notes,
    )


def _votes(curves: Curves, labels: Sequence[str]) -> FloatArray:
    """Predicted chance that the vote of 1, … K samples by each option is right, shape (Q, O, K).

    Between the numbers of samples of the menu it runs straight; beyond an option's largest it stays.
    """
    menu, number_K = curves.menu, np.arange(1, int(curves.menu.samples_B.max()) + 1)
    found_Q_O_K = np.empty((len(curves.query_ids), len(labels), len(number_K)))
    for place, label in enumerate(labels):
        columns = [column for column, option in enumerate(menu.options) if option.single.label == label]
        columns.sort(key=lambda column: menu.options[column].samples)
        samples_V = menu.samples_B[columns]
        share_V_K = np.array([np.interp(number_K, samples_V, one_V) for one_V in np.eye(len(columns))])
        found_Q_O_K[:, place] = curves.p_Q_B[:, columns] @ share_V_K
    return found_Q_O_K


def _expected_of(
    policies: Sequence[WavePolicy], right_Q_O_K: FloatArray, tokens_Q_O: FloatArray, price: float
) -> tuple[IntArray, FloatArray, FloatArray]:
    """The best option of each query at a price, and the right answers and tokens that are expected by it; (Q,) each."""
    option_Q, (right_Q, spent_Q) = choose(right_Q_O_K, tokens_Q_O, price), np.zeros((2, len(tokens_Q_O)))
    for number, policy in enumerate(policies):
        rows = np.flatnonzero(option_Q == number)
        tokens_Q, predicted_Q = tokens_Q_O[rows, number], right_Q_O_K[rows, number, 0]
        right_Q[rows], samples_Q = policy.expected(price=price * tokens_Q, predicted=predicted_Q)
        spent_Q[rows] = samples_Q * tokens_Q
    return option_Q, right_Q, spent_Q


def _largest(menu: Menu, label: str) -> int:
    """The budget of the option with the most samples by the single option of that name."""
    votes = [budget for budget in menu.caps if menu.option(budget).single.label == label]
    return max(votes, key=lambda budget: menu.option(budget).samples)


class Waves:
    """Samples of a plan's queries in waves: which come next is a pure function of those that came before.

    So a run that was stopped goes through the same waves again with the samples that it has, and on from there.

    Args:
        plan: made by `plan_waves`.
        grader: says which answers are the same.
    """

    def __init__(self, plan: Plan, grader: Grader) -> None:
        curves = plan.forecast.curves
        assert curves.tokens_Q_B is not None
        self._plan, self._grader, self._left = plan, grader, plan.allocation.total
        options = [plan.menu.option(budget) for budget in plan.allocation.budget_Q.tolist()]
        self._label_Q = np.array([option.single.label for option in options])
        column_Q = [plan.menu.column_of(label) for label in self._label_Q.tolist()]
        row_Q = np.arange(len(options))
        self._tokens_Q, self._predicted_Q = curves.tokens_Q_B[row_Q, column_Q], curves.p_Q_B[row_Q, column_Q]
        self._policies = {label: WavePolicy.of(plan.waves[label]) for label in set(self._label_Q.tolist())}
        self._most_Q = [option.samples for option in options]
        self._answers_Q: list[list[str | None]] = [[] for _ in options]
        self._is_open_Q = np.ones(len(options), dtype=bool)
        self._order_Q = hash_order(curves.query_ids, seed=0)

    def next(self) -> tuple[list[int], list[tuple[int, int]]]:
        """`(queries that have ended, the next wave)`: rows, and pairs of a row and the number of a sample."""
        rows_of = {
            label: np.flatnonzero(self._is_open_Q & (self._label_Q == label)) for label in sorted(self._policies)
        }
        drawings = {label: self._drawing(label, rows) for label, rows in rows_of.items() if rows.size}
        left = max(self._left, 0.0)
        price = price_for(left, list(drawings.values()))
        spent_Q, lower_Q = (np.zeros(len(self._most_Q)) for _ in range(2))
        for label, drawing in drawings.items():
            spent_Q[rows_of[label]] = drawing.further(price)
            lower_Q[rows_of[label]] = drawing.further(price * LOWER)
        is_lower_Q = marginal(left, spent_Q, lower_Q, self._order_Q)
        ended, wave = list[int](), list[tuple[int, int]]()
        for label, drawing in drawings.items():
            rows = rows_of[label]
            num_Q = np.where(is_lower_Q[rows], drawing.decide(price * LOWER), drawing.decide(price))
            for row, num in zip(rows.tolist(), num_Q.tolist(), strict=True):
                drawn = len(self._answers_Q[row])
                last = min(drawn + num, self._most_Q[row])
                wave += [(row, sample) for sample in range(drawn, last)]
                if last == drawn:
                    ended.append(row)
        self._is_open_Q[ended] = False
        return ended, sorted(wave, key=lambda each: (each[1], each[0]))

    def _drawing(self, label: str, rows: IntArray) -> Drawing:
        each = [Standing.of(self._groups(self._answers_Q[row])) for row in rows.tolist()]
        names = ("num_drawn", "top", "second", "streak")
        standing = Standing(*(np.array([int(getattr(one, name)) for one in each]) for name in names))
        return Drawing(self._policies[label], standing, self._tokens_Q[rows], self._predicted_Q[rows])

    def _groups(self, answers: Sequence[str | None]) -> list[int]:
        """The group of each answer; what failed abstains."""
        groups = iter(group_answers([text for text in answers if text is not None], self._grader))
        return [ABSTAINS if text is None else next(groups) for text in answers]

    def add(self, row: int, record: Record) -> None:
        """One more sample of a query, in the order of its samples. One that failed abstains."""
        outcome = record.at(record.budget)
        self._answers_Q[row].append(None if outcome is None else outcome.answer)
        tokens = None if outcome is None else outcome.tokens
        self._left -= self._tokens_Q[row] if tokens is None else tokens


async def answers_in_waves(
    plan: Plan,
    gathered: Gathering,
    grader: Grader,
    draw: Draw,
    *,
    known: Mapping[tuple[str, int], Record],
    ceiling: int,
) -> AsyncIterator[Answer]:
    """The answer of each query once its vote is settled, or another sample is not worth its tokens.

    Args:
        plan: made by `plan_waves`.
        gathered: puts the samples of a query together.
        grader: says which answers are the same.
        draw: generates samples.
        known: samples that are there already, by query and number.
        ceiling: most tokens of a thought by an option without a cap.
    """
    waves, record_of = Waves(plan, grader), dict(known)
    while True:
        ended, wave = waves.next()
        for row in ended:
            yield gathered.settle(plan.queries[row].id)
        if not wave:
            return
        missing = [each for each in wave if _key(plan, each) not in record_of]
        async for record in draw([_request(plan, row, sample, ceiling) for row, sample in missing]):
            record_of[record.query_id, record.sample] = record
        for row, sample in sorted(wave):
            record = record_of.pop((plan.queries[row].id, sample))
            gathered.add(record)
            waves.add(row, record)


def _key(plan: Plan, each: tuple[int, int]) -> tuple[str, int]:
    return plan.queries[each[0]].id, each[1]


def _request(plan: Plan, row: int, sample: int, ceiling: int) -> Request:
    query, budget = plan.queries[row], int(plan.allocation.budget_Q[row])
    cap, option = plan.menu.asked(budget, ceiling)
    return Request(query, cap, sample, planned_seed(plan.seed, query.id, sample, option), option=option)
