"""How many questions and traces does a profile need? What predictors gain against both.

    OMP_NUM_THREADS=1 python benchmarks/learning_curve.py DIR --predictors mlp --draws 4 --work WORK
    OMP_NUM_THREADS=1 python benchmarks/learning_curve.py DIR --predictors ridge,text --draws 10 --work WORK
    python benchmarks/learning_curve.py --work WORK --out docs/results/learning/learning.json   # of all that was played

DIR holds the paper's published measurements (`forethought bench paper --help`): 100 traces each of 7,450 train
questions, and the dev questions on which everything is judged. Each draw takes some train questions and some of their
traces, trains as `forethought train` does, and plans for dev at every cap from 32 to 128 granted tokens. What is
reported is the accuracy gained over uniform, and over blind, at equal realised tokens: a mean over those levels, in
points. Nothing was chosen on dev.

The published counts do not say which trace was right at which cap. A trace is therefore drawn by one number, which
decides it at every cap: traces are dependent across caps as much as they can be, so that few of them tell less than
real ones might. Intervals hold both the dev questions and the draws (bootstrap of both; of one draw, the questions
alone). `mlp` is the default where there are hidden states and texts, `text` where there are texts alone. Every draw is
a file of WORK; run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forethought.core.data import Cost, Curves, FloatArray
from forethought.core.features import Features
from forethought.core.profile import Profile
from forethought.core.versions import versions
from forethought.evaluation.bootstrap import estimate
from forethought.evaluation.policies import BLIND, FORETHOUGHT, UNIFORM, Policies
from forethought.evaluation.resampled import Resampled
from forethought.evaluation.results import Estimate
from forethought.predictors.training import train
from forethought.studies.paper.split import read_split
from machine import processor

LEVELS = tuple(float(cap) for cap in range(32, 129, 16))  # granted tokens; where the paper quotes its gains
NUM_RESAMPLES = 2000
WHOLE = (7450, 100)
CELLS = (
    *itertools.product((300, 1200, 75, 150, 600, 2400, 7450), (4,)),
    WHOLE,
    *itertools.product((75, 300, 1200), (1, 16)),
)
Cell = tuple[int, int]  # questions, traces
Played = dict[tuple[str, Cell], list[dict[str, Any]]]


def drawn(profile: Profile, cell: Cell, draw: int) -> Profile:
    """Some questions and some of their traces; a smaller number of questions is part of a larger one."""
    random = np.random.default_rng([draw, 0])
    rows = np.sort(random.permutation(profile.num_queries)[: cell[0]])
    some = profile.select(rows)
    rank_Q_T = np.random.default_rng([draw, *cell]).permuted(
        np.tile(np.arange(int(some.num_tried_Q.max())), (len(rows), 1)), axis=1
    )[:, : cell[1]]
    num_right_Q_B = (rank_Q_T[:, :, None] < some.num_right_Q_B[:, None, :]).sum(axis=1)
    return replace(some, num_right_Q_B=num_right_Q_B, num_tried_Q=np.full(len(rows), cell[1]))


def gains(train_profile: Profile, test: Profile, predictor: str, cell: Cell, draw: int) -> dict[str, Any]:
    """Gains over both baselines on the dev questions and on each resample of them, in points, shape (R + 1,)."""
    began = time.perf_counter()
    trained = train(drawn(train_profile, cell, draw), predictor=predictor, seed=draw, with_novelty=False)
    seconds = time.perf_counter() - began
    predicted = trained.predict(test.query_ids, Features.of(test, trained.card.features.layer))
    curves = Curves(predicted.query_ids, predicted.menu, predicted.p_Q_B)
    mean = Curves(("mean",), test.menu, np.asarray(trained.card.mean_p_B)[None])
    policies = Policies(test, curves, mean, "envelope")
    plans = [policies.planned(FORETHOUGHT, curves, "envelope", Cost.GRANTED, level) for level in LEVELS]
    found = Resampled.make(policies, plans, Cost.GRANTED, num_resamples=NUM_RESAMPLES, seed=0)
    kept = trained.card.shrinkage
    return {
        UNIFORM: 100 * found.mean_gain_R(FORETHOUGHT, UNIFORM),
        BLIND: 100 * found.mean_gain_R(FORETHOUGHT, BLIND),
        "seconds": seconds,
        "kept": np.nan if kept is None else kept.accuracy,
    }


def over_draws(gain_D_R: FloatArray) -> FloatArray:
    """The mean over the draws, then of resamples that take draws, too, with replacement; shape (R + 1,)."""
    num_draws, num_rows = gain_D_R.shape
    drawn_D_R = np.random.default_rng(0).integers(num_draws, size=(num_draws, num_rows))
    drawn_D_R[:, 0] = np.arange(num_draws)
    mean_R: FloatArray = np.take_along_axis(gain_D_R, drawn_D_R, axis=0).mean(axis=0)
    return mean_R


def rounded(found: Estimate) -> list[float]:
    """Value, low and high end of its interval."""
    return [round(each, 3) for each in (found.value, found.low, found.high)]


def summaries(played: Played) -> Iterator[dict[str, Any]]:
    """A row for each predictor and number of questions and traces; shares are of what it gains by all there is."""
    mean_R = {
        (*key, name): over_draws(np.stack([each[name] for each in draws]))
        for key, draws in played.items()
        for name in (UNIFORM, BLIND)
    }
    for (predictor, cell), draws in sorted(played.items()):
        row: dict[str, Any] = {"predictor": predictor, "questions": cell[0], "traces": cell[1], "draws": len(draws)}
        for name in (UNIFORM, BLIND):
            found_R = mean_R[predictor, cell, name]
            row[f"points_over_{name}"] = rounded(estimate(found_R))
            if (predictor, WHOLE) in played:
                row[f"share_over_{name}"] = rounded(estimate(found_R / mean_R[predictor, WHOLE, name]))
        row["each_draw_over_uniform"] = [round(float(each[UNIFORM][0]), 3) for each in draws]
        row["prediction_kept"] = round(float(np.mean([each["kept"] for each in draws])), 3)
        row["seconds_to_train"] = round(float(np.median([each["seconds"] for each in draws])), 1)
        yield row


def cells_of(text: str) -> tuple[Cell, ...]:
    """What "300x4,75x1" names."""
    return tuple((int(questions), int(traces)) for questions, traces in (each.split("x") for each in text.split(",")))


def play(options: argparse.Namespace) -> None:
    """Plays what is not played yet: one draw of every cell, then the next."""
    one, test = read_split(options.data, "train").profile, read_split(options.data, "dev").profile
    options.work.mkdir(parents=True, exist_ok=True)
    for draw, cell, predictor in itertools.product(range(options.draws), options.cells, options.predictors):
        path = options.work / f"{predictor}-{cell[0]}-{cell[1]}-{draw}.npz"
        if not path.exists():
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, **gains(one, test, predictor, cell, draw))
            os.replace(partial, path)
            with np.load(path) as found:
                print(path.stem, round(float(found[UNIFORM][0]), 2), round(float(found["seconds"]), 1), flush=True)


def main() -> None:
    """Plays, or with --out summarises all that was played."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", nargs="?")
    parser.add_argument("--predictors", type=lambda text: text.split(","), default=["mlp"])
    parser.add_argument("--cells", type=cells_of, default=CELLS, metavar="QUESTIONSxTRACES,…", help="which to play")
    parser.add_argument("--draws", type=int, default=4, help="of each number of questions and traces")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was played")
    parser.add_argument("--out", type=Path, help="JSON file for the summary")
    options = parser.parse_args()
    if options.data:
        play(options)
    if not options.out:
        return
    played: Played = {}
    for path in sorted(options.work.glob("*.npz")):
        predictor, questions, traces, _ = path.stem.rsplit("-", 3)
        with np.load(path) as found:
            played.setdefault((predictor, (int(questions), int(traces))), []).append(dict(found))
    result = {
        "command": [line.strip() for line in (__doc__ or "").splitlines() if line.startswith("    ")],
        "judged": "647 dev questions of 100 traces",
        "gain": "points, mean over 32, 48, … 128 granted tokens, at equal realised tokens; value and 95% interval, "
        "which holds dev questions and draws",
        "share": "of what the same predictor gains by all 7,450 questions of 100 traces",
        "hardware": f"{processor()}, one thread, shared with other work",
        "versions": versions(),
        "rows": list(summaries(played)),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
