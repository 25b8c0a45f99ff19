"""What a predictor costs itself: parameters, seconds, and its arithmetic as tokens of the model that it serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models.size import num_parameters
from .features import Features
from .trained import TrainedPredictor

REPEATS = 3


@dataclass(frozen=True, slots=True)
class PredictorCost:
    """What predicting one query costs, beside the prompt pass that generation needs anyway.

    Attributes:
        parameters: numbers that take part, those of a language model it runs included.
        seconds: a query, measured here in one batch, median of a few; features that come from the prompt pass or from
            asking are not in it.
        tokens: its arithmetic as generated tokens of the served model, or the tokens that asking that model took; None
            where the size of the served model is not known.
        threads: what the seconds were measured with, in words.
    """

    parameters: int
    seconds: float
    tokens: float | None
    threads: str

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "parameters": self.parameters,
            "seconds_a_query": self.seconds,
            "tokens_a_query": self.tokens,
            "threads": self.threads,
        }


def measure_cost(
    trained: TrainedPredictor, query_ids: Sequence[str], features: Features, *, threads: str
) -> PredictorCost:
    """Predicts the queries a few times and counts.

    A multiply and an add for each parameter is what a transformer's generated token costs too, so arithmetic becomes
    tokens by dividing by the parameters of the served model (embeddings left out). What was asked of the served model
    itself counts as the tokens that it read and wrote: an upper bound, since a prefix cache serves the part that all
    prompts share.
    """
    seconds = []
    for _ in range(1 if getattr(trained.predictor, "is_costly", False) else REPEATS):
        started = time.perf_counter()
        trained.predict(query_ids, features)
        seconds.append((time.perf_counter() - started) / len(query_ids))
    _, arrays = trained.predictor.state()
    own = sum(int(array.size) for array in arrays.values())
    parameters, work = own, float(own)
    if (passed := _model_pass(trained.predictor, features)) is not None:
        base, tokens = passed
        parameters, work = own + base, own + base * tokens
    asked = trained.card.asking.tokens if trained.card.asking is not None else 0.0
    served = num_parameters(trained.card.model)
    equivalent = None if served is None or asked is None else work / served + asked
    return PredictorCost(parameters, sorted(seconds)[len(seconds) // 2], equivalent, threads)


def _model_pass(predictor: Any, features: Features) -> tuple[int, float] | None:
    """`(parameters, mean tokens a query)` of a language model that the predictor itself runs; None without one."""
    measure = getattr(predictor, "model_pass", None)
    found: tuple[int, float] | None = None if measure is None else measure(features)
    return found
