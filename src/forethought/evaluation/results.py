"""What an evaluation found. Data only; `to_json` gives plain objects without NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.data import Allocation, Cost, Curves, Profile
from ..core.menu import Menu


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value measured on the sample, and its 95% bootstrap interval. Infinite means "never reached"."""

    value: float
    low: float
    high: float

    def to_json(self, name: str, *, suffix: str | None = None) -> dict[str, float | None]:
        """`{name: value, name_low: low, name_high: high}`; `suffix` replaces "name_" before low and high."""
        prefix = f"{name}_" if suffix is None else suffix
        return {name: finite(self.value), f"{prefix}low": finite(self.low), f"{prefix}high": finite(self.high)}


def finite(value: float | None) -> float | None:
    """`value`, or None where JSON has no number for it."""
    return None if value is None or not math.isfinite(value) else float(value)


def _optional(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return (estimate or Estimate(math.nan, math.nan, math.nan)).to_json(name)


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one level of one cost. Accuracies and gains are shares in [0, 1]; tokens are means a query.

    Attributes:
        cost: what the level is counted in, and the axis on which the gains compare.
        policy: uniform, blind, forethought, greedy, greedy-oracle or oracle.
        budget: the level: mean tokens a query that were to be divided.
        granted: mean cap really given.
        spent: mean tokens really generated, by the measured spend curves; None where they were not measured.
        accuracy: mean measured success at the budgets given.
        gain: accuracy above uniform's at this row's own realised tokens; None for uniform.
        gain_over_blind: the same above blind's; None for blind.
        gap_closed: gain / the oracle's gain at this level, each at its own realised tokens; None for uniform and
            the oracle, and where the oracle's gain is too small to divide by.
        gap_closed_over_blind: the same above blind.
        uniform_at_same_tokens: what uniform reaches at this row's realised tokens (accuracy - gain).
        blind_at_same_tokens: what blind reaches there (accuracy - gain_over_blind).
        shares: share of the queries at each cap of the menu, ascending: where the tokens went.
    """

    cost: Cost
    policy: str
    budget: float
    granted: float
    spent: float | None
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
        """Mean tokens really used, counted by this row's cost."""
        if self.cost is Cost.GRANTED:
            return self.granted
        assert self.spent is not None  # nothing is compared under spent cost where it was not measured
        return self.spent

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "cost": self.cost.value,
            "policy": self.policy,
            "budget": self.budget,
            "granted": self.granted,
            "spent": self.spent,
            **self.accuracy.to_json("accuracy", suffix=""),
            **_optional("gain", self.gain),
            **_optional("gain_over_blind", self.gain_over_blind),
            **_optional("gap_closed", self.gap_closed),
            **_optional("gap_closed_over_blind", self.gap_closed_over_blind),
            **self.uniform_at_same_tokens.to_json("uniform_at_same_tokens"),
            **self.blind_at_same_tokens.to_json("blind_at_same_tokens"),
            "shares": list(self.shares),
        }


@dataclass(frozen=True, slots=True)
class Saving:
    """Tokens a baseline needs to be as accurate as forethought is at one level.

    Attributes:
        cost, budget: the level, and what it is counted in.
        baseline: uniform or blind.
        tokens: mean tokens forethought really used.
        accuracy: what it reached with them.
        needed: fewest mean tokens at which the baseline gets there; infinite when it never does on the menu.
        ratio: needed / tokens: 2.0 means that the baseline needs twice as many.
        reached: share of the resamples in which the baseline gets there at all.
    """

    cost: Cost
    baseline: str
    budget: float
    tokens: float
    accuracy: float
    needed: Estimate
    ratio: Estimate
    reached: float

    def to_json(self) -> dict[str, Any]:
        """One flat object; None in `needed` and `ratio` means more than the menu's maximum."""
        return {
            "cost": self.cost.value,
            "baseline": self.baseline,
            "budget": self.budget,
            "tokens": self.tokens,
            "accuracy": self.accuracy,
            **self.needed.to_json("needed"),
            **self.ratio.to_json("ratio"),
            "reached": self.reached,
        }


@dataclass(frozen=True, slots=True)
class Loss:
    """A level at which forethought is not ahead of a baseline.

    Attributes:
        verdict: "worse" (the whole interval is below 0), "behind" (the value is below 0, the interval is not),
            "not proven" (the value is at 0 or above, but the interval reaches 0 or less), or "equal" (the same success
            in every resample, as where the level leaves no choice).
    """

    cost: Cost
    budget: float
    baseline: str
    gain: Estimate
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "cost": self.cost.value,
            "budget": self.budget,
            "baseline": self.baseline,
            "verdict": self.verdict,
            **self.gain.to_json("gain"),
        }


