"""Plots of an evaluation. Only files with this name, and `figures`, need matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..control.plan import Plan
from ..control.planning import allocate
from ..core.data import Cost
from ..core.menu import Menu
from ..core.terms import percent
from ..evaluation.policies import BLIND, FORETHOUGHT, GREEDY, ORACLE, UNIFORM
from ..evaluation.results import Estimate, Evaluation, PolicyRow
from .colours import COLOURS
from .figures import (
    ALONE,
    LEGEND,
    LONGEST_LABEL,
    alone,
    as_svg,
    band,
    costs_along,
    count_percent,
    count_tokens,
    count_usd,
    frame,
    label_ends,
    label_points,
    reliability,
    save,
    short,
    tokens_along,
)
from .findings import MOST_NAMED, SHOWN, frontier_title, groups_title, rows_at, shares_title
from .groups import group_costs, groups
from .wording import policy_name

NAMES = {policy: policy_name(policy) for policy in (UNIFORM, BLIND, GREEDY, FORETHOUGHT, ORACLE)}
STYLES = {UNIFORM: "-", BLIND: "-", GREEDY: (0, (1, 1.2)), FORETHOUGHT: "-", ORACLE: (0, (5, 2))}
AXIS = {
    Cost.GRANTED: "tokens granted per question (mean cap)",
    Cost.SPENT: "tokens generated per question (mean)",
    Cost.USD: "USD per question (mean)",
}
MEAN = {Cost.GRANTED: "mean cap (tokens)", Cost.SPENT: "mean tokens generated", Cost.USD: "mean USD"}
INK = "#333333"  # of what belongs to no policy
MOST_LETTERS = 36  # of the names below bars
NUM_TOTALS = 25  # of a plan's picture
FEW_NAMES = 5  # of points, where there are too many for all names
FEW_CAPS = 8  # so many have a bar and a name each


def draw(result: Evaluation, folder: Path) -> dict[str, Path]:
    """Draws every picture into `folder`, which must exist, as PNG; name of the picture -> its file."""
    divided = {"tokens": Cost.GRANTED if Cost.GRANTED in result.costs else Cost.SPENT, "usd": Cost.USD}
    pictures: dict[str, Callable[[], Figure]] = {
        "summary": lambda: summary(result),
        "accuracy": lambda: _accuracy(result),
        "calibration": lambda: _calibration(result),
        **{
            name: partial(_divided, result, cost, result.headline[cost])
            for name, cost in divided.items()
            if cost in result.costs
        },
    }
    return save(pictures, folder)


def inline(result: Evaluation) -> dict[str, str]:
    """Draws the pictures of the HTML page, the same panels one by one, as SVG; name -> SVG."""
    single = partial(alone, simulated=result.simulated)
    pictures: dict[str, Callable[[], Figure]] = {}
    for cost in result.costs:
        level = result.headline[cost]
        pictures |= {
            f"accuracy-{cost.value}": partial(single, partial(_accuracy_panel, result=result, cost=cost)),
            f"gain-{cost.value}": partial(single, partial(_gain_panel, result=result, cost=cost)),
            f"shares-{cost.value}": partial(_shares, result, cost, level),
            f"groups-{cost.value}": partial(single, partial(_groups_panel, result=result, cost=cost, level=level)),
        }
    pictures["calibration"] = partial(single, partial(reliability, found=result.calibration))
    return as_svg(pictures)


def summary(result: Evaluation) -> Figure:
    """One wide plot: accuracy under each cost, and calibration."""
    figure = _figure(result, (4.0 * (len(result.costs) + 1), 4.2))
    panels = figure.subplots(1, len(result.costs) + 1)
    for panel, cost in zip(panels, result.costs, strict=False):
        _accuracy_panel(panel, result, cost)
    reliability(panels[-1], result.calibration)
    return figure


def _accuracy(result: Evaluation) -> Figure:
    """Accuracy of every policy with bands; below it forethought's paired gains. One column per cost."""
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
    reliability(upper, result.calibration)
    upper.set_xlabel("")
    bins = result.calibration.bins
    counts = [each.num_traces for each in bins]
    middles = [(each.lower + each.upper) / 2.0 for each in bins]
    bars = lower.bar(middles, counts, width=0.085, color=COLOURS[FORETHOUGHT], alpha=0.5)
    lower.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, padding=2)
    lower.set(xlabel="predicted success", ylabel="judgements", yticks=[], ylim=(0, 1.3 * max(counts)))
    lower.spines["left"].set_visible(False)
    return figure


