"""`forethought bench`: published measurements as a benchmark."""

from __future__ import annotations

from typing import Any

import click

from .options import allocator_options, emit, json_flag, listed, listed_numbers, seed_option, taken_options, talk


@click.group("bench", short_help="Published measurements as a benchmark.")
def command() -> None:
    """Measure Forethought beside published systems, on the measurements that came with them."""


@command.command("paper", short_help="The systems of arXiv 2602.01237 on its own data.")
@click.argument("folder", metavar="DIR")
@click.option("--split", default="dev", show_default=True, metavar="NAME", help="Judged on: DIR/NAME.parquet.")
@click.option("--out", default="", metavar="FOLDER", help="Where the report goes.  [default: runs/bench-paper-SPLIT]")
@click.option(
    "--mean-tokens", multiple=True, metavar="N,…", help="Mean budgets to compare at.  [default: every budget]"
)
@click.option("--predictor", default="", metavar="NAME", help="Forethought's.  [default: that of train]")
@allocator_options("Forethought's.")
@click.option(
    "--compare",
    multiple=True,
    default=("ridge,mlp,text,paper-mlp",),
    show_default=True,
    metavar="NAME,…",
    help="Predictors beside it, or none.",
)
@click.option("--resamples", "num_resamples", type=int, default=2000, show_default=True, help="Bootstrap resamples.")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw pictures (needs matplotlib).")
@seed_option
@json_flag
def paper(as_json: bool, mean_tokens: tuple[str, ...], compare: tuple[str, ...], **values: Any) -> int:
    """Compare uniform, blind, forethought, every policy of the paper and three oracles, with intervals.

    DIR holds train.parquet and dev.parquet with the columns question_id, num_correct (right traces at 16, 32, … 256
    tokens), num_trials, hidden_state, and the labels difficulty, lora_difficulty and zeroshot_difficulty (easy,
    medium, hard). Everything is trained on the train split. The data has no licence: nothing of it is kept.
    """
    from ..core.settings import PaperSettings
    from ..runs.folders import bench_folder, check_folder
    from ..studies import paper as bench

    taken_options(values, "allocator")
    settings = PaperSettings(
        mean_tokens=listed_numbers("--mean-tokens", mean_tokens),
        compare=tuple(each for each in listed(compare) if each != "none"),
        **values,
    )
    folder = bench_folder(settings)
    check_folder(folder)
    result = bench.compare(settings)
    files = bench.write_report(folder, result, plots=settings.plots)
    emit(
        as_json,
        {**bench.report_json(result), "files": [str(file) for file in files.values()]},
        bench.report_text(result),
    )
    for file in files.values():
        talk(f"wrote {file}")
    return 0
