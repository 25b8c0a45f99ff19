"""`forethought ls`: the results in a folder."""

from __future__ import annotations

import click

from .options import emit, json_flag, verb


@verb("ls", short_help="List runs, predictors and reports.")
@click.argument("folder", default="runs")
@json_flag
def command(as_json: bool, folder: str) -> int:
    """List what is in FOLDER (default: runs): runs, predictors, profile files and reports.

    One line each, newest first: date, kind, model, accuracy and mean tokens per question. For a profile or a predictor,
    these are the values at its largest cap, or at the option with the most tokens. Unreadable entries are listed with
    the reason.
    """
    from .listing import list_results, results_text
    from .progress import step_bar

    with step_bar(quiet=False) as progress:
        rows = list_results(folder, progress=progress)
    emit(as_json, rows, results_text(rows, folder))
    return 0
