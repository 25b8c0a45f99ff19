"""`forethought ls`: the runs in a folder."""

from __future__ import annotations

import click

from .options import emit, json_flag


@click.command("ls", short_help="List the runs in a folder.")
@click.argument("folder", default="runs")
@json_flag
def command(as_json: bool, folder: str) -> int:
    """List what FOLDER (default: runs) holds: runs, predictors, profiles and reports, how far each got."""
    from ..tables import list_runs, runs_text

    rows = list_runs(folder)
    emit(as_json, rows, runs_text(rows, folder))
    return 0
