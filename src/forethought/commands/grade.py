"""`forethought grade`: grade the answers in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.study_settings import GradeSettings
from .options import emit, filled, json_flag, option, takes, talk, verb


@verb("grade", short_help="Grade the answers in a file.")
@takes(GradeSettings)
@option(
    "--out",
    is_main=True,
    default="",
    metavar="FILE",
    help="Write one row per verdict to this .jsonl, .csv or .parquet file.",
)
@json_flag
def command(as_json: bool, out: str, **values: Any) -> int:
    """Count the right, the wrong and the unreadable answers, and show the unreadable ones.

    FILE is JSONL, JSON, CSV, TSV or Parquet with an answer and a reference in each row, such as RUN/answers.jsonl.
    """
    from ..core.rows import write_rows
    from ..runs.folders import check_rows_file
    from . import tables
    from .grading import grade_file

    settings = filled(GradeSettings, values)
    if out:
        check_rows_file(Path(out), read=[settings.file])
    found = grade_file(settings)
    if out:
        write_rows(Path(out), found.rows)
        talk(f"{len(found.rows)} verdicts written to {out}")
    emit(as_json, found.to_json(), tables.verdicts_text(found))
    return 0
