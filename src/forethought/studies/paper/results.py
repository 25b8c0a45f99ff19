"""What the benchmark found. Data only; `to_json` gives plain objects without NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.menu import Menu
from ...evaluation import Estimate, Row
from .predictions import PredictorScore

SOURCE = "arXiv 2602.01237"


def _optional(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return (estimate or Estimate(math.nan, math.nan, math.nan)).to_json(name)


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy at one mean budget.

    Attributes:
        row: accuracy, gains and shares of the gap, as in `evaluate`.
        lead: forethought's accuracy at that budget less this policy's, paired; None for forethought itself.
    """

    row: Row
    lead: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {**self.row.to_json(), **_optional("lead", self.lead)}


@dataclass(frozen=True, slots=True)
class PolicyMean:
    """One policy over several budgets.

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

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "policy": self.policy,
            "budgets": list(self.budgets),
            **_optional("gain", self.gain),
            **_optional("gain_over_blind", self.gain_over_blind),
            **_optional("lead", self.lead),
        }


@dataclass(frozen=True, slots=True)
class BatchRow:
    """Forethought planned in small batches, or query by query under one price.

    Attributes:
        planned: "batches of N" or "stream".
        batch_size: queries planned together; None for the stream.
        price: right answers that a token must buy, fixed on the train split; None for batches.
        row: accuracy and gains at the tokens really granted.
        lost: accuracy of planning everything together at this level, less this, paired. The stream may also come to
            more or fewer tokens than the level.
        lost_at_equal_tokens: the same with everything planned together at the tokens that the stream came to; None
            for batches, whose tokens are the level.
    """

    planned: str
    batch_size: int | None
    price: float | None
    row: Row
    lost: Estimate
    lost_at_equal_tokens: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            **self.row.to_json(),
            "planned": self.planned,
            "batch_size": self.batch_size,
            "price": self.price,
            **self.lost.to_json("lost"),
            **_optional("lost_at_equal_tokens", self.lost_at_equal_tokens),
        }


@dataclass(frozen=True, slots=True, eq=False)
class PaperBench:
    """Everything the benchmark's report says.

    Attributes:
        split: name of the split judged on.
        num_queries, num_train: queries judged on, and trained on.
        num_traces: fewest and most traces a judged query.
        menu: the budgets.
        levels: mean tokens a query at which policies are compared; granted cost.
        predictor, allocator: forethought's.
        rows: every policy at every level.
        means: every policy over several levels.
        predictors: how good each predictor's curves are.
        batches: forethought in batches and as a stream.
        classes: policy -> level -> the budget of each class, for the difficulty policies.
        notes: what the reader must know to read the numbers.
        num_resamples, seed: of the bootstrap and the training.
        data_hashes: split -> first 16 hex digits of the SHA-256 of ids and counts.
        versions: of the packages that made it.
    """

    split: str
    num_queries: int
    num_train: int
    num_traces: tuple[int, int]
    menu: Menu
    levels: tuple[float, ...]
    predictor: str
    allocator: str
    rows: tuple[PolicyRow, ...]
    means: tuple[PolicyMean, ...]
    predictors: tuple[PredictorScore, ...]
    batches: tuple[BatchRow, ...]
    classes: Mapping[str, Mapping[float, Mapping[str, int]]]
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hashes: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def policies(self) -> tuple[str, ...]:
        """Every policy, in the order of the rows."""
        return tuple(dict.fromkeys(each.row.policy for each in self.rows))

    def select(self, policy: str) -> list[PolicyRow]:
        """The rows of one policy, by level."""
        return [each for each in self.rows if each.row.policy == policy]

    def to_json(self) -> dict[str, Any]:
        """One object of plain values: None where a number does not apply, never NaN."""
        return {
            "schema": 1,
            "kind": "bench-paper",
            "source": SOURCE,
            "split": self.split,
            "num_queries": self.num_queries,
            "num_train": self.num_train,
            "num_traces": list(self.num_traces),
            "menu": self.menu.to_json(),
            "cost": "granted",
            "levels": list(self.levels),
            "predictor": self.predictor,
            "allocator": self.allocator,
            "rows": [each.to_json() for each in self.rows],
            "means": [each.to_json() for each in self.means],
            "predictors": [each.to_json() for each in self.predictors],
            "batches": [each.to_json() for each in self.batches],
            "classes": {
                policy: {f"{level:g}": dict(budgets) for level, budgets in by_level.items()}
                for policy, by_level in self.classes.items()
            },
            "notes": list(self.notes),
            "num_resamples": self.num_resamples,
            "seed": self.seed,
            "data_hashes": dict(self.data_hashes),
            "versions": dict(self.versions),
        }
