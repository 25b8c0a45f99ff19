"""The layer study: which layer of the model, and which pooling, predicts the accuracy curves best."""

from .report import page
from .results import LayerStudy
from .states import Survey, bill, check_readable, choose_layers, choose_levels, fill, survey
from .study import study

__all__ = [
    "LayerStudy",
    "Survey",
    "bill",
    "check_readable",
    "choose_layers",
    "choose_levels",
    "fill",
    "page",
    "study",
    "survey",
]
