"""Several predictors through one allocator on one held-out profile: what each buys, and what it costs itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.data import Cost, Curves, FloatArray, Profile
from ..core.protocols import Allocator
from ..errors import InvalidInputError
from .bootstrap import estimate, resampled_means
from .checks import check_inputs
from .comparison import Comparison, share_closed
from .metrics import binomial_log_loss
from .offline import data_hash, default_levels
from .policies import BLIND, ORACLE, UNIFORM, Outcome, Policies, name_of
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
class Contender:
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
class Standing:
    """One contender under one cost, averaged over all levels.

    Attributes:
        name, cost: whose, and under which cost.
        gain, gain_over_blind: mean over the levels, at equal realised tokens.
        net_gain: the same over uniform with the predictor's own tokens charged; None under granted cost, which counts
            caps alone, and where they are not known.
        gap_closed: mean gain over uniform / the exact oracle's; None where that is too small to divide by.
        lead: mean accuracy less the first contender's at the same levels, paired; None for the first.
    """

    name: str
    cost: Cost
    gain: Estimate
    gain_over_blind: Estimate
    net_gain: Estimate | None
    gap_closed: Estimate | None
    lead: Estimate | None


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """Everything that the comparison of predictors says.

    Attributes:
        contenders: in the order given.
        num_queries, num_traces: of the profile judged on; fewest and most traces a query.
        allocator: makes every contender's plans.
        levels: cost -> mean tokens a query.
        rows: every contender and baseline at every level.
        standings: every contender under every cost.
        log_losses: contender -> log loss a trace and budget, in nats; "mean curve" beside them.
        notes: what the reader must know.
        provenance: of the profile.
    """

    contenders: tuple[Contender, ...]
    num_queries: int
    num_traces: tuple[int, int]
    allocator: str
    levels: Mapping[Cost, tuple[float, ...]]
    rows: tuple[Row, ...]
    standings: tuple[Standing, ...]
    log_losses: Mapping[str, Estimate]
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hash: str
    provenance: Mapping[str, Any]

    def standing(self, name: str, cost: Cost) -> Standing:
        """Of one contender under one cost."""
        return next(each for each in self.standings if each.name == name and each.cost is cost)

    def to_json(self) -> dict[str, Any]:
        """One object of plain values."""

        def optional(name: str, value: Estimate | None) -> dict[str, float | None]:
            return value.to_json(name) if value is not None else {name: None, f"{name}_low": None, f"{name}_high": None}

        return {
            "num_queries": self.num_queries,
            "num_traces": list(self.num_traces),
            "allocator": self.allocator,
            "levels": {cost.value: list(levels) for cost, levels in self.levels.items()},
            "contenders": [
                {
                    "name": each.name,
                    "predictor": each.predictor,
                    **self.log_losses[each.name].to_json("log_loss"),
                    "own_cost": None if each.cost is None else each.cost.to_json(),
                }
                for each in self.contenders
            ],
            "mean_curve": self.log_losses[MEAN].to_json("log_loss"),
            "standings": [
                {
                    "name": each.name,
                    "cost": each.cost.value,
                    **each.gain.to_json("gain"),
                    **each.gain_over_blind.to_json("gain_over_blind"),
                    **optional("net_gain", each.net_gain),
                    **optional("gap_closed", each.gap_closed),
                    **optional("lead", each.lead),
                }
                for each in self.standings
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
    "Every contender was trained on other queries, plans all queries together with the same allocator, and is compared "
    "with uniform and blind at the tokens that its plan really came to.",
    "Own cost: parameters that take part; seconds a query, measured here; tokens: its arithmetic in generated tokens "
    "of the served model (parameters x tokens read / parameters of that model, embeddings left out), or what asking "
    "that model took. The prompt pass that hidden states come from is generation's own and is not charged.",
    "Net gain charges those tokens to every query, beside the tokens spent on reasoning and answers.",
    "Intervals are 95% paired bootstrap intervals over queries; training and plans are held fixed.",
)


def hold_contest(
    measured: Profile,
    contenders: Sequence[Contender],
    mean_train: Curves,
    *,
    allocator: str | Allocator = "envelope",
    costs: Sequence[Cost] = (Cost.GRANTED, Cost.SPENT),
    num_resamples: int = 2000,
    seed: int = 0,
) -> Contest:
    """Plays every contender at every level.

    Args:
        measured: the held-out profile.
        contenders: at least one; the first is the one that leads are counted from.
        mean_train: mean curve of the training queries, one row: what blind knows.
        allocator: registered name, or an allocator.
        costs: to compare under.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InvalidInputError: no contender, or two of one name.
    """
    names = [each.name for each in contenders]
    if not names or len(set(names)) != len(names) or set(names) & {*BASELINES, MEAN}:
        raise InvalidInputError(f"contenders need names of their own, none of {', '.join(BASELINES)}; got {names}")
    for each in contenders:
        check_inputs(measured, each.curves, mean_train, costs, None, num_resamples, None)
    mean_B = mean_train.p_Q_B.mean(axis=0)
    budgets_B = measured.menu.budgets_B.astype(np.float64)
    mean_tokens_B = (
        budgets_B if mean_train.tokens_Q_B is None else np.maximum.accumulate(mean_train.tokens_Q_B.mean(axis=0))
    )
    policies = Policies(
        measured=measured.curves,
        predicted=contenders[0].curves,
        mean_B=mean_B,
        mean_tokens_B=mean_tokens_B,
        allocator=allocator,
        batch_size=None,
    )
    levels = {cost: default_levels(cost, policies, None) for cost in costs}
    rows: list[Row] = []
    standings: list[Standing] = []
    for cost in costs:
        found_rows, found_standings = _play(
            policies, contenders, cost, levels[cost], mean_tokens_B, num_resamples, seed
        )
        rows += found_rows
        standings += found_standings
    return Contest(
        contenders=tuple(contenders),
        num_queries=measured.num_queries,
        num_traces=(int(measured.num_tried_Q.min()), int(measured.num_tried_Q.max())),
        allocator=name_of(allocator),
        levels=levels,
        rows=tuple(rows),
        standings=tuple(standings),
        log_losses=_log_losses(measured, contenders, mean_B, num_resamples=num_resamples, seed=seed),
        notes=(*NOTES, *policies.notes),
        num_resamples=num_resamples,
        seed=seed,
        data_hash=data_hash(measured),
        provenance=measured.info,
    )


def _play(
    policies: Policies,
    contenders: Sequence[Contender],
    cost: Cost,
    levels: Sequence[float],
    mean_tokens_B: FloatArray,
    num_resamples: int,
    seed: int,
) -> tuple[list[Row], list[Standing]]:
    """Rows and standings under one cost."""
    outcomes: list[Outcome] = []
    for level in levels:
        outcomes += [policies.uniform(cost, level), policies.blind(cost, level)]
        for each in contenders:
            tokens_Q_B = each.curves.tokens_Q_B
            curves = each.curves
            if tokens_Q_B is None:
                curves = replace(curves, tokens_Q_B=np.broadcast_to(mean_tokens_B, curves.p_Q_B.shape))
            outcomes.append(policies.planned(each.name, curves, policies.allocator, cost, level))
        outcomes.append(policies.oracle(cost, level))
    charged = [_charged(outcome, contenders) for outcome in outcomes]
    settings = {"num_resamples": num_resamples, "seed": seed}
    comparison = Comparison.make(policies, outcomes, cost, **settings)
    net = Comparison.make(policies, charged, cost, **settings) if cost is Cost.SPENT else None
    standings = [_standing(comparison, net, each, contenders[0].name) for each in contenders]
    return comparison.rows(), standings


def _charged(outcome: Outcome, contenders: Sequence[Contender]) -> Outcome:
    """The outcome with the predictor's own tokens added to what every query spent."""
    own = next((each.cost for each in contenders if each.name == outcome.policy), None)
    if own is None or own.tokens is None:
        return outcome
    return replace(outcome, spent_Q=outcome.spent_Q + own.tokens)


