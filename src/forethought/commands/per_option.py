"""Accuracy, tokens and cost of each cap or named option, as data and as lines of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..core.data import FloatArray
from ..core.profile import Profile
from ..core.terms import percent, usd_words
from ..report.pages import aligned

CAPS_SHOWN = 20  # of a menu, in a profile's table


def by_option(measured: Profile) -> dict[str, Any]:
    """Share right and mean tokens under each option, over all traces tried; of named ones what they are and cost."""
    menu, tries_Q_B = measured.menu, measured.tries_Q_B
    tried_B = tries_Q_B.sum(axis=0)

    def mean(value_Q_B: FloatArray) -> FloatArray:
        mean_B: FloatArray = (tries_Q_B * value_Q_B).sum(axis=0) / np.maximum(tried_B, 1)
        return mean_B

    named: dict[str, Any] = {}
    if menu.is_named:
        is_billable = measured.is_spend_measured and measured.curves.is_billable
        named = {
            "options": list(menu.labels),
            "tried": tried_B.tolist(),
            "tries": [[int(tries_Q.min()), int(tries_Q.max())] for tries_Q in tries_Q_B.T],
            "lacking": int((~measured.is_complete_Q).sum()),
            "usd": [float(f"{usd:.6g}") for usd in mean(measured.curves.usd_Q_B)] if is_billable else None,
            "usd_per_million": [None if each.price is None else asdict(each.price) for each in menu.options],
        }
    return {
        **named,
        "budgets": menu.budgets_B.tolist(),
        "accuracy": (measured.num_right_Q_B.sum(axis=0) / np.maximum(tried_B, 1)).round(4).tolist(),
        "tokens": mean(measured.tokens_Q_B).round(1).tolist() if measured.is_spend_measured else None,
    }


def cap_lines(found: Mapping[str, Any]) -> list[str]:
    """Share right and mean tokens by option; of very many, some of them from the smallest to the largest."""
    num = len(found["budgets"])
    shown = range(num) if num <= CAPS_SHOWN else sorted({round(each) for each in np.linspace(0, num - 1, CAPS_SHOWN)})
    tokens, title = found["tokens"] or [None] * num, "option" if "options" in found else "cap"
    spent = ["not measured" if each is None else f"{each:8.1f}" for each in tokens]
    if "options" in found:
        lines = _option_lines(found, shown)
    else:
        width = max(6, len(str(found["budgets"][-1])))
        lines = [f"{title:>{width}}  right  mean tokens generated"]
        lines += [f"{found['budgets'][at]:{width}d}  {percent(found['accuracy'][at]):>5}  {spent[at]}" for at in shown]
    if num > len(shown):
        lines.append(f"{len(shown)} of {num} {title}s are shown; --json has them all")
    return lines


def _option_lines(found: Mapping[str, Any], shown: Iterable[int]) -> list[str]:
    """Named options, as many columns as are known of them."""
    tokens, usd, tries, prices = (found.get(name) for name in ("tokens", "usd", "tries", "usd_per_million"))
    has_prices = prices is not None and any(prices)
    head = [
        "option",
        "right",
        "mean tokens",
        *(["mean USD"] if usd else []),
        *(["tries per question"] if tries else []),
    ]
    rows = [[*head, *(["USD per million in", "out"] if has_prices else [])]]
    for at in shown:
        cells = [found["options"][at], percent(found["accuracy"][at])]
        cells.append("not measured" if tokens is None else f"{tokens[at]:,.1f}")
        cells += [usd_words(usd[at]).removesuffix(" USD")] if usd else []
        cells += ["–".join(map(str, sorted(set(tries[at]))))] if tries else []
        if prices is not None and has_prices:
            price = prices[at]
            cells += ["-", "-"] if price is None else [f"{price['input']:g}", f"{price['output']:g}"]
        rows.append(cells)
    lines = aligned(rows)
    if lacking := found.get("lacking"):
        lines.append(f"{lacking:,} questions were not tried under every option")
    return lines
