"""How far predictions may be trusted: on questions of their own kind, of another, and of one template.

    OMP_NUM_THREADS=1 python benchmarks/transfer.py --train profiles/qwen2.5-coder-1.5b-gsm8k-train.parquet \
        --test src/forethought/data/profiles/qwen2.5-coder-1.5b-gsm8k-test.parquet \
        --other profiles/qwen2.5-coder-1.5b-math500.parquet [--also TRAIN=TEST]… [--out FILE]

TRAIN and TEST are of one kind, OTHER of another, all of one model and template; grids may differ, and everything is
compared at the budgets of both. Each row plans the questions of one profile with a predictor trained on another: as
predicted; by the earlier rule, which drew the curves of novel questions towards uniform; as predicted, and
corrected by the used tokens while answers come in, as `forethought run` does; by the mean training curve alone. Mean
gain over uniform at equal realised tokens, over the levels, with paired bootstrap intervals over questions.

The corrected plan is a REPLAY of measured traces: an answer uses the mean tokens of its question's traces under its
budget. It is played in `--orders` random orders of the questions, whose outcomes are averaged. Templated questions are
a SIMULATION with known true curves. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import templated
from forethought.allocators import allocate
from forethought.control.adapting import block_ends
from forethought.control.evaluating import held_out_curves
from forethought.control.sources import open_profile
from forethought.core.data import Cost, Curves, FloatArray
from forethought.core.features import Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.evaluation.bootstrap import estimate
from forethought.evaluation.policies import Policies, PolicyOutcome
from forethought.evaluation.resampled import Resampled
from forethought.evaluation.results import plain
from forethought.predictors.card import PredictorCard
from forethought.predictors.novelty import BATCH_LEVEL, num_in_tail
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import train
from forethought.predictors.usage import Usage, stretched
from forethought.runs.profiles import curves_on_menu, on_menu

PLAIN, OLD, CORRECTED, BLIND, ORACLE = "as predicted", "old fallback", "corrected", "mean curve", "oracle"


def old_fallback(predictor: Predictor, judged: Profile, curves: Curves, menu: Menu) -> Curves:
    """What the earlier rule made of the curves, by the novelty score of today.

    Beyond the distance that 5% of left-out training queries exceed, trust in a prediction fell in a straight line and
    was gone at twice the way from the median; where a batch was novel, that of all fell by the share that was. The rest
    was the mean training curve, made concave, by which an allocator divides evenly.
    """
    card, score = predictor.card, predictor.novelty
    found = predictor.judge(Features.of(judged, card.features.layer))
    if score is None or found is None:
        return curves
    distance_Q = score.distances(Features.of(judged, card.features.layer))
    threshold = float(score.left_out_N[-num_in_tail(len(score.left_out_N))])
    spread = max(threshold - float(np.median(score.left_out_N)), 1e-6 * abs(threshold), 1e-12)
    trust_Q = np.clip(1.0 - (distance_Q - threshold) / (2.0 * spread), 0.0, 1.0)
    if found.chance <= BATCH_LEVEL:
        trust_Q *= min(1.0, (1.0 - found.num_novel / found.num_queries) / (1.0 - found.expected / found.num_queries))
    trust_Q_1 = np.where(np.isnan(distance_Q), 1.0, np.where(trust_Q < 0.05, 0.0, trust_Q))[:, None]
    p_B, tokens_B = card.concave_mean
    even = curves_on_menu(Curves(("even",), card.menu, p_B[None], None if tokens_B is None else tokens_B[None]), menu)
    assert curves.tokens_Q_B is not None
    assert even.tokens_Q_B is not None
    return replace(
        curves,
        p_Q_B=trust_Q_1 * curves.p_Q_B + (1.0 - trust_Q_1) * even.p_Q_B,
        tokens_Q_B=trust_Q_1 * curves.tokens_Q_B + (1.0 - trust_Q_1) * even.tokens_Q_B,
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """One play: the budgets that were given in the end, alarms, the first one's answers, and the last stretch."""

    budget_Q: FloatArray
    num_alarms: int
    first_alarm: int | None
    stretch: float


