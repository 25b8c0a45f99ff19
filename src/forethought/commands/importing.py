"""`forethought import`: turn outside measurements into a profile."""

from __future__ import annotations

from typing import Any

import click

from .options import emit, json_flag

COLUMNS = {
    "id": "Query ids; of several columns: NAME,NAME.",
    "budget": "Budgets in tokens; lists in a wide table.",
    "correct": "Right or wrong, or how many were right; in a wide table lists, or what correct_16, … begins with.",
    "tried": "How many traces the counts are out of.",
    "tokens": "Tokens generated, answer included.",
    "reasoning": "Reasoning tokens alone.",
    "sample": "Which trace of the query a row of a long table is.",
    "question": "The question's text.",
    "hidden": "Lists of a hidden state (wide table; name its --layer).",
}


def _column_options(function: Any) -> Any:
    for meaning, what in reversed(COLUMNS.items()):
        function = click.option(f"--{meaning}-column", metavar="NAME", help=what)(function)
    return function


@click.command("import", short_help="Turn outside measurements into a profile.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--out", default="", metavar="FILE", help="The profile.  [default: runs/NAME.parquet]")
@click.option(
    "--shape",
    type=click.Choice(["auto", "long", "wide"]),
    default="auto",
    show_default=True,
    help="A row a trace and budget, or a row a query.",
)
@_column_options
@click.option("--tried", type=int, metavar="N", help="Traces the counts are out of, where no column says.")
@click.option("--window", type=int, metavar="N", help="Tokens between two budgets.  [default: as in the files]")
@click.option("--max-tokens", type=int, metavar="N", help="Largest budget to take over.  [default: all]")
@click.option("--layer", type=int, metavar="N", help="Decoder layer of the hidden states.")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Only rows whose cell is that text.")
@click.option("--any-order", is_flag=True, help="The rows of a long table need not ascend by budget.")
@click.option("--name", default="", help="Of the profile.  [default: the first file's]")
@click.option("--model", default="", help="What was measured.  [default: unknown]")
@click.option("--template", default="", help="Its prompt template.  [default: unknown]")
@click.option("--grader", default="", help="What judged the answers.  [default: unknown]")
@click.option("--temperature", type=float, help="Of the thought.  [default: unknown]")
@click.option("--top-p", type=float, help="Nucleus of the thought.  [default: unknown]")
@click.option("--simulated", is_flag=True, help="No model was measured: say so wherever the profile is shown.")
@click.option("--dry-run", is_flag=True, help="Read and check; write nothing.")
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Turn outside measurements into a profile that `train` and `evaluate` read.

    FILE is CSV, Parquet or JSONL, in one of two shapes. Long: a row a trace and budget (id, budget, correct, and where
    known sample and tokens), or a row of counts (with tried). Wide: a row a query, with counts as a list or as columns
    correct_16, correct_32, …. Columns are found by their usual names, or by flag; '' stands for none. What is wrong is
    told by line and nothing is written; what is left out is listed with the reason.
    """
    from ..core.settings import ImportSettings
    from . import pipeline, tables

    columns = {meaning: values.pop(f"{meaning}_column") for meaning in COLUMNS}
    named = {meaning: name for meaning, name in columns.items() if name is not None}
    settings = ImportSettings(columns=named, **values)
    imported = pipeline.import_profile(settings)
    is_written = not settings.dry_run
    result = tables.import_summary(imported, is_written=is_written)
    emit(as_json, result, tables.import_text(imported, is_written=is_written))
    return 0
