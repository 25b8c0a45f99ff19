"""`forethought evaluate`: what prediction and allocation buy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.study_settings import EvaluateSettings
from .options import emit_report, filled, json_flag, quiet_flag, takes, verb


@verb("evaluate", short_help="Measure what prediction buys, with intervals.")
@takes(EvaluateSettings, is_asked=False)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare uniform, blind, forethought, greedy and the oracle at equal tokens, under both costs.

    RUN is a trained run or a predictor, judged on --on; a shipped name, judged on its shipped held-out profile; a
    profile run alone, cross-fitted; or a finished `run --compare`. With --by-draws
    some draws of a profile's questions choose for them, and the others judge. Where PROFILE has other budgets than the
    predictor, they are compared at the budgets of both, and a note says which.
    """
    from .. import report
    from . import reports
    from .progress import step_bar

    settings = filled(EvaluateSettings, values)
    files: list[Path] = []
    with step_bar(quiet=quiet) as progress:
        result = reports.evaluate(settings, wrote=files.append, progress=progress)
    emit_report(as_json, report.page(result), files)
    return 0
