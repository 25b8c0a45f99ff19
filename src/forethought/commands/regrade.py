"""`forethought regrade`: grade the stored answers of a run again."""

from __future__ import annotations

from typing import Any

from ..core.study_settings import RegradeSettings
from .options import emit, filled, json_flag, takes, talk, verb


@verb("regrade", short_help="Grade the stored answers of a run again.")
@takes(RegradeSettings)
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Grade every answer of a profile or a run with another grader, other options or corrected references.

    Nothing is generated. Records, profile table, answers and summary are rewritten. If the command is killed, each file
    is either old or new, and the same command finishes the work.
    """
    from . import tables
    from .grading import regrade

    found = regrade(filled(RegradeSettings, values))
    emit(as_json, found.to_json(), tables.regraded_text(found))
    for note in found.notes:
        talk(f"note: {note}")
    return 0
