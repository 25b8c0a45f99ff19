"""Plans and runs in waves: a sample more only where it is worth its tokens at the price that fits what is left."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..core.allocation import Allocation
from ..core.data import Cost, Curves, FloatArray, IntArray, Query, Request
from ..core.menu import Menu
from ..core.protocols import Grader
from ..core.records import Record
from ..core.showing import Progress
from ..core.stopping import Standing
from ..core.votes import ABSTAINS
from ..errors import InvalidTotalError
from ..graders import group_answers
from ..predictors.parts.folds import hash_order
from ..predictors.parts.wave_table import WaveTable
from .answers import Answer
from .forecast import Forecast
from .plan import Plan
from .voting import Gathering
from .waves import LOWER, Drawing, WavePolicy, marginal, plan_options, price_for

NAME = "waves"  # of the allocation
SHARES = (0.9, 1.0)  # of the total, that is spent by the end of each round
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
        InvalidTotalError: not even a first sample of each query fits.
    """
    curves, menu = expected.curves, expected.curves.menu
    labels = [label for label in menu.labels if label in tables]
    assert curves.tokens_Q_B is not None  # see `planning.check_waves`
    policies = [WavePolicy.of(tables[label]) for label in labels]
    columns = [menu.column_of(label) for label in labels]
    tokens_Q_O, right_Q_O_K = curves.tokens_Q_B[:, columns], _votes(curves, labels)
    order_Q = hash_order(curves.query_ids, seed=0)
    option_Q, right_Q, spent_Q, price = plan_options(total, policies, right_Q_O_K, tokens_Q_O, order_Q)
    if math.isinf(price):
        raise InvalidTotalError(
            f"{total:,.0f} tokens cannot pay for a first sample of {len(queries)} questions, which is expected to take "
            f"{math.ceil(tokens_Q_O.min(axis=1).sum()):,}"
        )
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


def _largest(menu: Menu, label: str) -> int:
    """The budget of the option with the most samples by the single option of that name."""
    votes = [budget for budget in menu.caps if menu.option(budget).single.label == label]
    return max(votes, key=lambda budget: menu.option(budget).samples)


