"""Refuses what cannot be evaluated, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.data import Cost, Curves
from ..core.profile import Profile
from ..errors import InvalidInputError, InvalidSettingsError, MismatchError


def check_inputs(
    measured: Profile,
    predicted: Curves,
    mean_train: Curves,
    costs: Sequence[Cost],
    mean_tokens: Sequence[float] | None,
    num_resamples: int,
) -> None:
    """Raises MismatchError, InvalidInputError or InvalidSettingsError; returns when all is well."""
    if predicted.query_ids != measured.query_ids:
        raise MismatchError(_ids_differ(measured, predicted))
    for name, curves in (("predicted curves", predicted), ("mean train curve", mean_train)):
        if curves.menu != measured.menu:
            raise MismatchError(f"the {name} are on the menu {curves.menu}, the profile on {measured.menu}")
    if not measured.num_queries:
        raise InvalidInputError("the profile holds no queries; there is nothing to evaluate on")
    if Cost.SPENT in costs and not measured.is_spend_measured:
        raise MismatchError(
            "the tokens of this profile were not measured, so nothing can be compared under spent cost; "
            "compare under granted cost only, or import it with its tokens: forethought import --tokens-column NAME"
        )
    untried = [query_id for query_id, n in zip(measured.query_ids, measured.num_tried_Q, strict=True) if n < 1]
    if untried:
        raise InvalidInputError(f"{len(untried)} queries have no trace, the first is {untried[0]!r}; leave them out")
    if (measured.num_right_Q_B < 0).any() or (measured.num_right_Q_B > measured.num_tried_Q[:, None]).any():
        raise InvalidInputError("the profile counts more traces right than were tried, or fewer than none")
    for name, values in (
        ("measured tokens", measured.tokens_Q_B),
        ("predicted success", predicted.p_Q_B),
        ("predicted tokens", predicted.tokens_Q_B),
        ("mean train success", mean_train.p_Q_B),
        ("mean train tokens", mean_train.tokens_Q_B),
    ):
        if values is not None and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise InvalidInputError(f"{name}: row {row} holds a number that is not finite")
    for name, p_Q_B in (("predicted success", predicted.p_Q_B), ("mean train success", mean_train.p_Q_B)):
        if (p_Q_B < 0.0).any() or (p_Q_B > 1.0).any():
            raise InvalidInputError(f"{name} must lie between 0 and 1; it runs from {p_Q_B.min():g} to {p_Q_B.max():g}")
    if not costs or len(set(costs)) != len(costs):
        raise InvalidSettingsError(f"costs must be one or both of granted and spent, each once; got {list(costs)}")
    if num_resamples < 100:
        raise InvalidSettingsError(f"{num_resamples} resamples are too few for a 95% interval; give 100 or more")
    bad = [level for level in mean_tokens or () if not measured.menu.smallest <= level < np.inf]
    if mean_tokens is not None and (bad or not mean_tokens):
        raise InvalidSettingsError(
            f"mean tokens must be one or more numbers of at least the smallest budget ({measured.menu.smallest}); "
            f"got {bad}"
        )


def _ids_differ(measured: Profile, predicted: Curves) -> str:
    if len(predicted.query_ids) != measured.num_queries:
        return f"the predictions are of {len(predicted.query_ids)} queries, the profile of {measured.num_queries}"
    pairs = zip(measured.query_ids, predicted.query_ids, strict=True)
    row, (there, here) = next((row, pair) for row, pair in enumerate(pairs) if pair[0] != pair[1])
    return (
        f"the predictions are of other queries, or in another order: "
        f"row {row} is {there!r} in the profile, {here!r} predicted"
    )
