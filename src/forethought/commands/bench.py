"""`forethought bench`: published measurements as a benchmark."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from ..core.study_settings import PaperSettings
from .options import Verb, emit_report, filled, json_flag, quiet_flag, takes


@click.group("bench", short_help="Benchmarks on published measurements.")
def command() -> None:
    """Compare Forethought with published systems, on the measurements published with them."""


@command.command("paper", cls=Verb, short_help="Compare with the systems of arXiv 2602.01237 on its data.")
@takes(PaperSettings)
@quiet_flag
@json_flag
def paper(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare uniform, blind, forethought, every policy of the paper and three oracles, with intervals.

    DIR holds train.parquet and dev.parquet with the columns question_id, num_correct (right traces at 16, 32, … 256
    tokens), num_trials, hidden_state, and the labels difficulty, lora_difficulty and zeroshot_difficulty (easy,
    medium, hard). Everything is trained on the train split. The data has no licence, so none of it is stored.
    """
    from ..runs.folders import bench_folder, check_folder
    from ..studies import paper as bench
    from .progress import step_bar

    settings = filled(PaperSettings, values)
    settings = replace(settings, compare=tuple(name for name in settings.compare if name != "none"))
    folder = bench_folder(settings)
    check_folder(folder)
    with step_bar(quiet=quiet) as progress:
        page = bench.page(bench.study(settings, progress=progress))
        files = list(page.write(folder, plots=settings.plots, progress=progress).values())
    emit_report(as_json, page, files)
    return 0
