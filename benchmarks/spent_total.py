"""What a spent total may come to: what is told beforehand against what batches of measured questions really use.

    OMP_NUM_THREADS=1 python benchmarks/spent_total.py [--draws 400] [--out FILE]

Batches of questions are drawn from a held-out profile and planned under spent cost; `spent_within` tells below how many
tokens 95 of 100 batches stay. A REPLAY for the shipped profiles (an answer uses the mean tokens of its question's four
traces, which vary less than one), a SIMULATION with single traces for templated questions. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import templated
from forethought.allocators import allocate
from forethought.control.sources import open_predictor, shipped_heldout
from forethought.core.data import Cost, Curves
from forethought.core.features import Features
from forethought.core.profile import Profile
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import train
from forethought.predictors.usage import spent_within


def judged(predictor: Predictor, profile: Profile, level: float, size: int, num_draws: int) -> dict[str, float]:
    """One row: batches of `size` questions at `level` tokens per question."""
    features = Features.of(profile, predictor.card.features.layer)
    curves = predictor.predict(list(profile.query_ids), features)
    assert curves.tokens_Q_B is not None
    random, found = np.random.default_rng(0), []
    for _ in range(num_draws):
        rows = random.choice(profile.num_queries, size, replace=False)
        ids = tuple(profile.query_ids[row] for row in rows)
        batch = Curves(ids, curves.menu, curves.p_Q_B[rows], curves.tokens_Q_B[rows])
        plan = allocate("envelope", batch, total=level * size, cost=Cost.SPENT)
        told = spent_within(batch, plan.budget_Q)
        used = profile.tokens_Q_B[rows, profile.menu.columns(plan.budget_Q)].sum()
        found.append((told / (level * size) - 1.0, used > level * size, used <= told, used / plan.expected_spent - 1.0))
    told_N, over_N, within_N, off_N = np.array(found, dtype=np.float64).T
    return {
        "level": level,
        "questions": size,
        "told_above_total": told_N.mean(),
        "ended_above_total": over_N.mean(),
        "stayed_within": within_N.mean(),
        "off_mean": off_N.mean(),
        "off_spread": off_N.std(),
    }


def main() -> None:
    """Plays every row, prints and keeps what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    known, new = templated.questions(200, seed=1), templated.questions(1000, seed=2)
    cases = {
        name: (open_predictor(name), shipped_heldout(name), (64.0, 96.0, 120.0))
        for name in ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b")
    }
    of_template = train(templated.measured(known, num_traces=4), predictor="text", seed=0)
    cases["templated"] = (of_template, templated.measured(new, num_traces=1), (48.0, 64.0, 96.0))
    rows = {
        name: [judged(predictor, profile, level, size, options.draws) for size in (30, 100) for level in levels]
        for name, (predictor, profile, levels) in cases.items()
    }
    text = json.dumps({"draws": options.draws, "rows": rows}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
