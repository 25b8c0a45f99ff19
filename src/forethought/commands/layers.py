"""`forethought layers`: which layer of the model tells most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import (
    dry_run_flag,
    emit,
    engine_options,
    engine_settings,
    json_flag,
    limit_option,
    listed_numbers,
    quiet_flag,
    seed_option,
    talk,
)


@click.command("layers", short_help="Compare the layers of the model.")
@click.argument("run")
@click.option("--states", default="", metavar="FOLDER", help="Hidden states of every layer; what it lacks is read now.")
@click.option("--read/--no-read", default=True, show_default=True, help="Read them, or leave their questions out.")
@click.option(
    "--pooling", default="both", show_default=True, help="last (prompt token), mean (of the question) or both."
)
@click.option("--layers", default="all", show_default=True, help="Layers to compare: all, or 4,12,16.")
@click.option(
    "--mean-tokens",
    multiple=True,
    metavar="N,…",
    help="Mean budgets of the plans judged.  [default: 1/5, 2/5 and 3/5 of the largest cap]",
)
@limit_option
@click.option("--out", default="", metavar="FOLDER", help="Where the report goes.  [default: RUN/layers]")
@click.option("--model", default="", help="Where the measured model is.  [default: its name in the profile]")
@click.option("--template", default="", help="Its prompt template.  [default: its name in the profile]")
@engine_options(with_sampling=False)
@click.option("--resamples", "num_resamples", type=int, default=2000, show_default=True, help="Bootstrap resamples.")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw a picture (needs matplotlib).")
@seed_option
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, dry_run: bool, mean_tokens: tuple[str, ...], **values: Any) -> int:
    """Judge every layer by itself: left-out errors, correlations, and the accuracy of plans, with intervals.

    RUN is a profile run or a profile's Parquet file. Its recorded layers are compared (last token). With --states every
    layer is, by the last token and by the mean over the question's tokens: the model reads each question once, and the
    folder keeps what it read. The same command goes on where it stopped.
    """
    from ..core.settings import LayersSettings
    from ..runs.folders import layers_folder
    from ..studies import layers
    from . import pipeline
    from .progress import step_bar

    settings = LayersSettings(
        engine=engine_settings(values), mean_tokens=listed_numbers("--mean-tokens", mean_tokens), **values
    )
    if dry_run:
        found, _ = pipeline.survey_layers(settings)
        bill = layers.bill(found, settings, layers_folder(settings))
        emit(as_json, bill, "\n".join(f"{key.replace('_', ' '):16} {value}" for key, value in bill.items()))
        return 0
    files: list[Path] = []
    with step_bar(quiet=quiet) as progress:
        result = pipeline.study_layers(settings, progress=progress, wrote=files.append)
    page = layers.page(result)
    emit(as_json, {**page.to_json(), "files": [str(file) for file in files]}, page.text())
    for file in files:
        talk(f"wrote {file}")
    return 0
