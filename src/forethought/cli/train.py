"""`forethought train`: fit a predictor on a profile."""

from __future__ import annotations

from typing import Any

import click

from .options import emit, json_flag, seed_option


@click.command("train", short_help="Fit a predictor on a profile.")
@click.argument("run")
@click.argument("more", nargs=-1)
@click.option("--predictor", default="ridge", show_default=True, help="ridge, mlp, mean or paper-mlp.")
@click.option("--out", default="", metavar="FOLDER", help="Where to save it.  [default: RUN/predictor]")
@click.option("--layers", default="all", show_default=True, help="Layers to choose from: all, or 4,12,16.")
@click.option("--folds", "num_folds", type=int, default=5, show_default=True, help="Folds of the cross-validation.")
@seed_option
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Fit a predictor of the success curve and of the spend curve.

    RUN is a profile run or a profile's Parquet file, MORE are others measured in the same way. The layer and the
    regularisation are picked by cross-validation on them; the card beside the weights says with what result.
    """
    from .. import pipeline
    from ..settings import TrainSettings
    from ..tables import training_text

    trained, folder = pipeline.train(TrainSettings(**values))
    card = trained.card
    emit(as_json, {"folder": str(folder), "card": card.to_json()}, training_text(trained, folder))
    return 0
