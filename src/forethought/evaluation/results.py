"""The results of an evaluation. Data only; `to_json` gives plain objects without NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from ..core.allocation import Allocation
from ..core.data import Cost, Curves
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.showing import Shown, picture

COUNTED = {Cost.GRANTED: "granted tokens", Cost.SPENT: "spent tokens", Cost.USD: "USD"}


def plain(value: Any) -> Any:
    """`value` in JSON's own types: dataclasses as objects, what is not finite as None, what is unknown as text.

    A field of a dataclass that holds an interval becomes three keys: `gain`, `gain_low` and `gain_high`, each None
    where there is none; a field of several intervals, three lists. What `repr` leaves out is left out.
    """
    if is_dataclass(value) and not isinstance(value, type | Menu):
        return dict(_entries(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return plain(value.to_json()) if hasattr(value, "to_json") else str(value)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    for each in fields(value):
        found, kind = getattr(value, each.name), str(each.type)
        if not each.repr:
            continue
        if kind.startswith("Estimate"):
            ends: list[Any] = [None] * 3 if found is None else [found.value, found.low, found.high]
        elif kind.startswith("tuple[Estimate"):
            ends = [[getattr(one, end) for one in found] for end in ("value", "low", "high")]
        else:
            yield each.name, plain(found)
            continue
        yield from zip((each.name, f"{each.name}_low", f"{each.name}_high"), map(plain, ends), strict=True)


class Result:
    """What has a `to_json`."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """One object of plain values; see `plain`."""
        found: dict[str, Any] = plain(self)
        return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value measured on the sample, and its 95% bootstrap interval. Infinite means "never reached"."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyRow(Result):
    """One policy at one level of one cost. Accuracies and gains are fractions; tokens and USD are means per query.

    Attributes:
        cost: what the level is counted in, and the axis on which the gains compare.
        policy: uniform, blind, forethought, greedy, greedy-oracle or oracle.
        budget: the level, which is the budget to divide: mean tokens, or USD, per query.
        granted: mean cap really given; of named options the mean budget, what they are known to take.
        spent: mean tokens really generated, by the measured usage curves; None where they were not measured.
        usd: mean bill in USD, by the menu's prices; None where prices or the prompts' tokens are not known.
        accuracy: mean measured success under the options given.
        gain: accuracy above uniform's at this row's own realised cost; None for uniform.
        gain_over_blind: the same above blind's; None for blind.
        gap_closed: gain / the oracle's gain at this level, each at its own realised tokens; None for uniform and
            the oracle, and where the oracle's gain is too small to divide by.
        gap_closed_over_blind: the same above blind.
        uniform_at_same_tokens: what uniform reaches at this row's realised cost (accuracy - gain).
        blind_at_same_tokens: what blind reaches there (accuracy - gain_over_blind).
        shares: share of the queries at each option of the menu, ascending: where the tokens went.
    """

    cost: Cost
    policy: str
    budget: float
    granted: float
    spent: float | None
    usd: float | None
    accuracy: Estimate
    gain: Estimate | None
    gain_over_blind: Estimate | None
    gap_closed: Estimate | None
    gap_closed_over_blind: Estimate | None
    uniform_at_same_tokens: Estimate
    blind_at_same_tokens: Estimate
    shares: tuple[float, ...]

    @property
    def realised(self) -> float:
        """Mean tokens, or USD, really used, counted by this row's cost."""
        if self.cost is Cost.GRANTED:
            return self.granted
        used = self.usd if self.cost is Cost.USD else self.spent
        assert used is not None  # nothing is compared under a cost that was not measured
        return used


@dataclass(frozen=True, slots=True)
class OptionRow(Result):
    """The result of one named option for every query.

    Attributes:
        label: its name.
        accuracy: mean measured success.
        spent: mean tokens generated; None where they were not measured.
        usd: mean bill in USD; None where it is not known.
        mean_p, mean_tokens: of the mean train curve: what was known of it before; None without.
    """

    label: str
    accuracy: Estimate
    spent: float | None
    usd: float | None
    mean_p: float
    mean_tokens: float | None


@dataclass(frozen=True, slots=True)
class Saving(Result):
    """Tokens, or USD, that a baseline needs to be as accurate as forethought is at one level.

    Attributes:
        cost, budget: the level, and what it is counted in.
        baseline: uniform or blind.
        tokens: mean tokens forethought really used.
        usd: its mean bill in USD; None where it is not known.
        accuracy: what it reached with them.
        needed: lowest mean cost, counted by `cost`, at which the baseline gets there; infinite when it never does on
            the menu.
        ratio: needed / what forethought used: 2.0 means that the baseline needs twice as much.
        reached: share of the resamples in which the baseline gets there at all.
    """

    cost: Cost
    baseline: str
    budget: float
    tokens: float
    usd: float | None
    accuracy: float
    needed: Estimate
    ratio: Estimate
    reached: float


@dataclass(frozen=True, slots=True)
class Loss(Result):
    """A level at which forethought is not ahead of a baseline.

    Attributes:
        verdict: "worse" (the whole interval is below 0), "behind" (the value is below 0, the interval is not),
            "not proven" (the value is at 0 or above, but the interval reaches 0 or less), or "equal" (the same success
            in every resample, as where the level leaves no choice).
    """

    cost: Cost
    budget: float
    baseline: str
    verdict: str
    gain: Estimate


