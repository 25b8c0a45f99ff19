"""The results of the layer study. Data only; `to_json` gives plain objects without NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.menu import Menu
from ...evaluation.results import Estimate, Result

PAPER_RANGE = (12, 17, 28)  # arXiv 2602.01237: layers 12 to 17 of 28 are best
HOLDS, IN_PART, FAILS, UNDECIDED, UNTESTED = "holds", "holds in part", "does not hold", "not decided", "not tested"


@dataclass(frozen=True, slots=True)
class Scores(Result):
    """How good some predictions are, and what plans made from them reach.

    Attributes:
        log_loss: nats per trace and budget.
        squared_error: against measured rates, mean over questions and budgets.
        brier: squared error against single traces.
        mean_pearson: correlation with measured rates, mean over the budgets.
        pearson: at each budget; 0 where the predictions do not vary.
        accuracy: measured success under the plan, at each level.
        granted: mean cap that the plan really gives, at each level.
        gain_over_blind: accuracy less that of the mean curve's best uneven split, at each level.
    """

    log_loss: Estimate
    squared_error: Estimate
    brier: Estimate
    mean_pearson: Estimate
    pearson: tuple[Estimate, ...]
    accuracy: tuple[Estimate, ...]
    granted: tuple[float, ...]
    gain_over_blind: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class LayerRow(Scores):
    """One layer under one pooling: the scores of its left-out predictions.

    Attributes:
        pooling: "last" or "mean".
        layer: its number; layer k is the stream after k decoder layers.
        above_best: log loss less that of the pooling's best layer, paired.
        wins: share of the resamples in which it has the lowest log loss of its pooling.
    """

    pooling: str
    layer: int
    above_best: Estimate
    wins: float


@dataclass(frozen=True, slots=True)
class Contrast(Result):
    """Two groups of layers compared, each by the mean over its layers; paired.

    Attributes:
        name, other: what the groups are called.
        layers, other_layers: who is in them.
        log_loss: the first's less the other's: below 0 the first is better.
        accuracy: the same of accuracy, mean over the levels: above 0 the first is better.
    """

    name: str
    other: str
    layers: tuple[int, ...]
    other_layers: tuple[int, ...]
    log_loss: Estimate
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Verdict(Result):
    """The conclusions for one pooling.

    Attributes:
        pooling: "last" or "mean".
        best: the layer of the lowest log loss.
        equal: layers whose paired difference to the best has an interval that includes 0, the best among them.
        may_be_best: layers that may be the best of all (95%), the luck of the pick taken into account: a larger set.
        contrasts: thirds of the depth, and the paper's range, against each other.
        paper_layers: the layers of the paper's range at this depth.
        paper_wins: share of the resamples in which the lowest log loss lies in that range.
        paper_best: the best layer of that range; None when none was studied.
        paper_behind: its log loss less that of the best layer, paired; None likewise.
        verdict: whether the paper's finding holds: "holds", "holds in part", "does not hold", "not decided", or
            "not tested" where layers that it needs were not studied.
    """

    pooling: str
    best: int
    equal: tuple[int, ...]
    may_be_best: tuple[int, ...]
    contrasts: tuple[Contrast, ...]
    paper_layers: tuple[int, ...]
    paper_wins: float
    paper_best: int | None
    paper_behind: Estimate | None
    verdict: str


@dataclass(frozen=True, slots=True, eq=False)
class LayerStudy(Result):
    """Everything the study's report says.

    Attributes:
        num_queries: questions studied.
        num_traces: fewest and most traces per question.
        menu: the budgets.
        levels: mean granted tokens per question at which plans are judged.
        depth: decoder layers of the model; None where the recorded layers do not tell.
        rows: one a pooling and layer.
        mean_curve: what the mean curve of the other questions predicts, and what blind makes of it.
        uniform, oracle: accuracy of everyone the same, and of the envelope on the measured curves, at each level.
        verdicts: one a pooling.
        mean_less_last: log loss of the best layer under mean pooling less that of the best at the last token; None
            where one pooling was studied.
        notes: what the reader must know to read the numbers.
        num_resamples, seed: of the bootstrap.
        data_hash: of what was measured, as in `evaluate`.
        simulated: whether a simulation was measured.
        provenance: what made the measurements.
    """

    num_queries: int
    num_traces: tuple[int, int]
    menu: Menu
    levels: tuple[float, ...]
    depth: int | None
    rows: tuple[LayerRow, ...]
    mean_curve: Scores
    uniform: tuple[Estimate, ...]
    oracle: tuple[Estimate, ...]
    verdicts: tuple[Verdict, ...]
    mean_less_last: Estimate | None
    notes: tuple[str, ...]
    num_resamples: int
    seed: int
    data_hash: str
    simulated: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings studied."""
        return tuple(verdict.pooling for verdict in self.verdicts)

    def select(self, pooling: str) -> list[LayerRow]:
        """The rows of one pooling, by layer."""
        return [row for row in self.rows if row.pooling == pooling]

    def best(self, verdict: Verdict) -> LayerRow:
        """The row of a pooling's best layer."""
        return next(row for row in self.select(verdict.pooling) if row.layer == verdict.best)