@dataclass(frozen=True, slots=True)
class CostSummary:
    """One policy over all levels of one cost: the number to quote when no level was fixed in advance.

    Attributes:
        gain: mean over the levels of the gain over uniform at equal realised tokens; None for uniform.
        gain_over_blind: the same over blind; None for blind.
    """

    cost: Cost
    policy: str
    gain: Estimate | None
    gain_over_blind: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "cost": self.cost.value,
            "policy": self.policy,
            **_optional("gain", self.gain),
            **_optional("gain_over_blind", self.gain_over_blind),
        }


@dataclass(frozen=True, slots=True)
class Bin:
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

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "num_traces": self.num_traces,
            "num_queries": self.num_queries,
            "predicted": self.predicted,
            **self.observed.to_json("observed"),
        }


@dataclass(frozen=True, slots=True)
class CurveErrors:
    """Scores of predicted curves, forethought's beside those of the mean train curve, at one budget or over all.

    Attributes:
        budget: in tokens; None for all budgets together.
        log_loss, mean_log_loss: binomial log loss a trace, in nats: forethought's, the mean curve's.
        brier, mean_brier: squared error against single traces.
        curve_error, mean_curve_error: squared error against the true curves, the traces' own chance taken off;
            None where no query has two traces.
        pearson: correlation over queries of predicted and measured success; 0 where either does not vary. Few
            traces alone keep it below 1.
        tokens_error, mean_tokens_error: mean absolute error of the spend curve, tokens; None without one.
        tokens_bias, mean_tokens_bias: mean predicted less measured tokens.
    """

    budget: int | None
    log_loss: float
    mean_log_loss: float
    brier: float
    mean_brier: float
    curve_error: float | None
    mean_curve_error: float | None
    pearson: float
    tokens_error: float | None
    mean_tokens_error: float | None
    tokens_bias: float | None
    mean_tokens_bias: float | None

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the predicted curves can be believed.

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

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "overall": self.overall.to_json(),
            "by_budget": [errors.to_json() for errors in self.by_budget],
            "bins": [reliability.to_json() for reliability in self.bins],
            "calibration_error": self.calibration_error,
            "mean_calibration_error": self.mean_calibration_error,
            **self.log_loss_gain.to_json("log_loss_gain"),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything a report says.

    Attributes:
        num_queries: Q, the queries judged on.
        num_traces: fewest and most traces a query.
        menu: the budgets.
        allocator: what made forethought's plans.
        levels: mean tokens a query at which policies were compared, by cost.
        rows, savings, losses, summaries, calibration: see their classes.
        notes: what the reader must know to read the numbers.
        num_resamples, seed, batch_size: how they were made.
        data_hash: first 16 hex digits of the SHA-256 of the measured counts and tokens.
        simulated: whether the measurements come from a simulation or a replay.
        provenance: what made the profile (model, template, engine, versions) and the predictions, passed through.
        measured, predicted: what was compared, for the pictures; not part of the JSON.
        plans: one a batch, for each cost, policy that plans, and level; not part of the JSON.
    """

    num_queries: int
    num_traces: tuple[int, int]
    menu: Menu
    allocator: str
    levels: Mapping[Cost, tuple[float, ...]]
    rows: tuple[Row, ...]
    savings: tuple[Saving, ...]
    losses: tuple[Loss, ...]
    summaries: tuple[CostSummary, ...]
    calibration: Calibration
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    batch_size: int | None
    data_hash: str
    simulated: bool
    measured: Profile = field(repr=False)
    predicted: Curves = field(repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    plans: Mapping[tuple[Cost, str, float], tuple[Allocation, ...]] = field(default_factory=dict, repr=False)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """The costs compared under, in the order asked for."""
        return tuple(self.levels)

    def select(self, cost: Cost, policy: str) -> list[Row]:
        """The rows of one policy under one cost, by level."""
        return [row for row in self.rows if row.cost is cost and row.policy == policy]

    def to_json(self) -> dict[str, Any]:
        """One object of plain values: None where a number does not apply, never NaN."""
        return {
            "simulated": self.simulated,
            "num_queries": self.num_queries,
            "num_traces": list(self.num_traces),
            "menu": self.menu.to_json(),
            "allocator": self.allocator,
            "levels": {cost.value: list(levels) for cost, levels in self.levels.items()},
            "rows": [row.to_json() for row in self.rows],
            "summaries": [summary.to_json() for summary in self.summaries],
            "savings": [saving.to_json() for saving in self.savings],
            "losses": [loss.to_json() for loss in self.losses],
            "calibration": self.calibration.to_json(),
            "notes": list(self.notes),
            "num_resamples": self.num_resamples,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "data_hash": self.data_hash,
            "provenance": dict(self.provenance),
        }