def play(curves: Curves, used_Q_B: FloatArray, card: PredictorCard, cost: Cost, level: float, *, seed: int) -> Stream:
    """`forethought run` as a replay: blocks of a random order, and between them its rule."""
    order = np.random.default_rng(seed).permutation(len(used_Q_B))
    columns_Q = _columns(curves, level * len(order), cost)
    usage, done, first = Usage(card), 0, None
    for end in block_ends(len(order)):
        for row in order[done:end].tolist():
            usage.see(curves.tokens_Q_B[row], int(columns_Q[row]), float(used_Q_B[row, columns_Q[row]]))
        done, rest = end, order[end:]
        if usage.recentre():
            first = first or done
            if len(rest):
                spent = used_Q_B[order[:done], columns_Q[order[:done]]].sum()
                paid = curves.menu.at(columns_Q[order[:done]]).sum() if cost is Cost.GRANTED else spent
                left = level * len(order) - float(paid)
                columns_Q[rest] = _columns(stretched(_rows(curves, rest), usage.stretch), left, cost)
    return Stream(curves.menu.at(columns_Q), usage.num_alarms, first, usage.stretch)


def _rows(curves: Curves, rows: FloatArray) -> Curves:
    assert curves.tokens_Q_B is not None
    ids = tuple(curves.query_ids[row] for row in rows)
    return Curves(ids, curves.menu, curves.p_Q_B[rows], curves.tokens_Q_B[rows])


def _columns(curves: Curves, total: float, cost: Cost) -> FloatArray:
    assert curves.tokens_Q_B is not None
    least_Q = curves.tokens_Q_B[:, 0].astype(np.float64) if cost is Cost.SPENT else np.full(1, curves.menu.smallest)
    least = float(least_Q.sum()) * (1.0 + 1e-9) if cost is Cost.SPENT else float(least_Q[0]) * len(curves.query_ids)
    plan = allocate("envelope", curves, total=max(total, least), cost=cost)
    return curves.menu.columns(plan.budget_Q)


def _averaged(policies: Policies, streams: list[Stream], level: float) -> PolicyOutcome:
    """The mean outcome of several streams, for each query."""
    found = [policies.given(CORRECTED, stream.budget_Q, level) for stream in streams]
    means = {
        name: np.mean([getattr(each, name) for each in found], axis=0)
        for name in ("accuracy_Q", "granted_Q", "spent_Q", "share_B")
    }
    return replace(found[0], **means)


