"""The plot of a comparison of predictors; drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ..core.data import Cost
from ..evaluation.comparison import Comparison
from ..evaluation.policies import BLIND
from .colours import COLOURS
from .figures import alone, as_svg, frame, label_points, save, short
from .findings import best_title

GAIN = "mean gain over blind (points)"

CANDIDATES = ("#0072b2", "#a8528a", "#007d5b", "#b35900", "#6a51a3", "#8c564b", "#756b00", "#444444")


def draw_comparison(result: Comparison, folder: Path) -> dict[str, Path]:
    """Draws the gains of predictors against the cost of predicting into `folder` as PNG."""
    return save({"comparison": lambda: comparison_picture(result)}, folder)


def inline_comparison(result: Comparison) -> dict[str, str]:
    """The same for the HTML page, one picture per cost; name -> SVG."""

    def fill(panel: Any, cost: Cost) -> None:
        label_points(panel, _panel(panel, result, cost))
        panel.set_ylabel(GAIN)

    return as_svg(
        {
            f"gain-{cost.value}": partial(alone, partial(fill, cost=cost), simulated=result.simulated)
            for cost in result.levels
        }
    )


def comparison_picture(result: Comparison) -> Figure:
    """One panel per cost: mean gain over blind against the tokens that predicting takes; 0 and unknown are separate."""
    costs = list(result.levels)
    caption = [
        short(result.provenance.get("model") or "unknown model"),
        f"{result.num_queries:,} questions",
        "mean over all levels",
    ]
    figure = frame((5.8 * len(costs), 4.8), caption, simulated=result.simulated)
    panels = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    labels = [(panel, _panel(panel, result, cost)) for panel, cost in zip(panels, costs, strict=True)]
    for panel, points in labels:  # now that all panels have their common height
        label_points(panel, points)
    panels[0].set_ylabel(GAIN)
    return figure


def _panel(panel: Any, result: Comparison, cost: Cost) -> dict[str, tuple[float, float, str]]:
    """Draws one cost; name -> its point and colour."""
    tokens = {each.name: None if each.own_cost is None else each.own_cost.tokens for each in result.candidates}
    place_of, ticks = _cost_places(tokens)
    points: dict[str, tuple[float, float, str]] = {}
    for each, colour in zip(result.candidates, _colours(len(result.candidates)), strict=True):
        x, gain = place_of[each.name], result.score(each.name, cost).gain_over_blind
        reach = [[100 * (gain.value - gain.low)], [100 * (gain.high - gain.value)]]
        panel.errorbar([x], [100 * gain.value], yerr=reach, fmt="o", capsize=3, markersize=6, color=colour)
        points[each.name] = (x, 100 * gain.value, colour)
    panel.axhline(0.0, color=COLOURS[BLIND], linewidth=1.2)
    panel.set_xlim(min(ticks) - 0.6, max(ticks) + 1.4)
    panel.set_xticks(list(ticks), list(ticks.values()))
    panel.set(title=best_title(result, cost), xlabel="tokens per question that predicting takes")
    return points


def _cost_places(tokens: Mapping[str, float | None]) -> tuple[dict[str, float], dict[float, str]]:
    """Name -> place, place -> label: the logarithm to base 10 where tokens are known; 0 to its left, unknown right."""
    known = [math.log10(value) for value in tokens.values() if value]
    first, last = math.floor(min(known, default=0.0)), math.ceil(max(known, default=0.0))
    step = max(1, math.ceil((last - first) / 6))
    ticks = {float(power): _power_words(power) for power in range(first, last + 1, step)} if known else {}
    places = {}
    for name, value in tokens.items():
        if value:
            places[name] = math.log10(value)
        else:
            places[name] = float(first - 1 if value == 0 else last + 1)
            ticks[places[name]] = "0" if value == 0 else "unknown"
    return places, dict(sorted(ticks.items()))


def _power_words(power: int) -> str:
    if -3 < power < 7:
        return f"{10.0**power:,.{max(0, -power)}f}"
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _colours(count: int) -> list[str]:
    """As many colours, none of them twice."""
    if count <= len(CANDIDATES):
        return list(CANDIDATES[:count])
    # A little darker than the map: its yellows and greens are names on white, too.
    return [to_hex(0.75 * np.array(colormaps["turbo"](place)[:3])) for place in np.linspace(0.05, 0.97, count)]
