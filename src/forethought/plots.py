"""Pictures of an evaluation, drawn without a screen. Only this file and `bench/plots.py` need matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .evaluation import Evaluation, Row
from .evaluation.contest import Contest
from .evaluation.policies import BLIND, FORETHOUGHT, GREEDY, ORACLE, UNIFORM
from .types import Cost, FloatArray

# Okabe and Ito's palette, a little darker: told apart by lightness too, by readers who see fewer hues and in grey.
COLOURS = {UNIFORM: "#5f5f5f", BLIND: "#d98200", GREEDY: "#c06a9d", FORETHOUGHT: "#0072b2", ORACLE: "#009e73"}
NAMES = {UNIFORM: "uniform", BLIND: "blind", GREEDY: "greedy", FORETHOUGHT: "forethought", ORACLE: "exact oracle"}
STYLES = {UNIFORM: "-", BLIND: "-", GREEDY: (0, (1, 1.2)), FORETHOUGHT: "-", ORACLE: (0, (5, 2))}
AXIS = {Cost.GRANTED: "tokens granted a question (mean cap)", Cost.SPENT: "tokens generated a question (mean)"}
TITLE = {Cost.GRANTED: "equal granted tokens", Cost.SPENT: "equal spent tokens"}
CONTENDERS = ("#0072b2", "#c06a9d", "#009e73", "#b35900", "#6a51a3", "#8c564b", "#a89a00", "#444444")
LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": "linecolor", "handlelength": 1.8, "borderaxespad": 0.2}
NUM_GROUPS = 5
FEWEST_QUERIES = 10
SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "savefig.dpi": 150,
}


def draw(result: Evaluation, folder: Path, *, mean_tokens: float) -> dict[str, Path]:
    """Draws every picture into `folder` as PNG; the same evaluation gives the same picture.

    Args:
        result: what to draw.
        folder: must exist.
        mean_tokens: the level, in mean tokens a question, whose division over the questions is shown.

    Returns:
        Name of the picture -> its file.
    """
    pictures: dict[str, Callable[[], Figure]] = {
        "summary": lambda: _summary(result),
        "accuracy": lambda: _accuracy(result),
        "calibration": lambda: _calibration(result),
        "tokens": lambda: _tokens(result, mean_tokens),
    }
    files = {name: folder / f"{name}.png" for name in pictures}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS}):
        for name, file in files.items():
            figure = pictures[name]()
            FigureCanvasAgg(figure)
            figure.savefig(file)
    return files


def draw_contest(result: Contest, folder: Path) -> dict[str, Path]:
    """Draws what predictors buy against what they cost themselves into `folder` as PNG."""
    file = folder / "comparison.png"
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS}):
        figure = _contest(result)
        FigureCanvasAgg(figure)
        figure.savefig(file)
    return {"comparison": file}


def _contest(result: Contest) -> Figure:
    """One panel a cost: mean gain over blind against the tokens that predicting takes, on a logarithmic axis."""
    costs = list(result.levels)
    figure = Figure(figsize=(5.8 * len(costs), 4.8), layout="constrained")
    panels = figure.subplots(1, len(costs), squeeze=False)[0]
    known = [each for each in result.contenders if each.cost is not None and each.cost.tokens is not None]
    least = min((each.cost.tokens for each in known if each.cost and each.cost.tokens), default=1e-4)
    for panel, cost in zip(panels, costs, strict=True):
        points: dict[str, tuple[float, float, str]] = {}
        for place, each in enumerate(result.contenders):
            own = each.cost.tokens if each.cost is not None else None
            x = max(own or least, least)
            gain = result.standing(each.name, cost).gain_over_blind
            reach = [[100 * (gain.value - gain.low)], [100 * (gain.high - gain.value)]]
            colour, fill = CONTENDERS[place % len(CONTENDERS)], None if own is not None else "white"
            panel.errorbar(
                [x], [100 * gain.value], yerr=reach, fmt="o", capsize=3, markersize=6, color=colour, mfc=fill
            )
            points[each.name] = (x, 100 * gain.value, colour)
        panel.axhline(0.0, color=COLOURS[BLIND], linewidth=1.2)
        panel.set_xscale("log")
        panel.margins(x=0.25)
        _label_points(panel, points)
        panel.set(title=TITLE[cost], xlabel="tokens that predicting takes, a question (hollow: unknown)")
        panel.set_ylabel("mean gain over blind (points)")
    caption = (
        f"{result.provenance.get('model') or 'unknown model'} · {result.num_queries:,} questions · "
        "mean over all levels · 95% bootstrap intervals"
    )
    if result.provenance.get("simulated"):
        caption = f"SIMULATED · {caption}"
    figure.supxlabel(caption, x=0.995, ha="right", fontsize=8.5, color="#555555")
    return figure


def _summary(result: Evaluation) -> Figure:
    """One wide picture: accuracy under each cost, and whether the predictions can be believed."""
    figure = _figure(result, (4.0 * (len(result.costs) + 1), 4.2))
    panels = figure.subplots(1, len(result.costs) + 1)
    for panel, cost in zip(panels, result.costs, strict=False):
        _accuracy_panel(panel, result, cost, (UNIFORM, BLIND, FORETHOUGHT, ORACLE))
    _reliability_panel(panels[-1], result)
    return figure


def _accuracy(result: Evaluation) -> Figure:
    """Accuracy of every policy with bands; below it forethought's paired gains. One column a cost."""
    figure = _figure(result, (5.6 * len(result.costs), 7.4))
    panels_2_C = figure.subplots(2, len(result.costs), squeeze=False, height_ratios=(2.0, 1.0), sharex="col")
    for column, cost in enumerate(result.costs):
        _accuracy_panel(panels_2_C[0, column], result, cost, (UNIFORM, BLIND, GREEDY, FORETHOUGHT, ORACLE))
        panels_2_C[0, column].set_xlabel("")
        _gain_panel(panels_2_C[1, column], result, cost)
    return figure


