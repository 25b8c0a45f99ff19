"""`forethought grade`: judge the answers of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import emit, grader_options, json_flag, limit_option, skip_flag, taken_options, talk


@click.command("grade", short_help="Judge the answers of a file.")
@click.argument("file")
@grader_options()
@click.option("--answer-column", default="", metavar="NAME", help="Answers.  [default: answer, prediction, …]")
@click.option("--reference-column", default="", metavar="NAME", help="Right answers.  [default: reference, target, …]")
@click.option("--id-column", default="", metavar="NAME", help="Ids.  [default: id, else the row's place]")
@click.option("--out", default="", metavar="FILE", help="Write one verdict a line (JSONL) here.")
@skip_flag
@limit_option
@json_flag
def command(as_json: bool, out: str, **values: Any) -> int:
    """Count the right, the wrong and the unreadable answers, and show the unreadable ones.

    FILE is JSONL, JSON, CSV, TSV or Parquet with an answer and a reference in each row, such as a run's answers.jsonl.
    """
    from ..core.files import write_atomically
    from ..core.settings import GradeSettings
    from ..core.visible import to_json
    from ..runs.folders import check_lines_file
    from . import tables
    from .grading import grade_file

    taken_options(values, "grader")
    settings = GradeSettings(file=values.pop("file"), **values)
    if out:
        check_lines_file(Path(out))
    found = grade_file(settings)
    if out:
        lines = (f"{to_json(row)}\n" for row in found.rows)
        write_atomically(Path(out), "".join(lines).encode())
        talk(f"{len(found.rows)} verdicts written to {out}")
    emit(as_json, found.to_json(), tables.verdicts_text(found))
    return 0
