"""`forethought regrade`: judge the kept records of a run anew."""

from __future__ import annotations

from typing import Any

import click

from .options import emit, grader_options, json_flag, skip_flag, taken_options, talk


@click.command("regrade", short_help="Judge a run's kept answers anew.")
@click.argument("run")
@grader_options(default="", shown="the run's own")
@click.option("--answers", default="", metavar="FILE", help="Corrected references, by id or by question.")
@click.option("--answer-column", default="", metavar="NAME", help="Where they stand in it.  [default: answer, …]")
@skip_flag
@click.option("--dry-run", is_flag=True, help="Count what would change; write nothing.")
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Judge every answer of a profile or a run with another grader, other options or corrected references.

    Nothing is generated. Records, the profile's table, answers and summary are written again; a kill leaves the old or
    the new, and the same command finishes it.
    """
    from ..core.settings import RegradeSettings
    from . import tables
    from .grading import regrade

    taken_options(values, "grader")
    values["grader_options"] = values["grader_options"] or None
    found = regrade(RegradeSettings(**values))
    emit(as_json, found.to_json(), tables.regraded_text(found))
    for note in found.notes:
        talk(f"note: {note}")
    return 0
