"""One request's budget or level: its curve at the price of a token, under a ceiling; and its place in the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..allocators.price import column_at
from ..control.planning import forecast
from ..core.data import Cost, Curves, FloatArray
from ..core.features import HIDDEN, ID, Features
from ..core.menu import Menu
from ..core.options import Option
from ..errors import InvalidMenuError, InvalidSettingsError
from ..predictors.predictor import Predictor
from ..predictors.usage import stretched
from ..questions.queries import content_id

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
            client's own cap or level; nothing set.
        reason: in words, for the response.
        budget: reasoning tokens of a thought; None where none are set, as by a level without a cap.
        option: the name of the option, of a menu of named ones; "" for a cap.
        expected: chance of a right answer by that option; None where it was not predicted.
        predicted_tokens: tokens expected to be generated for a thought and its answer; also the order of requests.
        high_tokens: a thought is expected to be no longer than this in nine cases of ten; at most its cap.
        most_tokens: that thought and answer can have, by the limit that is sent; None where nothing bounds them.
        answer_tokens: room for the answer that is in `most_tokens`.
        tokens_B: the predicted usage curve as the predictor gave it, where it was predicted and holds for this request.
        changes: fields to set in its body; tables go into tables.
        num_thoughts: that the request asks for, each with this budget.
        unkept: why the tenant's ceiling would not be kept, for which the request is refused; "" where it is.
    """

    kind: str
    reason: str
    budget: int | None = None
    expected: float | None = None
    predicted_tokens: int | None = None
    option: str = ""
    high_tokens: int | None = None
    most_tokens: int | None = None
    answer_tokens: int = 0
    tokens_B: FloatArray | None = field(default=None, repr=False, compare=False)
    changes: Mapping[str, Any] = field(default_factory=dict)
    num_thoughts: int = 1
    unkept: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether the budget was set here, and not by the client or not at all."""
        return self.kind in (PREDICTED, NOVEL, MEAN)

    @property
    def headers(self) -> dict[str, str]:
        """For the response; ASCII, one line each."""
        found = {"x-forethought-reason": in_header(self.reason)}
        if self.option:
            found["x-forethought-option"] = in_header(self.option)
        if self.budget is not None:
            found["x-forethought-budget"] = str(self.budget)
        if self.expected is not None:
            found["x-forethought-expected"] = f"{self.expected:.3f}"
        if self.predicted_tokens is not None:
            found["x-forethought-predicted"] = str(self.predicted_tokens)
        return found


Ceiling = int | str | None  # most reasoning tokens, or the largest option's name; None for no bound


@dataclass(frozen=True, slots=True)
class Asked:
    """A query to decide on.

    Attributes:
        question: its text.
        hidden_D: its hidden state, where the predictor reads one.
        note: said with the reason.
        price: right answers that a token must buy; None for the decider's own.
        ceiling: the most that may be chosen.
    """

    question: str
    hidden_D: FloatArray | None = None
    note: str = ""
    price: float | None = None
    ceiling: Ceiling = None


class Decider:
    """Options at one price, or at that of a request.

    Args:
        predictor: of the curves.
        price: right answers that a token must buy.
        cost: what a token is counted in.

    Raises:
        InvalidMenuError: the predictor is of votes over several samples, and a request is for one answer.
    """

    def __init__(self, predictor: Predictor, *, price: float, cost: Cost) -> None:
        if (predictor.card.menu.samples_B > 1).any():
            raise InvalidMenuError(
                f"the predictor's options are votes of several samples ({predictor.card.menu}), and a request is "
                "answered by one: train one without --samples for the gateway, and run votes with `forethought run`"
            )
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
        self._mean_curves = stretched(Curves(("mean",), self.menu, p_B[None], tokens_1_B), stretch)
        self._granted_B = self.menu.budgets_B.astype(np.float64)
        self._mean = self._at_price(self._mean_curves, 0, MEAN, "", price, None)

    @property
    def menu(self) -> Menu:
        """The options to choose from."""
        return self.predictor.card.menu

    @property
    def reads_hidden(self) -> bool:
        """Whether a query's hidden state is needed."""
        return HIDDEN in self.predictor.card.features.reads

    def by_mean(self, reason: str, *, price: float | None = None, ceiling: Ceiling = None) -> Decision:
        """The option of a query of which nothing is known: the mean training curve's, made concave.

        Args:
            reason: why its own curve is not known.
            price: right answers that a token must buy; None for the decider's own.
            ceiling: the most that may be chosen.
        """
        mean = self._mean
        if price is not None or ceiling is not None:
            mean = self._at_price(self._mean_curves, 0, MEAN, "", self.price if price is None else price, ceiling)
        return replace(mean, reason=f"mean curve: {reason}")

    def by_curve(
        self,
        question: str,
        hidden_D: FloatArray | None = None,
        note: str = "",
        *,
        price: float | None = None,
        ceiling: Ceiling = None,
    ) -> Decision:
        """The option of a query by its own curve; the reason says where it is novel.

        Args:
            question: its text.
            hidden_D: its hidden state, where the predictor reads one.
            note: said with the reason.
            price: right answers that a token must buy; None for the decider's own.
            ceiling: the most that may be chosen.
        """
        return self.by_curves([Asked(question, hidden_D, note, price, ceiling)])[0]

    def by_curves(self, asked: Sequence[Asked]) -> list[Decision]:
        """The same of several queries in one pass, which takes about half of the time of as many."""
        reads, read = self.predictor.card.features.reads, [each.hidden_D for each in asked]
        hidden_Q_D = np.stack([each for each in read if each is not None]) if read[0] is not None else None
        texts = tuple(each.question for each in asked)
        ids = tuple(map(content_id, texts)) if ID in reads else ("query",) * len(asked)
        expected = forecast(ids, self.predictor, Features(len(asked), hidden_Q_D, texts, ids=ids))
        unseen, judged, curves = set(expected.unseen_Q.tolist()), expected.judged, expected.curves
        own = stretched(curves, self.stretch)
        found = []
        for row, each in enumerate(asked):
            if row in unseen:
                found.append(self.by_mean("the question cannot be read", price=each.price, ceiling=each.ceiling))
                continue
            kind, reason = PREDICTED, PREDICTED
            if judged is not None and judged.is_novel_Q[row]:
                kind, reason = NOVEL, f"{PREDICTED}; novel to the predictor (p={float(judged.p_Q[row]):.3f})"
            reason = f"{reason}; {each.note}" if each.note else reason
            price = self.price if each.price is None else each.price
            found.append(self._at_price(own, row, kind, reason, price, each.ceiling, curves.tokens_Q_B))
        return found

    def of_client(self, column: int, reason: str) -> Decision:
        """The option of a named menu that a client chose itself, of which the mean curve says what it uses."""
        option, tokens = self.menu.option(self.menu.caps[column]), self._mean_tokens(column)
        return Decision(OWN, reason, option.cap, None, tokens, option.label, high_of_option(tokens, option))

    def _mean_tokens(self, column: int) -> int:
        tokens_1_B = self._mean_curves.tokens_Q_B
        return max(1, round(float(self.menu.caps[column] if tokens_1_B is None else tokens_1_B[0, column])))

    def columns(self, ceiling: Ceiling) -> list[int]:
        """Columns of the options within a ceiling; at least the first, which nothing goes below.

        An option without a cap counts by the tokens that it is known to take.

        Raises:
            InvalidMenuError: no option has this name.
        """
        menu = self.menu
        if ceiling is None:
            return list(range(menu.num_options))
        if isinstance(ceiling, str):
            return list(range(menu.column_of(ceiling) + 1))
        most = [menu.asked(budget, budget)[0] for budget in menu.caps]
        return [column for column, cap in enumerate(most) if cap <= ceiling] or [0]

    def _at_price(
        self,
        curves: Curves,
        row: int,
        kind: str,
        reason: str,
        price: float,
        ceiling: Ceiling,
        given_Q_B: FloatArray | None = None,
    ) -> Decision:
        """The option of one row; `given_Q_B` is the usage before it was stretched."""
        menu, p_B = curves.menu, curves.p_Q_B[row]
        tokens_B = None if curves.tokens_Q_B is None else curves.tokens_Q_B[row]
        costs_Q_B = curves.costs_Q_B(self.cost) if self.cost is not Cost.GRANTED else None
        if self.cost is not Cost.GRANTED and costs_Q_B is None:
            raise InvalidSettingsError("spent tokens need a predictor of usage, and this one has none")
        cost_B = self._granted_B if costs_Q_B is None else costs_Q_B[row]
        if ceiling is None:
            column = column_at(p_B, cost_B, price)
        else:
            kept_K = np.array(self.columns(ceiling))
            column = int(kept_K[column_at(p_B[kept_K], cost_B[kept_K], price)])
        budget = menu.caps[column]
        tokens = budget if tokens_B is None else tokens_B[column]
        predicted = max(1, round(float(tokens)))
        expected = min(1.0, max(0.0, float(p_B[column])))
        if menu.is_named:
            option = menu.option(budget)
            high = high_of_option(predicted, option)
            return Decision(kind, reason, option.cap, expected, predicted, option.label, high)
        if isinstance(ceiling, int) and ceiling < budget:  # below the smallest option
            return Decision(kind, reason, ceiling, None, min(predicted, ceiling), high_tokens=ceiling)
        high = budget if tokens_B is None else high_of_cap(menu, tokens_B, column)
        given_B = None if given_Q_B is None else given_Q_B[row]
        return Decision(kind, reason, budget, expected, predicted, high_tokens=high, tokens_B=given_B)


HIGH = 0.9  # the share of thoughts that are expected to be no longer than `high_tokens`
HIGH_RATIO = 2.303  # of that to the mean, ln 10: of lengths that fall off exponentially; a level's are not measured


def high_of_cap(menu: Menu, tokens_B: FloatArray, column: int) -> int:
    """Tokens that nine of ten thoughts under the cap in `column` are expected to keep to; at most the cap.

    The slope of a usage curve between two caps is the share of thoughts that are longer, averaged between the two.

    Args:
        menu: caps.
        tokens_B: expected usage, shape (B,).
        column: of the cap.
    """
    tokens = tokens_B.tolist()
    for before in range(column):
        low, high = menu.caps[before], menu.caps[before + 1]
        if tokens[before + 1] - tokens[before] <= (1.0 - HIGH) * (high - low):
            return high
    return menu.caps[column]


def high_of_option(predicted_tokens: int, option: Option) -> int:
    """The same of an option with a name, of which only the mean is known: at most its cap, where it has one."""
    high = round(HIGH_RATIO * predicted_tokens)
    return high if option.cap is None else min(high, option.cap)


def in_header(text: str) -> str:
    """As the value of a header: printable ASCII on one line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if " " <= letter <= "~" else "?" for letter in " ".join(text.split()))
