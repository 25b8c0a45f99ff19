"""`forethought grade`: judge the answers of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.settings import GradeSettings
from .options import emit, filled, json_flag, option, takes, talk, verb


@verb("grade", short_help="Judge the answers of a file.")
@takes(GradeSettings)
@option("--out", is_main=True, default="", metavar="FILE", help="Write one verdict a line (JSONL) here.")
@json_flag
def command(as_json: bool, out: str, **values: Any) -> int:
    """Count the right, the wrong and the unreadable answers, and show the unreadable ones.

    FILE is JSONL, JSON, CSV, TSV or Parquet with an answer and a reference in each row, such as a run's answers.jsonl.
    """
    from ..core.files import write_atomically
    from ..core.visible import to_json
    from ..runs.folders import check_lines_file
    from . import tables
    from .grading import grade_file

    settings = filled(GradeSettings, values)
    if out:
        check_lines_file(Path(out))
    found = grade_file(settings)
    if out:
        lines = (f"{to_json(row)}\n" for row in found.rows)
        write_atomically(Path(out), "".join(lines).encode())
        talk(f"{len(found.rows)} verdicts written to {out}")
    emit(as_json, found.to_json(), tables.verdicts_text(found))
    return 0
