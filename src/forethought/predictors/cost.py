"""What a predictor costs itself: parameters, seconds, and its arithmetic as tokens of the model that it serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..core.features import Features
from ..evaluation.comparison import PredictorCost
from ..models.size import num_parameters
from .predictor import Predictor

REPEATS = 3


def measure_cost(trained: Predictor, query_ids: Sequence[str], features: Features, *, threads: str) -> PredictorCost:
    """Predicts the queries a few times and counts.

    A multiply and an add for each parameter is what a transformer's generated token costs too, so arithmetic becomes
    tokens by dividing by the parameters of the served model (embeddings left out). What was asked of the served model
    itself counts as the tokens that it read and wrote: an upper bound, since a prefix cache serves the part that all
    prompts share.
    """
    seconds = []
    for _ in range(1 if getattr(trained.estimator, "is_costly", False) else REPEATS):
        started = time.perf_counter()
        trained.predict(query_ids, features)
        seconds.append((time.perf_counter() - started) / len(query_ids))
    _, arrays = trained.estimator.state()
    own = sum(int(array.size) for array in arrays.values())
    parameters, work = own, float(own)
    if (passed := _model_pass(trained.estimator, features)) is not None:
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
