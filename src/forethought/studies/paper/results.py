"""The results of the benchmark. Data only; `to_json` gives plain objects without NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from ...core.menu import Menu
from ...evaluation.results import Estimate, PolicyRow, Result
from .predictions import PredictorScore

SOURCE = "arXiv 2602.01237"


@dataclass(frozen=True, slots=True)
class _MoreThanRow(PolicyRow):
    @classmethod
    def of(cls, row: PolicyRow, **more: Any) -> Self:
        """A row as in `evaluate`, with further values."""
        return cls(**{each.name: getattr(row, each.name) for each in fields(PolicyRow)}, **more)


@dataclass(frozen=True, slots=True)
class PaperRow(_MoreThanRow):
    """One policy at one mean budget.

    Attributes:
        lead: forethought's accuracy at that budget less this policy's, paired; None for forethought itself.
    """

    lead: Estimate | None


@dataclass(frozen=True, slots=True)
class PolicyMean(Result):
    """One policy over several budgets, each weighted by its range of tokens: evenly spaced ones weigh alike.

    Attributes:
        policy: its name.
        budgets: the mean budgets averaged over.
        gain, gain_over_blind: mean over them; None for uniform and for blind.
        lead: mean of forethought's lead; None for forethought itself.
    """

    policy: str
    budgets: tuple[float, ...]
    gain: Estimate | None
    gain_over_blind: Estimate | None
    lead: Estimate | None


@dataclass(frozen=True, slots=True)
class BatchRow(_MoreThanRow):
    """Forethought planned in small batches, or query by query under one price; gains at the tokens really granted.

    Attributes:
        planned: "batches of N" or "stream".
        batch_size: queries planned together; None for the stream.
        price: right answers that a token must buy, fixed on the train split; None for batches.
        lost: accuracy of planning everything together at this level, less this, paired. The stream may also come to
            more or fewer tokens than the level.
        lost_at_equal_tokens: the same with everything planned together at the tokens that the stream came to; None
            for batches, whose tokens are the level.
    """

    planned: str
    batch_size: int | None
    price: float | None
    lost: Estimate
    lost_at_equal_tokens: Estimate | None


@dataclass(frozen=True, slots=True, eq=False)
class PaperBench(Result):
    """Everything the benchmark's report says.

    Attributes:
        source: whose measurements.
        split: name of the split judged on.
        num_queries, num_train: queries judged on, and trained on.
        num_traces: fewest and most traces a judged query.
        menu: the budgets.
        cost: what levels are counted in: granted.
        levels: mean tokens per query at which policies are compared.
        predictor, allocator: forethought's.
        rows: every policy at every level.
        means: every policy over several levels.
        predictors: how good each predictor's curves are.
        batches: forethought in batches and as a stream.
        classes: policy -> level -> the budget of each class, for the difficulty policies.
        notes: what the reader must know to read the numbers.
        num_resamples, seed: of the bootstrap and the training.
        data_hashes: split -> first 16 hex digits of the SHA-256 of ids and counts.
    """

    source: str
    split: str
    num_queries: int
    num_train: int
    num_traces: tuple[int, int]
    menu: Menu
    cost: str
    levels: tuple[float, ...]
    predictor: str
    allocator: str
    rows: tuple[PaperRow, ...]
    means: tuple[PolicyMean, ...]
    predictors: tuple[PredictorScore, ...]
    batches: tuple[BatchRow, ...]
    classes: Mapping[str, Mapping[float, Mapping[str, int]]]
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hashes: Mapping[str, str]

    @property
    def policies(self) -> tuple[str, ...]:
        """Every policy, in the order of the rows."""
        return tuple(dict.fromkeys(each.policy for each in self.rows))

    def select(self, policy: str) -> list[PaperRow]:
        """The rows of one policy, by level."""
        return [each for each in self.rows if each.policy == policy]
