"""`forethought evaluate`: what prediction and allocation buy."""

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


@click.command("evaluate", short_help="Measure what prediction buys, with intervals.")
@click.argument("run")
@click.option("--on", default="", metavar="PROFILE", help="Held-out profile: run directory or Parquet file.")
@click.option("--out", default="", metavar="FOLDER", help="Where the report goes.  [default: RUN/evaluation]")
@allocator_options("Whose plans are judged.")
@click.option("--predictor", default="auto", show_default=True, help="For cross-fitting a profile run.")
@click.option("--model", default="", help="Where the measured model is, for a predictor that asks it.")
@engine_options(with_sampling=False)
@click.option("--resamples", "num_resamples", type=int, default=2000, show_default=True, help="Bootstrap resamples.")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw pictures (needs matplotlib).")
@seed_option
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare uniform, blind, forethought, greedy and the oracle at equal tokens, under both costs.

    RUN is a trained run or a predictor, judged on --on; a shipped name, judged on its shipped held-out profile; a
    profile run alone, cross-fitted; or a finished `run --compare`. Where PROFILE has another grid of budgets than the
    predictor, they are compared at the budgets of both, and a note says which.
    """
    from .. import report
    from ..core.settings import EvaluateSettings
    from . import pipeline
    from .progress import step_bar

    taken_options(values, "allocator")
    settings = EvaluateSettings(engine=engine_settings(values), **values)
    files: list[Path] = []
    with step_bar(quiet=quiet) as progress:
        result = pipeline.evaluate(settings, wrote=files.append, progress=progress)
    page = report.page(result)
    emit(as_json, {**page.to_json(), "files": [str(file) for file in files]}, page.text())
    for file in files:
        talk(f"wrote {file}")
    return 0
