"""One request's budget, its curve at the price of a token, and its place in the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..allocators.price import budgets_at
from ..control.planning import forecast
from ..core.data import Cost, Curves, FloatArray
from ..core.features import HIDDEN, Features
from ..predictors.predictor import Predictor
from ..predictors.usage import stretched

AGED, LENGTH, NONE = "aged", "length", "none"
WAYS = (AGED, LENGTH, NONE)
PATIENCE = 0.25  # seconds a token: 8 times what a token takes at 30 ms each (docs/serving.md, "Priorities")


class Priorities:
    """Numbers for requests as they come: short ones first, and none overtaken for ever.

    vLLM serves the lowest number first and never changes it while a request waits. By length alone a long one waits
    for as long as short ones keep coming. With its second of arrival in the number, only those overtake it that arrive
    soon enough after it: at most `patience` seconds for every token that they are expected to be shorter by.

    Args:
        way: one of WAYS; `none` gives no numbers.
        patience: seconds of waiting that outweigh one expected token, for `aged`.
        clock: seconds, the same for every process of the server.
    """

    def __init__(
        self, way: str = AGED, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.way = way
        self.patience = patience
        self._clock = clock

    def __str__(self) -> str:
        return {
            AGED: f"short requests go first, overtaking by at most {self.patience:g} s a token",
            LENGTH: "short requests go first, however long the others wait",
            NONE: "no priorities",
        }[self.way]

    def of(self, tokens: int) -> int | None:
        """The number of a request that arrives now and is expected to generate `tokens`; None for none."""
        if self.way == NONE:
            return None
        if self.way == LENGTH:
            return tokens
        return round(1000 * (self._clock() + self.patience * tokens))


PREDICTED, NOVEL, MEAN, OWN, UNTOUCHED = "predicted", "novel", "mean", "own", "untouched"
KINDS = (PREDICTED, NOVEL, MEAN, OWN, UNTOUCHED)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a request gets.

    Attributes:
        kind: one of KINDS: by its own curve; the same, but the query is novel to the predictor; by the mean curve; the
            client's own cap; nothing set.
        reason: in words, for the response.
        budget: reasoning tokens; None where nothing is set.
        expected: chance of a right answer at that budget; None where it was not predicted.
        length: tokens expected to be generated, for the order of requests.
        tokens_B: the predicted usage curve as the predictor gave it, where it was predicted and holds for this request.
        changes: fields to set in its body.
        num_thoughts: that the request asks for, each with this budget.
    """

    kind: str
    reason: str
    budget: int | None = None
    expected: float | None = None
    length: int | None = None
    tokens_B: FloatArray | None = field(default=None, repr=False, compare=False)
    changes: Mapping[str, Any] = field(default_factory=dict)
    num_thoughts: int = 1

    @property
    def is_ours(self) -> bool:
        """Whether the budget was set here, and not by the client or not at all."""
        return self.kind in (PREDICTED, NOVEL, MEAN)

    @property
    def headers(self) -> dict[str, str]:
        """For the response; ASCII, one line each."""
        found = {"x-forethought-reason": _in_header(self.reason)}
        if self.budget is not None:
            found["x-forethought-budget"] = str(self.budget)
        if self.expected is not None:
            found["x-forethought-expected"] = f"{self.expected:.3f}"
        return found


class Decider:
    """Budgets at one price.

    Args:
        predictor: of the curves.
        price: right answers that a token must buy.
        cost: what a token is counted in.
    """

    def __init__(self, predictor: Predictor, *, price: float, cost: Cost) -> None:
        self.predictor = predictor
        self.price = price
        self.cost = cost
        self.adapt(1.0, price)

    def adapt(self, stretch: float, price: float) -> None:
        """From now on thoughts are taken to be `stretch` times as long as predicted, at another price."""
        self.stretch = stretch
        self.price = price
        p_B, tokens_B = self.predictor.card.concave_mean
        tokens_1_B = None if tokens_B is None else tokens_B[None]
        self._mean = self._at_price(Curves(("mean",), self.predictor.card.menu, p_B[None], tokens_1_B), MEAN, "")

    @property
    def reads_hidden(self) -> bool:
        """Whether a query's hidden state is needed."""
        return HIDDEN in self.predictor.card.features.reads

    def by_mean(self, reason: str) -> Decision:
        """The budget of a query of which nothing is known: the mean training curve's, made concave.

        Args:
            reason: why its own curve is not known.
        """
        mean = self._mean
        return Decision(MEAN, f"mean curve: {reason}", mean.budget, mean.expected, mean.length)

    def by_curve(self, question: str, hidden_D: FloatArray | None = None, note: str = "") -> Decision:
        """The budget of a query by its own curve; the reason says where it is novel.

        Args:
            question: its text.
            hidden_D: its hidden state, where the predictor reads one.
            note: said with the reason.
        """
        hidden_1_D = None if hidden_D is None else hidden_D[None]
        read = Features(1, hidden_1_D, (question,))
        expected = forecast(("query",), self.predictor, read)
        if len(expected.unseen_Q):
            return self.by_mean("the question cannot be read")
        kind, reason = PREDICTED, PREDICTED
        judged = expected.judged
        if judged is not None and judged.num_novel:
            kind = NOVEL
            reason = f"{PREDICTED}; novel to the predictor (p={float(judged.p_Q[0]):.3f})"
        decision = self._at_price(expected.curves, kind, f"{reason}; {note}" if note else reason)
        tokens_1_B = expected.curves.tokens_Q_B
        return decision if tokens_1_B is None else replace(decision, tokens_B=tokens_1_B[0])

    def _at_price(self, curves: Curves, kind: str, reason: str) -> Decision:
        curves = stretched(curves, self.stretch)
        budget = int(budgets_at(curves, price=self.price, cost=self.cost)[0])
        column = curves.menu.index(budget)
        tokens = budget if curves.tokens_Q_B is None else curves.tokens_Q_B[0, column]
        expected = float(np.clip(curves.p_Q_B[0, column], 0.0, 1.0))
        return Decision(kind, reason, budget, expected, max(1, round(float(tokens))))


def _in_header(text: str) -> str:
    """As the value of a header: printable ASCII on one line."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in " ".join(text.split()))
