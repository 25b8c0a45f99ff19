"""Tokens and cost of a run: estimated before it, and counted in the same units after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

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


def hours_words(hours: float) -> str:
    """How long something takes, in a unit that suits it."""
    if hours < 1 / 40:
        return f"{hours * 3600:,.2g} seconds"
    return f"{hours * 60:,.1f} minutes" if hours < 1 else f"{hours:,.1f} hours"
