"""Creates unfitted estimators by name with options; third-party classes get the defaults of `EstimatorBase`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from ...core.features import KINDS
from ...core.protocols import Estimator, with_defaults
from ...core.registry import check_options, resolve
from ...core.showing import Progress, silent
from ...errors import InvalidFeaturesError, InvalidSettingsError

__all__ = ["Progress", "estimator_class", "make_estimator", "options_signature", "silent", "too_small"]


def estimator_class(name: str) -> type[Estimator]:
    """The class registered under `name`, with the defaults of `EstimatorBase` for what it does not say."""
    return with_defaults(resolve("predictors", name))


def make_estimator(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    progress: Progress = silent,
    checkpoint: str = "",
) -> Estimator:
    """An unfitted estimator; `seed`, `progress` and `checkpoint` go to one that takes them, unless options have them.

    Raises:
        InvalidSettingsError: an option that it does not take.
        InvalidFeaturesError: it reads a kind of features that there is not.
    """
    kind = estimator_class(name)
    check_options("predictors", name, options or {}, reserved=("progress",))
    given = {"seed": seed, "progress": progress, "checkpoint": checkpoint}
    settings = {key: value for key, value in given.items() if key in kind.takes} | dict(options or {})
    if isinstance(chosen := settings.get("seed"), int) and chosen < 0:
        raise InvalidSettingsError(f"the seed of predictor {name!r} must be 0 or more, not {chosen}")
    try:
        made = kind(**settings)
    except TypeError as error:  # a text where a number is wanted
        words = ", ".join(f"{key}={value!r}" for key, value in (options or {}).items())
        raise InvalidSettingsError(f"predictor {name!r} cannot take the options {words}: {error}") from error
    if unknown := set(made.reads) - set(KINDS):
        raise InvalidFeaturesError(f"predictor {name!r} reads {sorted(unknown)}; there is {', '.join(KINDS)}")
    return made


def options_signature(options: type, **more: Any) -> inspect.Signature:
    """The signature of a class that is made with the fields of the dataclass `options`, and more with defaults."""
    named = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in more.items()]
    own = inspect.signature(options, eval_str=True)
    return own.replace(parameters=[*own.parameters.values(), *named], return_annotation=inspect.Signature.empty)


def too_small(options: object, least: Mapping[str, float]) -> list[str]:
    """A complaint for each of the options that is below its least, or no number to count with; None is neither."""
    found = {name: getattr(options, name) for name in least}
    return [
        f"{name} must be at least {least[name]:g}; got {value}"
        for name, value in found.items()
        if value is not None and not least[name] <= value < math.inf
    ]
