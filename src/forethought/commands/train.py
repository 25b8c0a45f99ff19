"""`forethought train`: fit a predictor on a profile."""

from __future__ import annotations

from typing import Any

import click

from .options import emit, engine_options, engine_settings, json_flag, parse_pairs, quiet_flag, seed_option


@click.command("train", short_help="Fit a predictor on a profile.")
@click.argument("run")
@click.argument("more", nargs=-1)
@click.option(
    "--predictor",
    default="auto",
    show_default=True,
    help="auto, ridge, mlp, text, stack, lora, prompted, mean or paper-mlp.",
)
@click.option("--predictor-option", multiple=True, metavar="KEY=VALUE", help="Passed to the predictor.")
@click.option("--out", default="", metavar="FOLDER", help="Where to save it.  [default: RUN/predictor]")
@click.option("--layers", default="all", show_default=True, help="Layers to choose from: all, or 4,12,16.")
@click.option("--folds", "num_folds", type=int, default=5, show_default=True, help="Folds of the cross-validation.")
@click.option("--model", default="", help="Where the measured model is, for a predictor that asks it.")
@engine_options(with_sampling=False)
@seed_option
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Fit a predictor of the success curve and of the spend curve.

    RUN is a profile run or a profile's Parquet file, MORE are others measured in the same way. The layer and the
    regularisation are picked by cross-validation on them; the card beside the weights says with what result.
    """
    from ..core.settings import TrainSettings
    from . import pipeline
    from .progress import step_bar
    from .tables import training_text

    options = parse_pairs("--predictor-option", values.pop("predictor_option"))
    settings = TrainSettings(engine=engine_settings(values), options=options, **values)
    with step_bar(quiet=quiet) as progress:
        trained, folder = pipeline.train(settings, progress=progress)
    card = trained.card
    emit(as_json, {"folder": str(folder), "card": card.to_json()}, training_text(trained, folder))
    return 0
