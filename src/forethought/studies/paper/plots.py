"""Plots of the benchmark, drawn without a display."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...evaluation import Estimate
from ...evaluation.policies import BLIND, FORETHOUGHT, GREEDY_ORACLE, ORACLE, UNIFORM
from ...report.colours import COLOURS
from ...report.figures import LEGEND, band, count_percent, frame, reliability, save, tokens_along
from ...report.wording import policy_name
from .results import SOURCE, PaperBench, PaperRow

AXIS = "mean tokens granted per question"
SYSTEMS = (UNIFORM, BLIND, "zeroshot-difficulty", "lora-difficulty", "paper-mlp+paper-greedy", FORETHOUGHT, ORACLE)
ORACLES = (UNIFORM, BLIND, FORETHOUGHT, "difficulty-oracle", GREEDY_ORACLE, ORACLE)
POLICY_COLOURS = COLOURS | {
    "lora-difficulty": "#8c564b",
    "zeroshot-difficulty": "#a89a00",
    "difficulty-oracle": "#6a51a3",
    GREEDY_ORACLE: "#d6604d",
}
CYCLE = ("#c06a9d", "#56a0d3", "#2f6f4f", "#b35900", "#8080c0", "#999999")  # predictors, and ways of planning
STYLES = {"envelope": "-", "greedy": (0, (1, 1.2)), "paper-greedy": (0, (5, 2))}


def draw(result: PaperBench, folder: Path) -> dict[str, Path]:
    """Draws every picture into `folder` as PNG; the same findings give the same picture.

    Returns:
        Name of the picture -> its file.
    """
    pictures: dict[str, Callable[[PaperBench], Figure]] = {
        "accuracy": _accuracy,
        "gains": _gains,
        "gap": _gap,
        "predictors": _predictors,
        "calibration": _calibration,
        "batches": _batches,
    }
    return save({name: partial(picture, result) for name, picture in pictures.items()}, folder)


def _figure(result: PaperBench, num_panels: int, *, height: float = 5.2) -> tuple[Figure, list[Any]]:
    caption = [SOURCE, f"{result.split}: {result.num_queries:,} questions"]
    figure = frame((7.0 * num_panels, height), caption, simulated=False)
    return figure, list(figure.subplots(1, num_panels, squeeze=False)[0])


def _accuracy(result: PaperBench) -> Figure:
    """Accuracy of whole systems, of every pair of predictor and allocator, and of the oracles."""
    figure, panels = _figure(result, 3)
    pairs = [policy for policy in result.policies if "+" in policy]
    titles = ("whole systems", "predictor + allocator", "oracles")
    for panel, title, policies in zip(panels, titles, (SYSTEMS, (*pairs, FORETHOUGHT), ORACLES), strict=True):
        _lines(panel, result, policies, lambda each: each.accuracy)
        panel.set(title=title, xlabel=AXIS, ylabel="accuracy", ylim=(0.0, None))
        count_percent(panel.yaxis)
    return figure


def _gains(result: PaperBench) -> Figure:
    """What each policy adds to uniform, and to blind: the second is what its prediction is worth."""
    figure, panels = _figure(result, 2)
    policies = [policy for policy in result.policies if policy not in (UNIFORM, ORACLE)]
    _lines(panels[0], result, policies, lambda each: each.gain)
    _lines(panels[1], result, [each for each in policies if each != BLIND], lambda each: each.gain_over_blind)
    for panel, baseline in zip(panels, (UNIFORM, BLIND), strict=True):
        panel.axhline(0.0, color="#333333", linewidth=0.9)
        panel.set(title=f"gain over {baseline} at equal tokens", xlabel=AXIS, ylabel="accuracy gained (points)")
        _in_points(panel)
    return figure


def _gap(result: PaperBench) -> Figure:
    """Share of the way from uniform to the exact oracle."""
    figure, panels = _figure(result, 1)
    policies = [policy for policy in result.policies if policy not in (UNIFORM, ORACLE)]
    _lines(panels[0], result, policies, lambda each: each.gap_closed)
    panels[0].axhline(0.0, color="#333333", linewidth=0.9)
    panels[0].set(title="share of the exact oracle's gap closed", xlabel=AXIS, ylabel="share", ylim=(-0.5, 1.0))
    count_percent(panels[0].yaxis)
    return figure


def _predictors(result: PaperBench) -> Figure:
    """Mean squared error and correlation at every budget."""
    figure, panels = _figure(result, 2)
    budgets_B = result.menu.budgets_B
    for colour, each in zip(CYCLE, result.predictors, strict=False):
        for panel, values in zip(panels, (each.mean_squared_error, each.pearson), strict=True):
            panel.plot(budgets_B, values, color=colour, marker="o", markersize=3, label=each.predictor)
    for panel, title in zip(panels, ("mean squared error", "correlation with measured success"), strict=True):
        panel.set(title=title, xlabel="cap on reasoning (tokens)", ylim=(0.0, None))
        panel.legend(loc="lower right", **LEGEND)
    return figure


def _calibration(result: PaperBench) -> Figure:
    """Predicted against measured success of every predictor."""
    figure, panels = _figure(result, len(result.predictors))
    for panel, colour, each in zip(panels, CYCLE, result.predictors, strict=False):
        reliability(panel, each.calibration, colour=colour)
        panel.set_title(each.predictor)
    return figure


def _batches(result: PaperBench) -> Figure:
    """What is lost by planning in batches, and as a stream."""
    figure, panels = _figure(result, 1)
    for colour, planned in zip(CYCLE, dict.fromkeys(each.planned for each in result.batches), strict=False):
        rows = [each for each in result.batches if each.planned == planned]
        x, found = [each.granted for each in rows], [each.lost for each in rows]
        _line(panels[0], x, found, colour=colour, label=planned)
    panels[0].axhline(0.0, color="#333333", linewidth=0.9)
    panels[0].set(title="loss against planning all queries together", xlabel=AXIS, ylabel="accuracy lost (points)")
    _in_points(panels[0])
    panels[0].legend(loc="best", **LEGEND)
    return figure


def _lines(
    panel: Any, result: PaperBench, policies: Sequence[str], value_of: Callable[[PaperRow], Estimate | None]
) -> None:
    """One line per policy with its band, named in order of accuracy: the same order in every panel."""
    heights = {}
    of_predictor = dict(zip([each.predictor for each in result.predictors], itertools.cycle(CYCLE), strict=False))
    for policy in (policy for policy in policies if policy in result.policies):
        rows = [(each.granted, value_of(each)) for each in result.select(policy)]
        known = [(x, value) for x, value in rows if value is not None]
        if not known:
            continue
        predictor, _, allocator = policy.partition("+")
        colour = of_predictor[predictor] if allocator else POLICY_COLOURS[policy]
        found = [value for _, value in known]
        _line(panel, [x for x, _ in known], found, colour=colour, label=policy, style=STYLES.get(allocator, "-"))
        heights[policy] = _mean([each.accuracy.value for each in result.select(policy)])
    tokens_along(panel, result.menu)
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    order = sorted(heights, key=lambda policy: -heights[policy])
    place = {**LEGEND, "loc": "center left", "bbox_to_anchor": (1.01, 0.5), "fontsize": 9}
    panel.legend([handles[policy] for policy in order], [policy_name(policy) for policy in order], **place)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _in_points(panel: Any) -> None:
    panel.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))


def _line(
    panel: Any, x: Sequence[float], found: Sequence[Estimate], *, colour: str, label: str, style: Any = "-"
) -> None:
    is_ours = label == FORETHOUGHT
    line: dict[str, Any] = {"linestyle": style, "linewidth": 2.6 if is_ours else 1.4, "label": label}
    line |= {"marker": "o" if is_ours else None, "markersize": 3.5, "zorder": 4 if is_ours else 3}
    band(panel, x, found, colour=colour, alpha=0.16 if is_ours else 0.06, **line)
