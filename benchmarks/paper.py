"""The policies on the published curves of arXiv 2602.01237, under granted cost, with paired bootstrap intervals.

    python benchmarks/paper.py FOLDER [--mean-tokens 32 48 64 96 128] [--cross-fit] [--json]

FOLDER holds train.parquet and dev.parquet: question_id, num_correct (16 budgets), num_trials, hidden_state. That data
carries no licence, so it is no part of this project and nothing made from it is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forethought.evaluation import Evaluation, evaluate
from forethought.predictors.selection import cross_fit, train
from forethought.types import BudgetGrid, Cost, Curves, FloatArray, Profile

GRID = BudgetGrid(16, 256)
LAYER = 16  # by the authors' notebook; the file does not say


def read_profile(path: Path) -> Profile:
    """The counts and hidden states of one split; spend was not measured, so a cap stands for what it costs."""
    table = pq.read_table(path, columns=["question_id", "num_correct", "num_trials", "hidden_state"])
    num_queries = table.num_rows
    caps_Q_B = np.tile(GRID.budgets_B.astype(np.float64), (num_queries, 1))
    return Profile(
        query_ids=tuple(table["question_id"].to_pylist()),
        grid=GRID,
        num_right_Q_B=_matrix(table, "num_correct", num_queries).astype(np.int64),
        num_tried_Q=table["num_trials"].to_numpy().astype(np.int64),
        tokens_Q_B=caps_Q_B,
        reasoning_Q_B=caps_Q_B,
        hidden_Q_L_D=_matrix(table, "hidden_state", num_queries)[:, None],
        layers=(LAYER,),
        info={"name": f"paper {path.stem}", "model": "DeepSeek-R1-Distill-Qwen-1.5B"},
    )


def _matrix(table: pa.Table, name: str, num_queries: int) -> FloatArray:
    return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(num_queries, -1)


def compare(folder: Path, *, mean_tokens: list[float], predictor: str, is_cross_fitted: bool) -> Evaluation:
    """Trains on the train split and judges on dev; or cross-fits within dev alone."""
    dev = read_profile(folder / "dev.parquet")
    if is_cross_fitted:
        predicted, mean_train = cross_fit(dev, predictor=predictor)
    else:
        trained = train(read_profile(folder / "train.parquet"), predictor=predictor, num_folds=2)
        assert dev.hidden_Q_L_D is not None
        predicted = trained.predict(dev.query_ids, dev.hidden_Q_L_D[:, 0])
        mean_train = trained.card.mean_curves(dev.query_ids)
    predicted = Curves(predicted.query_ids, predicted.grid, predicted.p_Q_B)
    return evaluate(dev, predicted, mean_train, costs=(Cost.GRANTED,), mean_tokens=mean_tokens)


def table(found: Evaluation) -> str:
    """Accuracy in percent and gains in points, each with its 95% interval."""
    lines = ["| tokens | policy | accuracy | over uniform | over blind | gap closed |", "|---|---|---|---|---|---|"]
    for row in found.rows:
        cells = [
            "" if value is None else f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"
            for value in (row.accuracy, row.gain, row.gain_over_blind, row.gap_closed)
        ]
        lines.append(f"| {row.budget:.0f} | {row.policy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mean-tokens", type=float, nargs="+", default=[16, 32, 48, 64, 96, 128, 192, 256])
    parser.add_argument("--predictor", default="ridge")
    parser.add_argument("--cross-fit", action="store_true", help="within dev, instead of from train to dev")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = compare(
        asked.folder, mean_tokens=asked.mean_tokens, predictor=asked.predictor, is_cross_fitted=asked.cross_fit
    )
    print(json.dumps([row.to_json() for row in found.rows], indent=2) if asked.json else table(found))


if __name__ == "__main__":
    main()
