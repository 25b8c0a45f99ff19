"""`forethought show`: look inside one result."""

from __future__ import annotations

import click

from .options import emit, json_flag


@click.command("show", short_help="Look inside one result.")
@click.argument("run")
@click.argument("query_id", metavar="ID")
@json_flag
def command(as_json: bool, run: str, query_id: str) -> int:
    """Show one question of a run: its text, curves, budget, what was used, why it stopped, its grade."""
    from ..tables import item, item_text

    found = item(run, query_id)
    emit(as_json, found, item_text(found))
    return 0
