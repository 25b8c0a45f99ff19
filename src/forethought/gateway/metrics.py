"""What came back: thoughts counted, held against their budgets and against what was predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..predictors.usage import Usage
from ..servers.events import EventReader
from ..servers.reading import object_in
from ..servers.replies import texts_in
from ..servers.tokens import Usage as Reported
from ..servers.tokens import count_tokens, whole
from .decision import KINDS, MEAN, Decider, Decision
from .host import Tags, logger
from .price import Price

MAX_BYTES = 4_000_000  # of a response that is kept to be counted


class Counter:
    """Counts tokens of thought in responses.

    Where the server has a reasoning parser the thought has a field of its own; else it is the text before the end of
    thought. It is tokenized again, which can come out a token or two short of what was generated. The server's own
    count holds where it is larger: vLLM counts 0 where the chat template opened the thought. `engines.counting`
    decides.

    Args:
        tokenizer: of Hugging Face's kind.
        tags: how a thought is told.
    """

    def __init__(self, tokenizer: Any, tags: Tags) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        shown = str(tokenizer.decode(list(tags.end_ids), skip_special_tokens=True))
        self.way = "field" if tags.is_parsed else "text" if tags.end.strip() in shown else "none"

    def count(self, content: bytes, *, is_stream: bool) -> int | None:
        """Tokens of the thought; None where that cannot be told: several choices, an error, no thought that shows."""
        if self.way == "none" or not content:
            return None
        usage: Any = None
        texts, thoughts, num_choices = [], [], 1
        for part in _parts(content, is_stream=is_stream):
            usage = part.get("usage") or usage
            found = part.get("choices")
            choices = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
            num_choices = max([num_choices, len(choices), *((whole(each.get("index")) or 0) + 1 for each in choices)])
            for choice in choices:
                thought, text = texts_in(choice.get("message") or choice.get("delta") or choice.get("text"))
                thoughts.append(thought)
                texts.append(text)
        if num_choices > 1:
            return None
        shown, rest = ("".join(thoughts), "".join(texts)) if any(thoughts) else self._split("".join(texts))
        if shown is None:
            return Reported.read(usage).reasoning
        own = len(self._tokenizer.encode(shown, add_special_tokens=False))
        return count_tokens(usage, thought=shown, answer=rest, thought_tokens=own).reasoning

    def _split(self, text: str) -> tuple[str | None, str]:
        """`(thought, rest)` of a text that holds the end of its thought; (None, text) where it holds none."""
        thought, end, rest = text.partition(self._tags.end)
        return (thought.rpartition(self._tags.start)[2], rest) if end else (None, text)


def _parts(content: bytes, *, is_stream: bool) -> Iterator[Mapping[str, Any]]:
    reader = EventReader()
    parts = [*reader.feed(content), *reader.rest()] if is_stream else [object_in(content)]
    for part in parts:
        if isinstance(part, dict):
            yield part


class Metrics:
    """Counts of one server process.

    Args:
        mean_budget: tokens a query that the price was set for; None where it was given.
    """

    def __init__(self, mean_budget: float | None) -> None:
        self.mean_budget = mean_budget
        self.num_kind = dict.fromkeys(KINDS, 0)
        self.reasons: dict[str, int] = {}
        self.budget_tokens = self.num_set = 0
        self.num_counted = self.reasoning_tokens = self.num_over = self.largest_overshoot = 0
        self.seconds = 0.0
        self._counters = _counters()

    def decided(self, decision: Decision, seconds: float) -> None:
        """Notes a decision, and how long it took."""
        self.num_kind[decision.kind] += 1
        self.seconds += seconds
        if decision.kind == MEAN:
            self.reasons[decision.reason] = self.reasons.get(decision.reason, 0) + 1
        if decision.is_ours and decision.budget is not None:
            tokens = decision.num_thoughts * decision.budget
            self.num_set += decision.num_thoughts
            self.budget_tokens += tokens
            self._count("budget_tokens", tokens)
        self._count("requests", 1, decision.kind)

    def came_back(self, budget: int, tokens: int) -> None:
        """Notes the tokens of a thought; says so in the log where they are more than its budget."""
        self.num_counted += 1
        self.reasoning_tokens += tokens
        self._count("reasoning_tokens", tokens)
        if tokens <= budget:
            return
        self.num_over += 1
        self.largest_overshoot = max(self.largest_overshoot, tokens - budget)
        self._count("overshoots", 1)
        if self.num_over & (self.num_over - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
            logger.warning("a thought of %d tokens under a budget of %d: %d so far", tokens, budget, self.num_over)

    def to_json(self) -> dict[str, Any]:
        """One object, JSON-able."""
        num = sum(self.num_kind.values())
        mean = self.budget_tokens / self.num_set if self.num_set else None
        target = self.mean_budget
        return {
            "requests": num,
            "by_kind": dict(self.num_kind),
            "reasons": dict(self.reasons),
            "mean_budget": mean,
            "target_mean_budget": target,
            "drift": None if mean is None or not target else mean / target - 1.0,
            "counted": self.num_counted,
            "mean_reasoning_tokens": self.reasoning_tokens / self.num_counted if self.num_counted else None,
            "overshoots": self.num_over,
            "largest_overshoot": self.largest_overshoot,
            "mean_decision_seconds": self.seconds / num if num else None,
        }

    def _count(self, name: str, amount: int, kind: str | None = None) -> None:
        if (counter := self._counters.get(name)) is not None:
            (counter.labels(kind) if kind is not None else counter).inc(amount)


_made: dict[str, Any] = {}  # counters belong to the process: prometheus_client takes each name once


def _counters() -> dict[str, Any]:
    """Counters in the registry that vLLM's /metrics shows; none where prometheus_client is not installed."""
    try:
        from prometheus_client import Counter
    except ImportError:
        return {}
    if not _made:
        _made["requests"] = Counter("forethought_requests", "Requests by how their budget was found", ["kind"])
        _made["budget_tokens"] = Counter("forethought_budget_tokens", "Reasoning tokens granted by the plug-in")
        _made["reasoning_tokens"] = Counter("forethought_reasoning_tokens", "Reasoning tokens that came back")
        _made["overshoots"] = Counter("forethought_overshoots", "Thoughts longer than their budget")
    return _made


