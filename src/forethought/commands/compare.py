"""`forethought compare`: several predictors on one held-out profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import (
    allocator_options,
    emit,
    engine_options,
    engine_settings,
    json_flag,
    quiet_flag,
    seed_option,
    taken_options,
    talk,
)


@click.command("compare", short_help="Several predictors on one held-out profile.")
@click.argument("predictors", nargs=-1, required=True)
@click.option("--on", default="", metavar="PROFILE", help="Held-out profile.  [default: the shipped one of the first]")
@click.option("--name", "names", multiple=True, help="What each is called, in their order.")
@click.option("--labels", multiple=True, metavar="NAME=FILE", help="Another tool's labels: CSV of query_id, label.")
@click.option("--train", default="", metavar="PROFILE", help="Where the labels' curves are counted.")
@click.option("--out", default="", metavar="FOLDER", help="Where the report goes.  [default: runs/compare-PROFILE]")
@allocator_options("Whose plans are judged.")
@click.option("--resamples", "num_resamples", type=int, default=2000, show_default=True, help="Bootstrap resamples.")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw a picture (needs matplotlib).")
@click.option("--model", default="", help="Where the measured model is, for a predictor that asks it.")
@engine_options(with_sampling=False)
@seed_option
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare predictors through one allocator, with intervals, and with what each costs itself.

    PREDICTORS are trained runs, predictor folders or shipped names, all trained on other questions than PROFILE's. The
    first is the one that leads count from.
    """
    from .. import report
    from ..core.settings import CompareSettings
    from . import pipeline
    from .progress import step_bar

    taken_options(values, "allocator")
    settings = CompareSettings(engine=engine_settings(values), **values)
    files: list[Path] = []
    with step_bar(quiet=quiet) as progress:
        result = pipeline.compare(settings, wrote=files.append, progress=progress)
    page = report.page(result)
    emit(as_json, {**page.to_json(), "files": [str(file) for file in files]}, page.text())
    for file in files:
        talk(f"wrote {file}")
    return 0
