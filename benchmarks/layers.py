"""How long the layer study takes: every layer under both poolings, bootstrap and plans included.

    OMP_NUM_THREADS=2 python benchmarks/layers.py [--queries 7450] [--layers 28] [--width 1536] [--poolings last mean]

Prints one JSON object. The data is made up: time does not depend on what the numbers are. Reading the hidden states
with a model is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
from collections.abc import Iterator, Mapping
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np

from forethought.core.data import FloatArray
from forethought.core.profile import Profile
from forethought.core.study_settings import LayersSettings
from forethought.studies import layers
from forethought.studies.layers.states import States
from predictors import made_up


class MadeUp(Mapping[str, FloatArray]):
    """Query id -> states of every layer, as float16, from one array."""

    def __init__(self, query_ids: tuple[str, ...], hidden_Q_L_D: FloatArray) -> None:
        self._row = {query_id: row for row, query_id in enumerate(query_ids)}
        self._hidden_Q_L_D = hidden_Q_L_D

    def __getitem__(self, query_id: str) -> FloatArray:
        return self._hidden_Q_L_D[self._row[query_id]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


def states(profile: Profile, num_layers: int, *, seed: int) -> States:
    """Noise in every layer but for the profile's one, clearest half way up."""
    assert profile.hidden_Q_L_D is not None
    random = np.random.default_rng([1, seed])  # not the draws of the signal
    signal_Q_D = profile.hidden_Q_L_D[:, 0]
    hidden_Q_L_D = np.empty((profile.num_queries, num_layers + 1, signal_Q_D.shape[1]), dtype=np.float16)
    for layer in range(num_layers + 1):
        clarity = 1.0 - 0.9 * abs(2.0 * layer / num_layers - 1.0)
        hidden_Q_L_D[:, layer] = clarity * signal_Q_D + random.standard_normal(signal_Q_D.shape, dtype=np.float32)
    return States(tuple(range(num_layers + 1)), MadeUp(profile.query_ids, hidden_Q_L_D))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=7450)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--poolings", nargs="+", default=["last", "mean"])
    parser.add_argument("--resamples", type=int, default=2000)
    asked = parser.parse_args()
    profile = made_up(asked.queries, asked.width)
    held = {pooling: states(profile, asked.layers, seed=seed) for seed, pooling in enumerate(asked.poolings)}
    profile = replace(profile, hidden_Q_L_D=None, layers=())
    started, cpu_started = perf_counter(), process_time()
    result = layers.study(
        profile,
        held,
        layers=range(asked.layers + 1),
        levels=layers.choose_levels(profile.menu, LayersSettings(run="made-up")),
        num_resamples=asked.resamples,
    )
    seconds, cpu_seconds = perf_counter() - started, process_time() - cpu_started
    found = {
        "queries": asked.queries,
        "layers": f"0 to {asked.layers}",
        "width": asked.width,
        "budgets": profile.menu.num_options,
        "poolings": asked.poolings,
        "resamples": asked.resamples,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "numpy": np.__version__,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),  # at one thread: what an idle core would take
        "seconds_a_layer_and_pooling": round(seconds / len(result.rows), 2),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20), 1),
        "best": {verdict.pooling: verdict.best for verdict in result.verdicts},
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
