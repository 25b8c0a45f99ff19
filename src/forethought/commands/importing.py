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

    FILE is CSV, Parquet or JSONL, in one of two shapes. Long: a row a trace and budget (id, budget, correct, and where
    known sample and tokens), or a row of counts (with tried). Wide: a row a query, with counts as a list or as columns
    correct_16, correct_32, …. A long table may have named options (--option-column effort) in place of budgets. Columns
    are found by their usual names, or by flag; '' stands for none. Logs of Inspect (.eval, JSON) and lm-eval's
    samples_*.jsonl are read as they are. What is wrong is told by line and nothing is written; what is left out is
    listed with the reason.
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