@dataclass(frozen=True, slots=True)
class CostSummary(Result):
    """One policy over all levels of one cost, each weighted by its range of tokens (`levels.token_weights`).

    Attributes:
        gain: mean gain over uniform at equal realised tokens; None for uniform.
        gain_over_blind: the same over blind; None for blind.
    """

    cost: Cost
    policy: str
    gain: Estimate | None
    gain_over_blind: Estimate | None


@dataclass(frozen=True, slots=True)
class Bin(Result):
    """Predictions between `lower` and `upper`: what was said on average, and how often it was so.

    Attributes:
        num_traces: traces behind `observed` (one trace counts once at each budget).
        num_queries: queries that they belong to. From a few queries the bootstrap's interval is far too narrow.
        predicted: mean prediction.
        observed: share of the traces right.
    """

    lower: float
    upper: float
    num_traces: int
    num_queries: int
    predicted: float
    observed: Estimate


@dataclass(frozen=True, slots=True)
class CurveErrors(Result):
    """Scores of predicted curves, forethought's and those of the mean train curve, at one budget or over all.

    Attributes:
        budget: in tokens, of a named option what identifies it on the menu; None for all options together.
        log_loss, mean_log_loss: binomial log loss per trace, in nats: forethought's, the mean curve's.
        brier, mean_brier: squared error against single traces.
        curve_error, mean_curve_error: squared error against the true curves, the traces' own chance taken off;
            NaN where no query has two traces.
        pearson: correlation over queries of predicted and measured success; 0 where either does not vary. Few
            traces alone keep it below 1.
        tokens_error, mean_tokens_error: mean absolute error of the usage curve, tokens; None without one.
        tokens_bias, mean_tokens_bias: mean predicted less measured tokens.
    """

    budget: int | None
    log_loss: float
    mean_log_loss: float
    brier: float
    mean_brier: float
    curve_error: float
    mean_curve_error: float
    pearson: float
    tokens_error: float | None
    mean_tokens_error: float | None
    tokens_bias: float | None
    mean_tokens_bias: float | None


@dataclass(frozen=True, slots=True)
class Calibration(Result):
    """The calibration of the predicted curves.

    Attributes:
        overall: over all budgets.
        by_budget: one for each budget.
        bins: reliability, over all queries and budgets.
        calibration_error: mean distance of predicted and observed over the bins, weighted by traces.
        mean_calibration_error: the mean curve's.
        log_loss_gain: the mean curve's log loss less forethought's, paired over queries: above 0, knowing the
            query helped.
    """

    overall: CurveErrors
    by_budget: tuple[CurveErrors, ...]
    bins: tuple[Bin, ...]
    calibration_error: float
    mean_calibration_error: float
    log_loss_gain: Estimate


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evaluation(Result, Shown):
    """Everything a report says.

    Attributes:
        num_queries: Q, the queries judged on.
        num_traces: fewest and most traces per query.
        menu: the options.
        allocator: what made forethought's plans.
        levels: mean tokens, or USD, per query at which policies were compared, by cost.
        headline: cost -> the level shown where only one is, by the mean train curve (`levels.half_way`).
        rows, summaries, savings, losses, calibration: see their classes.
        notes: what the reader must know to read the numbers.
        num_resamples, seed: how they were made.
        data_hash: first 16 hex digits of the SHA-256 of the measured counts and tokens.
        simulated: whether the measurements come from a simulation or a replay.
        provenance: what made the profile (model, template, engine, versions) and the predictions, passed through.
        options: one row for each named option, ascending as on the menu; empty where options are caps.
        measured, predicted: what was compared, for the pictures; not part of the JSON.
        plans: one per batch, for each cost, policy that plans, and level; not part of the JSON.
    """

    simulated: bool
    num_queries: int
    num_traces: tuple[int, int]
    menu: Menu
    allocator: str
    levels: Mapping[Cost, tuple[float, ...]]
    headline: Mapping[Cost, float]
    rows: tuple[PolicyRow, ...]
    summaries: tuple[CostSummary, ...]
    savings: tuple[Saving, ...]
    losses: tuple[Loss, ...]
    calibration: Calibration
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hash: str
    measured: Profile = field(repr=False)
    predicted: Curves = field(repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[OptionRow, ...] = ()
    plans: Mapping[tuple[Cost, str, float], tuple[Allocation, ...]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        made = ", SIMULATED" if self.simulated else ""
        gains = [
            f"{100 * each.gain.value:+.1f} points over uniform at equal {COUNTED[each.cost]}"
            for each in self.summaries
            if each.policy == "forethought" and each.gain is not None
        ]
        return f"Evaluation({self.num_queries:,} queries, budgets {self.menu}, {', '.join(gains)}{made})"

    def plot(self) -> Any:
        """Accuracy over what it costs, for each cost, and predicted against measured success: a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return picture("evaluation", self)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """The costs compared under, in the order asked for."""
        return tuple(self.levels)

    def select(self, cost: Cost, policy: str) -> list[PolicyRow]:
        """The rows of one policy under one cost, by level."""
        return [row for row in self.rows if row.cost is cost and row.policy == policy]
