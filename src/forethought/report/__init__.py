"""Results as one HTML file, as JSON, as Markdown with plots, and as lines for the terminal.

Every table has uniform, blind, forethought and the oracle, both costs, and intervals; gains that are not significantly
above 0 are marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evaluation import Comparison, Evaluation, LiveComparison
from ..evaluation.draws import DrawsEvaluation
from .comparison import comparison_page
from .draws import draws_page
from .evaluation import evaluation_page
from .live import live_page
from .pages import Bullets, Page, Part, Picture, Questions, Said, Table
from .questions import ReadRecords

__all__ = ["Bullets", "Page", "Part", "Picture", "Said", "Table", "evaluation_page", "live_page", "page"]


def page(
    result: Evaluation | LiveComparison | Comparison | DrawsEvaluation,
    *,
    records: ReadRecords | None = None,
    questions: Questions | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Page:
    """What a result says: `.text()`, `.to_json()`, `.write(folder)`.

    Args:
        result: what was found.
        records: reads the traces behind some of an evaluation's questions.
        questions: those of a live comparison.
        facts: how it was made, beside its provenance: the command, its settings.
    """
    if isinstance(result, DrawsEvaluation):
        return draws_page(result, facts=facts)
    if isinstance(result, Evaluation):
        return evaluation_page(result, records=records, facts=facts)
    if isinstance(result, LiveComparison):
        return live_page(result, questions=questions, facts=facts)
    return comparison_page(result, facts=facts)
