"""The price of a token: given, or the one at which measured questions use so many tokens on average."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..allocators.price import budgets_at, price_for
from ..control import sources
from ..core.data import Cost, Curves
from ..core.features import Features
from ..core.profile import Profile
from ..core.serve_settings import ServeSettings
from ..errors import InvalidSettingsError, InvalidTotalError
from ..predictors.bundle import shipped_predictors
from ..predictors.predictor import Predictor
from ..predictors.training import cross_fit
from ..predictors.usage import stretched
from .host import logger
from .options import ServingOptions


@dataclass(frozen=True, slots=True)
class Price:
    """A price, and what it was set on.

    Attributes:
        value: right answers per token.
        mean_budget: of the questions it was set on; None where the price was given.
        source: in words.
        curves: predicted, of the questions it was set on; None where the price was given.
        mean_tokens: that they were to use on average.
        cost: what is counted.
    """

    value: float
    mean_budget: float | None
    source: str
    curves: Curves | None = None
    mean_tokens: float = 0.0
    cost: Cost = Cost.GRANTED

    def at(self, stretch: float) -> float:
        """The price that meets the same mean where thoughts are `stretch` times as long as predicted.

        A price that was given holds. Where not even the smallest budgets fit the mean any more, it stays as it was.
        """
        if self.curves is None:
            return self.value
        try:
            return price_for(stretched(self.curves, stretch), mean_tokens=self.mean_tokens, cost=self.cost)
        except InvalidTotalError:
            return self.value


NUM_FOLDS = 5
VARIABLES = ("FORETHOUGHT_PRICE", "FORETHOUGHT_MEAN_TOKENS", "FORETHOUGHT_PROFILE=profile.parquet")
Terms = ServingOptions | ServeSettings  # what names a price, or a mean and a profile to set it on
FLAGS = ("--price", "--mean-tokens", "--profile profile.parquet")


def price_of(options: Terms, predictor: Predictor, names: tuple[str, str, str] = VARIABLES) -> Price:
    """The price that `options` name.

    Args:
        options: a price, or a mean.
        predictor: of the curves.
        names: what price, mean and profile are called where they were given.

    Raises:
        InvalidSettingsError: there is no profile to set it on.
        InvalidTotalError: not even the smallest budgets fit the mean.
    """
    if options.price is not None:
        return Price(options.price, None, names[0])
    assert options.mean_tokens is not None
    curves, source = _curves(options, predictor, names)
    price = price_for(curves, mean_tokens=options.mean_tokens, cost=options.cost)
    mean_budget = float(budgets_at(curves, price=price, cost=options.cost).mean())
    return Price(price, mean_budget, source, curves, options.mean_tokens, options.cost)


def _curves(options: Terms, predictor: Predictor, names: tuple[str, str, str]) -> tuple[Curves, str]:
    """Curves of measured questions as a predictor says that has not seen them, and in words whose."""
    measured, source = _measured(options, names)
    if (rows := predictor.rows_trained_on(measured)) is not None and len(rows):
        logger.info("setting the price on left-out predictions of the %d training questions", measured.num_queries)
        layer = predictor.card.features.layer
        curves, _ = cross_fit(
            measured,
            predictor=predictor.card.predictor,
            layers=None if layer is None else [layer],
            num_folds=min(NUM_FOLDS, measured.num_queries),
            seed=predictor.card.seed,
        )
        return curves, f"left-out predictions of {source}"
    features = Features.of(measured, predictor.card.features.layer)
    features = features.select(features.usable_rows(predictor.card.features.reads))
    curves = predictor.predict([str(row) for row in range(len(features))], features)
    return curves, f"predictions of {source}"


def _measured(options: Terms, names: tuple[str, str, str]) -> tuple[Profile, str]:
    """The profile that was named, else the run that holds the predictor, else what is shipped with it."""
    if options.profile:
        return sources.open_profile(options.profile), options.profile
    path = Path(options.predictor)
    for run in (path, path.parent):
        if (run / "run.json").is_file():
            return sources.open_profile(str(run)), str(run)
    if options.predictor in shipped_predictors():
        return sources.shipped_heldout(options.predictor), f"the held-out profile of {options.predictor}"
    raise InvalidSettingsError(
        f"{names[1]} needs measured questions to set the price on; none come with {options.predictor}: "
        f"name the profile it was trained on, {names[2]}, or give {names[0]}"
    )
