"""The gain from earlier samples of the same questions: some samples choose the options, the others evaluate them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..allocators import pose
from ..allocators.hull import upper_envelope
from ..core.data import Cost, Curves, FloatArray
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.showing import Progress, Shown, picture, silent
from ..errors import InvalidInputError
from .bootstrap import estimate, resampled_means
from .checks import check_levels, known_costs
from .frontier import Frontier, times_used
from .levels import half_way, spread
from .offline import data_hash
from .policies import BLIND, FAIR_ORACLE, UNIFORM, Policies, PolicyOutcome
from .results import COUNTED, Estimate, Result
from .splits import Split, drawn, even, firsts, half

HISTORY = "history"
DRAWS_POLICIES = (UNIFORM, BLIND, HISTORY, FAIR_ORACLE)
GRID = 48  # plans of each policy, besides those at what is asked for: what lies between two is a mix of both
CHOOSING = "even samples choose and odd samples are evaluated, and vice versa"

Forecaster = Callable[[Profile], Curves]  # the draws that choose -> curves of their queries


@dataclass(frozen=True, slots=True)
class DrawsRow(Result):
    """One policy at one mean cost; the samples of one half choose.

    Attributes:
        cost: what the level is counted in.
        level: mean tokens or USD per question, as realised on the draws that are judged.
        policy: uniform, blind, history or fair-oracle.
        accuracy: there; between two plans' costs, of a random mix of the two.
        gain, gain_over_blind: above uniform and blind at the same cost; None for themselves.
    """

    cost: Cost
    level: float
    policy: str
    accuracy: Estimate
    gain: Estimate | None
    gain_over_blind: Estimate | None


@dataclass(frozen=True, slots=True)
class NumDrawsRow(Result):
    """The history at one mean cost; `num_draws` samples choose, and all others evaluate.

    Attributes:
        num_queries: questions with more draws than that under every option.
        accuracy, gain, gain_over_blind: as in `DrawsRow`, on these questions.
    """

    cost: Cost
    level: float
    num_draws: int
    num_queries: int
    accuracy: Estimate
    gain: Estimate
    gain_over_blind: Estimate


@dataclass(frozen=True, slots=True)
class OptionRow(Result):
    """One option for all, and what the policies need to be as accurate.

    Attributes:
        label: of the option.
        realised: its mean cost.
        accuracy: its own.
        needed: policy -> mean cost at which it is as accurate; infinite where it never is.
        saved: policy -> the share of the option's cost that is saved.
    """

    cost: Cost
    label: str
    realised: Estimate
    accuracy: Estimate
    needed: Mapping[str, Estimate]
    saved: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, repr=False)
class DrawsEvaluation(Result, Shown):
    """The gain from choosing by earlier samples, on later samples.

    Attributes:
        num_queries, num_traces: questions judged; fewest and most draws of one under an option.
        menu: the options.
        halving: how the draws were halved, in words; both halves choose in turn.
        levels: cost -> mean costs that are shown.
        headline: cost -> the one shown where only one is, by the mean curve (`levels.half_way`).
        rows, by_num_draws, options: the results.
        notes: what the reader must know.
        data_hash: of what was measured.
        provenance: how it was measured.
    """

    simulated: bool
    num_queries: int
    num_traces: tuple[int, int]
    menu: Menu
    halving: str
    levels: Mapping[Cost, tuple[float, ...]]
    headline: Mapping[Cost, float]
    rows: tuple[DrawsRow, ...]
    by_num_draws: tuple[NumDrawsRow, ...]
    options: tuple[OptionRow, ...]
    notes: tuple[str, ...]
    data_hash: str
    num_resamples: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        made, cost = ", SIMULATED" if self.simulated else "", next(iter(self.levels))
        saved = [
            f"{100 * found.value:.0f}% of {each.label}'s"
            for each in self.options
            if each.cost is cost and math.isfinite((found := each.saved[HISTORY]).value)
        ]
        return (
            f"DrawsEvaluation({self.num_queries:,} queries, options {self.menu}; saved at equal accuracy: "
            f"{', '.join(saved[-4:])} {COUNTED[cost]}{made})"
        )

    def plot(self, cost: Cost | str | None = None) -> Any:
        """Accuracy against cost, and the gain by the number of earlier samples that choose: a matplotlib figure.

        Args:
            cost: "spent" or "usd"; None for the first that was compared under.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return picture("draws", self, next(iter(self.levels)) if cost is None else Cost(cost))