def _calibration(result: Evaluation) -> Figure:
    """Predicted against measured success, and how many judgements lie behind each point."""
    figure = _figure(result, (5.8, 6.8))
    upper, lower = figure.subplots(2, 1, height_ratios=(3.6, 1.0), sharex=True)
    _reliability_panel(upper, result)
    upper.set_xlabel("")
    bins = result.calibration.bins
    counts = [each.num_traces for each in bins]
    bars = lower.bar(
        [(each.lower + each.upper) / 2.0 for each in bins], counts, width=0.085, color=COLOURS[FORETHOUGHT], alpha=0.5
    )
    lower.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, padding=2)
    lower.set(xlabel="predicted success", ylabel="judgements", yticks=[], ylim=(0, 1.3 * max(counts)))
    lower.spines["left"].set_visible(False)
    return figure


def _tokens(result: Evaluation, mean_tokens: float) -> Figure:
    """Where the tokens of one level went: how many questions got which cap, and which questions got much."""
    cost = Cost.GRANTED if Cost.GRANTED in result.costs else result.costs[0]
    level = min(result.levels[cost], key=lambda each: abs(each - mean_tokens))
    rows = {row.policy: row for row in result.rows if row.cost is cost and row.budget == level}
    policies = (UNIFORM, BLIND, FORETHOUGHT, ORACLE)
    figure = _figure(result, (11.2, 5.2))
    panels: Mapping[str, Any] = figure.subplot_mosaic(
        [[policy, "groups"] for policy in policies], width_ratios=(1.1, 1.0), gridspec_kw={"wspace": 0.06}
    )
    for policy in policies:
        _shares_panel(panels[policy], result, rows[policy])
        panels[policy].tick_params(labelbottom=policy == policies[-1])
    panels[policies[0]].set_title(f"questions at each cap ({level:g} {cost.value} on average)")
    panels[policies[-1]].set_xlabel("cap on reasoning (tokens)")
    _groups_panel(panels["groups"], result, rows, cost, level)
    return figure


def _figure(result: Evaluation, size: tuple[float, float]) -> Figure:
    """An empty figure that says what was measured on how much, and across its middle when it was simulated."""
    bottom = 0.26 / size[1]  # room for the caption
    layout = ConstrainedLayoutEngine(rect=(0.0, bottom, 1.0, 1.0 - bottom), w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=size, layout=layout)
    fewest, most = result.num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    parts = [
        str(result.provenance.get("model") or "unknown model"),
        f"{result.num_queries:,} questions × {traces} traces",
        "95% bootstrap intervals",
    ]
    if result.simulated:
        parts.insert(0, "SIMULATED")
        style: dict[str, Any] = {"fontsize": min(9.0 * size[0], 14.0 * size[1]), "color": "#b00000", "alpha": 0.1}
        figure.text(0.5, 0.5, "SIMULATED", ha="center", va="center", rotation=18, **style)
    figure.text(0.995, 0.05 / size[1], " · ".join(parts), ha="right", va="bottom", fontsize=8.5, color="#555555")
    return figure


