"""Are predictions never below blind? Plans of predictors that have nothing to learn, and of those that have much.

    OMP_NUM_THREADS=1 python benchmarks/shrinkage.py --train profiles/qwen2.5-coder-1.5b-gsm8k-train.parquet \
        --test src/forethought/data/profiles/qwen2.5-coder-1.5b-gsm8k-test.parquet --predictors text,ridge \
        --labels random --queries 60,198,400 --traces 1,4 --draws 50 --out docs/results/shrinkage

Each draw takes some of TRAIN's questions, trains on them and plans for those of TEST. With `--labels random` the
outcomes of all questions are dealt out anew, so that nothing tells one question from another; with `--labels real` they
are left as they are. With `--cross` the drawn questions are cross-fitted instead, and planned for themselves. One trace
is drawn from a question's four: one number decides it at every cap. Three kinds of curves are planned: "before" (as
fitted; cross-fitted around each fold's own mean curve), "fitted" (as fitted; cross-fitted around one mean curve) and
"shrunk" (what is planned with). What is kept is the mean accuracy less blind's at equal realised tokens, over the
levels of the README, in points. Each draw is a line of OUT/draws.jsonl; run again, it goes on where it stopped. Prints
means and 95% intervals over the draws, and keeps them in OUT/shrinkage.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forethought.control.sources import open_profile
from forethought.core.data import Cost, Curves
from forethought.core.features import Features
from forethought.core.profile import Profile
from forethought.evaluation.policies import Policies
from forethought.evaluation.resampled import Resampled
from forethought.predictors.parts.folds import assign_folds
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import cross_fit, train

CAPS = (32, 64, 96, 128, 192, 256)
BEFORE, FITTED, SHRUNK = "before", "fitted", "shrunk"
KEYS = ("profile", "labels", "kind", "predictor", "queries", "traces")


def lead(measured: Profile, predicted: Curves, mean: Curves) -> dict[str, float]:
    """Mean points over blind at equal realised tokens, under both costs."""
    assert mean.tokens_Q_B is not None
    policies = Policies(measured, predicted, mean, "envelope")
    found = {}
    for cost in Cost:
        levels = policies.cap_costs(cost)[np.isin(measured.menu.budgets_B, CAPS)]
        outcomes = [policies.planned("ours", predicted, "envelope", cost, float(level)) for level in levels]
        resampled = Resampled.make(policies, outcomes, cost, num_resamples=1, seed=0)
        found[cost.value] = 100 * float((resampled.accuracy_R_P - resampled.blind_R_P)[0].mean())
    return found


def dealt(profile: Profile, random: np.random.Generator) -> Profile:
    """The same questions, with the outcomes of one another."""
    order = random.permutation(profile.num_queries)
    return replace(
        profile,
        num_right_Q_B=profile.num_right_Q_B[order],
        num_tried_Q=profile.num_tried_Q[order],
        tokens_Q_B=profile.tokens_Q_B[order],
        reasoning_Q_B=profile.reasoning_Q_B[order],
    )


def of_one_trace(profile: Profile, random: np.random.Generator) -> Profile:
    """One trace per question: right at the caps at which a share of its traces above one random number is."""
    rate_Q_B = profile.num_right_Q_B / profile.num_tried_Q[:, None]
    num_right_Q_B = (random.random((profile.num_queries, 1)) < rate_Q_B).astype(np.int64)
    return replace(profile, num_right_Q_B=num_right_Q_B, num_tried_Q=np.ones(profile.num_queries, dtype=np.int64))


def unshrunk(trained: Predictor) -> Predictor:
    """The predictor as it was fitted."""
    return replace(trained, card=replace(trained.card, shrinkage=None))


def predicted_by(trained: Predictor, profile: Profile) -> Curves:
    """Its curves of a profile's questions."""
    return trained.predict(profile.query_ids, Features.of(profile, trained.card.features.layer))