def evaluate_draws(
    profile: Profile,
    forecast: Forecaster,
    *,
    num_draws: Sequence[int] = (1, 2, 3, 5),
    num_halvings: int = 0,
    mean_tokens: Sequence[float] | None = None,
    mean_usd: Sequence[float] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> DrawsEvaluation:
    """Splits the samples of every question into halves; one half chooses an option, the other evaluates it.

    Every half is used both ways, and what a question comes to is averaged over them before anything is resampled. All
    policies are compared at equal realised costs: each plans at many prices (as `allocators.price`), and at a cost
    between two of its plans it stands for a random mix of them. The fair oracle plans by the choosing half's counts as
    they are; what it picked by luck is not judged on the same luck.

    Args:
        profile: with traces. Under caps a trace is a draw under all of them; named options are drawn each by itself.
        forecast: the curves of the queries from the draws that choose: the history that is judged.
        num_draws: how many draws choose, in turn, in the table of how many it takes; the others are judged.
        num_halvings: random halvings; 0 for one by the number of the sample: even and odd.
        mean_tokens: levels in tokens per question; None: spread over what the options cost.
        mean_usd: levels in USD, alike.
        num_resamples: of the bootstrap over questions.
        seed: of halvings and bootstrap.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidInputError: no traces, or no question with two draws under every option.
        InvalidSettingsError: less than one draw to choose by, or levels that cannot be taken.
    """
    if profile.traces is None or not profile.is_spend_measured:
        lacking = "single traces" if profile.traces is None else "the tokens of its answers"
        raise InvalidInputError(f"samples cannot be split: the profile does not hold {lacking}; import it with them")
    notes, total = [], profile.num_queries
    masks = [half(profile, seed + each) for each in range(num_halvings)] or [even(profile)]
    is_whole_Q = np.ones(total, dtype=bool)
    for is_in_N_B in masks:
        is_whole_Q &= drawn(profile, is_in_N_B).is_complete_Q & drawn(profile, ~is_in_N_B).is_complete_Q
    if not is_whole_Q.any():
        raise InvalidInputError(
            f"none of {total} questions has samples of every option in both halves; sample each at least twice"
        )
    if num_out := total - int(is_whole_Q.sum()):
        notes.append(f"{num_out:,} of {total:,} questions lack an option in one half of the samples, and are left out.")
    rows = np.flatnonzero(is_whole_Q)
    halves = [Split(drawn(profile, mask).select(rows), drawn(profile, ~mask).select(rows)) for mask in masks]
    kept = profile.select(rows)
    costs = [each for each in known_costs(kept, kept.curves) if each is not Cost.GRANTED]
    check_levels(kept, costs, mean_tokens, mean_usd)
    asked = {Cost.SPENT: mean_tokens, Cost.USD: mean_usd}
    judge = _Judge(forecast, num_resamples, seed)
    levels: dict[Cost, tuple[float, ...]] = {}
    judged: list[DrawsRow] = []
    counted: list[NumDrawsRow] = []
    options: list[OptionRow] = []
    parted = {number: firsts(profile, number, max(num_halvings, len(masks) * 2), seed) for number in num_draws}
    if lacking_draws := [number for number, splits in parted.items() if not splits]:
        notes.append(f"No question has more than {min(lacking_draws)} samples: such rows are left out.")
    step, num_steps = 0, len(costs) * (1 + sum(map(bool, parted.values())))
    for cost in costs:
        progress("judge draws", step, num_steps)
        mean_cost_B = _mean_costs(kept, cost)
        levels[cost] = tuple(sorted(set(asked[cost] or spread(kept.menu, mean_cost_B, in_usd=cost is Cost.USD))))
        grid = np.unique(np.concatenate([_between(mean_cost_B), mean_cost_B, levels[cost]]))
        both = [each for split in halves for each in (split, split.turned)]
        frontiers, option_costs_R_B, accuracy_R_B = judge.frontiers(both, cost, grid)
        judged += _rows(cost, levels[cost], frontiers)
        options += _options(cost, kept.menu, option_costs_R_B, accuracy_R_B, frontiers)
        step += 1
        for number, splits in parted.items():
            if splits:
                progress("judge draws", step, num_steps)
                step += 1
                found, _, _ = judge.frontiers(splits, cost, grid)
                counted += _num_draws_rows(cost, levels[cost], number, splits[0].judged.num_queries, found)
    tries_Q_B = kept.tries_Q_B
    return DrawsEvaluation(
        simulated=kept.provenance.simulated,
        num_queries=kept.num_queries,
        num_traces=(int(tries_Q_B.min()), int(tries_Q_B.max())),
        menu=kept.menu,
        halving=f"{num_halvings} random splits into halves, each used both ways" if num_halvings else CHOOSING,
        levels=levels,
        headline={
            cost: half_way(at, _mean_costs(kept, cost), kept.curves.p_Q_B.mean(axis=0)) for cost, at in levels.items()
        },
        rows=tuple(judged),
        by_num_draws=tuple(counted),
        options=tuple(options),
        notes=(*notes, *_notes()),
        data_hash=data_hash(kept),
        num_resamples=num_resamples,
        seed=seed,
        provenance=kept.provenance.to_json(),
    )


class _Judge:
    """Plays the policies on splits of the draws, and resamples questions."""

    def __init__(self, forecast: Forecaster, num_resamples: int, seed: int) -> None:
        self.forecast, self.num_resamples, self.seed = forecast, num_resamples, seed

    def frontiers(
        self, splits: Sequence[Split], cost: Cost, grid: FloatArray
    ) -> tuple[dict[str, Frontier], FloatArray, FloatArray]:
        """Policy -> accuracy at any realised cost; and each option's mean cost and accuracy, shape (R, B) each."""
        played = [self._play(split, cost, grid) for split in splits]
        mean = {name: np.mean([each[name] for each in played], axis=0) for name in played[0]}
        widths = np.cumsum([values_2_Q_P.shape[2] for values_2_Q_P in mean.values()])
        flat = np.concatenate([np.concatenate(list(values), axis=1) for values in mean.values()], axis=1)
        means_R_N = resampled_means(flat, num_resamples=self.num_resamples, seed=self.seed)
        parts = np.split(means_R_N, 2 * widths[:-1], axis=1)
        pairs = {name: np.split(part, 2, axis=1) for name, part in zip(mean, parts, strict=True)}
        found = {name: Frontier.through(costs, right) for name, (right, costs) in pairs.items()}
        accuracy_R_B, cost_R_B = pairs[UNIFORM]
        return found, cost_R_B, accuracy_R_B

    def _play(self, split: Split, cost: Cost, grid: FloatArray) -> dict[str, FloatArray]:
        """Policy -> success and cost of every question at every total, shape (2, Q, P); of uniform at every option."""
        judged, raw = split.judged, split.choosing.curves
        if not judged.menu.is_named and raw.tokens_Q_B is not None:
            raw = replace(raw, tokens_Q_B=np.maximum.accumulate(raw.tokens_Q_B, axis=1))
        policies = Policies(judged, self.forecast(split.choosing), _mean(split.choosing), "envelope")
        found = {UNIFORM: np.stack([policies.measured.p_Q_B, policies.costs_Q_B(cost)])}
        played = {
            BLIND: [policies.blind(cost, level) for level in grid.tolist()],
            HISTORY: _priced(policies, HISTORY, policies.predicted, cost, grid),
            FAIR_ORACLE: _priced(policies, FAIR_ORACLE, raw, cost, grid),
        }
        for name, outcomes in played.items():
            right = np.stack([outcome.accuracy_Q for outcome in outcomes], axis=1)
            found[name] = np.stack([right, np.stack([outcome.costs_Q(cost) for outcome in outcomes], axis=1)])
        return found


def _priced(policies: Policies, name: str, curves: Curves, cost: Cost, grid: FloatArray) -> list[PolicyOutcome]:
    """For each mean cost the dearest plan by a price that is expected to cost no more, or else the cheapest of all.

    At a price every query gets the segments of its envelope that are worth more: what any query gets depends on its own
    curve alone, and on nothing that is left over.
    """
    problem = pose(curves, total=sys.float_info.max, cost=cost, any_order=policies.any_order)
    envelope = upper_envelope(problem)
    costs_Q_B = curves.costs_Q_B(cost)
    assert costs_Q_B is not None
    least = float(np.take_along_axis(costs_Q_B, envelope.start_M[:, None], axis=1).sum())
    price_P, place_N = np.unique(-envelope.price_N, return_inverse=True)
    added_P = np.bincount(place_N, weights=envelope.cost_N * problem.costs.unit, minlength=len(price_P))
    mean_P = (least + np.concatenate([[0.0], np.cumsum(added_P)])) / len(curves.query_ids)
    outcomes = []
    for level in grid.tolist():
        num_granted = max(int(np.searchsorted(mean_P, level * (1.0 + 1e-9), side="right")) - 1, 0)
        columns_M = envelope.columns(place_N < num_granted)
        outcomes.append(policies.given(name, curves.menu.at(columns_M), level))
    return outcomes


def _rows(cost: Cost, levels: Sequence[float], frontiers: Mapping[str, Frontier]) -> Iterator[DrawsRow]:
    for level in levels:
        reached = _reached(frontiers, level)
        for policy in DRAWS_POLICIES:
            gains = [
                None if policy in (baseline, UNIFORM) else estimate(reached[policy] - reached[baseline])
                for baseline in (UNIFORM, BLIND)
            ]
            yield DrawsRow(cost, level, policy, estimate(reached[policy]), *gains)


def _num_draws_rows(
    cost: Cost, levels: Sequence[float], number: int, num_queries: int, frontiers: Mapping[str, Frontier]
) -> Iterator[NumDrawsRow]:
    for level in levels:
        reached = _reached(frontiers, level)
        gains = [estimate(reached[HISTORY] - reached[baseline]) for baseline in (UNIFORM, BLIND)]
        yield NumDrawsRow(cost, level, number, num_queries, estimate(reached[HISTORY]), *gains)


def _options(
    cost: Cost, menu: Menu, cost_R_B: FloatArray, accuracy_R_B: FloatArray, frontiers: Mapping[str, Frontier]
) -> Iterator[OptionRow]:
    for column, label in enumerate(menu.labels):
        own_R, right_R = cost_R_B[:, column], accuracy_R_B[:, column]
        needed = {name: frontiers[name].cost_for(right_R) for name in (BLIND, HISTORY)}
        yield OptionRow(
            cost=cost,
            label=label,
            realised=estimate(own_R),
            accuracy=estimate(right_R),
            needed={name: estimate(value_R) for name, value_R in needed.items()},
            saved={name: estimate(1.0 - times_used(value_R, own_R)) for name, value_R in needed.items()},
        )


def _reached(frontiers: Mapping[str, Frontier], level: float) -> dict[str, FloatArray]:
    """Policy -> accuracy at one realised cost, on the sample and every resample."""
    return {name: frontier.accuracy_at(np.full(len(frontier.cost_R_B), level)) for name, frontier in frontiers.items()}


def _mean(profile: Profile) -> Curves:
    """The mean curve of the draws that choose, one row: all that blind knows."""
    tries_Q_B = profile.tries_Q_B
    share_Q_B = tries_Q_B / tries_Q_B.sum(axis=0)
    p_1_B = (profile.num_right_Q_B.sum(axis=0) / tries_Q_B.sum(axis=0))[None]
    tokens_1_B = (np.where(tries_Q_B > 0, profile.tokens_Q_B, 0.0) * share_Q_B).sum(axis=0)[None]
    inputs = profile.input_Q_B
    return Curves(("mean",), profile.menu, p_1_B, tokens_1_B, None if inputs is None else inputs.mean(axis=0)[None])


def _mean_costs(profile: Profile, cost: Cost) -> FloatArray:
    costs_Q_B = profile.curves.costs_Q_B(cost)
    assert costs_Q_B is not None
    mean_B: FloatArray = costs_Q_B.mean(axis=0)
    return mean_B


def _between(cost_B: FloatArray) -> FloatArray:
    """Mean costs at which plans are made: from what is positive of the least to the most; none where all is free."""
    most = float(cost_B.max())
    return np.geomspace(max(float(cost_B.min()), most / 1e4), most, GRID) if most > 0 else cost_B[:0]


def _notes() -> tuple[str, ...]:
    return (
        "A choice is evaluated only on samples that were not used to make it. The results of a question are averaged "
        "over all splits before questions are resampled; plans and strengths are held fixed within a resample.",
        "Costs are the realised costs of the evaluated samples. At a cost between two plans, a policy is a random mix "
        "of them; uniform is one option for all, or a random mix of two options that are neighbours in cost.",
        "Uniform and blind also choose by the samples of the choosing half: by the mean over all questions.",
        "The fair oracle plans by the raw counts of the choosing half. If it is below the history, the gain comes from "
        "shrinkage. It is not an upper bound, and does not spend more where its counts show no gain.",
        "The number of samples needed is evaluated on all samples that did not choose; the more choose, the fewer "
        "evaluate.",
    )
