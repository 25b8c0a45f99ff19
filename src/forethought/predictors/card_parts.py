"""Parts of a predictor's card: features, data, quality, novelty score and history."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.features import kind_to_reads
from ..evaluation.metrics import ReliabilityBin


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """What the predictor reads.

    Attributes:
        kind: "hidden" for the model's residual stream, "text" for the question itself, "difficulty" for what the model
            says when asked how hard it is, several of them as "hidden+text", "none" for nothing.
        layer: which layer; k is the stream after k decoder layers. None where no hidden states are read.
        width: numbers of one query's hidden state, D; 0 where none is read.
        pooling: "last" for the last prompt token; "none" where no hidden states are read.
    """

    kind: str
    layer: int | None
    width: int
    pooling: str

    @property
    def reads(self) -> frozenset[str]:
        """The kinds of features that are read."""
        return kind_to_reads(self.kind)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The profile it was trained on.

    Attributes:
        name: of the profile, or "unknown".
        num_queries: queries learned from.
        num_left_out: queries of the profile without a finished trace or with unusable features.
        num_traces: traces of all queries together.
        data_hash: first 16 hex digits of the SHA-256 of ids and counts, in the order of the ids.
        simulated: the traces came from a simulation or a replay.
    """

    name: str
    num_queries: int
    num_left_out: int
    num_traces: int
    data_hash: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class LayerScore:
    """Left-out metrics of ridge regression on one layer: binomial log loss (nats) and Brier score."""

    layer: int
    log_loss: float
    brier: float


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """How the layer was chosen.

    Attributes:
        method: in words.
        num_queries: queries the layers were compared on.
        layers: every layer compared.
    """

    method: str
    num_queries: int
    layers: tuple[LayerScore, ...]


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Out-of-fold quality on the training profile, next to the mean curve of the same folds.

    Attributes:
        num_folds: folds; each query was predicted by a fit that had not seen it. The layer was chosen on all of them.
            1: a part of the queries that the fit held out by itself, and on which it stopped early.
        log_loss, brier: of the predictor; binomial log loss in nats, Brier score against single traces.
        mean_log_loss, mean_brier: of the mean curve, which is what the blind allocation knows.
        calibration_error: mean distance of predicted and observed over the bins.
        correlation_B: Pearson correlation with the measured success rates at each budget (noisy rates lower it).
        bins: reliability over all budgets.
    """

    num_folds: int
    log_loss: float
    brier: float
    mean_log_loss: float
    mean_brier: float
    calibration_error: float
    correlation_B: tuple[float, ...]
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class NoveltyCard:
    """How novel a query is to the predictor; see `predictors.novelty`.

    Attributes:
        kind: what is looked at: "hidden" or "text".
        num_queries: training queries that the score was calibrated on.
        num_folds: 1 where these were left out of one fit; else each was left out of its fold's.
        num_components: directions whose variance was learned one by one.
        level: p-value at and below which a query is novel.
        quantiles: (share, distance) of the left-out training queries; a training query lies at about 1.
        false_alarms: share of left-out training queries that are novel, held against four fifths of them.
    """

    kind: str
    num_queries: int
    num_folds: int
    num_components: int
    level: float
    quantiles: tuple[tuple[float, float], ...]
    false_alarms: float


@dataclass(frozen=True, slots=True)
class Fed:
    """One feeding of a history.

    Attributes:
        id: hash of what was fed, or the run's name: nothing is counted twice.
        name: of the run or the profile.
        date: ISO 8601.
        num_queries, num_draws: questions, and answers under all options together.
        seed: of the run; None where it is not known.
    """

    id: str
    name: str
    date: str
    num_queries: int
    num_draws: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryCard:
    """What a history knows; see `predictors.history`.

    Attributes:
        base: registered name of the predictor whose curves stand for what was not drawn.
        num_queries: questions with a draw.
        num_draws: answers under all options together, less what was forgotten.
        strength, token_strength: pseudo-draws that the base's accuracy and usage are worth.
        half_life: feedings after which a draw counts half; None: never.
        fed: what was fed, in that order.
    """

    base: str
    num_queries: int
    num_draws: float
    strength: float
    token_strength: float | None
    half_life: float | None
    fed: tuple[Fed, ...]
