"""What a predictor is worth: accuracy at equal tokens, tokens at equal accuracy, calibration, with intervals."""

from .live import LiveComparison, compare_live
from .offline import evaluate
from .results import Calibration, CostSummary, Estimate, Evaluation, Loss, Row, Saving

__all__ = [
    "Calibration",
    "CostSummary",
    "Estimate",
    "Evaluation",
    "LiveComparison",
    "Loss",
    "Row",
    "Saving",
    "compare_live",
    "evaluate",
]
