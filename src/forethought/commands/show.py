"""`forethought show`: look inside one result."""

from __future__ import annotations

import click

from .options import emit, json_flag, verb


@verb("show", short_help="Look inside one result.")
@click.argument("run")
@click.argument("query_id", metavar="[ID]", default="")
@json_flag
def command(as_json: bool, run: str, query_id: str) -> int:
    """Show a run or a profile's file as a whole, or one question of a run.

    Of a profile: how often each cap or option was right, what it took and cost, how often it was tried. Of a question:
    its text, curves, budget, what was used, why it stopped, its grade.
    """
    from .showing import show, shown_text

    found = show(run, query_id)
    emit(as_json, found, shown_text(found))
    return 0
