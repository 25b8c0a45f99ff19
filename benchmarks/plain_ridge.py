"""The default predictor beside a plain closed-form ridge on the published measurements, with a paired interval.

    OMP_NUM_THREADS=1 python benchmarks/plain_ridge.py DIR [--split dev]

The plain ridge has one penalty for all budgets, by leave-one-out, and curves as regressed. Both are trained on the
train split and planned with the envelope; prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from forethought.allocators import allocate
from forethought.core.data import Curves, FloatArray
from forethought.core.profile import Profile
from forethought.predictors.parts.linear import Standardizer
from forethought.studies.paper.predictions import predict
from forethought.studies.paper.split import read_split

LEVELS = (32, 48, 64, 80, 96, 128)
PENALTIES = 10.0 ** np.arange(-2, 2.1, 0.25)  # in mean eigenvalues


def plain_ridge(train: Profile, test: Profile) -> FloatArray:
    """Predicted success of the test queries, clipped to [0, 1], shape (Q, B)."""
    assert train.hidden_Q_L_D is not None
    assert test.hidden_Q_L_D is not None
    rate_Q_B, mean_B = train.curves.p_Q_B, train.curves.p_Q_B.mean(axis=0)
    standardizer = Standardizer.fit(train.hidden_Q_L_D[:, 0], np.ones(train.num_queries))
    x_Q_D = standardizer.apply(train.hidden_Q_L_D[:, 0])
    eigenvalue_D, vector_D_D = np.linalg.eigh(x_Q_D.T @ x_Q_D)
    u_Q_D = x_Q_D @ vector_D_D
    projected_D_B = u_Q_D.T @ (rate_Q_B - mean_B)
    errors = []
    for penalty in PENALTIES * eigenvalue_D.mean():
        weight_D = 1 / (eigenvalue_D + penalty)
        leverage_Q = u_Q_D**2 @ weight_D + 1 / train.num_queries
        residual_Q_B = rate_Q_B - mean_B - u_Q_D @ (projected_D_B * weight_D[:, None])
        errors.append(float(((residual_Q_B / (1 - leverage_Q)[:, None]) ** 2).mean()))
    weight_D = 1 / (eigenvalue_D + PENALTIES[int(np.argmin(errors))] * eigenvalue_D.mean())
    test_Q_D = standardizer.apply(test.hidden_Q_L_D[:, 0])
    found: FloatArray = np.clip(mean_B + test_Q_D @ vector_D_D @ (projected_D_B * weight_D[:, None]), 0.0, 1.0)
    return found


def accuracies(p_Q_B: FloatArray, test: Profile) -> FloatArray:
    """Measured success of each query at the budget it is given, at each level, shape (levels, Q)."""
    rows = np.arange(test.num_queries)
    found = []
    for level in LEVELS:
        plan = allocate("envelope", Curves(test.query_ids, test.menu, p_Q_B), total=float(level * test.num_queries))
        found.append(test.curves.p_Q_B[rows, plan.budget_Q // test.menu.smallest - 1])
    return np.array(found)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--resamples", type=int, default=4000)
    asked = parser.parse_args()
    train, test = (read_split(asked.folder, name).profile for name in ("train", asked.split))
    ours = predict(train, test, None, seed=0)
    ours_L_Q, plain_L_Q = accuracies(ours.curves.p_Q_B, test), accuracies(plain_ridge(train, test), test)
    lead_Q = (ours_L_Q - plain_L_Q).mean(axis=0)
    random = np.random.default_rng(0)
    drawn = [lead_Q[random.integers(len(lead_Q), size=len(lead_Q))].mean() for _ in range(asked.resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    percent = {
        name: [round(100 * float(value), 2) for value in found.mean(axis=1)]
        for name, found in ((ours.predictor, ours_L_Q), ("plain ridge", plain_L_Q))
    }
    lead = {"lead": 100 * float(lead_Q.mean()), "lead_low": 100 * float(low), "lead_high": 100 * float(high)}
    print(
        json.dumps({"split": asked.split, "queries": test.num_queries, "levels": LEVELS, **percent, **lead}, indent=1)
    )


if __name__ == "__main__":
    main()
