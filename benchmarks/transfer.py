"""How much of the gain survives on another kind of questions: trained on one, planned on the other, and the reverse.

    OMP_NUM_THREADS=1 python benchmarks/transfer.py --train profiles/qwen2.5-coder-1.5b-gsm8k-train.parquet \
        --test src/forethought/data/profiles/qwen2.5-coder-1.5b-gsm8k-test.parquet --other runs/math [--out FILE]

TRAIN and TEST are of one kind, OTHER of another, all of one model and template; grids may differ, and everything is
compared at the budgets of all three. Two directions: trained on TRAIN and judged on OTHER, where "in kind" is
cross-fitted on OTHER; trained on OTHER and judged on TEST, where "in kind" is trained on TRAIN. Each plan's gain over
uniform at equal realised tokens is averaged over the levels. What survives is that gain over the one in kind, paired
over the same resampled questions; no share is stated where the gain in kind is not clearly above 0. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from forethought.evaluation.bootstrap import estimate, ratio
from forethought.evaluation.comparison import SMALLEST_GAP, Comparison
from forethought.evaluation.policies import Policies
from forethought.pipeline import held_out_curves
from forethought.predictors.selection import cross_fit, train
from forethought.predictors.trained import TrainedPredictor
from forethought.profiles import common_grid, curves_on_grid, on_grid
from forethought.report import plain
from forethought.sources import open_profile
from forethought.types import BudgetGrid, Cost, Curves, Profile

IN_KIND, PLAIN, FALLBACK, BLIND = "in kind", "transferred", "transferred, with fallback", "transferred mean curve"


def transferred(predictor: TrainedPredictor, judged: Profile, grid: BudgetGrid) -> tuple[dict[str, Curves], list[str]]:
    """What a predictor of the other kind says of the questions, as it is and with its fallback, and the notes."""
    _, as_it_is, mean, _ = held_out_curves(predictor, judged, fallback=False)
    _, drawn, _, notes = held_out_curves(predictor, judged)
    curves = {PLAIN: as_it_is, FALLBACK: drawn, BLIND: mean}
    return {name: curves_on_grid(each, grid) for name, each in curves.items()}, list(notes)


def compared(
    judged: Profile, curves: Mapping[str, Curves], mean: Curves, cost: Cost, *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """Every plan's mean gain over uniform, and the share of the gain in kind.

    Args:
        judged: what was measured, on the common grid.
        curves: name -> curves to plan with.
        mean: the mean curve in kind: under spent cost, the levels are what uniform spends by it.
        cost: what is counted.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    assert mean.tokens_Q_B is not None
    mean_tokens_B = np.maximum.accumulate(mean.tokens_Q_B.mean(axis=0))
    policies = Policies(
        measured=judged.curves,
        predicted=curves[IN_KIND],
        mean_B=mean.p_Q_B.mean(axis=0),
        mean_tokens_B=mean_tokens_B,
        allocator="envelope",
        batch_size=None,
    )
    levels = sorted({float(round(level)) for level in policies.cap_costs(cost)})
    outcomes = [
        policies.planned(name, each, "envelope", cost, level) for name, each in curves.items() for level in levels
    ]
    outcomes += [policies.oracle(cost, level) for level in levels]
    comparison = Comparison.make(policies, outcomes, cost, num_resamples=num_resamples, seed=seed)
    gain_R_P = comparison.accuracy_R_P - comparison.uniform_R_P
    gain_R = {name: gain_R_P[:, comparison.columns(name)].mean(axis=1) for name in (*curves, "oracle")}
    found: dict[str, Any] = {"levels": levels}
    for name, values_R in gain_R.items():
        survives = ratio(values_R, gain_R[IN_KIND], smallest=SMALLEST_GAP) if name not in (IN_KIND, "oracle") else None
        found[name] = estimate(values_R).to_json("gain") | ({} if survives is None else survives.to_json("survives"))
    return found


def direction(
    judged: Profile,
    predictor: TrainedPredictor,
    in_kind: tuple[Curves, Curves],
    grid: BudgetGrid,
    *,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """One direction, under both costs.

    Args:
        judged: the questions planned for.
        predictor: trained on the other kind.
        in_kind: curves, and mean curve, of predictors trained on the same kind and not on these questions.
        grid: the common one.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    curves, notes = transferred(predictor, judged, grid)
    own, mean = (curves_on_grid(each, grid) for each in in_kind)
    looks = predictor.card.familiarity
    costs = {
        cost.value: compared(
            on_grid(judged, grid), {IN_KIND: own, **curves}, mean, cost, num_resamples=num_resamples, seed=seed
        )
        for cost in Cost
    }
    return {
        "questions": judged.num_queries,
        "traces": int(judged.num_tried_Q.sum()),
        "trained_on": predictor.card.data.num_queries,
        "false_alarms": None if looks is None else looks.false_alarms,
        "notes": notes,
        **costs,
    }


def main() -> None:
    """Reads the three profiles, prints and keeps what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--test", "--other"):
        parser.add_argument(name, required=True, help="profile run or Parquet file")
    parser.add_argument("--predictor", default="auto")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    one, test, other = (open_profile(source) for source in (options.train, options.test, options.other))
    grid = reduce(common_grid, (each.grid for each in (one, test, other)))
    how = {"predictor": options.predictor, "seed": options.seed, "num_folds": options.folds}
    bootstrap = {"num_resamples": options.resamples, "seed": options.seed}
    of_one, of_other = train(one, **how), train(other, **how)
    crossed = cross_fit(other, **how)
    _, known, mean, _ = held_out_curves(of_one, test, fallback=False)
    found = {
        "model": one.info.get("model"),
        "simulated": any(bool(each.info.get("simulated")) for each in (one, test, other)),
        "profiles": {"train": one.info.get("name"), "test": test.info.get("name"), "other": other.info.get("name")},
        "predictor": of_one.card.predictor,
        "window": grid.window,
        "maximum": grid.maximum,
        "train_to_other": direction(other, of_one, crossed, grid, **bootstrap),
        "other_to_test": direction(test, of_other, (known, mean), grid, **bootstrap),
        "resamples": options.resamples,
        "seed": options.seed,
    }
    text = json.dumps(plain(found), ensure_ascii=False, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