def _standing(comparison: Comparison, net: Comparison | None, contender: Contender, first: str) -> Standing:
    def mean_R(baseline_R_P: FloatArray, of: Comparison, name: str) -> FloatArray:
        columns = of.columns(name)
        mean: FloatArray = (of.accuracy_R_P[:, columns] - baseline_R_P[:, columns]).mean(axis=1)
        return mean

    name = contender.name
    gain_R = mean_R(comparison.uniform_R_P, comparison, name)
    oracle_R = mean_R(comparison.uniform_R_P, comparison, ORACLE)
    pair_R_2 = np.stack([gain_R, oracle_R], axis=1)
    ours, others = comparison.columns(first), comparison.columns(name)
    lead_R = (comparison.accuracy_R_P[:, others] - comparison.accuracy_R_P[:, ours]).mean(axis=1)
    has_net = net is not None and contender.cost is not None and contender.cost.tokens is not None
    return Standing(
        name=name,
        cost=comparison.cost,
        gain=estimate(gain_R),
        gain_over_blind=estimate(mean_R(comparison.blind_R_P, comparison, name)),
        net_gain=estimate(mean_R(net.uniform_R_P, net, name)) if has_net and net is not None else None,
        gap_closed=share_closed(pair_R_2, 0, 1),
        lead=None if name == first else estimate(lead_R),
    )


def _log_losses(
    measured: Profile, contenders: Sequence[Contender], mean_B: FloatArray, *, num_resamples: int, seed: int
) -> dict[str, Estimate]:
    """Log loss a trace and budget of every contender and of the mean curve, with intervals over queries."""
    curves = {each.name: each.curves.p_Q_B for each in contenders}
    curves[MEAN] = np.broadcast_to(mean_B, measured.curves.p_Q_B.shape)
    tried_Q = measured.num_tried_Q.astype(np.float64)
    columns = [tried_Q]
    for p_Q_B in curves.values():
        rows = (slice(row, row + 1) for row in range(measured.num_queries))
        loss_Q = [binomial_log_loss(p_Q_B[r], measured.num_right_Q_B[r], measured.num_tried_Q[r]) for r in rows]
        columns.append(np.array(loss_Q) * tried_Q)
    sums_R_N = resampled_means(np.stack(columns, axis=1), num_resamples=num_resamples, seed=seed)
    return {name: estimate(sums_R_N[:, place] / sums_R_N[:, 0]) for place, name in enumerate(curves, 1)}