def _accuracy_panel(panel: Any, result: Evaluation, cost: Cost, policies: Sequence[str]) -> None:
    for policy in policies:
        rows = result.select(cost, policy)
        x, y = [row.realised for row in rows], [row.accuracy.value for row in rows]
        is_ours = policy == FORETHOUGHT
        panel.fill_between(
            x,
            [row.accuracy.low for row in rows],
            [row.accuracy.high for row in rows],
            color=COLOURS[policy],
            alpha=0.2 if is_ours else 0.1,
            linewidth=0,
        )
        panel.plot(
            x,
            y,
            color=COLOURS[policy],
            linestyle=STYLES[policy],
            linewidth=2.6 if is_ours else 1.5,
            marker="o" if is_ours else None,
            markersize=3.5,
            zorder=4 if is_ours else 3,
            label=NAMES[policy],
        )
    panel.set(title=TITLE[cost], xlabel=AXIS[cost], ylabel="accuracy", ylim=(0.0, None))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    # Curves rise from the lower left and meet at the upper right: names have room below, the best one on top.
    names = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    best_first = sorted(policies, key=lambda policy: -_mean_accuracy(result, cost, policy))
    labels = [NAMES[policy] for policy in best_first]
    panel.legend([names[label] for label in labels], labels, loc="lower right", **LEGEND)


def _mean_accuracy(result: Evaluation, cost: Cost, policy: str) -> float:
    return float(np.mean([row.accuracy.value for row in result.select(cost, policy)]))


def _gain_panel(panel: Any, result: Evaluation, cost: Cost) -> None:
    """Forethought's accuracy less each baseline's at the same tokens; paired, so its bands are the ones that decide."""
    rows = result.select(cost, FORETHOUGHT)
    x = [row.realised for row in rows]
    for policy, gains in ((UNIFORM, [row.gain for row in rows]), (BLIND, [row.gain_over_blind for row in rows])):
        found = [gain for gain in gains if gain is not None]
        value = [100 * gain.value for gain in found]
        low, high = [100 * gain.low for gain in found], [100 * gain.high for gain in found]
        panel.fill_between(x, low, high, color=COLOURS[policy], alpha=0.18, linewidth=0)
        panel.plot(x, value, color=COLOURS[policy], linewidth=1.8, marker="o", markersize=3, label=f"over {policy}")
    panel.axhline(0.0, color="#333333", linewidth=0.9)
    panel.set(xlabel=AXIS[cost], ylabel="forethought's gain (points)")
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.legend(loc="upper right", **LEGEND)


def _reliability_panel(panel: Any, result: Evaluation) -> None:
    bins = result.calibration.bins
    panel.plot([0, 1], [0, 1], color="#999999", linewidth=1.0, linestyle=(0, (4, 3)))
    predicted, observed = [each.predicted for each in bins], [each.observed.value for each in bins]
    reach = [
        [max(0.0, each.observed.value - each.observed.low) for each in bins],
        [max(0.0, each.observed.high - each.observed.value) for each in bins],
    ]
    panel.errorbar(predicted, observed, yerr=reach, fmt="none", ecolor=COLOURS[FORETHOUGHT], elinewidth=1.3, alpha=0.8)
    # The area of a dot follows the judgements behind it, so that a rare bin does not look like a common one.
    sizes = [14 + 130 * each.num_traces / max(each.num_traces for each in bins) for each in bins]
    # Hollow: so few questions that their interval means nothing.
    fills = [COLOURS[FORETHOUGHT] if each.num_queries >= FEWEST_QUERIES else "white" for each in bins]
    panel.scatter(predicted, observed, s=sizes, c=fills, zorder=3, edgecolor=COLOURS[FORETHOUGHT], linewidth=1.2)
    error = f"calibration error {100 * result.calibration.calibration_error:.1f} points"
    panel.text(0.97, 0.05, error, ha="right", transform=panel.transAxes, color="#333333")
    panel.set(title="predicted against measured", xlabel="predicted success", ylabel="measured success")
    panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _shares_panel(panel: Any, result: Evaluation, row: Row) -> None:
    budgets_B = result.grid.budgets_B
    panel.bar(budgets_B, row.shares, width=0.8 * result.grid.window, color=COLOURS[row.policy])
    accuracy = f"{100 * row.accuracy.value:.1f}% right"
    panel.text(0.99, 0.62, NAMES[row.policy], ha="right", transform=panel.transAxes, color=COLOURS[row.policy])
    panel.text(0.99, 0.32, accuracy, ha="right", transform=panel.transAxes, color="#444444", fontsize=9)
    panel.set(ylim=(0.0, 1.0), yticks=[0.0, 0.5, 1.0], xlim=(0.0, result.grid.maximum + result.grid.window))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _groups_panel(panel: Any, result: Evaluation, rows: Mapping[str, Row], cost: Cost, level: float) -> None:
    """Mean cap by measured difficulty: questions in groups of equal size, by their success averaged over all caps."""
    p_Q = result.measured.curves.p_Q_B.mean(axis=1)
    num_groups = min(NUM_GROUPS, result.num_queries)
    groups = np.array_split(np.argsort(p_Q, kind="stable"), num_groups)
    x = np.arange(num_groups)
    ends = {}
    widths = {BLIND: 4.5, UNIFORM: 1.5, ORACLE: 1.5, FORETHOUGHT: 2.6}  # blind's is flat as uniform's: shown under it
    for policy, width in widths.items():
        budget_Q = _mean_cap(result, rows[policy], cost, level)
        y = [float(budget_Q[group].mean()) for group in groups]
        style = {"color": COLOURS[policy], "linestyle": STYLES[policy], "marker": "o", "markersize": 4}
        panel.plot(x, y, linewidth=width, alpha=0.5 if policy == BLIND else 1.0, **style)
        ends[policy] = (float(x[-1]), y[-1])
    panel.set_xticks(x, [f"{100 * p_Q[group].mean():.0f}%" for group in groups])
    panel.set(title="who got them", ylabel="mean cap (tokens)", ylim=(0.0, None))
    panel.set_xlabel("measured success over all caps, from the hardest fifth to the easiest")
    _label_ends(panel, ends)


