"""What commands choose between, without a library that computes: settings and `--help` load nothing else."""

from __future__ import annotations

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


TOKEN_COSTS = (Cost.GRANTED, Cost.SPENT)
