"""The pictures of an evaluation by draws; drawn without a screen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from ..core.data import Cost
from ..evaluation.draws import DRAWS_POLICIES, FAIR_ORACLE, HISTORY, DrawsEvaluation
from ..evaluation.policies import BLIND, FORETHOUGHT, ORACLE, UNIFORM
from .draws import NAMES, UNITS, usual_level
from .figures import COLOURS, LEGEND, band, count_percent, frame, save, short

OWN = {UNIFORM: COLOURS[UNIFORM], BLIND: COLOURS[BLIND], HISTORY: COLOURS[FORETHOUGHT], FAIR_ORACLE: COLOURS[ORACLE]}


def draw_draws(result: DrawsEvaluation, folder: Path) -> dict[str, Path]:
    """Draws accuracy over cost, and over the draws that choose, into `folder` as PNG."""
    return save({f"draws-{cost.value}": partial(draws_picture, result, cost) for cost in result.levels}, folder)


def draws_picture(result: DrawsEvaluation, cost: Cost) -> Figure:
    """Accuracy over what is spent, and what the history gains by how many draws choose."""
    caption = [short(result.provenance.get("model") or "unknown model"), f"{result.num_queries:,} questions"]
    figure = frame((10.4, 4.6), caption, simulated=result.simulated)
    left, right = figure.subplots(1, 2)
    levels = list(result.levels[cost])
    for policy in DRAWS_POLICIES:
        rows = [row for row in result.rows if row.cost is cost and row.policy == policy]
        found = [row.accuracy for row in rows]
        band(left, levels, found, colour=OWN[policy], alpha=0.1, label=NAMES[policy], marker="o", markersize=3)
    left.set(title="judged on draws that did not choose", xlabel=f"{UNITS[cost]} a question", ylabel="accuracy")
    count_percent(left.yaxis)
    left.legend(loc="lower right", **LEGEND)
    level = usual_level(result, cost)
    counted = sorted(
        (row for row in result.by_num_draws if row.cost is cost and row.level == level), key=lambda row: row.num_draws
    )
    numbers = [row.num_draws for row in counted]
    gains = {UNIFORM: [row.gain for row in counted], BLIND: [row.gain_over_blind for row in counted]}
    for baseline, found in gains.items():
        name, colour = f"over {NAMES[baseline]}", OWN[baseline]
        band(right, numbers, found, colour=colour, alpha=0.12, label=name, marker="o", markersize=4)
    right.axhline(0.0, color="#999999", linewidth=1.0)
    title = f"the history's gain at {level:,.4g} {UNITS[cost]} a question"
    right.set(title=title, xlabel="draws that choose", ylabel="gain", xticks=numbers)
    count_percent(right.yaxis)
    right.legend(loc="lower right", **LEGEND)
    return figure