def plan_picture(plan: Plan) -> Figure:
    """The budgets of a plan, and the expected accuracy at other totals, uniform and by this predictor.

    Everything is as predicted. The lines are the envelope's and uniform's plans for totals from the cheapest options
    to the dearest, under the plan's own bounds.
    """
    made, card = plan.allocation, plan.card
    model = "unknown model" if card is None else short(card.model or "unknown model")
    caption = [model, f"{len(plan):,} questions, {made.cost.amount(made.taken / len(plan))} each"]
    is_simulated = card is not None and card.data.simulated
    figure = frame((10.4, 4.2), caption, simulated=is_simulated, ending="as predicted, not measured")
    left, right = figure.subplots(1, 2)
    counts_B = np.bincount(plan.menu.columns(made.budget_Q), minlength=plan.menu.num_options)
    bars(left, plan.menu, counts_B.tolist(), COLOURS[FORETHOUGHT])
    noun, label = ("option", "") if plan.menu.is_named else ("cap", "cap on reasoning (tokens)")
    left.set(title=f"questions at each {noun}", xlabel=label, ylabel="questions")
    count_tokens(left.yaxis)
    left.margins(x=0.02)
    _totals_panel(right, plan)
    return figure


def _totals_panel(panel: Any, plan: Plan) -> None:
    """Expected accuracy over totals, with the plan's own place."""
    made, cost = plan.allocation, plan.allocation.cost
    costs_Q_B = plan.forecast.curves.costs_Q_B(cost)
    if costs_Q_B is None:  # planned as spent, without a usage curve: caps stand for what they cost
        cost, costs_Q_B = Cost.GRANTED, np.broadcast_to(plan.menu.budgets_B, plan.forecast.curves.p_Q_B.shape)
    low, high = (float(end_Q.mean()) for end_Q in (costs_Q_B.min(axis=1), costs_Q_B.max(axis=1)))
    along = np.geomspace if plan.menu.is_geometric and low > 0 else np.linspace

    def expected(policy: str, level: float) -> tuple[float, float]:
        name = "envelope" if policy == FORETHOUGHT else policy
        found = allocate(plan.terms, plan.queries, plan.forecast, allocator=name, left=level * len(plan))
        return found.taken / len(plan), found.expected_accuracy

    for policy in (UNIFORM, FORETHOUGHT):
        line = [expected(policy, level) for level in along(low, high, NUM_TOTALS).tolist()]
        style = {"linestyle": STYLES[policy], "linewidth": 2.6 if policy == FORETHOUGHT else 1.5}
        panel.plot(*zip(*line, strict=True), color=COLOURS[policy], label=NAMES[policy], **style)
    own = made.taken / len(plan)
    panel.plot([own], [made.expected_accuracy], marker="D", markersize=8, color=INK, markerfacecolor="white", zorder=5)
    _, uniform = expected(UNIFORM, own)
    panel.set_title(f"expected {percent(made.expected_accuracy)}, uniformly {percent(uniform)}")
    panel.set(xlabel=AXIS[cost], ylabel="expected accuracy", ylim=(0.0, 1.05 * panel.dataLim.ymax))
    count_percent(panel.yaxis)
    if plan.menu.is_named:
        costs_along(panel, [low, high], in_usd=cost is Cost.USD)
    else:
        tokens_along(panel, plan.menu)
    panel.legend(loc="lower right", **LEGEND)


def _divided(result: Evaluation, cost: Cost, near: float) -> Figure:
    """Where the level nearest to `near` went: how many questions got which option, and which questions got much."""
    level = min(result.levels[cost], key=lambda each: abs(each - near))
    figure = _figure(result, (11.2, 5.2))
    panels: Mapping[str, Any] = figure.subplot_mosaic(
        [[policy, "groups"] for policy in SHOWN], width_ratios=(1.1, 1.0), gridspec_kw={"wspace": 0.06}
    )
    _fill_shares(panels, result, cost, level)
    _groups_panel(panels["groups"], result, cost, level)
    return figure


