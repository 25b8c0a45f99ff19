"""Rejects invalid input before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.arguments import numbers, whole
from ..core.data import Cost, Curves
from ..core.flags import MOST_RESAMPLES
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.terms import TOKEN_COSTS
from ..errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, MismatchError
from ..runs.profiles import curves_on_menu, on_menu


def known_costs(measured: Profile, mean_train: Curves) -> tuple[Cost, ...]:
    """What plans can be compared under: of caps granted, and spent where it is known on both sides.

    Of named options spent, and money where they have prices; their budgets are what they take as a rule, and no caps,
    so granted stands in only where nothing was measured.
    """
    is_spent = measured.is_spend_measured and mean_train.tokens_Q_B is not None
    if not measured.menu.is_named:
        return TOKEN_COSTS if is_spent else (Cost.GRANTED,)
    if not is_spent:
        return (Cost.GRANTED,)
    return (Cost.SPENT, Cost.USD) if measured.curves.is_billable else (Cost.SPENT,)


def comparable(
    measured: Profile, predicted: Sequence[Curves], mean_train: Curves
) -> tuple[Profile, list[Curves], Curves, tuple[str, ...]]:
    """All on the profile's menu, and its queries that were tried under every option, with a note on the others.

    Curves of the same named options, in another order or at other budgets, are put in the profile's.

    Raises:
        InvalidInputError: no query was tried under every option.
    """
    predicted, mean_train = [_on(measured, each) for each in predicted], _on(measured, mean_train)
    num_left_out = int((~measured.is_complete_Q).sum())
    if not num_left_out or (measured.tried_Q_B is None and not measured.menu.is_named):
        return measured, predicted, mean_train, ()
    if num_left_out == measured.num_queries:
        num_tried_B = (measured.tries_Q_B > 0).sum(axis=0)
        rarest = int(num_tried_B.argmin())
        raise InvalidInputError(
            f"none of {num_left_out} queries was tried under every option, so nothing can be compared; the option "
            f"{measured.menu.labels[rarest]!r} was tried for {num_tried_B[rarest]}: measure it, or leave it out"
        )
    kept = np.flatnonzero(measured.is_complete_Q)
    predicted = [each.select(kept) if each.query_ids == measured.query_ids else each for each in predicted]
    if mean_train.query_ids == measured.query_ids:
        mean_train = mean_train.select(kept)
    was, are = ("was", "is") if num_left_out == 1 else ("were", "are")
    of_all = f"{num_left_out:,} of {measured.num_queries:,} queries"
    note = f"{of_all} {was} not tried under every option, and {are} left out."
    return measured.select(kept), predicted, mean_train, (note,)


def matched(measured: Profile, first: Profile, second: Profile) -> tuple[Profile, Profile] | None:
    """Two halves of a profile's samples, of its queries and at its options, as far as both have them.

    None where a query lacks one of them in a half.
    """
    row_of = {name: row for row, name in enumerate(first.query_ids)}
    if second.query_ids != first.query_ids or not row_of.keys() >= set(measured.query_ids):
        return None
    menu: Menu | None = measured.menu
    for each in (first, second):
        menu = menu and menu.common(each.menu)
    if menu is None:
        return None
    rows = np.array([row_of[name] for name in measured.query_ids])
    one, other = (on_menu(each, menu).select(rows) for each in (first, second))
    return (one, other) if one.is_complete_Q.all() and other.is_complete_Q.all() else None


def _on(measured: Profile, curves: Curves) -> Curves:
    is_renamed = curves.menu != measured.menu and curves.menu.is_same(measured.menu)
    return curves_on_menu(curves, measured.menu) if is_renamed else curves


def check_inputs(
    measured: Profile,
    predicted: Curves,
    mean_train: Curves,
    costs: Sequence[Cost],
    mean_tokens: Sequence[float] | None,
    num_resamples: int,
    *,
    mean_usd: Sequence[float] | None = None,
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
    if Cost.USD in costs:
        _check_money(measured)
    untried = [query_id for query_id, n in zip(measured.query_ids, measured.num_tried_Q, strict=True) if n < 1]
    if untried:
        raise InvalidInputError(f"{len(untried)} queries have no trace, the first is {untried[0]!r}; leave them out")
    if (measured.num_right_Q_B < 0).any() or (measured.num_right_Q_B > measured.tries_Q_B).any():
        raise InvalidInputError("the profile counts more traces right than were tried, or fewer than none")
    for name, values in (
        ("measured tokens", measured.tokens_Q_B),
        ("predicted success", predicted.p_Q_B),
        ("predicted tokens", predicted.tokens_Q_B),
        ("mean train success", mean_train.p_Q_B),
        ("mean train tokens", mean_train.tokens_Q_B),
        ("measured tokens of prompts", measured.input_Q_B),
    ):
        if values is not None and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise InvalidInputError(f"{name}: row {row} holds a number that is not finite")
    for name, p_Q_B in (("predicted success", predicted.p_Q_B), ("mean train success", mean_train.p_Q_B)):
        if (p_Q_B < 0.0).any() or (p_Q_B > 1.0).any():
            raise InvalidInputError(f"{name} must lie between 0 and 1; it runs from {p_Q_B.min():g} to {p_Q_B.max():g}")
    if not costs or len(set(costs)) != len(costs):
        raise InvalidSettingsError(
            f"costs must be one or more of granted, spent and usd, each once; got {[str(each) for each in costs]}"
        )
    whole("num_resamples", num_resamples, least=100, most=MOST_RESAMPLES)  # fewer give no 95% interval
    check_levels(measured, costs, mean_tokens, mean_usd)


def _check_money(measured: Profile) -> None:
    if not measured.is_spend_measured:
        raise MismatchError("the tokens of this profile were not measured, so nothing can be compared in USD")
    try:
        _ = measured.curves.usd_Q_B
    except (InvalidMenuError, InvalidInputError) as error:
        raise MismatchError(f"nothing can be compared in USD: {error}") from error


def check_levels(
    measured: Profile, costs: Sequence[Cost], mean_tokens: Sequence[float] | None, mean_usd: Sequence[float] | None
) -> None:
    """Raises InvalidSettingsError for levels that cannot be taken, MismatchError for USD where none can be counted."""
    menu = measured.menu
    least = 0 if menu.is_named else menu.smallest
    mean_tokens = None if mean_tokens is None else numbers("mean_tokens", mean_tokens)
    mean_usd = None if mean_usd is None else numbers("mean_usd", mean_usd)
    bad = [level for level in mean_tokens or () if not least <= level < np.inf]
    if mean_tokens is not None and (bad or not mean_tokens):
        at_least = "0" if menu.is_named else f"the smallest budget ({least})"
        raise InvalidSettingsError(f"mean tokens must be one or more numbers of at least {at_least}; got {bad}")
    bad = [level for level in mean_usd or () if not 0 < level < np.inf]
    if mean_usd is not None and (bad or not mean_usd):
        raise InvalidSettingsError(f"mean USD must be one or more numbers above 0; got {bad}")
    if mean_usd is not None and Cost.USD not in costs:
        _check_money(measured)
        raise InvalidSettingsError("levels in USD (--mean-usd) need a comparison in USD: add it to the costs")


def _ids_differ(measured: Profile, predicted: Curves) -> str:
    if len(predicted.query_ids) != measured.num_queries:
        return f"the predictions are of {len(predicted.query_ids)} queries, the profile of {measured.num_queries}"
    pairs = zip(measured.query_ids, predicted.query_ids, strict=True)
    row, (there, here) = next((row, pair) for row, pair in enumerate(pairs) if pair[0] != pair[1])
    return (
        f"the predictions are of other queries, or in another order: "
        f"row {row} is {there!r} in the profile, {here!r} predicted"
    )
