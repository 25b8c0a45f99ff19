"""`forethought compare`: several predictors on one held-out profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.study_settings import CompareSettings
from .options import emit_report, filled, json_flag, quiet_flag, takes, verb


@verb("compare", short_help="Compare predictors on one held-out profile.")
@takes(CompareSettings, is_asked=False)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare predictors with one allocator, with intervals and the cost of each prediction.

    PREDICTORS are trained runs, predictor folders or shipped names. None may be trained on questions of PROFILE.
    Differences are against the first.
    """
    from .. import report
    from . import reports
    from .progress import step_bar

    settings = filled(CompareSettings, values)
    files: list[Path] = []
    with step_bar(quiet=quiet) as progress:
        result = reports.compare(settings, wrote=files.append, progress=progress)
    emit_report(as_json, report.page(result), files)
    return 0
