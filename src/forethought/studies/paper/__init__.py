"""Published measurements as a benchmark: the paper's predictors, allocators and oracles beside Forethought's."""

from .paper import compare
from .report import report_json, report_text, write_report
from .results import PaperBench

__all__ = ["PaperBench", "compare", "report_json", "report_text", "write_report"]
