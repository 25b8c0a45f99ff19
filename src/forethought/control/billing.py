"""Tokens and cost of a run: estimated before it, and counted in the same units after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from ..core.provenance import Provenance
from ..core.records import Record
from ..core.terms import usd_words
from ..engines.lengths import Lengths


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens take of money and time; None where it is not known.

    Attributes:
        per_million_in: USD per million tokens of prompts, cached or not.
        per_million_out: USD per million tokens generated.
        tokens_per_second: tokens that all requests together generate in a second.
    """

    per_million_in: float | None = None
    per_million_out: float | None = None
    tokens_per_second: float | None = None

    def usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """The price of these tokens; None if no price is known. A missing price counts as 0."""
        if self.per_million_in is None and self.per_million_out is None:
            return None
        return ((self.per_million_in or 0.0) * tokens_in + (self.per_million_out or 0.0) * tokens_out) / 1e6

    def hours(self, tokens_out: int) -> float | None:
        """The hours needed to generate these tokens; None if no speed is known."""
        return None if self.tokens_per_second is None else tokens_out / self.tokens_per_second / 3600


UNPRICED = Prices()


def bill(record: Record, made: Provenance) -> float | None:
    """What a trace cost in USD by the price of its option; None without a price, and where it was not counted.

    Args:
        record: of the trace.
        made: how its run is measured.
    """
    option = made.option(record.option)
    if option is None or option.price is None or record.is_failed or not record.is_counted:
        return None
    return float(option.price.usd(*record.billed(is_two_calls=made.sends_twice(record.option))))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Prompt tokens of some traces.

    Attributes:
        sent: tokens sent, with repetitions.
        cached: tokens sent before, which a prefix cache saves.
        words: how often each prompt is sent, and how its length was determined.
    """

    sent: int
    cached: int
    words: str

    @classmethod
    def of(
        cls, lengths: Lengths, num_traces_Q: Sequence[int], *, answers: int, reread: int, is_two_calls: bool
    ) -> Traffic:
        """What traces send: one prompt each; by two calls, prompt and thought again for every forced answer.

        Args:
            lengths: of the prompts.
            num_traces_Q: traces of each query.
            answers: forced answers of a trace, at most.
            reread: tokens of thoughts sent again for them, in all, at most.
            is_two_calls: whether a server is asked anew for every answer. An engine in process keeps what it has read.
        """
        once = int(np.dot(lengths.tokens_Q, np.asarray(num_traces_Q, dtype=np.int64)))
        if not is_two_calls:
            return cls(once, 0, f"each prompt once per trace; {lengths.how}")
        num_answers = sum(num_traces_Q) * answers
        again = once * answers + reread
        words = (
            f"each prompt {1 + answers} times per trace, {answers} of them with the thought so far ("
            f"once, if the server enforces the cap itself); {lengths.how}"
        )
        return cls(once + again + num_answers * lengths.suffix_tokens, again, words)


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected tokens and cost of the remaining traces, by the mean of the finished ones.

    Attributes:
        num_measured: traces that are done, and were counted.
        prompt_tokens, generated_tokens: of those that are left, in all.
        usd, hours: their price and how long they take; None where that is not known.
    """

    num_measured: int
    prompt_tokens: int
    generated_tokens: int
    usd: float | None
    hours: float | None

    @classmethod
    def of(cls, records: Iterable[Record], made: Provenance, num_left: int, prices: Prices) -> Self | None:
        """By the traces of a run that were counted, `num_left` more; None where there are none."""
        known = [record for record in records if not record.is_failed and record.is_counted]
        if not known:
            return None
        billed = [record.billed(is_two_calls=made.sends_twice(record.option)) for record in known]
        sent, generated = (round(num_left * sum(each) / len(known)) for each in zip(*billed, strict=True))
        usd = prices.usd(sent, generated)
        if usd is None:  # a menu's options may have prices of their own
            bills = [each for record in known if (each := bill(record, made)) is not None]
            usd = num_left * sum(bills) / len(known) if len(bills) == len(known) else None
        return cls(len(known), sent, generated, usd, prices.hours(generated))

    def to_text(self) -> str:
        """In words."""
        parts = [f"{self.prompt_tokens:,} tokens of prompts + {self.generated_tokens:,} generated"]
        parts += [] if self.usd is None else [usd_words(self.usd)]
        parts += [] if self.hours is None else [hours_words(self.hours)]
        return f"{', '.join(parts)}: by the mean of the {self.num_measured:,} finished traces"


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a command would do.

    Attributes:
        model: what would run.
        folder: the run directory, or "" where nothing is kept.
        num_queries: questions.
        num_total: traces in all, at most.
        num_done: traces that have a record already.
        num_answers: forced answers of the traces left, at most.
        reasoning_tokens: reasoning tokens of the traces left, at most.
        answer_tokens: tokens of answers and their suffixes, at most.
        total: tokens that the plan divides; 0 where there is no plan, and where it divides money.
        prompt_tokens: tokens of prompts, and of thoughts sent again for their answers, at most.
        cached_tokens: those of them that a prefix cache spares.
        prompts: how prompts were counted, and how often each is sent.
        engine: which engine would run it.
        loads: what has to be fetched and loaded first; "" for a server, and where no model is needed.
        usd: the price of all that, where prices per token were given.
        hours: how long generating all that takes, where a speed was given.
        expected: what is left comes to if it is like the traces that are done; None before there are any.
        planned_usd: what the plan is expected to cost by the prices of its options, or the total in USD that it is to
            keep to; None where there is neither.
        spent_within: tokens that the run stays below with a chance of 95%, by the mean usage curve; None where the
            total is a bound, or no usage is known.
        most_samples: most samples of a question that vote; 1 where none do.
        is_planned: it is known which question gets how many.
    """

    model: str
    folder: str
    num_queries: int
    num_total: int
    num_done: int
    num_answers: int
    reasoning_tokens: int
    answer_tokens: int
    total: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompts: str = ""
    engine: str = ""
    loads: str = ""
    usd: float | None = None
    planned_usd: float | None = None
    spent_within: float | None = None
    hours: float | None = None
    expected: Expected | None = None
    most_samples: int = 1
    is_planned: bool = False

    @property
    def num_left(self) -> int:
        """Traces still to generate."""
        return self.num_total - self.num_done

    def to_json(self) -> dict[str, Any]:
        """One object; what is expected is one in it."""
        return {**asdict(self), "num_left": self.num_left}

    def to_text(self) -> str:
        """The same as text."""
        votes = ""
        if self.most_samples > 1:
            votes = f"                 up to {self.most_samples:,} samples of a question vote"
            votes += "" if self.is_planned else "; how many is decided later, and this is the most"
        lines = [
            f"model            {self.model}{f' ({self.loads})' if self.loads else ''}",
            f"run directory    {self.folder or 'none'}",
            f"questions        {self.num_queries:,}",
            f"traces           {self.num_left:,} to generate, {self.num_done:,} of {self.num_total:,} already done",
            *([votes] if votes else []),
            f"forced answers   {self.num_answers:,} at most",
            f"tokens, at most  {self.reasoning_tokens:,} reasoning + {self.answer_tokens:,} answers",
            f"prompts          {self.prompt_tokens:,} tokens, {self.prompts}",
        ]
        if self.spent_within is not None:
            lines.insert(
                7 if votes else 6,
                f"                 expected is the total of {self.total:,.0f}, and 95 of 100 runs stay below "
                f"{self.spent_within:,.0f} by the mean usage curve; --hard-total makes the total a bound",
            )
        if self.cached_tokens:
            lines.append(f"                 a prefix cache saves up to {self.cached_tokens:,} of them")
        if self.planned_usd is not None:
            lines.append(
                f"planned          {usd_words(self.planned_usd)} by the options' prices; expected, not an upper bound"
            )
        if self.usd is not None:
            lines.append(f"price, at most   {usd_words(self.usd)}")
        if self.hours is not None:
            lines.append(f"time, at most    {hours_words(self.hours)}")
        if self.expected is not None:
            lines.append(f"expected         {self.expected.to_text()}")
        return "\n".join(lines)


def hours_words(hours: float) -> str:
    """How long something takes, in a unit that suits it."""
    if hours < 1 / 40:
        return f"{hours * 3600:,.2g} seconds"
    return f"{hours * 60:,.1f} minutes" if hours < 1 else f"{hours:,.1f} hours"
