"""`forethought show`: one result in detail."""

from __future__ import annotations

import click

from .options import emit, json_flag, verb


@verb("show", short_help="Show one result in detail.")
@click.argument("run")
@click.argument("query_id", metavar="[ID]", default="")
@json_flag
def command(as_json: bool, run: str, query_id: str) -> int:
    """Show a run or a profile file as a whole, or one question of a run.

    For a profile: accuracy, tokens, cost and number of traces of each cap or option. For a question: its text, curves,
    budget, tokens used, the reason why the thought ended, and its grade.
    """
    from .showing import show, shown_text

    found = show(run, query_id)
    emit(as_json, found, shown_text(found))
    return 0
