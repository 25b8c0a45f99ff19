"""`forethought compare`: several predictors on one held-out profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.study_settings import CompareSettings
from .options import emit_report, filled, json_flag, quiet_flag, takes, verb


@verb("compare", short_help="Several predictors on one held-out profile.")
@takes(CompareSettings, is_asked=False)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare predictors through one allocator, with intervals, and with what each costs itself.

    PREDICTORS are trained runs, predictor folders or shipped names, all trained on other questions than PROFILE's. The
    first is the one that leads count from.
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
