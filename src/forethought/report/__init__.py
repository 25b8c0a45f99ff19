"""What was found, as JSON, as Markdown with pictures, and as lines for the terminal.

Every table has uniform, blind and the oracle beside forethought, both costs, and intervals; gains that are not clearly
above 0 are marked where they stand.
"""

from __future__ import annotations

from ..evaluation import Comparison, Evaluation, LiveComparison
from ..evaluation.draws import DrawsEvaluation
from .comparison import comparison_page
from .draws import draws_page
from .evaluation import evaluation_page, live_page
from .pages import Bullets, Page, Part, Said, Table

__all__ = ["Bullets", "Page", "Part", "Said", "Table", "evaluation_page", "page"]


def page(result: Evaluation | LiveComparison | Comparison | DrawsEvaluation) -> Page:
    """What a result says: `.text()`, `.to_json()`, `.write(folder)`."""
    if isinstance(result, DrawsEvaluation):
        return draws_page(result)
    if isinstance(result, Evaluation):
        return evaluation_page(result)
    return live_page(result) if isinstance(result, LiveComparison) else comparison_page(result)
