"""Prepares predictors for a comparison: their curves on one held-out profile, and the cost of each prediction."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core.data import Curves
from ..core.features import Counts, Features
from ..core.profile import Profile
from ..errors import InvalidInputError, MismatchError
from ..evaluation.comparison import Candidate, PredictorCost
from ..models.config import num_parameters
from ..predictors.predictor import Predictor
from ..predictors.prompted import PromptedPredictor
from ..questions.queries import load_columns
from ..runs.profiles import on_menu, with_layers

REPEATS = 3


def candidate(name: str, trained: Predictor, measured: Profile) -> Candidate:
    """A trained predictor's curves of a profile that it was not trained on.

    Raises:
        MismatchError: it was made for another model, template or menu.
        InvalidFeaturesError: the profile lacks what it reads.
    """
    trained.check(measured.provenance.engine_info, measured.menu)
    layer = trained.card.features.layer
    known = Features.of(measured if layer is None else with_layers(measured, [layer]), layer)
    curves = trained.predict(measured.query_ids, known)
    threads = f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, {os.cpu_count()} cores"
    cost = measure_cost(trained, measured.query_ids, known, threads=threads)
    return Candidate(name, trained.card.predictor, curves, cost)


def measure_cost(predictor: Predictor, query_ids: Sequence[str], features: Features, *, threads: str) -> PredictorCost:
    """Predicts the queries a few times and counts.

    A multiply and an add for each parameter is what a transformer's generated token costs too, so arithmetic becomes
    tokens by dividing by the parameters of the served model (embeddings left out). What was asked of the served model
    itself counts as the tokens that it read and wrote: an upper bound, since a prefix cache serves the part that all
    prompts share.
    """
    seconds = []
    for _ in range(1 if predictor.estimator.is_costly else REPEATS):
        started = time.perf_counter()
        predictor.predict(query_ids, features)
        seconds.append((time.perf_counter() - started) / len(query_ids))
    _, arrays = predictor.estimator.state()
    own = sum(int(array.size) for array in arrays.values())
    parameters, work = own, float(own)
    if (passed := predictor.estimator.model_pass(features)) is not None:
        base, tokens = passed
        parameters, work = own + base, own + base * tokens
    asked = predictor.card.asking.tokens if predictor.card.asking is not None else 0.0
    served = num_parameters(predictor.card.model)
    equivalent = None if served is None or asked is None else work / served + asked
    return PredictorCost(parameters, sorted(seconds)[len(seconds) // 2], equivalent, threads)


def labelled(name: str, file: Path, train: Profile, measured: Profile) -> Candidate:
    """The mean training curve of every label in a file that another tool made: CSV with query_id and label.

    What the tool costs is not known here.

    Raises:
        InvalidInputError: a file that cannot be read, or queries of either profile without a label.
        MismatchError: profiles of two grids.
    """
    if not train.menu.is_same(measured.menu):
        raise MismatchError(f"--train has the budgets {train.menu}, --on {measured.menu}")
    train = on_menu(train, measured.menu)
    labels = _read_labels(file)
    missing = [query_id for query_id in (*train.query_ids, *measured.query_ids) if query_id not in labels]
    if missing:
        raise InvalidInputError(
            f"{file} has no label for {len(missing)} of {train.num_queries + measured.num_queries} queries, such as "
            f"{missing[0]!r}"
        )
    given, asked = (
        Features(len(ids), difficulties=tuple(labels[each] for each in ids))
        for ids in (train.query_ids, measured.query_ids)
    )
    fitted = PromptedPredictor().fit(given, Counts.of(train))
    p_Q_B, tokens_Q_B = fitted.predict(asked)
    curves = Curves(measured.query_ids, measured.menu, p_Q_B, tokens_Q_B)
    levels = ", ".join(fitted.levels_)
    return Candidate(name, f"labels of a file ({levels})", curves, None)


def mean_train(trained: Sequence[Predictor], measured: Profile) -> Curves:
    """What blind knows: the mean curve on the first predictor's card.

    Spend is left out where any of them, or the profile, does not know it.
    """
    curves = trained[0].card.mean_curves(measured.query_ids)
    knows_spend = measured.is_spend_measured and all(each.card.mean_tokens_B is not None for each in trained)
    return curves if knows_spend else replace(curves, tokens_Q_B=None)


def _read_labels(file: Path) -> dict[str, str]:
    """Query id -> label, of a table in any of the formats that questions come in."""
    named = {"id": None, "label": None}
    rows = load_columns(file, {"id": ("query_id", "id"), "label": ("label", "difficulty")}, named)
    if any(row["id"] is None or row["label"] is None for row in rows):
        raise InvalidInputError(f"{file} must hold the columns query_id and label, and both in every row")
    return {str(row["id"]): str(row["label"]) for row in rows}
