"""Several predictors through one allocator on one held-out profile: what each buys, and what it costs itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import registry
from ..core.data import Cost, Curves, FloatArray, Profile
from ..core.features import Counts
from ..core.protocols import Allocator
from ..errors import InvalidInputError
from .bootstrap import estimate, resampled_means
from .checks import check_inputs
from .metrics import log_loss_Q
from .offline import data_hash, default_levels
from .policies import BLIND, ORACLE, UNIFORM, Outcome, Policies
from .resampled import Resampled, share_closed
from .results import Estimate, Row

BASELINES = (UNIFORM, BLIND, ORACLE)


@dataclass(frozen=True, slots=True)
class PredictorCost:
    """What predicting one query costs, beside the prompt pass that generation needs anyway.

    Attributes:
        parameters: numbers that take part, those of a language model it runs included.
        seconds: a query, measured here in one batch, median of a few; features that come from the prompt pass or from
            asking are not in it.
        tokens: its arithmetic as generated tokens of the served model, or the tokens that asking that model took; None
            where the size of the served model is not known.
        threads: what the seconds were measured with, in words.
    """

    parameters: int
    seconds: float
    tokens: float | None
    threads: str

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "parameters": self.parameters,
            "seconds_a_query": self.seconds,
            "tokens_a_query": self.tokens,
            "threads": self.threads,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One predictor's curves of the judged queries.

    Attributes:
        name: how it is called in the report; not a baseline's name.
        predictor: registered name, or what else made it, in words.
        curves: predicted, in the profile's order; without tokens it plans spent cost with the mean spend curve.
        cost: what predicting costs itself.
    """

    name: str
    predictor: str
    curves: Curves
    cost: PredictorCost | None


