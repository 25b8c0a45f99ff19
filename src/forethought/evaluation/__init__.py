"""The gain from a predictor: accuracy at equal tokens, tokens at equal accuracy, calibration, with intervals."""

from .comparison import Candidate, Comparison, PredictorCost, compare_predictors
from .live import LiveComparison, compare_live
from .offline import evaluate
from .results import Calibration, CostSummary, Estimate, Evaluation, Loss, OptionRow, PolicyRow, Saving

__all__ = [
    "Calibration",
    "Candidate",
    "Comparison",
    "CostSummary",
    "Estimate",
    "Evaluation",
    "LiveComparison",
    "Loss",
    "OptionRow",
    "PolicyRow",
    "PredictorCost",
    "Saving",
    "compare_live",
    "compare_predictors",
    "evaluate",
]
