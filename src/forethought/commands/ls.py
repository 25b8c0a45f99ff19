"""`forethought ls`: the results in a folder."""

from __future__ import annotations

import click

from .options import emit, json_flag, verb


@verb("ls", short_help="List runs, predictors and reports.")
@click.argument("folder", default="runs")
@json_flag
def command(as_json: bool, folder: str) -> int:
    """List what is in FOLDER (default: runs): runs, predictors, profile files and reports.

    One line each: what it is, how far it got, the share right and the mean tokens generated (of a profile, at its
    largest cap, or the option that takes most), when it was changed, whether it was trained. What cannot be read is
    listed with the reason.
    """
    from .listing import list_results, results_text

    rows = list_results(folder)
    emit(as_json, rows, results_text(rows, folder))
    return 0