@dataclass(frozen=True, slots=True)
class Score:
    """One candidate under one cost, averaged over all levels.

    Attributes:
        name, cost: whose, and under which cost.
        gain, gain_over_blind: mean over the levels, at equal realised tokens.
        net_gain: the same over uniform with the predictor's own tokens charged; None under granted cost, which counts
            caps alone, and where they are not known.
        gap_closed: mean gain over uniform / the exact oracle's; None where that is too small to divide by.
        lead: mean accuracy less the first candidate's at the same levels, paired; None for the first.
    """

    name: str
    cost: Cost
    gain: Estimate
    gain_over_blind: Estimate
    net_gain: Estimate | None
    gap_closed: Estimate | None
    lead: Estimate | None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Everything that the comparison of predictors says.

    Attributes:
        candidates: in the order given.
        num_queries, num_traces: of the profile judged on; fewest and most traces a query.
        allocator: makes every candidate's plans.
        levels: cost -> mean tokens a query.
        rows: every candidate and baseline at every level.
        scores: every candidate under every cost.
        log_losses: candidate -> log loss a trace and budget, in nats; "mean curve" beside them.
        notes: what the reader must know.
        provenance: of the profile.
    """

    candidates: tuple[Candidate, ...]
    num_queries: int
    num_traces: tuple[int, int]
    allocator: str
    levels: Mapping[Cost, tuple[float, ...]]
    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    log_losses: Mapping[str, Estimate]
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hash: str
    provenance: Mapping[str, Any]

    def score(self, name: str, cost: Cost) -> Score:
        """Of one candidate under one cost."""
        return next(each for each in self.scores if each.name == name and each.cost is cost)

    def to_json(self) -> dict[str, Any]:
        """One object of plain values."""

        def optional(name: str, value: Estimate | None) -> dict[str, float | None]:
            return value.to_json(name) if value is not None else {name: None, f"{name}_low": None, f"{name}_high": None}

        return {
            "num_queries": self.num_queries,
            "num_traces": list(self.num_traces),
            "allocator": self.allocator,
            "levels": {cost.value: list(levels) for cost, levels in self.levels.items()},
            "candidates": [
                {
                    "name": each.name,
                    "predictor": each.predictor,
                    **self.log_losses[each.name].to_json("log_loss"),
                    "own_cost": None if each.cost is None else each.cost.to_json(),
                }
                for each in self.candidates
            ],
            "mean_curve": self.log_losses[MEAN].to_json("log_loss"),
            "scores": [
                {
                    "name": each.name,
                    "cost": each.cost.value,
                    **each.gain.to_json("gain"),
                    **each.gain_over_blind.to_json("gain_over_blind"),
                    **optional("net_gain", each.net_gain),
                    **optional("gap_closed", each.gap_closed),
                    **optional("lead", each.lead),
                }
                for each in self.scores
            ],
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
            "num_resamples": self.num_resamples,
            "seed": self.seed,
            "data_hash": self.data_hash,
            "provenance": dict(self.provenance),
        }


MEAN = "mean curve"
NOTES = (
    "Every candidate was trained on other queries, plans all queries together with the same allocator, and is compared "
    "with uniform and blind at the tokens that its plan really came to.",
    "Own cost: parameters that take part; seconds a query, measured here; tokens: its arithmetic in generated tokens "
    "of the served model (parameters x tokens read / parameters of that model, embeddings left out), or what asking "
    "that model took. The prompt pass that hidden states come from is generation's own and is not charged.",
    "Net gain charges those tokens to every query, beside the tokens spent on reasoning and answers.",
    "Intervals are 95% paired bootstrap intervals over queries; training and plans are held fixed.",
)


def compare_predictors(
    measured: Profile,
    candidates: Sequence[Candidate],
    mean_train: Curves,
    *,
    allocator: str | Allocator = "envelope",
    costs: Sequence[Cost] = (Cost.GRANTED, Cost.SPENT),
    num_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Plays every candidate at every level.

    Args:
        measured: the held-out profile.
        candidates: at least one; the first is the one that leads are counted from.
        mean_train: mean curve of the training queries, one row: what blind knows.
        allocator: registered name, or an allocator.
        costs: to compare under.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InvalidInputError: no candidate, or two of one name.
    """
    names = [each.name for each in candidates]
    if not names or len(set(names)) != len(names) or set(names) & {*BASELINES, MEAN}:
        raise InvalidInputError(f"candidates need names of their own, none of {', '.join(BASELINES)}; got {names}")
    for each in candidates:
        check_inputs(measured, each.curves, mean_train, costs, None, num_resamples, None)
    mean_B = mean_train.p_Q_B.mean(axis=0)
    budgets_B = measured.menu.budgets_B.astype(np.float64)
    mean_tokens_B = (
        budgets_B if mean_train.tokens_Q_B is None else np.maximum.accumulate(mean_train.tokens_Q_B.mean(axis=0))
    )
    policies = Policies(
        measured=measured.curves,
        predicted=candidates[0].curves,
        mean_B=mean_B,
        mean_tokens_B=mean_tokens_B,
        allocator=allocator,
        batch_size=None,
    )
    levels = {cost: default_levels(cost, policies, None) for cost in costs}
    rows: list[Row] = []
    scores: list[Score] = []
    for cost in costs:
        found_rows, found_scores = _play(policies, candidates, cost, levels[cost], mean_tokens_B, num_resamples, seed)
        rows += found_rows
        scores += found_scores
    return Comparison(
        candidates=tuple(candidates),
        num_queries=measured.num_queries,
        num_traces=(int(measured.num_tried_Q.min()), int(measured.num_tried_Q.max())),
        allocator=registry.name_of("allocators", allocator),
        levels=levels,
        rows=tuple(rows),
        scores=tuple(scores),
        log_losses=_log_losses(measured, candidates, mean_B, num_resamples=num_resamples, seed=seed),
        notes=(*NOTES, *policies.notes),
        num_resamples=num_resamples,
        seed=seed,
        data_hash=data_hash(measured),
        provenance=measured.info,
    )