def crossed(profile: Profile, predictor: str) -> tuple[dict[str, Curves], Curves]:
    """Cross-fitted curves of each kind, and the mean curve."""
    shrunk, mean = cross_fit(profile, predictor=predictor)
    assert mean.tokens_Q_B is not None
    fold_Q = assign_folds(profile.query_ids, num_folds=5, seed=0)
    p_Q_B, tokens_Q_B, own_p_Q_B, own_tokens_Q_B = (np.empty(mean.p_Q_B.shape) for _ in range(4))
    for fold in range(5):
        held, kept = np.flatnonzero(fold_Q == fold), np.flatnonzero(fold_Q != fold)
        settings: dict[str, Any] = {"with_novelty": False, "with_shrinkage": False}
        trained = train(profile.select(kept), predictor=predictor, num_folds=profile.num_queries, **settings)
        curves = predicted_by(trained, profile.select(held))
        assert curves.tokens_Q_B is not None
        assert trained.card.mean_tokens_B is not None
        p_Q_B[held], tokens_Q_B[held] = curves.p_Q_B, curves.tokens_Q_B
        own_p_Q_B[held], own_tokens_Q_B[held] = trained.card.mean_p_B, trained.card.mean_tokens_B
    before = replace(shrunk, p_Q_B=p_Q_B, tokens_Q_B=tokens_Q_B)
    around_one = replace(
        shrunk,
        p_Q_B=np.clip(p_Q_B - own_p_Q_B + mean.p_Q_B, 0.0, 1.0),
        tokens_Q_B=np.maximum.accumulate(np.maximum(tokens_Q_B - own_tokens_Q_B + mean.tokens_Q_B, 0.0), axis=1),
    )
    return {BEFORE: before, FITTED: around_one, SHRUNK: shrunk}, mean


def play(one: Profile, test: Profile, case: Mapping[str, Any], draw: int) -> dict[str, Any]:
    """One draw: what every kind of curves came to."""
    random = np.random.default_rng([draw, case["queries"], case["traces"]])
    if case["labels"] == "random":
        one, test = dealt(one, random), dealt(test, random)
    drawn = one.select(np.sort(random.permutation(one.num_queries)[: case["queries"]]))
    if case["traces"] == 1:
        drawn = of_one_trace(drawn, random)
    shares: dict[str, Any] = {}
    if case["kind"] == "cross-fitted":
        curves, mean = crossed(drawn, case["predictor"])
        judged = drawn
    else:
        trained = train(drawn, predictor=case["predictor"], with_novelty=False)
        curves = {FITTED: predicted_by(unshrunk(trained), test), SHRUNK: predicted_by(trained, test)}
        mean, judged = trained.card.mean_curves(test.query_ids), test
        if trained.card.shrinkage is not None:
            shares = {"success": trained.card.shrinkage.success, "spend": trained.card.shrinkage.spend}
    leads = {name: lead(judged, each, mean) for name, each in curves.items()}
    return {**case, "draw": draw, **shares, "leads": leads}


def summaries(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Mean over the draws of each case, with 95% intervals, and paired differences from the curves as fitted."""

    def interval(values: list[float]) -> list[float | None]:
        mean = float(np.mean(values))
        if len(values) < 2:
            return [round(mean, 3), None, None]
        half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
        return [round(value, 3) for value in (mean, mean - half, mean + half)]

    rows = sorted(rows, key=lambda row: tuple(str(row[key]) for key in KEYS))
    for case, group in itertools.groupby(rows, key=lambda row: tuple(row[key] for key in KEYS)):
        draws = list(group)
        found: dict[str, Any] = {**dict(zip(KEYS, case, strict=True)), "draws": len(draws)}
        for share in ("success", "spend"):
            if share in draws[0]:
                found[f"{share}_kept"] = round(float(np.mean([row[share] for row in draws])), 3)
        for cost in Cost:
            points = {kind: [row["leads"][kind][cost.value] for row in draws] for kind in draws[0]["leads"]}
            found[cost.value] = {kind: interval(values) for kind, values in points.items()}
            pairs = zip(points[SHRUNK], points[FITTED], strict=True)
            found[cost.value]["shrunk less fitted"] = interval([after - before for after, before in pairs])
        yield found


def main() -> None:
    """Plays what is not played yet, and summarises all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--test"):
        parser.add_argument(name, required=True, help="profile run or Parquet file")
    parser.add_argument("--predictors", default="text,ridge")
    parser.add_argument("--labels", choices=("random", "real"), default="random")
    parser.add_argument("--cross", action="store_true")
    parser.add_argument("--queries", default="60,198,400")
    parser.add_argument("--traces", default="1,4")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    one, test = open_profile(options.train), open_profile(options.test)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "draws.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {tuple(row[key] for key in (*KEYS, "draw")) for row in rows}
    with path.open("a") as file:
        for draw in range(options.draws):
            for predictor, queries, traces in itertools.product(
                options.predictors.split(","),
                (int(queries) for queries in options.queries.split(",")),
                (int(traces) for traces in options.traces.split(",")),
            ):
                kind = "cross-fitted" if options.cross else "held out"
                values = (Path(options.train).stem, options.labels, kind, predictor, queries, traces)
                if (*values, draw) in known:
                    continue
                row = play(one, test, dict(zip(KEYS, values, strict=True)), draw)
                file.write(json.dumps(row) + "\n")
                file.flush()
                rows.append(row)
    found = list(summaries(rows))
    (options.out / "shrinkage.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
