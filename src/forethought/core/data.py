"""The nouns that flow between stages. Data only: no behaviour that needs a model, a file or a clock.

Array names carry their shape: Q queries, B budgets, L layers, D feature width, T traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .codec import fields_to_json
from .menu import Menu
from .options import Option
from .showing import brief
from .terms import Cost as Cost
from .terms import Sampling as Sampling

LAST_TOKENS = 16  # of a thought, over which `Logprobs.thought` is a mean

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, repr=False)
class Query:
    """A prompt with a stable id and, when known, a reference answer.

    Attributes:
        id: unique within a run; made from the content when the input has none.
        prompt: the question as text, or the chat messages that end in a user turn.
        reference: the right answer, or None when there is none to grade against.
        weight: how much a right answer to this query is worth, relative to others.
        min_budget: least reasoning tokens the plan may give, or None for the smallest budget.
        max_budget: most reasoning tokens the plan may give, or None for the menu's maximum.
    """

    id: str
    prompt: str | tuple[Message, ...]
    reference: str | None = None
    weight: float = 1.0
    min_budget: int | None = None
    max_budget: int | None = None

    def __repr__(self) -> str:
        bounds = {name: value for name in ("min_budget", "max_budget") if (value := getattr(self, name)) is not None}
        more = {"weight": self.weight} if self.weight != 1.0 else {}
        parts = [f"{name}={value}" for name, value in (more | bounds).items()]
        if self.reference is not None:
            parts.insert(0, f"reference={brief(self.reference)}")
        return f"Query({', '.join([brief(self.id), brief(self.text), *parts])})"

    @property
    def text(self) -> str:
        """The question as plain text: the last user turn of a chat, or the prompt itself."""
        if isinstance(self.prompt, str):
            return self.prompt
        turns = [message.content for message in self.prompt if message.role == "user"]
        return turns[-1] if turns else ""


class StopReason(StrEnum):
    """Why the reasoning of one generation ended."""

    NATURAL = "natural"  # the model ended its thought by itself, within the cap
    BUDGET = "budget"  # the cap was reached and the answer was forced
    ERROR = "error"  # the engine could not finish this one; `Generation.error` says why


class Grade(StrEnum):
    """Verdict on one answer. `UNREADABLE` counts as not right and is reported on its own."""

    RIGHT = "right"
    WRONG = "wrong"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Request:
    """One trace to generate.

    Attributes:
        query: what to answer.
        budget: cap on reasoning tokens; of an option without a cap the most that a thought can take there.
        sample: which of several traces of the same query this is, from 0.
        seed: seed of this trace's sampling; the same seed gives the same trace on the same engine.
        probe_budgets: also force an answer after each of these many reasoning tokens, each below `budget`.
        priority: where an engine schedules by priority, the lower goes first; what comes back does not depend on it.
        option: the named option that it is asked by, with what it sets; None for a plain cap.
    """

    query: Query
    budget: int
    sample: int = 0
    seed: int = 0
    probe_budgets: tuple[int, ...] = ()
    priority: int = 0
    option: Option | None = None

    @property
    def label(self) -> str:
        """Name of the option that it is asked by; "" for a plain cap."""
        return "" if self.option is None else self.option.label


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How likely the model found what it wrote: means of natural log-probabilities per token, each at most 0.

    They are the model's own, before temperature and top-p. They weigh votes (`core.votes`).

    Attributes:
        answer: over the tokens of the answer.
        thought: over the last `LAST_TOKENS` tokens of the thought; None without a thought.
    """

    answer: float
    thought: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer the trace would have given under a smaller cap, `budget` reasoning tokens.

    Attributes:
        answer_tokens: None: not counted.
        grade: None: nobody has judged it; an engine never does.
        logprobs: how likely the model found what it wrote; None: the engine does not show it.
    """

    budget: int
    answer: str
    answer_tokens: int | None
    grade: Grade | None = None
    logprobs: Logprobs | None = None

    def to_json(self) -> dict[str, Any]:
        """One probe of a record, as an object."""
        return fields_to_json(self, without=() if self.logprobs else ("logprobs",))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a trace under one cap.

    Attributes:
        budget: that cap, or the trace's own where that was lower.
        answer: the answer given there.
        grade: its verdict; None: not judged.
        reasoning_tokens: tokens of the thought; None: not counted.
        tokens: all that was generated: thought, suffix and answer; None: not counted.
        stop_reason: whether the thought ended by itself within the cap.
        logprobs: how likely the model found its answer and the end of its thought; None: not shown.
    """

    budget: int
    answer: str
    grade: Grade | None
    reasoning_tokens: int | None
    tokens: int | None
    stop_reason: StopReason
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """What came back for one request.

    Attributes:
        query_id, sample, budget: those of the request.
        reasoning: text of the thought, without the answer suffix.
        reasoning_tokens: tokens of the thought, as generated; never more than `budget`. Where only thought and answer
            together are known, at most so many. None: not counted, nothing reliable was seen.
        answer: text of the answer after the suffix; empty on error.
        answer_tokens: tokens decoded for the answer; None: not counted.
        suffix_tokens: tokens of the answer suffix ("the answer is"), the same for every query of a template.
        prompt_tokens: tokens of the prompt, few-shot examples included.
        stop_reason: why the reasoning ended.
        probes: answers under smaller caps, ascending by budget. A trace that ended by itself after n tokens
            has no probe at n or above: there the final answer holds.
        error: what went wrong, when `stop_reason` is ERROR.
        is_final: that error comes again under the same settings, however often it is tried.
        grade: verdict on the final answer; None: nobody has judged it. An engine never does.
        option: name of the option that it was asked by; "" for a plain cap.
        logprobs: how likely the model found its final answer and the end of its thought; None: not shown.
    """

    query_id: str
    sample: int
    budget: int
    reasoning: str
    reasoning_tokens: int | None
    answer: str
    answer_tokens: int | None
    suffix_tokens: int
    prompt_tokens: int
    stop_reason: StopReason
    probes: tuple[Probe, ...] = ()
    error: str | None = None
    is_final: bool = False
    grade: Grade | None = None
    option: str = ""
    logprobs: Logprobs | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the tokens of thought and answer are known; else nothing may be said of what was used."""
        return self.reasoning_tokens is not None and self.answer_tokens is not None

    @property
    def is_failed(self) -> bool:
        """Whether the engine could not finish it; `error` says why."""
        return self.stop_reason is StopReason.ERROR

    def at(self, budget: int) -> Outcome | None:
        """The outcome of this trace under `budget`; None if it failed, or was not probed there.

        A cap above the trace's own stands for its own: nothing more was generated.
        """
        if self.is_failed:
            return None
        budget, length = min(budget, self.budget), self.reasoning_tokens
        probe = next((probe for probe in self.probes if probe.budget == budget), None)
        is_natural = self.stop_reason is StopReason.NATURAL and probe is None
        has_ended = is_natural and (length is None or length <= budget)  # a cap that it had reached was probed
        if probe is None and budget < self.budget and not has_ended:
            return None
        last = self if probe is None else probe
        reasoning = None if length is None else min(budget, length)
        is_counted = reasoning is not None and last.answer_tokens is not None
        tokens = (reasoning or 0) + self.suffix_tokens + (last.answer_tokens or 0) if is_counted else None
        stop_reason = StopReason.NATURAL if has_ended else StopReason.BUDGET
        return Outcome(budget, last.answer, last.grade, reasoning, tokens, stop_reason, last.logprobs)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What made a measurement; goes into every record's provenance. Unknown parts are None.

    `sampling` is how it draws thoughts. For a model behind a server, `server` is the server's kind and version,
    `enforcement` the way budgets are kept.
    """

    engine: str
    model: str
    model_hash: str | None = None
    template: str | None = None
    template_hash: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    context_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None
    simulated: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    server: str | None = None
    enforcement: str | None = None
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Curves:
    """What a predictor says, or a profile measured: one row per query, one column per budget.

    Attributes:
        p_Q_B: chance of a right answer at each budget, in [0, 1], shape (Q, B).
        tokens_Q_B: expected tokens generated at each cap, shape (Q, B); None when unknown. Non-decreasing in B, but for
            named options.
        input_Q_B: tokens of the prompt as billed under each option, shape (Q, B); None where money does not count.
    """

    query_ids: tuple[str, ...]
    menu: Menu
    p_Q_B: FloatArray
    tokens_Q_B: FloatArray | None = None
    input_Q_B: FloatArray | None = None

    @property
    def usd_Q_B(self) -> FloatArray:
        """Expected bill of an answer under each option in USD, shape (Q, B).

        Raises:
            InvalidMenuError: an option without a price.
            InvalidInputError: tokens that have a price are not known.
        """
        return usd(self.menu, self.tokens_Q_B, self.input_Q_B)

    @property
    def is_billable(self) -> bool:
        """Whether the bill of an answer is known: prices, and tokens for each that is above 0."""
        is_input_known = self.input_Q_B is not None or not (self.menu.is_priced and self.menu.price_2_B[0].any())
        return self.menu.is_priced and self.tokens_Q_B is not None and is_input_known

    def usd_at(self, column_Q: IntArray) -> NDArray[np.float64]:
        """Expected bill of each query under the option in its column, USD, shape (Q,); raises as `usd_Q_B`."""
        rows = np.arange(len(column_Q))
        tokens_Q, input_Q = (
            None if each is None else each[rows, column_Q] for each in (self.tokens_Q_B, self.input_Q_B)
        )
        return usd(self.menu, tokens_Q, input_Q, column_Q)

    def costs_Q_B(self, cost: Cost) -> FloatArray | None:
        """What a total counted by `cost` pays for each option, shape (Q, B); None where that is not known."""
        if cost is Cost.USD:
            return self.usd_Q_B
        if cost is Cost.SPENT:
            return self.tokens_Q_B
        return np.broadcast_to(self.menu.budgets_B, self.p_Q_B.shape)

    def select(self, index_Q: Any) -> Curves:
        """The curves of some of the queries, by index, mask or slice, in that order."""
        rows = np.arange(len(self.query_ids))[index_Q]
        return Curves(
            tuple(self.query_ids[row] for row in rows.tolist()),
            self.menu,
            self.p_Q_B[rows],
            None if self.tokens_Q_B is None else self.tokens_Q_B[rows],
            None if self.input_Q_B is None else self.input_Q_B[rows],
        )

    def __repr__(self) -> str:
        known = "accuracy" if self.tokens_Q_B is None else "accuracy and usage"
        return f"Curves({known} of {len(self.query_ids):,} queries, budgets {self.menu})"


def usd(
    menu: Menu, tokens_Q_B: FloatArray | None, input_Q_B: FloatArray | None, column_Q: IntArray | None = None
) -> NDArray[np.float64]:
    """The bill of tokens under a menu's prices, in USD, in their shape; see `Curves.usd_Q_B`.

    With `column_Q` tokens are of one option each, shape (Q,).
    """
    input_B, output_B = menu.price_2_B if column_Q is None else menu.price_2_B[:, column_Q]
    if tokens_Q_B is None:
        raise InvalidInputError("money needs the tokens that answers take, and they are not known here")
    if input_Q_B is None and input_B.any():
        raise InvalidInputError(
            "the prompts' tokens have a price and are not known: import them (--input-column), or set their price to 0"
        )
    bill_Q_B: NDArray[np.float64] = tokens_Q_B * output_B / 1e6
    return bill_Q_B if input_Q_B is None else bill_Q_B + input_Q_B * input_B / 1e6
