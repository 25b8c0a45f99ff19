"""`forethought evaluate`: the gain from prediction and allocation."""

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

    RUN is a trained run or a predictor, evaluated on --on; a shipped name, evaluated on its shipped held-out profile; a
    profile run, evaluated by cross-fitting; or a finished `run --compare`. With --by-draws, some samples of each
    question choose its option and the others evaluate it. If PROFILE and predictor have different budgets, the budgets
    of both are compared, and a note lists them.
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
