"""Every layer on its own: exact leave-one-out ridge, its errors, and the accuracy that plans made from it reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.data import Cost, Curves, FloatArray
from ...core.features import Counts, Features
from ...core.profile import Profile
from ...errors import InvalidFeaturesError
from ...evaluation.bootstrap import estimate, resampled_means
from ...evaluation.levels import token_weights
from ...evaluation.metrics import brier_Q, log_loss_Q
from ...evaluation.offline import data_hash, num_traces, policies_of
from ...evaluation.policies import ORACLE, Outcome, Policies
from ...evaluation.results import Estimate
from ...predictors.parts.making import Progress, silent
from ...predictors.ridge import RidgePredictor
from .results import LayerRow, LayerStudy, Scores
from .states import States, layers_words
from .verdicts import judge as judge_pooling

MIN_QUERIES = 10
LAYER = "layer"  # what plans from a layer's predictions are called among the policies
NOTES = (
    "Each question is predicted by ridge regression on the states of one layer without that question (exact "
    "leave-one-out): the predictor and the penalty grid of `train`. Penalties and the rule on falling curves are "
    "chosen on the same left-out predictions, for every layer alike.",
    "The best layer is picked on the very predictions it is reported on, out of all layers studied, so its numbers "
    "are a little too good, and paired differences to it look surer than they are. The layers that may be the best are "
    "a 95% confidence set that takes the pick into account (multiple comparisons with the best); verdicts use it. "
    "Intervals resample questions, fits held fixed.",
    "Squared error is against measured rates: it holds the sampling noise of few traces, the same for every layer.",
    "Accuracy is measured success under the envelope's plan for the left-out curves; tokens are granted (sum of caps). "
    "Uniform gives everyone the same cap, blind divides by the mean curve alone, the oracle is the envelope on the "
    "measured curves themselves: part of its lead is luck that it selected.",
)


def study(
    measured: Profile,
    states: Mapping[str, States],
    *,
    layers: Sequence[int],
    levels: Sequence[float],
    num_resamples: int = 2000,
    seed: int = 0,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> LayerStudy:
    """Judges every layer under every pooling on the same questions.

    Args:
        measured: the profile.
        states: pooling -> the states of its questions.
        layers: the layers to study, ascending, recorded under every pooling.
        levels: mean granted tokens a question at which plans are judged.
        num_resamples: bootstrap resamples; the draws are the same for all layers, so that differences are paired.
        seed: of the draws.
        notes: further sentences for the reader.
        progress: called with "layer", layers done and layers in all.

    Raises:
        InvalidFeaturesError: fewer than `MIN_QUERIES` questions have a trace, and finite states of all those layers.
    """
    usable, left_out = _usable(measured, states, layers)
    judge = _Judge.of(usable, levels)
    baseline = judge.mean_curve()
    samples: dict[str, _Sample] = {}
    rows: list[LayerRow] = []
    for number, (pooling, held) in enumerate(states.items()):
        judged = []
        for done, layer in enumerate(layers, start=number * len(layers)):
            progress("layer", done, len(states) * len(layers))
            judged.append(judge.judge(_left_out(usable, held.layer(layer, usable.query_ids))))
        samples[pooling] = _Sample.draw(judge, [baseline, *judged], num_resamples=num_resamples, seed=seed)
        rows += _rows(pooling, layers, samples[pooling])
    progress("layer", len(states) * len(layers), len(states) * len(layers))
    first = next(iter(samples.values()))
    depth = _depth(states)
    losses = {pooling: sample.log_loss_R_N[:, 1:] for pooling, sample in samples.items()}
    return LayerStudy(
        num_queries=usable.num_queries,
        num_traces=num_traces(usable),
        menu=usable.menu,
        levels=tuple(levels),
        depth=depth,
        rows=tuple(rows),
        mean_curve=Scores(**first.scores(0)),
        uniform=first.policy("uniform"),
        oracle=first.policy("oracle"),
        verdicts=tuple(
            judge_pooling(pooling, layers, losses[pooling], sample.mean_accuracy_R_N(levels)[:, 1:], depth)
            for pooling, sample in samples.items()
        ),
        mean_less_last=_difference(losses) if len(losses) == 2 else None,
        notes=(*NOTES, *notes, *left_out),
        num_resamples=num_resamples,
        seed=seed,
        data_hash=data_hash(usable),
        simulated=usable.provenance.simulated,
        provenance=usable.provenance.to_json(),
    )


def _usable(measured: Profile, states: Mapping[str, States], layers: Sequence[int]) -> tuple[Profile, tuple[str, ...]]:
    """The questions that every layer and pooling can be judged on, and a sentence on those left out."""
    has_states_Q = np.ones(measured.num_queries, dtype=bool)
    for held in states.values():
        has_states_Q &= held.is_usable(measured.query_ids, layers)
    usable = measured.select(has_states_Q & (measured.num_tried_Q > 0))
    if usable.num_queries < MIN_QUERIES:
        raise InvalidFeaturesError(
            f"{usable.num_queries} of {measured.num_queries} questions have a finished trace and hidden states of "
            f"{layers_words(layers)} ({' and '.join(states)}); a study needs at least {MIN_QUERIES}"
        )
    num_left_out = measured.num_queries - usable.num_queries
    if not num_left_out:
        return usable, ()
    return usable, (
        f"{num_left_out:,} of {measured.num_queries:,} questions are left out: their states were not read, or their "
        "prompt does not fit the model.",
    )


def _left_out(usable: Profile, features_Q_D: FloatArray) -> FloatArray:
    """What ridge regression says of each question without it, shape (Q, B)."""
    counts = Counts(usable.menu, usable.num_right_Q_B, usable.num_tried_Q)
    fitted = RidgePredictor().fit(Features.of_hidden(features_Q_D), counts)
    assert fitted.left_out_p_Q_B_ is not None
    return fitted.left_out_p_Q_B_


def _depth(states: Mapping[str, States]) -> int | None:
    """Decoder layers of the model, where all were recorded."""
    recorded = sorted(next(iter(states.values())).layers)
    return recorded[-1] if recorded == list(range(len(recorded))) else None


def _difference(losses: Mapping[str, FloatArray]) -> Estimate:
    """Log loss of the best layer by the mean less that by the last token; the draws are the same for both."""
    last_R, mean_R = (losses[pooling][:, losses[pooling][0].argmin()] for pooling in ("last", "mean"))
    return estimate(mean_R - last_R)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """What some predictions come to, question by question.

    Attributes:
        loss_Q: negative log likelihood of all traces, mean over the budgets by their tokens.
        squared_Q: mean squared error against the measured rates.
        brier_Q: squared error against single traces, summed over traces, mean over the budgets.
        p_Q_B: the predictions.
        plans: what the plan of each level comes to, length V.
    """

    loss_Q: FloatArray
    squared_Q: FloatArray
    brier_Q: FloatArray
    p_Q_B: FloatArray
    plans: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """Holds predictions against what was measured."""

    usable: Profile
    policies: Policies
    levels: tuple[float, ...]
    rate_Q_B: FloatArray
    uniform: tuple[Outcome, ...]
    oracle: tuple[Outcome, ...]

    @classmethod
    def of(cls, usable: Profile, levels: Sequence[float]) -> _Judge:
        mean_B = usable.num_right_Q_B.sum(axis=0) / usable.num_tried_Q.sum()
        mean_train = Curves(("mean",), usable.menu, mean_B[None])
        policies = policies_of(usable, usable.curves, mean_train, "envelope")
        return cls(
            usable=usable,
            policies=policies,
            levels=tuple(levels),
            rate_Q_B=usable.curves.p_Q_B,
            uniform=tuple(policies.uniform(Cost.GRANTED, level) for level in levels),
            oracle=tuple(policies.planned(ORACLE, policies.known, "envelope", Cost.GRANTED, level) for level in levels),
        )

    def judge(self, p_Q_B: FloatArray) -> _Judged:
        """Predictions of a layer, and the envelope's plans for them."""
        curves = Curves(self.usable.query_ids, self.usable.menu, p_Q_B)
        plans = (self.policies.planned(LAYER, curves, "envelope", Cost.GRANTED, level) for level in self.levels)
        return self._judged(p_Q_B, tuple(plans))

    def mean_curve(self) -> _Judged:
        """The mean curve of the other questions, and blind's plans."""
        right_Q_B, tried_Q_1 = self.usable.num_right_Q_B, self.usable.num_tried_Q[:, None]
        p_Q_B = (right_Q_B.sum(axis=0) - right_Q_B) / (tried_Q_1.sum() - tried_Q_1)
        return self._judged(p_Q_B, tuple(self.policies.blind(Cost.GRANTED, level) for level in self.levels))

    def _judged(self, p_Q_B: FloatArray, plans: tuple[Outcome, ...]) -> _Judged:
        counts = Counts.of(self.usable)
        return _Judged(
            loss_Q=log_loss_Q(p_Q_B, counts),
            squared_Q=((p_Q_B - self.rate_Q_B) ** 2 * counts.width_B).mean(axis=1),
            brier_Q=brier_Q(p_Q_B, counts),
            p_Q_B=p_Q_B,
            plans=plans,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Everything of N predictions on the sample (row 0) and on each resample: R + 1 rows; the mean curve's come first.

    Attributes:
        log_loss_R_N, squared_R_N, brier_R_N: errors.
        pearson_R_B_N: correlation at each budget.
        accuracy_R_V_N: accuracy at each level.
        granted_N_V: mean caps of the plans.
        policies: name -> accuracy at each level, shape (R + 1, V).
        width_B: weight of each budget in a mean over them.
    """

    log_loss_R_N: FloatArray
    squared_R_N: FloatArray
    brier_R_N: FloatArray
    pearson_R_B_N: FloatArray
    accuracy_R_V_N: FloatArray
    granted_N_V: FloatArray
    policies: Mapping[str, FloatArray]
    width_B: FloatArray

    @classmethod
    def draw(cls, judge: _Judge, judged: Sequence[_Judged], *, num_resamples: int, seed: int) -> _Sample:
        """Resamples the questions once for all columns."""
        rate_Q_B, tried_Q = judge.rate_Q_B, judge.usable.num_tried_Q.astype(np.float64)
        num_budgets = rate_Q_B.shape[1]
        p_Q_BN = np.stack([each.p_Q_B for each in judged], axis=2).reshape(len(tried_Q), -1)
        rate_Q_BN = np.repeat(rate_Q_B, len(judged), axis=1)
        plans = (*(plan for each in judged for plan in each.plans), *judge.uniform, *judge.oracle)
        blocks = {
            "tried": tried_Q[:, None],
            "loss": np.stack([each.loss_Q for each in judged], axis=1),
            "squared": np.stack([each.squared_Q for each in judged], axis=1),
            "brier": np.stack([each.brier_Q for each in judged], axis=1),
            "rate": rate_Q_B,
            "rate_squared": rate_Q_B**2,
            "p": p_Q_BN,
            "p_squared": p_Q_BN**2,
            "product": p_Q_BN * rate_Q_BN,
            "right": np.stack([plan.accuracy_Q for plan in plans], axis=1),
        }
        means_R_N = resampled_means(
            np.concatenate(list(blocks.values()), axis=1), num_resamples=num_resamples, seed=seed
        )
        ends = np.cumsum([block.shape[1] for block in blocks.values()])
        found = dict(zip(blocks, np.split(means_R_N, ends[:-1], axis=1), strict=True))
        num_plans = len(judged) * len(judge.levels)
        right_R_N_V = found["right"][:, :num_plans].reshape(-1, len(judged), len(judge.levels))
        uniform_R_V, oracle_R_V = np.split(found["right"][:, num_plans:], 2, axis=1)
        return cls(
            log_loss_R_N=found["loss"] / found["tried"],
            squared_R_N=found["squared"],
            brier_R_N=found["brier"] / found["tried"],
            pearson_R_B_N=_pearson(found, num_budgets),
            accuracy_R_V_N=right_R_N_V.transpose(0, 2, 1),
            granted_N_V=np.array([[plan.granted_Q.mean() for plan in each.plans] for each in judged]),
            policies={"uniform": uniform_R_V, "oracle": oracle_R_V},
            width_B=judge.usable.menu.width_B,
        )

    def mean_accuracy_R_N(self, levels: Sequence[float]) -> FloatArray:
        """Accuracy, mean over the levels."""
        mean_R_N: FloatArray = np.einsum("rvn,v->rn", self.accuracy_R_V_N, token_weights(levels))
        return mean_R_N

    def policy(self, name: str) -> tuple[Estimate, ...]:
        """A policy's accuracy at each level."""
        return tuple(estimate(right_R) for right_R in self.policies[name].T)

    def scores(self, column: int) -> dict[str, Any]:
        """Estimates of one of the predictions: the fields of `Scores`."""
        right_R_V = self.accuracy_R_V_N[..., column]
        blind_R_V = self.accuracy_R_V_N[..., 0]
        pearson_R_B = self.pearson_R_B_N[..., column]
        return {
            "log_loss": estimate(self.log_loss_R_N[:, column]),
            "squared_error": estimate(self.squared_R_N[:, column]),
            "brier": estimate(self.brier_R_N[:, column]),
            "mean_pearson": estimate(pearson_R_B @ self.width_B),
            "pearson": tuple(estimate(pearson_R) for pearson_R in pearson_R_B.T),
            "accuracy": tuple(estimate(right_R) for right_R in right_R_V.T),
            "granted": tuple(self.granted_N_V[column].tolist()),
            "gain_over_blind": tuple(estimate(gain_R) for gain_R in (right_R_V - blind_R_V).T),
        }


def _pearson(found: Mapping[str, FloatArray], num_budgets: int) -> FloatArray:
    """Correlation of predicted and measured rates at each budget, shape (R + 1, B, N); 0 where either does not vary.

    The mean curve without each question varies a little too, and against the question it leaves out: its correlation
    is -1 and means nothing. Predictions that vary no more than twice as much count as constant.
    """
    rate_R_B_1, rate_squared_R_B_1 = found["rate"][..., None], found["rate_squared"][..., None]
    p_R_B_N, p_squared_R_B_N, product_R_B_N = (
        found[name].reshape(len(found[name]), num_budgets, -1) for name in ("p", "p_squared", "product")
    )
    variance_R_B_N = np.maximum(p_squared_R_B_N - p_R_B_N**2, 0.0)
    norm_R_B_N = np.sqrt(variance_R_B_N * np.maximum(rate_squared_R_B_1 - rate_R_B_1**2, 0.0))
    is_varied_R_B_N = (variance_R_B_N[:1] > 4.0 * variance_R_B_N[:1, :, :1] + 1e-15) & (norm_R_B_N > 1e-12)
    return np.where(
        is_varied_R_B_N,
        (product_R_B_N - p_R_B_N * rate_R_B_1) / np.where(is_varied_R_B_N, norm_R_B_N, 1.0),
        0.0,
    )


def _rows(pooling: str, layers: Sequence[int], sample: _Sample) -> list[LayerRow]:
    loss_R_L = sample.log_loss_R_N[:, 1:]
    best = int(loss_R_L[0].argmin())
    wins_L = np.bincount(loss_R_L[1:].argmin(axis=1), minlength=len(layers)) / (len(loss_R_L) - 1)
    return [
        LayerRow(
            pooling=pooling,
            layer=layer,
            **sample.scores(1 + column),
            above_best=estimate(loss_R_L[:, column] - loss_R_L[:, best]),
            wins=float(wins_L[column]),
        )
        for column, layer in enumerate(layers)
    ]