def _shares(result: Evaluation, cost: Cost, level: float) -> Figure:
    """The left half of that."""
    figure = frame(ALONE, (), simulated=result.simulated)
    _fill_shares(figure.subplot_mosaic([[policy] for policy in SHOWN]), result, cost, level)
    return figure


def _fill_shares(panels: Mapping[str, Any], result: Evaluation, cost: Cost, level: float) -> None:
    """How many questions got which option, one policy below the other."""
    rows = rows_at(result, cost, level)
    for policy in SHOWN:
        _shares_panel(panels[policy], result, rows[policy])
        panels[policy].tick_params(labelbottom=policy == SHOWN[-1])
    panels[SHOWN[0]].set_title(shares_title(result, cost, level), pad=20.0)
    panels[SHOWN[-1]].set_xlabel("" if result.menu.is_named else "cap on reasoning (tokens)")


def _figure(result: Evaluation, size: tuple[float, float]) -> Figure:
    """An empty figure that says what was measured on how much."""
    fewest, most = result.num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    model = short(result.provenance.get("model") or "unknown model")
    return frame(size, [model, f"{result.num_queries:,} questions × {traces} traces"], simulated=result.simulated)


def _accuracy_panel(panel: Any, result: Evaluation, cost: Cost, policies: Sequence[str] = SHOWN) -> None:
    for policy in policies:
        rows = result.select(cost, policy)
        is_ours = policy == FORETHOUGHT
        band(
            panel,
            [row.realised for row in rows],
            [row.accuracy for row in rows],
            colour=COLOURS[policy],
            alpha=0.2 if is_ours else 0.1,
            linestyle=STYLES[policy],
            linewidth=2.6 if is_ours else 1.5,
            marker="o" if is_ours else None,
            markersize=3.5,
            zorder=4 if is_ours else 3,
            label=NAMES[policy],
        )
    panel.set(title=frontier_title(result, cost), xlabel=AXIS[cost], ylabel="accuracy", ylim=(0.0, None))
    count_percent(panel.yaxis)
    _costs_along(panel, result, cost)
    options = zip(result.menu.caps, result.options, strict=False)  # of caps there are none
    where = [({Cost.SPENT: each.spent, Cost.USD: each.usd}.get(cost, budget), each) for budget, each in options]
    known = {each.label: (x, each.accuracy.value, INK) for x, each in where if x is not None}
    for x, y, colour in known.values():
        panel.plot([x], [y], marker="D", markersize=5, color=colour, markerfacecolor="white", zorder=5)
    # All have their marks; of very many some have names, which would hide each other.
    step = 1 if len(known) <= MOST_NAMED else -(-len(known) // FEW_NAMES)
    named = dict(list(known.items())[::step])
    if named:
        label_points(panel, named, below=0.045, fontsize=8.5)
    # Curves rise from the lower left and meet at the upper right: names have room below, the best one on top. Their
    # order is the same in every panel, also where lines meet.
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    labels = [NAMES[policy] for policy in reversed(policies)]
    panel.legend([handles[label] for label in labels], labels, loc="lower right", **LEGEND)


def _costs_along(panel: Any, result: Evaluation, cost: Cost) -> None:
    if result.menu.is_named:
        costs_along(panel, result.levels[cost], in_usd=cost is Cost.USD)
    else:
        tokens_along(panel, result.menu)


def _gain_panel(panel: Any, result: Evaluation, cost: Cost) -> None:
    """Forethought's accuracy less each baseline's at the same tokens; paired, so its bands are the ones that decide."""
    rows = result.select(cost, FORETHOUGHT)
    x = [row.realised for row in rows]
    for policy, gains in ((UNIFORM, [row.gain for row in rows]), (BLIND, [row.gain_over_blind for row in rows])):
        found = [Estimate(100 * gain.value, 100 * gain.low, 100 * gain.high) for gain in gains if gain is not None]
        style = {"linewidth": 1.8, "marker": "o", "markersize": 3, "label": f"over {policy}"}
        band(panel, x, found, colour=COLOURS[policy], alpha=0.18, **style)
    panel.axhline(0.0, color="#333333", linewidth=0.9)
    panel.set(xlabel=AXIS[cost], ylabel="forethought's gain (points)")
    low, high = panel.get_ylim()
    if high - low < 1:  # hardly any gain looks like none
        panel.set_ylim(min(low, -1.0), max(high, 1.0))
    _costs_along(panel, result, cost)
    panel.legend(loc="best", **LEGEND)


def _shares_panel(panel: Any, result: Evaluation, row: PolicyRow) -> None:
    """How many questions got each option, whose policy it is, and how often it was right."""
    bars(panel, result.menu, row.shares, COLOURS[row.policy])
    words = f"{NAMES[row.policy]}: {percent(row.accuracy.value)} right"
    style = {"ha": "left", "va": "bottom", "color": COLOURS[row.policy], "fontsize": 9.5}
    panel.text(0.0, 1.04, words, transform=panel.transAxes, **style)  # above the bars, wherever those are high
    panel.set(ylim=(0.0, 1.0), yticks=[0.0, 0.5, 1.0])
    count_percent(panel.yaxis)


def bars(panel: Any, menu: Menu, shares: Sequence[float], colour: str) -> None:
    """Bars side by side: many evenly spaced caps at their tokens, else one next to the other, each named."""
    if menu.is_named:
        _named_bars(panel, menu, shares, colour)
    elif menu.is_even and menu.num_options > FEW_CAPS:
        step = menu.caps[1] - menu.caps[0]
        panel.bar(menu.budgets_B, shares, width=0.8 * step, color=colour)
        panel.set_xlim(min(0, menu.smallest - step // 2), menu.largest + step)
        count_tokens(panel.xaxis)
    else:
        places = np.arange(menu.num_options)
        panel.bar(places, shares, width=0.8, color=colour)
        num_letters = menu.num_options * len(f"{menu.largest:,}")
        named = places[::-1][:: -(-num_letters // MOST_LETTERS)][::-1]  # the last always
        panel.set_xticks(named, [f"{menu.caps[place]:,}" for place in named])
        panel.set_xlim(-0.6, menu.num_options - 0.4)


def _named_bars(panel: Any, menu: Menu, shares: Sequence[float], colour: str) -> None:
    """A bar for each named option; of very many some have their names below."""
    places = np.arange(menu.num_options)
    panel.bar(places, shares, width=0.8, color=colour)
    named = places[:: -(-len(places) // MOST_NAMED)]
    labels = [short(menu.labels[place], LONGEST_LABEL) for place in named]
    is_long = sum(map(len, labels)) > MOST_LETTERS
    turned: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
    panel.set_xticks(named, labels, **turned)
    panel.set_xlim(-0.6, len(places) - 0.4)


def _groups_panel(panel: Any, result: Evaluation, cost: Cost, level: float) -> None:
    """What questions took by measured difficulty: groups of equal size, by success averaged over all options."""
    found = groups(result)
    x, ends = np.arange(len(found)), {}
    widths = {BLIND: 4.5, UNIFORM: 1.5, ORACLE: 1.5, FORETHOUGHT: 2.6}  # blind's is flat as uniform's: shown under it
    for policy, width in widths.items():
        y = group_costs(result, cost, policy, level)
        style = {"color": COLOURS[policy], "linestyle": STYLES[policy], "marker": "o", "markersize": 4}
        panel.plot(x, y, linewidth=width, alpha=0.5 if policy == BLIND else 1.0, **style)
        ends[policy] = (float(x[-1]), y[-1])
    panel.set_xticks(x, [f"{100 * p:.0f}%" for _, p in found])
    title = groups_title(group_costs(result, cost, FORETHOUGHT, level), cost)
    panel.set(title=title, ylabel=MEAN[cost], ylim=(0.0, None))
    (count_usd if cost is Cost.USD else count_tokens)(panel.yaxis)
    panel.set_xlabel("measured success, from the hardest fifth to the easiest")
    label_ends(panel, ends, NAMES)
