"""Every layer alone: exact leave-one-out ridge, its errors, and the accuracy of plans made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...core.data import Cost, Curves, FloatArray
from ...core.features import Counts, Features
from ...core.profile import Profile
from ...errors import InvalidFeaturesError
from ...evaluation.bootstrap import estimate, resampled_means
from ...evaluation.levels import token_weights
from ...evaluation.metrics import brier_Q, log_loss_Q, trials_Q
from ...evaluation.offline import data_hash, num_traces
from ...evaluation.policies import ORACLE, Policies, PolicyOutcome
from ...evaluation.results import Estimate
from ...predictors.parts.making import Progress, silent
from ...predictors.ridge import RidgePredictor
from .results import LayerRow, LayerStudy, Scores
from .states import States
from .verdicts import judge as judge_pooling
from .wording import layers_words

MIN_QUERIES = 10
LAYER = "layer"  # what plans from a layer's predictions are called among the policies
NOTES = (
    "Each question is predicted by ridge regression on the states of one layer without that question (exact "
    "leave-one-out): the predictor and the penalty grid of `train`. Penalties and the rule on falling curves are "
    "chosen on the same left-out predictions, for every layer.",
    "The best layer is chosen on the predictions that are reported, so its numbers are a little too good, and paired "
    "differences to it seem more significant than they are. The layers that may be the best are a 95% confidence set "
    "that accounts for this choice (multiple comparisons with the best); verdicts use it. Intervals resample "
    "questions, with fits held fixed.",
    "Squared error is against measured rates: it includes the sampling noise of few traces, equally for every layer.",
    "Accuracy is measured success under the envelope's plan for the left-out curves; tokens are granted (sum of caps). "
    "Uniform gives every question the same cap, blind divides by the mean curve, and the oracle is the envelope on the "
    "measured curves: part of its lead is selection bias.",
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
        levels: mean granted tokens per question at which plans are judged.
        num_resamples: bootstrap resamples; the draws are the same for all layers, so that differences are paired.
        seed: of the draws.
        notes: further sentences for the reader.
        progress: called with "layer", layers done and layers in all.

    Raises:
        InvalidFeaturesError: fewer than `MIN_QUERIES` questions have a trace, and finite states of all those layers.
    """
    usable, left_out = _usable(measured, states, layers)
    right_B, tries_B = usable.num_right_Q_B.sum(axis=0), usable.tries_Q_B.sum(axis=0)
    mean_train = Curves(("mean",), usable.menu, (right_B / tries_B)[None])
    policies = Policies(usable, usable.curves, mean_train, "envelope")
    # The mean curve of the other questions, and what blind makes of it.
    others_Q_B = (right_B - usable.num_right_Q_B) / (tries_B - usable.tries_Q_B)
    baseline = (others_Q_B, [policies.blind(Cost.GRANTED, level) for level in levels])
    samples: dict[str, _Sample] = {}
    rows: list[LayerRow] = []
    for number, (pooling, held) in enumerate(states.items()):
        judged = [baseline]
        for done, layer in enumerate(layers, start=number * len(layers)):
            progress("layer", done, len(states) * len(layers))
            p_Q_B = _left_out(usable, held.layer(layer, usable.query_ids))
            curves = Curves(usable.query_ids, usable.menu, p_Q_B)
            plans = [policies.planned(LAYER, curves, "envelope", Cost.GRANTED, level) for level in levels]
            judged.append((p_Q_B, plans))
        samples[pooling] = _Sample(usable, policies, levels, judged, num_resamples=num_resamples, seed=seed)
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
        uniform=tuple(map(estimate, first.uniform_R_V.T)),
        oracle=tuple(map(estimate, first.oracle_R_V.T)),
        verdicts=tuple(
            judge_pooling(pooling, layers, losses[pooling], sample.accuracy_R_N_V[:, 1:] @ token_weights(levels), depth)
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
    usable = measured.select(has_states_Q & measured.is_complete_Q)
    if usable.num_queries < MIN_QUERIES:
        raise InvalidFeaturesError(
            f"{usable.num_queries} of {measured.num_queries} questions have a finished trace and hidden states of "
            f"{layers_words(layers)} ({' and '.join(states)}); a study needs at least {MIN_QUERIES}"
        )
    num_left_out = measured.num_queries - usable.num_queries
    if not num_left_out:
        return usable, ()
    return usable, (
        f"{num_left_out:,} of {measured.num_queries:,} questions are left out: their states were not read, their "
        "prompt does not fit the model, or an option was not tried.",
    )


def _left_out(usable: Profile, features_Q_D: FloatArray) -> FloatArray:
    """What ridge regression says of each question without it, shape (Q, B)."""
    counts = Counts(usable.menu, usable.num_right_Q_B, usable.num_tried_Q, tried_Q_B=usable.tried_Q_B)
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


class _Sample:
    """Everything of N predictions on the sample (row 0) and on each resample: R + 1 rows; the mean curve's come first.

    Args:
        usable: the questions.
        policies: on the same questions.
        levels: V of them.
        judged: predictions, shape (Q, B), and what the plan made of them comes to at each level; N of these.
        num_resamples, seed: of the bootstrap; the questions are drawn once for all columns.
    """

    def __init__(
        self,
        usable: Profile,
        policies: Policies,
        levels: Sequence[float],
        judged: Sequence[tuple[FloatArray, Sequence[PolicyOutcome]]],
        *,
        num_resamples: int,
        seed: int,
    ) -> None:
        counts, rate_Q_B = Counts.of(usable), usable.curves.p_Q_B
        p_Q_B_N = np.stack([p_Q_B for p_Q_B, _ in judged], axis=2)
        p_Q_BN, rate_Q_BN = p_Q_B_N.reshape(len(rate_Q_B), -1), np.repeat(rate_Q_B, len(judged), axis=1)
        squared_Q_B_N = (p_Q_B_N - rate_Q_B[..., None]) ** 2
        plans = [plan for _, own in judged for plan in own]
        plans += [policies.uniform(Cost.GRANTED, level) for level in levels]
        plans += [policies.planned(ORACLE, policies.known, "envelope", Cost.GRANTED, level) for level in levels]
        self.width_B = usable.menu.width_B
        blocks = {
            "tried": trials_Q(counts)[:, None],
            "loss": np.stack([log_loss_Q(p_Q_B, counts) for p_Q_B, _ in judged], axis=1),
            "squared": np.einsum("qbn,b->qn", squared_Q_B_N, self.width_B),
            "brier": np.stack([brier_Q(p_Q_B, counts) for p_Q_B, _ in judged], axis=1),
            "rate": rate_Q_B,
            "rate_squared": rate_Q_B**2,
            "p": p_Q_BN,
            "p_squared": p_Q_BN**2,
            "product": p_Q_BN * rate_Q_BN,
            "right": np.stack([plan.accuracy_Q for plan in plans], axis=1),
        }
        all_Q_K = np.concatenate(list(blocks.values()), axis=1)
        means_R_K = resampled_means(all_Q_K, num_resamples=num_resamples, seed=seed)
        ends = np.cumsum([block.shape[1] for block in blocks.values()])
        found = dict(zip(blocks, np.split(means_R_K, ends[:-1], axis=1), strict=True))
        self.log_loss_R_N, self.brier_R_N = found["loss"] / found["tried"], found["brier"] / found["tried"]
        self.squared_R_N, self.pearson_R_B_N = found["squared"], _pearson(found, rate_Q_B.shape[1])
        right_R_M_V = found["right"].reshape(len(means_R_K), -1, len(levels))
        self.accuracy_R_N_V = right_R_M_V[:, :-2]
        self.uniform_R_V, self.oracle_R_V = right_R_M_V[:, -2], right_R_M_V[:, -1]
        self.granted_N_V = [[float(plan.granted_Q.mean()) for plan in own] for _, own in judged]

    def scores(self, column: int) -> dict[str, Any]:
        """Estimates of one of the predictions: the fields of `Scores`."""
        right_R_V, pearson_R_B = self.accuracy_R_N_V[:, column], self.pearson_R_B_N[..., column]
        return {
            "log_loss": estimate(self.log_loss_R_N[:, column]),
            "squared_error": estimate(self.squared_R_N[:, column]),
            "brier": estimate(self.brier_R_N[:, column]),
            "mean_pearson": estimate(pearson_R_B @ self.width_B),
            "pearson": tuple(map(estimate, pearson_R_B.T)),
            "accuracy": tuple(map(estimate, right_R_V.T)),
            "granted": tuple(self.granted_N_V[column]),
            "gain_over_blind": tuple(map(estimate, (right_R_V - self.accuracy_R_N_V[:, 0]).T)),
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
