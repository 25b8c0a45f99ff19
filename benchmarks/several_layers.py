"""Do predictors gain from the states of several layers, and of both poolings, at once?

    forethought layers PROFILE --states STATES --out layers        # reads every layer, if that was not done before
    OMP_NUM_THREADS=1 python benchmarks/several_layers.py PROFILE STATES --out several.json
    OMP_NUM_THREADS=1 python benchmarks/several_layers.py PROFILE STATES --predictors mlp --sets … --out several.json

All come with the pass over the prompt that one layer needs. Each set of layers is one long vector of states. Every
question is predicted by predictors that did not see it (`cross_fit`), and planned at each level of spent tokens; log
loss and points over uniform at equal realised tokens are means over the same questions, and differences to one layer
are paired (bootstrap of questions). The sets were fixed before anything was measured. The one layer is the best of the
study of single layers on these very questions, which favours it. Rows of other predictors that are in the file stay.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forethought.control import sources
from forethought.core.data import Cost, FloatArray
from forethought.core.features import Counts
from forethought.core.profile import Profile
from forethought.core.versions import versions
from forethought.evaluation.bootstrap import estimate, resampled_means
from forethought.evaluation.metrics import log_loss_Q
from forethought.evaluation.policies import FORETHOUGHT, UNIFORM, Policies
from forethought.evaluation.resampled import Resampled
from forethought.evaluation.results import Estimate
from forethought.predictors.training import cross_fit
from forethought.runs.store import RunDirectory
from forethought.studies.layers.states import States
from machine import processor

LAST, MEAN = "last", "mean"
ONE, NUM_RESAMPLES = "one layer", 2000
LEVELS = (40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)  # mean spent tokens, answers included
# Name -> pooling -> layers, of 28.
SETS: dict[str, dict[str, tuple[int, ...]]] = {
    ONE: {LAST: (20,)},
    "both poolings": {LAST: (20,), MEAN: (16,)},
    "two layers": {LAST: (16, 20)},
    "four layers": {LAST: (12, 16, 20, 24)},
    "four layers of both poolings": {LAST: (12, 16, 20, 24), MEAN: (12, 16, 20, 24)},
    "every layer": {LAST: tuple(range(1, 29))},
    "every layer of both poolings": {LAST: tuple(range(1, 29)), MEAN: tuple(range(1, 29))},
}


def joined(profile: Profile, held: Mapping[str, States], layers: Mapping[str, tuple[int, ...]]) -> Profile:
    """The profile with the states of several layers, one after the other, as those of one."""
    parts = [held[pooling].layer(layer, profile.query_ids) for pooling, some in layers.items() for layer in some]
    states_Q_D = np.concatenate(parts, axis=1)
    return replace(profile, hidden_Q_L_D=states_Q_D[:, None], layers=(0,))


def measure(profile: Profile, predictor: str) -> tuple[FloatArray, FloatArray]:
    """Log loss a trace, and points over uniform at equal spent tokens: of the questions, then of each resample."""
    predicted, mean = cross_fit(profile, predictor=predictor)
    counts = Counts.of(profile)
    loss_Q_2 = np.stack([log_loss_Q(predicted.p_Q_B, counts), profile.num_tried_Q.astype(np.float64)], axis=1)
    sums_R_2 = resampled_means(loss_Q_2, num_resamples=NUM_RESAMPLES, seed=0)
    policies = Policies(profile, predicted, mean, "envelope")
    plans = [policies.planned(FORETHOUGHT, predicted, "envelope", Cost.SPENT, level) for level in LEVELS]
    found = Resampled.make(policies, plans, Cost.SPENT, num_resamples=NUM_RESAMPLES, seed=0)
    return sums_R_2[:, 0] / sums_R_2[:, 1], 100 * found.mean_gain_R(FORETHOUGHT, UNIFORM)


def rounded(found: Estimate) -> list[float]:
    """Value, low and high end of its interval."""
    return [round(each, 4) for each in (found.value, found.low, found.high)]


def main() -> None:
    """Measures, prints a line for each set, and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("states", type=Path)
    parser.add_argument("--predictors", type=lambda text: text.split(","), default=["ridge"])
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = RunDirectory.open(options.states)
    held = {pooling: States(*run.load_hidden(pooling=pooling)) for pooling in (LAST, MEAN)}
    profile = sources.open_profile(options.profile)
    usable_Q = np.array([all(each in states.of_query for states in held.values()) for each in profile.query_ids])
    profile = profile.select(np.flatnonzero(usable_Q))
    kept = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {"commands": [], "rows": []}
    rows: list[dict[str, Any]] = [each for each in kept["rows"] if each["predictor"] not in options.predictors]
    for predictor in options.predictors:
        one: tuple[FloatArray, FloatArray] | None = None
        for name in options.sets:
            loss_R, points_R = measure(joined(profile, held, SETS[name]), predictor)
            one = one or (loss_R, points_R)
            rows.append(
                {
                    "predictor": predictor,
                    "states": name,
                    "layers": SETS[name],
                    "log_loss": rounded(estimate(loss_R)),
                    "points_over_uniform": rounded(estimate(points_R)),
                    "log_loss_less_one_layer": rounded(estimate(loss_R - one[0])),
                    "points_more_than_one_layer": rounded(estimate(points_R - one[1])),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "commands": [*kept["commands"], f"python benchmarks/several_layers.py {shlex.join(sys.argv[1:])}"],
        "questions": profile.num_queries,
        "traces": int(profile.num_tried_Q.max()),
        "levels": f"mean over {', '.join(f'{level:g}' for level in LEVELS)} spent tokens",
        "hardware": f"{processor()}, shared with other work",
        "versions": versions(),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
