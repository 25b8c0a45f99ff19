"""Every predictor in the comparison, trained on the train split only, and the quality of its curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.data import Curves, FloatArray
from ...core.features import Features
from ...core.profile import Profile
from ...evaluation.calibration import calibrate
from ...evaluation.results import Calibration, Result
from ...predictors.training import left_out_curves
from ...predictors.training import train as train_predictor


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One predictor's curves of the judged queries.

    Attributes:
        predictor: its registered name.
        curves: accuracy curves, without tokens: spend was not measured.
        mean_B: mean curve of the train queries, shape (B,).
        left_out: of the train queries, each by a fit that had not seen it, where the predictor keeps them.
    """

    predictor: str
    curves: Curves
    mean_B: FloatArray
    left_out: Curves | None


@dataclass(frozen=True, slots=True)
class PredictorScore(Result):
    """How good a predictor's curves are on the judged queries.

    Attributes:
        predictor: its registered name.
        mean_squared_error: against the measured rates at each budget, as the paper counts, noise of the traces and
            all, length B.
        pearson: correlation with the measured rates at each budget, length B.
        calibration: everything else, beside the mean train curve.
    """

    predictor: str
    mean_squared_error: tuple[float, ...]
    pearson: tuple[float, ...]
    calibration: Calibration


def predict(train: Profile, test: Profile, predictor: str | None, *, seed: int) -> Prediction:
    """Trains a predictor by name (None: the default of `train`) and predicts.

    Raises:
        MissingExtraError: it needs a package that is not installed.
    """
    named: dict[str, Any] = {} if predictor is None else {"predictor": predictor}
    # More folds than queries leave out the card's own calibration: here the other split is the judge, and what is
    # judged is the predictor as it was fitted.
    trained = train_predictor(
        train, num_folds=train.num_queries + 1, seed=seed, with_novelty=False, with_shrinkage=False, **named
    )
    curves = trained.predict(test.query_ids, Features.of(test, trained.card.features.layer))
    return Prediction(
        trained.card.predictor,
        Curves(curves.query_ids, curves.menu, curves.p_Q_B),
        np.asarray(trained.card.mean_p_B, dtype=np.float64),
        left_out_curves(train, trained),
    )


def score(test: Profile, prediction: Prediction, *, num_resamples: int, seed: int) -> PredictorScore:
    """Judges a prediction by the measured counts."""
    calibration = calibrate(test, prediction.curves, prediction.mean_B, None, num_resamples=num_resamples, seed=seed)
    error_B = ((prediction.curves.p_Q_B - test.curves.p_Q_B) ** 2).mean(axis=0)
    return PredictorScore(
        prediction.predictor,
        tuple(error_B.tolist()),
        tuple(each.pearson for each in calibration.by_budget),
        calibration,
    )
