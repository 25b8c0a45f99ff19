"""The plots of an evaluation by samples; drawn without a display."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..core.data import Cost
from ..evaluation.draws import DRAWS_POLICIES, DrawsEvaluation
from ..evaluation.policies import BLIND, UNIFORM
from .colours import COLOURS
from .figures import LEGEND, alone, as_svg, band, costs_along, count_percent, frame, save, short
from .findings import draws_title, num_draws_title
from .wording import UNITS, policy_name


def draw_draws(result: DrawsEvaluation, folder: Path) -> dict[str, Path]:
    """Draws accuracy over cost, and over the number of samples that choose, into `folder` as PNG."""
    return save({f"draws-{cost.value}": partial(draws_picture, result, cost) for cost in result.levels}, folder)


def inline_draws(result: DrawsEvaluation) -> dict[str, str]:
    """The same for the HTML page, one panel a picture; name -> SVG."""
    single = partial(alone, simulated=result.simulated)
    pictures = {}
    for cost in result.levels:
        pictures[f"draws-{cost.value}"] = partial(single, partial(_accuracy_panel, result=result, cost=cost))
        if any(row.cost is cost for row in result.by_num_draws):
            pictures[f"num-draws-{cost.value}"] = partial(single, partial(_gain_panel, result=result, cost=cost))
    return as_svg(pictures)


def draws_picture(result: DrawsEvaluation, cost: Cost) -> Figure:
    """Accuracy against cost, and the gain of the history by the number of samples that choose."""
    caption = [short(result.provenance.get("model") or "unknown model"), f"{result.num_queries:,} questions"]
    figure = frame((10.4, 4.6), caption, simulated=result.simulated)
    left, right = figure.subplots(1, 2)
    _accuracy_panel(left, result, cost)
    _gain_panel(right, result, cost)
    return figure


def _accuracy_panel(panel: Any, result: DrawsEvaluation, cost: Cost) -> None:
    """Accuracy of every policy over cost, judged on draws that did not choose."""
    levels = list(result.levels[cost])
    for policy in DRAWS_POLICIES:
        found = [row.accuracy for row in result.rows if row.cost is cost and row.policy == policy]
        style = {"label": policy_name(policy), "marker": "o", "markersize": 3}
        band(panel, levels, found, colour=COLOURS[policy], alpha=0.1, **style)
    panel.set(title=draws_title(result, cost), xlabel=f"{UNITS[cost]} per question", ylabel="accuracy")
    count_percent(panel.yaxis)
    costs_along(panel, levels, in_usd=cost is Cost.USD)
    handles, labels = panel.get_legend_handles_labels()
    panel.legend(handles[::-1], labels[::-1], loc="lower right", **LEGEND)


def _gain_panel(panel: Any, result: DrawsEvaluation, cost: Cost) -> None:
    """The history's gain over the number of draws that choose, at one level."""
    level = result.headline[cost]
    counted = sorted(
        (row for row in result.by_num_draws if row.cost is cost and row.level == level), key=lambda row: row.num_draws
    )
    numbers = [row.num_draws for row in counted]
    gains = {UNIFORM: [row.gain for row in counted], BLIND: [row.gain_over_blind for row in counted]}
    for baseline, found in gains.items():
        style = {"label": f"over {baseline}", "marker": "o", "markersize": 4}
        band(panel, numbers, found, colour=COLOURS[baseline], alpha=0.12, **style)
    panel.axhline(0.0, color="#999999", linewidth=1.0)
    panel.set(title=num_draws_title(result, cost), xlabel="samples that choose", ylabel="gain", xticks=numbers)
    count_percent(panel.yaxis)
    panel.legend(loc="lower right", **LEGEND)
