"""Published measurements as a benchmark: the paper's predictors, allocators and oracles beside Forethought's."""

from .report import page
from .results import PaperBench
from .study import study

__all__ = ["PaperBench", "page", "study"]