def row(
    predictor: Predictor,
    judged: Profile,
    *,
    in_kind: FloatArray | None,
    used: Profile | None,
    num_orders: int,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """One row of the table, under both costs.

    Args:
        predictor: trained on other questions.
        judged: the questions planned for.
        in_kind: mean spend curve of the judged kind, which sets the levels under spent cost; None for the predictor's.
        used: whose tokens the stream sees; None for those of `judged`.
        num_orders: streams a level.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    measured, plain_curves, mean, notes = held_out_curves(predictor, judged)
    assert mean.tokens_Q_B is not None
    menu = measured.menu
    curves = {
        PLAIN: plain_curves,
        OLD: old_fallback(predictor, judged, plain_curves, menu),
        BLIND: mean,
    }
    card = replace(  # on the common menu
        predictor.card,
        menu=menu,
        mean_tokens_B=tuple(mean.tokens_Q_B[0].tolist()),
    )
    novelty = predictor.judge(Features.of(judged, predictor.card.features.layer))
    found: dict[str, Any] = {
        "questions": measured.num_queries,
        "traces": int(measured.num_tried_Q.sum()),
        "trained_on": predictor.card.data.num_queries,
        "novel": None if novelty is None else novelty.num_novel,
        "novel_expected": None if novelty is None else novelty.expected,
        "is_novel": None if novelty is None else novelty.is_novel,
        "tolerance": Usage(card).tolerance,
        "notes": list(notes),
    }
    used_Q_B = on_menu(used or judged, menu).tokens_Q_B
    mean_tokens_B = np.maximum.accumulate(mean.tokens_Q_B[0] if in_kind is None else in_kind).astype(np.float64)
    mean_train = Curves(("mean",), menu, mean.p_Q_B[:1], mean_tokens_B[None])
    policies = Policies(measured, plain_curves, mean_train, "envelope")
    for cost in Cost:
        levels = sorted({float(round(level)) for level in policies.cap_costs(cost)})
        streams = {
            level: [play(plain_curves, used_Q_B, card, cost, level, seed=order) for order in range(num_orders)]
            for level in levels
        }
        outcomes = [
            policies.planned(name, each, "envelope", cost, level) for name, each in curves.items() for level in levels
        ]
        outcomes += [_averaged(policies, streams[level], level) for level in levels]
        outcomes += [policies.oracle(cost, level) for level in levels]
        resampled = Resampled.make(policies, outcomes, cost, num_resamples=num_resamples, seed=seed)
        accuracy_R, gain_R = (
            {name: values_R_P[:, resampled.columns(name)].mean(axis=1) for name in (*curves, CORRECTED, ORACLE)}
            for values_R_P in (resampled.accuracy_R_P, resampled.accuracy_R_P - resampled.uniform_R_P)
        )
        every = [stream for each in streams.values() for stream in each]
        alarmed = [stream for stream in every if stream.num_alarms]
        realised = {
            name: np.mean([_realised(each, cost) for each in outcomes if each.policy == name]) for name in curves
        }
        realised[CORRECTED] = np.mean([_realised(each, cost) for each in outcomes if each.policy == CORRECTED])
        found[cost.value] = {
            "levels": levels,
            "gain": {name: _gain(values_R) for name, values_R in gain_R.items()},
            "same_total": {name: _gain(accuracy_R[name] - accuracy_R[PLAIN]) for name in (OLD, CORRECTED)},
            "tokens_of_total": {name: value / np.mean(levels) for name, value in realised.items()},
            "streams": len(every),
            "alarms": len(alarmed),
            "first_alarm": np.median([stream.first_alarm for stream in alarmed]) if alarmed else None,
            "stretch": np.median([stream.stretch for stream in alarmed]) if alarmed else None,
        }
    return found


def _gain(values_R: FloatArray) -> dict[str, float]:
    found = estimate(values_R)
    return {"gain": found.value, "gain_low": found.low, "gain_high": found.high}


def _realised(outcome: PolicyOutcome, cost: Cost) -> float:
    return float((outcome.granted_Q if cost is Cost.GRANTED else outcome.spent_Q).mean())


def _mean_tokens(profile: Profile, menu: Menu) -> FloatArray:
    return on_menu(profile, menu).tokens_Q_B.mean(axis=0)


def main() -> None:
    """Reads the profiles, plays every row, prints and keeps what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--test", "--other"):
        parser.add_argument(name, required=True, help="profile run or Parquet file")
    parser.add_argument("--also", action="append", default=[], metavar="TRAIN=TEST", help="one more in kind")
    parser.add_argument("--predictor", default="ridge")
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    how = {"predictor": options.predictor, "seed": options.seed}
    common = {"num_orders": options.orders, "num_resamples": options.resamples, "seed": options.seed}
    one, test, other = (open_profile(source) for source in (options.train, options.test, options.other))
    of_one, of_other = train(one, **how), train(other, **how)
    shared = held_out_curves(of_one, other)[0].menu
    rows = {
        "other, trained on train": row(of_one, other, in_kind=_mean_tokens(other, shared), used=None, **common),
        "test, trained on other": row(of_other, test, in_kind=_mean_tokens(one, shared), used=None, **common),
        "test, trained on train": row(of_one, test, in_kind=None, used=None, **common),
    }
    for pair in options.also:
        own, held_out = (open_profile(source) for source in pair.split("=", 1))
        rows[f"{held_out.provenance.name}, in kind"] = row(
            train(own, **how), held_out, in_kind=None, used=None, **common
        )
    known, new = templated.questions(200, seed=1), templated.questions(400, seed=2)
    of_template = train(templated.measured(known, num_traces=4), predictor="text", seed=options.seed)
    for name, longer in (("templated", 1.0), ("templated, thoughts 1.6 times as long", 1.6)):
        used = templated.measured(new, num_traces=1, longer=longer)
        true = templated.truth(new, longer=longer)
        tokens_B = _mean_tokens(true, templated.MENU)
        rows[name] = row(of_template, true, in_kind=tokens_B, used=used, **common)
    found = {
        "model": one.provenance.model,
        "replay": True,
        "simulated": {
            "profiles": any(each.provenance.simulated for each in (one, test, other)),
            "templated": True,
        },
        "profiles": {"train": one.provenance.name, "test": test.provenance.name, "other": other.provenance.name},
        "predictor": options.predictor,
        "orders": options.orders,
        "resamples": options.resamples,
        "seed": options.seed,
        "rows": rows,
    }
    text = json.dumps(plain(found), ensure_ascii=False, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
