"""Several predictors with one allocator on one held-out profile: their gains, and the cost of the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..allocators import Allocator
from ..core.data import Cost, Curves
from ..core.features import Counts
from ..core.profile import Profile
from ..core.registry import name_of
from ..core.showing import Progress, Shown, picture, silent
from ..core.terms import TOKEN_COSTS
from ..errors import InvalidInputError
from .bootstrap import estimate
from .calibration import resampled_losses
from .checks import check_inputs, comparable, known_costs, matched
from .offline import FAIR_ORACLE_IS, NO_FAIR_ORACLE, data_hash, levels_of, named_notes, num_traces
from .policies import BLIND, FAIR_ORACLE, ORACLE, UNIFORM, Policies, PolicyOutcome
from .resampled import Resampled, share_closed
from .results import COUNTED, Estimate, PolicyRow, Result

BASELINES = (UNIFORM, BLIND, ORACLE, FAIR_ORACLE)
MEAN = "mean curve"
NOTES = (
    "Every candidate was trained on other queries, plans all queries together with the same allocator, and is compared "
    "with uniform and blind at the realised cost of its plan.",
    "A mean over levels weights each level by the range of tokens nearest to it.",
    "Own cost: parameters used; seconds per query, measured here; tokens: the compute in generated tokens of the "
    "served model (parameters x tokens read / parameters of that model, without embeddings), or the tokens generated "
    "when that model is queried. The prompt pass that yields hidden states is part of generation and is not charged.",
    "Net gain charges those tokens to every query, in addition to the tokens of reasoning and answers.",
    "Intervals are 95% paired bootstrap intervals over queries; training and plans are held fixed.",
)


@dataclass(frozen=True, slots=True)
class PredictorCost(Result):
    """The cost of predicting one query, without the prompt pass that generation needs anyway.

    Attributes:
        parameters: numbers that take part, those of a language model it runs included.
        seconds: per query, measured here in one batch, median of a few; features that come from the prompt pass or from
            asking are not in it.
        tokens: its arithmetic as generated tokens of the served model, or the tokens that asking that model took; None
            where the size of the served model is not known.
        threads: what the seconds were measured with, in words.
    """

    parameters: int
    seconds: float
    tokens: float | None
    threads: str


@dataclass(frozen=True, slots=True, eq=False)
class Candidate(Result):
    """One predictor's curves of the judged queries.

    Attributes:
        name: how it is called in the report; not a baseline's name.
        predictor: registered name, or what else made it, in words.
        curves: predicted, in the profile's order; without tokens it plans spent cost with the mean usage curve.
        own_cost: what predicting costs itself.
    """

    name: str
    predictor: str
    curves: Curves = field(repr=False)
    own_cost: PredictorCost | None


@dataclass(frozen=True, slots=True)
class Score(Result):
    """One candidate under one cost, averaged over all levels.

    Attributes:
        name, cost: whose, and under which cost.
        gain, gain_over_blind: mean over the levels, at equal realised tokens.
        net_gain: the same over uniform with the predictor's own tokens charged; None under granted cost, which counts
            caps alone, in money, in which they have no price, and where they are not known.
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Comparison(Result, Shown):
    """Everything that the comparison of predictors says.

    Attributes:
        simulated: whether the measurements come from a simulation or a replay.
        candidates: in the order given.
        num_queries, num_traces: of the profile judged on; fewest and most traces per query.
        allocator: makes every candidate's plans.
        levels: cost -> mean tokens, or USD, per query.
        rows: every candidate and baseline at every level.
        scores: every candidate under every cost.
        log_losses: candidate -> log loss per trace and budget, in nats; "mean curve" beside them.
        notes: what the reader must know.
        provenance: of the profile.
    """

    simulated: bool
    candidates: tuple[Candidate, ...]
    num_queries: int
    num_traces: tuple[int, int]
    allocator: str
    levels: Mapping[Cost, tuple[float, ...]]
    rows: tuple[PolicyRow, ...]
    scores: tuple[Score, ...]
    log_losses: Mapping[str, Estimate]
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hash: str
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        made, cost = ", SIMULATED" if self.simulated else "", next(iter(self.levels))
        gains = [f"{each.name} {100 * each.gain_over_blind.value:+.1f}" for each in self.scores if each.cost is cost]
        return (
            f"Comparison({self.num_queries:,} queries, points over blind at equal {COUNTED[cost]}: "
            f"{', '.join(gains[:5])}{', …' if len(gains) > 5 else ''}{made})"
        )

    def plot(self) -> Any:
        """What each predictor gains over blind against what predicting costs: a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return picture("comparison", self)

    def score(self, name: str, cost: Cost) -> Score:
        """Of one candidate under one cost."""
        return next(each for each in self.scores if each.name == name and each.cost is cost)


def compare_predictors(
    measured: Profile,
    candidates: Sequence[Candidate],
    mean_train: Curves,
    *,
    allocator: str | Allocator = "envelope",
    costs: Sequence[Cost] | None = None,
    halves: tuple[Profile, Profile] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Comparison:
    """Plays every candidate at every level.

    Args:
        measured: the held-out profile.
        candidates: at least one; the first is the one that leads are counted from.
        mean_train: mean curve of the training queries, one row: what blind knows.
        allocator: registered name, or an allocator.
        costs: to compare under; by default as in `evaluate`.
        halves: two parts of each query's samples, for the fair oracle; as in `evaluate`.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        notes: what the reader must know of the candidates, before what is to be known of any comparison.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidInputError: no candidate, or two of one name.
    """
    names = [each.name for each in candidates]
    if not names or len(set(names)) != len(names) or set(names) & {*BASELINES, MEAN}:
        raise InvalidInputError(
            f"candidates need names of their own (--name), none of {', '.join(BASELINES)}; got {names}"
        )
    measured, curves, mean_train, left_out = comparable(measured, [each.curves for each in candidates], mean_train)
    candidates = [replace(each, curves=own) for each, own in zip(candidates, curves, strict=True)]
    if costs is None:
        costs = known_costs(measured, mean_train) if measured.menu.is_named else TOKEN_COSTS
    for each in candidates:
        check_inputs(measured, each.curves, mean_train, costs, None, num_resamples)
    halves = None if halves is None else matched(measured, *halves)
    played = [Policies(measured, each.curves, mean_train, allocator, halves) for each in candidates]
    policies = played[0]
    levels = {cost: levels_of(cost, policies) for cost in costs}
    how = {"num_resamples": num_resamples, "seed": seed}
    rows: list[PolicyRow] = []
    scores: list[Score] = []
    for cost in costs:
        outcomes: list[PolicyOutcome] = []
        for number, level in enumerate(levels[cost]):
            progress(f"plans, {cost} cost", number, len(levels[cost]))
            outcomes += [policies.uniform(cost, level), policies.blind(cost, level)]
            outcomes += [
                policies.planned(each.name, own.predicted, policies.allocator, cost, level)
                for each, own in zip(candidates, played, strict=True)
            ]
            outcomes += policies.oracles(cost, level)
        is_measured = measured.is_spend_measured
        judged = Resampled.make(policies, outcomes, cost, is_spend_measured=is_measured, progress=progress, **how)
        net = _charged(policies, outcomes, candidates, **how) if cost is Cost.SPENT else None
        rows += judged.rows()
        scores += [_score(judged, net, each, names[0]) for each in candidates]
    progress("intervals", 0, 1)
    p_N_Q_B = [each.curves.p_Q_B for each in candidates]
    fair = NO_FAIR_ORACLE if halves is None else FAIR_ORACLE_IS
    mean_Q_B = np.broadcast_to(policies.mean_B, p_N_Q_B[0].shape)
    losses_R_N = resampled_losses(Counts.of(measured), [*p_N_Q_B, mean_Q_B], **how)
    return Comparison(
        simulated=measured.provenance.simulated,
        candidates=tuple(candidates),
        num_queries=measured.num_queries,
        num_traces=num_traces(measured),
        allocator=name_of("allocators", allocator),
        levels=levels,
        rows=tuple(rows),
        scores=tuple(scores),
        log_losses={name: estimate(loss_R) for name, loss_R in zip([*names, MEAN], losses_R_N.T, strict=True)},
        notes=(*notes, *left_out, *named_notes(measured, costs), *NOTES, fair, *policies.notes),
        data_hash=data_hash(measured),
        provenance=measured.provenance.to_json(),
        **how,
    )


def _charged(
    policies: Policies, outcomes: Sequence[PolicyOutcome], candidates: Sequence[Candidate], **how: int
) -> Resampled:
    """Everything again, with each predictor's own tokens added to what every query spent."""
    own = {each.name: each.own_cost.tokens or 0.0 for each in candidates if each.own_cost is not None}
    charged = [replace(each, spent_Q=each.spent_Q + own.get(each.policy, 0.0)) for each in outcomes]
    return Resampled.make(policies, charged, Cost.SPENT, num_resamples=how["num_resamples"], seed=how["seed"])


def _score(judged: Resampled, net: Resampled | None, candidate: Candidate, first: str) -> Score:
    name = candidate.name
    gain_R = judged.mean_gain_R(name, UNIFORM)
    pair_R_2 = np.stack([gain_R, judged.mean_gain_R(ORACLE, UNIFORM)], axis=1)
    is_charged = candidate.own_cost is not None and candidate.own_cost.tokens is not None
    return Score(
        name=name,
        cost=judged.cost,
        gain=estimate(gain_R),
        gain_over_blind=estimate(judged.mean_gain_R(name, BLIND)),
        net_gain=estimate(net.mean_gain_R(name, UNIFORM)) if net is not None and is_charged else None,
        gap_closed=share_closed(pair_R_2, 0, 1),
        lead=None if name == first else estimate(judged.mean_accuracy_R(name) - judged.mean_accuracy_R(first)),
    )