def _mean_cap(result: Evaluation, row: Row, cost: Cost, level: float) -> FloatArray:
    """Cap of each question, shape (Q,); the expected one where caps are handed out at random."""
    plans = result.plans.get((cost, row.policy, level))
    if plans is None:
        return np.full(result.num_queries, row.granted)
    return np.concatenate([plan.budget_Q for plan in plans]).astype(np.float64)


def _label_points(panel: Any, points: Mapping[str, tuple[float, float, str]], *, gap: float = 0.045) -> None:
    """Writes each point's name beside it, lower where another name stands there; `(x, y, colour)`, x logarithmic."""
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    panel.set_xlim(left, right)
    panel.set_ylim(low, high)
    taken: list[tuple[float, float, float]] = []  # from, to, height, as shares of the panel
    for name, (x, y, colour) in sorted(points.items(), key=lambda item: -item[1][1]):
        across = math.log(x / left) / math.log(right / left)
        start, end, height = across + 0.02, across + 0.02 + 0.021 * len(name), (y - low) / (high - low)
        place = height
        for other_start, other_end, other_height in sorted(taken, key=lambda each: -each[2]):
            if start < other_end and other_start < end and abs(place - other_height) < gap:
                place = other_height - gap
        taken.append((start, end, place))
        panel.annotate(
            name,
            xy=(x, y),
            xytext=(start, place),
            textcoords=panel.transAxes,
            va="center",
            color=colour,
            fontsize=9,
            arrowprops=None
            if place == height
            else {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6},
        )


def _label_ends(panel: Any, ends: Mapping[str, tuple[float, float]], *, gap: float = 0.055) -> None:
    """Writes each line's name to the right of its end, moved apart where ends lie closer than a line of text."""
    low, high = panel.get_ylim()
    panel.set_ylim(low, high)
    order = sorted(ends, key=lambda policy: (ends[policy][1], -list(NAMES).index(policy)), reverse=True)
    wanted = [(ends[policy][1] - low) / (high - low) for policy in order]
    places = list(wanted)
    for place in range(1, len(places)):
        places[place] = min(places[place], places[place - 1] - gap)
    shift = min(float(np.mean(np.subtract(wanted, places))), 1.0 - places[0])
    for policy, place in zip(order, places, strict=True):
        panel.annotate(
            NAMES[policy],
            xy=ends[policy],
            xytext=(1.03, max(place + shift, 0.0)),
            textcoords=panel.transAxes,
            va="center",
            color=COLOURS[policy],
            fontweight="bold" if policy == FORETHOUGHT else "normal",
            arrowprops={"arrowstyle": "-", "color": COLOURS[policy], "linewidth": 0.7, "alpha": 0.6, "shrinkB": 2},
            annotation_clip=False,
        )