WINDOW = 1024  # thoughts after which a test that has not failed begins anew: one false alarm in 100 windows, at most
MOST_HELD = 4096  # thoughts that wait for an earlier one; then that is passed over


class Watch:
    """Looks at thoughts in the order in which they were asked for: short ones come back first, and would look alarming.

    Args:
        decider: whose predictions are in use; an alarm changes its curves and its price.
        price: of a token, and what it was set on.
    """

    def __init__(self, decider: Decider, price: Price) -> None:
        card = decider.predictor.card
        self.usage = Usage(card, window=WINDOW)
        self._decider = decider
        self._price = price
        first = 0.0 if card.mean_tokens_B is None else card.mean_tokens_B[0] - card.menu.smallest
        self._answer_tokens = max(0.0, first)  # a usage curve counts suffix and answer; of a thought neither is counted
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
        if (
            decision.tokens_B is None or decision.budget is None or not tokens
        ):  # no thought says nothing of their length
            return
        usage, column = self.usage, self._decider.predictor.card.menu.index(decision.budget)
        usage.see(decision.tokens_B - self._answer_tokens, column, min(tokens, decision.budget))
        ratio = usage.test.ratio
        if usage.recentre():
            self._decider.adapt(usage.stretch, self._price.at(usage.stretch))
            logger.warning(
                "thoughts use %.2f times the predicted tokens (%d seen): they are taken to be %.2f times as long as "
                "predicted, at %.3g right answers per token; profile such requests and train again",
                ratio,
                usage.num_seen,
                usage.stretch,
                self._decider.price,
            )

    def to_json(self) -> dict[str, Any]:
        """One object, JSON-able."""
        return {**self.usage.to_json(), "price": self._decider.price}
