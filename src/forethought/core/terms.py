"""Choices of commands, without imports of numerical libraries: settings and `--help` load nothing else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from ..errors import InvalidSettingsError
from .codec import MOST


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


def percent(share: float, digits: int = 1) -> str:
    """A share as percent; one that is not 0 or 1 is not rounded to it: `<0.1%`, `>99.9%`."""
    text, least = f"{100 * share:.{digits}f}", 10.0**-digits
    if float(text) in (0.0, 100.0) and 1e-9 < share < 1.0 - 1e-9:  # nearer is rounding
        return f"<{least:.{digits}f}%" if share < 0.5 else f">{100 - least:.{digits}f}%"
    return f"{text.removeprefix('-') if float(text) == 0.0 else text}%".replace("-", "−")


WARNED_AT = 0.8  # of a hard cap


@dataclass(frozen=True, slots=True)
class HardCap:
    """What a run may never pass, whatever is under way.

    Attributes:
        amount: tokens generated, or USD.
        cost: "spent" or "usd": which of the two.
    """

    amount: float
    cost: Cost

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cap that `20000` or `2.50usd` names; raises InvalidSettingsError."""
        found = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*(usd|tokens)?", text.strip().lower())
        amount = float(found[1].replace("_", "")) if found else 0.0
        if not found or not 0 < amount <= MOST:
            raise InvalidSettingsError(f"--hard-cap {text}: give tokens, as in 200000, or money, as in 2.50usd")
        return cls(amount, Cost.USD if found[2] == "usd" else Cost.SPENT)

    def __str__(self) -> str:
        return self.cost.amount(self.amount)


TOKEN_COSTS = (Cost.GRANTED, Cost.SPENT)