def _play(
    policies: Policies,
    candidates: Sequence[Candidate],
    cost: Cost,
    levels: Sequence[float],
    mean_tokens_B: FloatArray,
    num_resamples: int,
    seed: int,
) -> tuple[list[Row], list[Score]]:
    """Rows and scores under one cost."""
    outcomes: list[Outcome] = []
    for level in levels:
        outcomes += [policies.uniform(cost, level), policies.blind(cost, level)]
        for each in candidates:
            tokens_Q_B = each.curves.tokens_Q_B
            curves = each.curves
            if tokens_Q_B is None:
                curves = replace(curves, tokens_Q_B=np.broadcast_to(mean_tokens_B, curves.p_Q_B.shape))
            outcomes.append(policies.planned(each.name, curves, policies.allocator, cost, level))
        outcomes.append(policies.oracle(cost, level))
    charged = [_charged(outcome, candidates) for outcome in outcomes]
    settings = {"num_resamples": num_resamples, "seed": seed}
    resampled = Resampled.make(policies, outcomes, cost, **settings)
    net = Resampled.make(policies, charged, cost, **settings) if cost is Cost.SPENT else None
    scores = [_score(resampled, net, each, candidates[0].name) for each in candidates]
    return resampled.rows(), scores


def _charged(outcome: Outcome, candidates: Sequence[Candidate]) -> Outcome:
    """The outcome with the predictor's own tokens added to what every query spent."""
    own = next((each.cost for each in candidates if each.name == outcome.policy), None)
    if own is None or own.tokens is None:
        return outcome
    return replace(outcome, spent_Q=outcome.spent_Q + own.tokens)


def _score(resampled: Resampled, net: Resampled | None, candidate: Candidate, first: str) -> Score:
    def mean_R(baseline_R_P: FloatArray, of: Resampled, name: str) -> FloatArray:
        columns = of.columns(name)
        mean: FloatArray = (of.accuracy_R_P[:, columns] - baseline_R_P[:, columns]).mean(axis=1)
        return mean

    name = candidate.name
    gain_R = mean_R(resampled.uniform_R_P, resampled, name)
    oracle_R = mean_R(resampled.uniform_R_P, resampled, ORACLE)
    pair_R_2 = np.stack([gain_R, oracle_R], axis=1)
    ours, others = resampled.columns(first), resampled.columns(name)
    lead_R = (resampled.accuracy_R_P[:, others] - resampled.accuracy_R_P[:, ours]).mean(axis=1)
    has_net = net is not None and candidate.cost is not None and candidate.cost.tokens is not None
    return Score(
        name=name,
        cost=resampled.cost,
        gain=estimate(gain_R),
        gain_over_blind=estimate(mean_R(resampled.blind_R_P, resampled, name)),
        net_gain=estimate(mean_R(net.uniform_R_P, net, name)) if has_net and net is not None else None,
        gap_closed=share_closed(pair_R_2, 0, 1),
        lead=None if name == first else estimate(lead_R),
    )


def _log_losses(
    measured: Profile, candidates: Sequence[Candidate], mean_B: FloatArray, *, num_resamples: int, seed: int
) -> dict[str, Estimate]:
    """Log loss a trace and budget of every candidate and of the mean curve, with intervals over queries."""
    curves = {each.name: each.curves.p_Q_B for each in candidates}
    curves[MEAN] = np.broadcast_to(mean_B, measured.curves.p_Q_B.shape)
    counts = Counts.of(measured)
    columns = [counts.weight_Q, *(log_loss_Q(p_Q_B, counts) for p_Q_B in curves.values())]
    sums_R_N = resampled_means(np.stack(columns, axis=1), num_resamples=num_resamples, seed=seed)
    return {name: estimate(sums_R_N[:, place] / sums_R_N[:, 0]) for place, name in enumerate(curves, 1)}
