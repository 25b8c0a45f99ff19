"""Tokens of thought that came back against those predicted: where they part, curves and price follow."""

from __future__ import annotations

import logging
from typing import Any

from ..predictors.usage import Usage
from .decision import Decider, Decision
from .rate import Rate

logger = logging.getLogger("vllm.forethought")  # vLLM's own handlers show it

WINDOW = 1024  # thoughts after which a test that has not failed begins anew: one false alarm in 100 windows, at most
MOST_HELD = 4096  # thoughts that wait for an earlier one; then that is passed over


class Watch:
    """Looks at thoughts in the order in which they were asked for: short ones come back first, and would look alarming.

    Args:
        decider: whose predictions are in use; an alarm changes its curves and its price.
        rate: the price, and what it was set on.
    """

    def __init__(self, decider: Decider, rate: Rate) -> None:
        card = decider.predictor.card
        self.usage = Usage(card, window=WINDOW)
        self._decider = decider
        self._rate = rate
        first = 0.0 if card.mean_tokens_B is None else card.mean_tokens_B[0] - card.menu.smallest
        self._answer_tokens = max(0.0, first)  # a spend curve counts suffix and answer; of a thought neither is counted
        self._num_begun = self._next = 0
        self._held: dict[int, tuple[Decision, int] | None] = {}

    def begun(self) -> int:
        """The number of a request that got its budget here; each is to be ended once."""
        self._num_begun += 1
        return self._num_begun - 1

    def ended(self, number: int, decision: Decision, tokens: int | None) -> None:
        """A request has ended.

        Args:
            number: what `begun` gave it.
            decision: its budget and predicted curve.
            tokens: of its thought; None where they were not counted.
        """
        if number < self._next:  # it was passed over
            return
        self._held[number] = None if tokens is None else (decision, tokens)
        if len(self._held) > MOST_HELD:
            self._next = min(self._held)
        while self._next in self._held:
            found = self._held.pop(self._next)
            self._next += 1
            if found is not None:
                self._see(*found)

    def _see(self, decision: Decision, tokens: int) -> None:
        if decision.tokens_B is None or decision.budget is None:
            return
        usage, column = self.usage, self._decider.predictor.card.menu.index(decision.budget)
        usage.see(decision.tokens_B - self._answer_tokens, column, min(tokens, decision.budget))
        ratio = usage.test.ratio
        if usage.recentre():
            self._decider.adapt(usage.stretch, self._rate.at(usage.stretch))
            logger.warning(
                "thoughts use %.2f times the predicted tokens (%d seen): they are taken to be %.2f times as long as "
                "predicted, at %.3g right answers a token; profile such requests and train again",
                ratio,
                usage.num_seen,
                usage.stretch,
                self._decider.price,
            )

    def to_json(self) -> dict[str, Any]:
        """One object, JSON-able."""
        return {**self.usage.to_json(), "price": self._decider.price}
