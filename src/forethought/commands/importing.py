"""`forethought import`: turn outside measurements into a profile."""

from __future__ import annotations

from typing import Any

from ..core.import_settings import ImportSettings
from .options import emit, filled, json_flag, option, quiet_flag, takes, verb


def _column_options(function: Any) -> Any:
    for meaning, what in reversed(ImportSettings.MEANINGS.items()):
        function = option(f"--{meaning}-column", metavar="NAME", help=what)(function)
    return function


@verb("import", short_help="Turn outside measurements into a profile.")
@takes(ImportSettings)
@_column_options
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Turn outside measurements into a profile that `train` and `evaluate` read.

    FILE is CSV, Parquet or JSONL, in one of two layouts. Long: one row per trace and budget (id, budget, correct, and
    if known sample and tokens), or rows of counts (with tried). Wide: one row per query, with counts as a list or as
    columns correct_16, correct_32, …. A long table may have named options (--option-column effort) instead of budgets.
    Columns are found by their usual names, or set by flag; '' means none. Logs of Inspect (.eval, JSON) and
    samples_*.jsonl of lm-eval are read directly. Errors are reported with their line, and nothing is then written. Rows
    that are left out are listed with the reason.
    """
    from . import pipeline, tables
    from .progress import step_bar

    columns = {meaning: values.pop(f"{meaning}_column") for meaning in ImportSettings.MEANINGS}
    named = {meaning: name for meaning, name in columns.items() if name is not None}
    settings = filled(ImportSettings, values, columns=named)
    with step_bar(quiet=quiet) as progress:
        imported = pipeline.import_profile(settings, progress=progress)
    is_written = not settings.dry_run
    result = tables.import_summary(imported, is_written=is_written)
    emit(as_json, result, tables.import_text(imported, is_written=is_written))
    return 0