class Waves:
    """Samples of a plan's queries, each query's in waves, all in one stream, and the price of a token in a few rounds.

    In a round the price stands still, and each query goes on by itself until another wave is not worth it: an engine's
    batch is full until few are left. The first round spends less than there is; then the price is lowered to what
    fits into what is left, and queries go on from where they stopped. A lower price only draws more, so this comes to
    what the last price alone would have drawn. A query's samples depend on answers alone, not on the clock: a run that
    was stopped goes through the same decisions with the samples that it has.

    Args:
        plan: made by `plan_waves`.
        grader: says which answers are the same.
        losses: tells how many tokens failed samples have taken; None where that is not counted.

    Attributes:
        spent: tokens of the samples that have come.
        decided: rows of the queries that get no further sample; whoever takes their answers takes them from here.
    """

    def __init__(self, plan: Plan, grader: Grader, losses: Callable[[], int] | None = None) -> None:
        curves, menu = plan.forecast.curves, plan.menu
        assert curves.tokens_Q_B is not None
        self._grader, self._total, self._round, self._losses = grader, plan.allocation.total, 0, losses
        options = [menu.option(budget) for budget in plan.allocation.budget_Q.tolist()]
        self._label_Q = np.array([option.single.label for option in options])
        column_Q, row_Q = [menu.column_of(label) for label in self._label_Q.tolist()], np.arange(len(options))
        self._tokens_Q, self._predicted_Q = curves.tokens_Q_B[row_Q, column_Q], curves.p_Q_B[row_Q, column_Q]
        self._policies = {label: WavePolicy.of(plan.waves[label]) for label in sorted(set(self._label_Q.tolist()))}
        self._order_Q, self._most_Q = hash_order(curves.query_ids, seed=0), [option.samples for option in options]
        self._price, self._price_Q, self.spent = math.inf, np.full(len(options), math.inf), 0.0
        self._answers_Q: list[dict[int, str | None]] = [{} for _ in options]
        self._drawn_Q = [0] * len(options)  # asked for so far
        self._num_out = 0  # samples that were asked for and have not come
        self._ready = deque[tuple[int, int]]()
        self.decided = deque[int]()

    def next(self) -> tuple[int, int] | None:
        """The next sample to draw, as the row of its query and its number; None where others have to come first."""
        while not self._ready and not self._num_out and self._round < len(SHARES):
            self._begin_round()
        if not self._ready:
            return None
        self._num_out += 1
        return self._ready.popleft()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is worth its tokens."""
        return self._round == len(SHARES) and not self._ready and not self._num_out

    def _begin_round(self) -> None:
        """Lowers the price, and lets queries go on."""
        lost = 0 if self._losses is None else self._losses()
        left = max(0.0, SHARES[self._round] * self._total - self.spent - lost)
        self._round += 1
        rows_of = {label: np.flatnonzero(self._label_Q == label) for label in self._policies}
        drawings = {label: self._drawing(label, rows) for label, rows in rows_of.items()}
        price = self._price = min(self._price, price_for(left, list(drawings.values())))
        spent_Q, lower_Q = (np.zeros(len(self._most_Q)) for _ in range(2))
        for label, drawing in drawings.items():
            spent_Q[rows_of[label]] = drawing.further(price)
            lower_Q[rows_of[label]] = drawing.further(price * LOWER)
        is_lower_Q = marginal(left, spent_Q, lower_Q, self._order_Q)
        self._price_Q = np.minimum(self._price_Q, np.where(is_lower_Q, price * LOWER, price))
        for row in self._order_Q.tolist():
            if self._drawn_Q[row] < self._most_Q[row]:
                self._go_on(row)

    def _drawing(self, label: str, rows: IntArray) -> Drawing:
        each = [self._standing(row) for row in rows.tolist()]
        names = ("num_drawn", "top", "second")
        standing = Standing(*(np.array([int(getattr(one, name)) for one in each]) for name in names))
        return Drawing(self._policies[label], standing, self._tokens_Q[rows], self._predicted_Q[rows])

    def _standing(self, row: int) -> Standing:
        """How the vote of a query stands, all of whose samples have come; what failed abstains."""
        answers = [self._answers_Q[row][number] for number in range(self._drawn_Q[row])]
        groups = iter(group_answers([text for text in answers if text is not None], self._grader))
        return Standing.of([ABSTAINS if text is None else next(groups) for text in answers])

    def _go_on(self, row: int) -> None:
        """Decides on the next wave of a query, whose samples have all come."""
        price, drawn = float(self._price_Q[row] * self._tokens_Q[row]), self._drawn_Q[row]
        policy, predicted = self._policies[self._label_Q[row]], float(self._predicted_Q[row])
        num = int(policy.draw(self._standing(row), price=price, predicted=predicted))
        wave = range(drawn, max(drawn, min(drawn + num, self._most_Q[row])))
        self._drawn_Q[row] = wave.stop
        self._ready.extend((row, number) for number in wave)
        if not wave and (self._round == len(SHARES) or drawn == self._most_Q[row]):
            self.decided.append(row)

    def add(self, row: int, record: Record) -> None:
        """A sample that came. One that failed abstains; where nobody counted its tokens, it took what was expected."""
        outcome = record.at(record.budget)
        self._num_out -= 1
        self._answers_Q[row][record.sample] = None if outcome is None else outcome.answer
        if outcome is not None and outcome.tokens is not None:
            self.spent += outcome.tokens
        elif self._losses is None or not record.is_counted:
            self.spent += self._tokens_Q[row]
        if len(self._answers_Q[row]) == self._drawn_Q[row]:
            self._go_on(row)


async def answers_in_waves(
    plan: Plan,
    gathered: Gathering,
    grader: Grader,
    draw: Draw,
    *,
    known: Mapping[tuple[str, int], Record],
    losses: Callable[[], int] | None,
    ceiling: int,
    progress: Progress,
) -> AsyncIterator[Answer]:
    """The answer of each query, once it gets no further sample: most come when the last round begins.

    Args:
        plan: made by `plan_waves`.
        gathered: puts the samples of a query together.
        grader: says which answers are the same.
        draw: generates samples; what it asks for depends on what has come meanwhile.
        known: samples that are there already, by query and number.
        losses: tells how many tokens failed samples have taken; None where that is not counted.
        ceiling: most tokens of a thought by an option without a cap.
        progress: called with the tokens that were spent, and all that may be, until there are answers to count.
    """
    has_answers = False
    waves, row_of = Waves(plan, grader, losses), {query.id: row for row, query in enumerate(plan.queries)}

    def add(record: Record) -> None:
        gathered.add(record)
        waves.add(row_of[record.query_id], record)
        if not has_answers:
            progress("spend tokens on samples", round(waves.spent), round(plan.allocation.total))

    def decided() -> Iterator[Answer]:
        nonlocal has_answers
        while waves.decided:
            has_answers = True
            yield gathered.settle(plan.queries[waves.decided.popleft()].id)

    def requests() -> Iterator[Request]:
        while (sample := waves.next()) is not None:
            row, number = sample
            query = plan.queries[row]
            record = known.get((query.id, number))
            if record is None:
                yield plan.request(query, int(plan.allocation.budget_Q[row]), number, ceiling)
            else:
                add(record)

    while not waves.has_ended:
        async for record in draw(requests()):
            add(record)
            for answer in decided():
                yield answer
        for answer in decided():
            yield answer
