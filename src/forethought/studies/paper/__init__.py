"""Published measurements as a benchmark: Forethought against the paper's predictors, allocators and oracles."""

from .report import page
from .results import PaperBench
from .study import study

__all__ = ["PaperBench", "page", "study"]
