"""Pictures of an evaluation, drawn without a screen. Only files called so need matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from ..core.data import Cost, FloatArray
from ..core.files import replacing
from ..core.visible import one_line
from ..evaluation import Evaluation, Row
from ..evaluation.policies import BLIND, FORETHOUGHT, GREEDY, ORACLE, UNIFORM

# Okabe and Ito's palette, a little darker: told apart by lightness too, by readers who see fewer hues and in grey.
COLOURS = {UNIFORM: "#5f5f5f", BLIND: "#d98200", GREEDY: "#c06a9d", FORETHOUGHT: "#0072b2", ORACLE: "#009e73"}
NAMES = {UNIFORM: "uniform", BLIND: "blind", GREEDY: "greedy", FORETHOUGHT: "forethought", ORACLE: "exact oracle"}
STYLES = {UNIFORM: "-", BLIND: "-", GREEDY: (0, (1, 1.2)), FORETHOUGHT: "-", ORACLE: (0, (5, 2))}
AXIS = {Cost.GRANTED: "tokens granted a question (mean cap)", Cost.SPENT: "tokens generated a question (mean)"}
TITLE = {Cost.GRANTED: "equal granted tokens", Cost.SPENT: "equal spent tokens"}
LEGEND: dict[str, Any] = {
    "frameon": True,  # a veil over what would strike the names through
    "framealpha": 0.8,
    "edgecolor": "none",
    "labelcolor": "linecolor",
    "handlelength": 1.8,
    "borderaxespad": 0.2,
}
LONGEST_NAME = 60
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
    "text.parse_math": False,  # a name with two dollars in it is a name
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
    return save(pictures, folder)


def save(pictures: Mapping[str, Callable[[], Figure]], folder: Path) -> dict[str, Path]:
    """Draws pictures without a screen and writes each as PNG, whole or not at all; name -> file."""
    files = {name: folder / f"{name}.png" for name in pictures}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # a name in any script
        for name, file in files.items():
            figure = pictures[name]()
            FigureCanvasAgg(figure)
            with replacing(file) as opened:
                figure.savefig(opened, format="png")
    return files


def short(text: object) -> str:
    """A name as it fits into a picture."""
    line = one_line(text)
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def frame(size: tuple[float, float], caption: Sequence[str], *, simulated: bool, w_pad: float = 0.1) -> Figure:
    """An empty figure with what was measured below, and across its middle that it was simulated, where it was."""
    bottom = 0.26 / size[1]  # room for the caption
    layout = ConstrainedLayoutEngine(rect=(0.0, bottom, 1.0, 1.0 - bottom), w_pad=w_pad, h_pad=0.08)
    figure = Figure(figsize=size, layout=layout)
    if simulated:
        style: dict[str, Any] = {"fontsize": min(9.0 * size[0], 14.0 * size[1]), "color": "#b00000", "alpha": 0.1}
        figure.text(0.5, 0.5, "SIMULATED", ha="center", va="center", rotation=18, **style)
    text = " · ".join(["SIMULATED"] * simulated + list(caption))
    figure.text(0.995, 0.05 / size[1], text, ha="right", va="bottom", fontsize=8.5, color="#555555")
    return figure


def count_tokens_along(axis: Any, num_ticks: int = 6) -> None:
    """Whole numbers of tokens along an axis, with separators of thousands as in the texts."""
    axis.set_major_locator(MaxNLocator(num_ticks, integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


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
    panels[policies[0]].set_title(f"questions at each cap ({level:,.6g} {cost.value} on average)")
    panels[policies[-1]].set_xlabel("cap on reasoning (tokens)")
    _groups_panel(panels["groups"], result, rows, cost, level)
    return figure


def _figure(result: Evaluation, size: tuple[float, float]) -> Figure:
    """An empty figure that says what was measured on how much."""
    fewest, most = result.num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    parts = [
        short(result.provenance.get("model") or "unknown model"),
        f"{result.num_queries:,} questions × {traces} traces",
        "95% bootstrap intervals",
    ]
    return frame(size, parts, simulated=result.simulated)


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
    count_tokens_along(panel.xaxis)
    # Curves rise from the lower left and meet at the upper right: names have room below, the best one on top. Their
    # order is the same in every panel, also where lines meet.
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    labels = [NAMES[policy] for policy in reversed(policies)]
    panel.legend([handles[label] for label in labels], labels, loc="lower right", **LEGEND)


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
    count_tokens_along(panel.xaxis)
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
    budgets_B = result.menu.budgets_B
    panel.bar(budgets_B, row.shares, width=0.8 * result.menu.smallest, color=COLOURS[row.policy])
    accuracy = f"{100 * row.accuracy.value:.1f}% right"
    panel.text(0.99, 0.62, NAMES[row.policy], ha="right", transform=panel.transAxes, color=COLOURS[row.policy])
    panel.text(0.99, 0.32, accuracy, ha="right", transform=panel.transAxes, color="#444444", fontsize=9)
    panel.set(ylim=(0.0, 1.0), yticks=[0.0, 0.5, 1.0], xlim=(0.0, result.menu.largest + result.menu.smallest))
    count_tokens_along(panel.xaxis)
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
    count_tokens_along(panel.yaxis)
    panel.set_xlabel("measured success over all caps, from the hardest fifth to the easiest")
    _label_ends(panel, ends)


def _mean_cap(result: Evaluation, row: Row, cost: Cost, level: float) -> FloatArray:
    """Cap of each question, shape (Q,); the expected one where caps are handed out at random."""
    plans = result.plans.get((cost, row.policy, level))
    if plans is None:
        return np.full(result.num_queries, row.granted)
    return np.concatenate([plan.budget_Q for plan in plans]).astype(np.float64)


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
