"""`forethought regrade`: judge the kept records of a run anew."""

from __future__ import annotations

from typing import Any

from ..core.settings import RegradeSettings
from .options import emit, filled, json_flag, takes, talk, verb


@verb("regrade", short_help="Judge a run's kept answers anew.")
@takes(RegradeSettings)
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Judge every answer of a profile or a run with another grader, other options or corrected references.

    Nothing is generated. Records, the profile's table, answers and summary are written again; a kill leaves the old or
    the new, and the same command finishes it.
    """
    from . import tables
    from .grading import regrade

    found = regrade(filled(RegradeSettings, values))
    emit(as_json, found.to_json(), tables.regraded_text(found))
    for note in found.notes:
        talk(f"note: {note}")
    return 0
