"""`forethought train`: fit a predictor on a profile."""

from __future__ import annotations

from typing import Any

from ..core.settings import TrainSettings
from .options import emit, filled, json_flag, quiet_flag, takes, verb


@verb("train", short_help="Fit a predictor on a profile.")
@takes(TrainSettings, is_asked=False)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Fit a predictor of the accuracy curve and of the usage curve.

    RUN is a profile run or the Parquet file of a profile; MORE are further profiles measured in the same way. The layer
    and the regularisation are chosen by cross-validation. The card in the predictor folder shows the result.
    """
    from . import pipeline
    from .progress import step_bar
    from .tables import training_text

    settings = filled(TrainSettings, values)
    with step_bar(quiet=quiet) as progress:
        trained, folder = pipeline.train(settings, progress=progress)
    card = trained.card
    emit(as_json, {"folder": str(folder), "card": card.to_json()}, training_text(card, folder))
    return 0
