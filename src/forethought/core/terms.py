"""Choices of commands, without imports of numerical libraries: settings and `--help` load nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Sampling:
    """How traces are sampled. Answers after the suffix are always decoded greedily."""

    temperature: float = 0.6
    top_p: float = 1.0


class Cost(StrEnum):
    """What a total is counted in."""

    GRANTED = "granted"  # the sum of caps, as the paper counts
    SPENT = "spent"  # tokens really generated, by expectation while planning
    USD = "usd"  # money, by the prices of a menu's options, for prompt, thought and answer

    def amount(self, number: float) -> str:
        """An amount with its unit: `2,800 tokens`, `1.50 USD`."""
        return usd_words(number) if self is Cost.USD else f"{number:,.0f} tokens"


def usd_words(number: float) -> str:
    """An amount of money as text: cents from one dollar on, four digits below, never with an exponent."""
    if abs(number) >= 1.0 or number == 0.0:
        return f"{number:,.2f} USD"
    digits = 3 - math.floor(math.log10(abs(number)))
    return f"{number:.{digits}f}".rstrip("0") + " USD"


TOKEN_COSTS = (Cost.GRANTED, Cost.SPENT)
