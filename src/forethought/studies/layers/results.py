"""What the layer study found. Data only; `to_json` gives plain objects without NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.menu import Menu
from ...evaluation import Estimate

PAPER_RANGE = (12, 17, 28)  # arXiv 2602.01237: layers 12 to 17 of 28 are best
HOLDS, IN_PART, FAILS, UNDECIDED, UNTESTED = "holds", "holds in part", "does not hold", "not decided", "not tested"


def _columns(name: str, found: Sequence[Estimate]) -> dict[str, list[float]]:
    return {
        name: [each.value for each in found],
        f"{name}_low": [each.low for each in found],
        f"{name}_high": [each.high for each in found],
    }


@dataclass(frozen=True, slots=True)
class Scores:
    """How good some predictions are, and what plans made from them reach.

    Attributes:
        log_loss: nats a trace and budget.
        squared_error: against measured rates, mean over questions and budgets.
        brier: squared error against single traces.
        pearson: correlation with measured rates, mean over the budgets.
        pearson_B: at each budget; 0 where the predictions do not vary.
        accuracy: measured success under the plan, at each level.
        granted: mean cap that the plan really gives, at each level.
        gain_over_blind: accuracy less that of the mean curve's best uneven split, at each level.
    """

    log_loss: Estimate
    squared_error: Estimate
    brier: Estimate
    pearson: Estimate
    pearson_B: tuple[Estimate, ...]
    accuracy: tuple[Estimate, ...]
    granted: tuple[float, ...]
    gain_over_blind: tuple[Estimate, ...]

    def to_json(self) -> dict[str, Any]:
        """One flat object; lists go by budget or by level."""
        return {
            **self.log_loss.to_json("log_loss"),
            **self.squared_error.to_json("squared_error"),
            **self.brier.to_json("brier"),
            **self.pearson.to_json("mean_pearson"),
            **_columns("pearson", self.pearson_B),
            **_columns("accuracy", self.accuracy),
            "granted": list(self.granted),
            **_columns("gain_over_blind", self.gain_over_blind),
        }


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer under one pooling.

    Attributes:
        pooling: "last" or "mean".
        layer: its number; layer k is the stream after k decoder layers.
        scores: of its left-out predictions.
        above_best: log loss less that of the pooling's best layer, paired.
        wins: share of the resamples in which it has the lowest log loss of its pooling.
    """

    pooling: str
    layer: int
    scores: Scores
    above_best: Estimate
    wins: float

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "pooling": self.pooling,
            "layer": self.layer,
            **self.scores.to_json(),
            **self.above_best.to_json("above_best"),
            "wins": self.wins,
        }


@dataclass(frozen=True, slots=True)
class Contrast:
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

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "name": self.name,
            "other": self.other,
            "layers": list(self.layers),
            "other_layers": list(self.other_layers),
            **self.log_loss.to_json("log_loss"),
            **self.accuracy.to_json("accuracy"),
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """What the layers of one pooling come to.

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

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "pooling": self.pooling,
            "best": self.best,
            "equal": list(self.equal),
            "may_be_best": list(self.may_be_best),
            "contrasts": [each.to_json() for each in self.contrasts],
            "paper_layers": list(self.paper_layers),
            "paper_wins": self.paper_wins,
            "paper_best": self.paper_best,
            **({} if self.paper_behind is None else self.paper_behind.to_json("paper_behind")),
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True, eq=False)
class LayerStudy:
    """Everything the study's report says.

    Attributes:
        num_queries: questions studied.
        num_traces: fewest and most traces a question.
        menu: the budgets.
        levels: mean granted tokens a question at which plans are judged.
        depth: decoder layers of the model; None where the recorded layers do not tell.
        rows: one a pooling and layer.
        mean_curve: what the mean curve of the other questions predicts, and what blind makes of it.
        uniform, oracle: accuracy of everyone the same, and of the envelope on the measured curves, at each level.
        findings: one a pooling.
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
    findings: tuple[Finding, ...]
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
        return tuple(finding.pooling for finding in self.findings)

    def select(self, pooling: str) -> list[LayerRow]:
        """The rows of one pooling, by layer."""
        return [row for row in self.rows if row.pooling == pooling]

    def best(self, finding: Finding) -> LayerRow:
        """The row of a finding's best layer."""
        return next(row for row in self.select(finding.pooling) if row.layer == finding.best)

    def to_json(self) -> dict[str, Any]:
        """One object of plain values."""
        return {
            "num_queries": self.num_queries,
            "num_traces": list(self.num_traces),
            "menu": self.menu.to_json(),
            "cost": "granted",
            "levels": list(self.levels),
            "depth": self.depth,
            "rows": [row.to_json() for row in self.rows],
            "mean_curve": self.mean_curve.to_json(),
            "uniform": _columns("accuracy", self.uniform),
            "oracle": _columns("accuracy", self.oracle),
            "findings": [finding.to_json() for finding in self.findings],
            **({} if self.mean_less_last is None else self.mean_less_last.to_json("mean_less_last")),
            "notes": list(self.notes),
            "num_resamples": self.num_resamples,
            "seed": self.seed,
            "data_hash": self.data_hash,
            "simulated": self.simulated,
            "provenance": dict(self.provenance),
        }
