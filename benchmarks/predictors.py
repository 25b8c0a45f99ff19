"""How long predictors take: fit (penalties and held-out calibration included), one layer's score, one prediction.

    OMP_NUM_THREADS=1 python benchmarks/predictors.py [--queries 7450] [--width 1536] [--predictors ridge]

Prints one JSON object. The data is made up: time does not depend on what the numbers are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from time import perf_counter

import numpy as np

from forethought.core.features import Counts, Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.protocols import Estimator
from forethought.predictors.parts.making import make_estimator
from forethought.predictors.parts.rows import MAX_QUERIES, choose_layer
from forethought.predictors.training import train

NUM_BUDGETS = 16


def made_up(num_queries: int, width: int, *, num_layers: int = 1, seed: int = 0) -> Profile:
    """A profile with a weak linear signal in every layer."""
    random = np.random.default_rng(seed)
    hidden_Q_L_D = random.standard_normal((num_queries, num_layers, width), dtype=np.float32).astype(np.float16)
    ease_Q = hidden_Q_L_D[:, 0, :32].sum(axis=1).astype(np.float64)[:, None] / 8
    p_Q_B = 1 / (1 + np.exp(-ease_Q - np.linspace(-2, 1, NUM_BUDGETS)))
    caps_B = np.arange(16, 257, 16)
    tokens_Q_B = np.minimum(caps_B, random.uniform(40, 300, size=(num_queries, 1))) + 12.0
    return Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=Menu.evenly(16, 256),
        num_right_Q_B=random.binomial(4, p_Q_B),
        num_tried_Q=np.full(num_queries, 4),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B,
        hidden_Q_L_D=hidden_Q_L_D,
        layers=tuple(range(num_layers)),
    )


def measure(name: str, profile: Profile) -> dict[str, float]:
    """Seconds to fit and to train (fit plus five-fold calibration), microseconds a query to predict."""
    features = Features.of(profile, 0)
    started = perf_counter()
    fitted = make_estimator(name).fit(features, Counts.of(profile))
    fit_seconds = perf_counter() - started
    started = perf_counter()
    train(profile, predictor=name)
    return {
        "fit_seconds": round(fit_seconds, 2),
        "train_seconds": round(perf_counter() - started, 2),
        "predict_one_microseconds": round(_predict_seconds(fitted, features.select(np.arange(1))) * 1e6, 2),
        "predict_batch_microseconds_a_query": round(_predict_seconds(fitted, features) / len(features) * 1e6, 2),
    }


def many(name: str, profile: Profile, *, num_queries: int) -> dict[str, float]:
    """Seconds to predict so many queries in one batch, the fastest and slowest of a few."""
    features = Features.of(profile, 0)
    fitted = make_estimator(name).fit(features, Counts.of(profile))
    tiled = Features.of_hidden(np.resize(features.hidden, (num_queries, features.hidden.shape[1])))
    times = []
    for _ in range(5):
        started = perf_counter()
        fitted.predict(tiled)
        times.append(perf_counter() - started)
    return {
        "queries": num_queries,
        "seconds_fastest": round(min(times), 3),
        "seconds_median": round(sorted(times)[2], 3),
    }


def _predict_seconds(fitted: Estimator, features: Features) -> float:
    """The fastest of a few, in seconds."""
    times = []
    for _ in range(20 if len(features) == 1 else 3):
        started = perf_counter()
        fitted.predict(features)
        times.append(perf_counter() - started)
    return min(times)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=7450)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--predictors", nargs="+", default=["mean", "ridge"])
    asked = parser.parse_args()
    profile = made_up(asked.queries, asked.width)
    two_layers = made_up(MAX_QUERIES, asked.width, num_layers=2)
    started = perf_counter()
    choose_layer(two_layers, frozenset({"hidden"}), None)
    layer_seconds = (perf_counter() - started) / 2
    found = {
        "queries": asked.queries,
        "width": asked.width,
        "budgets": NUM_BUDGETS,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "numpy": np.__version__,
        "seconds_a_layer_to_choose_from": round(layer_seconds, 2),
        "queries_layers_are_compared_on": min(asked.queries, MAX_QUERIES),
        "ridge_predicts": many("ridge", profile, num_queries=100_000),
        "predictors": {name: measure(name, profile) for name in asked.predictors},
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
