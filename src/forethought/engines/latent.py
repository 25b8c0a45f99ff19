"""What is true of a query of the fake model: its accuracy curve and the distribution of its natural length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray
from ..core.options import Option

# How long it thinks under each effort level, as a multiple of how long it thinks by itself.
LEVELS = {"minimal": 0.25, "low": 0.5, "medium": 1.0, "high": 2.0, "xhigh": 3.0}
# Shape of the natural lengths: n = median * odds(u) ** SPREAD is log-logistic, whose distribution function is closed.
LENGTH_SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class Latent:
    """What is true of one query and hidden from predictors, except through its hidden states.

    Attributes:
        z: four standard normal numbers, from which all else here follows.
        hardness: how late the solution is found, from 0 to 1.
        guess, plateau: chance of a right answer without any thought, and after a long one.
        decay: tokens over which half a thought spoils the guess.
        jump: tokens at which the solution is found, in the middle of the rise.
        median_length: of the natural length, tokens.
        answer_tokens, prompt_tokens: of its answers, right or wrong, stop included; of its prompt.
    """

    z: tuple[float, ...]
    hardness: float
    guess: float
    decay: float
    jump: float
    plateau: float
    median_length: float
    answer_tokens: int
    prompt_tokens: int

    @classmethod
    def of(cls, z: tuple[float, ...], largest: int, *, answer_tokens: int, prompt_tokens: int) -> Self:
        """What follows from `z`, for a solution that is found within `largest` tokens."""
        hardness = _logistic(1.2 * z[0])
        jump = largest * (0.05 + 0.55 * hardness)
        return cls(
            z=z,
            hardness=hardness,
            guess=0.35 * _logistic(1.5 * z[1] - 0.5),
            decay=jump * 0.6,
            jump=jump,
            plateau=0.05 + 0.95 * _logistic(1.0 + 1.5 * z[2] - z[0]),
            median_length=jump * (1.1 + 0.5 * _logistic(z[3])) + 4.0,
            answer_tokens=answer_tokens,
            prompt_tokens=prompt_tokens,
        )

    def success(self, tokens: FloatArray | int) -> Any:
        """Chance of a right answer when the thought is cut after `tokens`: a guess that fades, then a jump."""
        x = np.clip((tokens - self.jump) / (0.08 * self.jump + 2.0), -60.0, 60.0)
        risen = 1.0 / (1.0 + np.exp(-x))
        return self.guess * np.exp(-tokens / self.decay) * (1.0 - risen) + self.plateau * risen

    def natural_length(self, u: float) -> int:
        """The `u`-quantile of the natural length, in tokens, at least 1."""
        odds = u / (1.0 - u)
        return max(1, math.ceil(self.median_length * math.pow(odds, LENGTH_SPREAD)))

    def at_level(self, option: Option | None) -> Latent:
        """The same query thought about as long as the option's level says: longer thoughts reach later tokens."""
        factor = 1.0 if option is None else LEVELS[option.set.get("reasoning_effort", "medium")]
        return replace(self, median_length=factor * self.median_length)

    def length_within(self, tokens_N: FloatArray) -> FloatArray:
        """Chance that the natural length is at most each of `tokens_N`: the inverse of `natural_length`."""
        odds_N = (np.maximum(tokens_N, 1.0) / self.median_length) ** (1.0 / LENGTH_SPREAD)
        return np.where(tokens_N < 1, 0.0, odds_N / (1.0 + odds_N))


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, x))))
