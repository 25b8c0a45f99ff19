"""The plot of the study: errors, accuracy and correlation by layer; drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...evaluation import Estimate
from ...report.colours import COLOURS
from ...report.figures import LEGEND, alone, as_svg, band, frame, save, short, tokens_along
from .results import PAPER_RANGE, LayerStudy
from .wording import POOLING, share_words, study_words

POOLING_COLOURS = {"last": "#0072b2", "mean": "#c0392b"}
MARKERS = {"last": "o", "mean": "s"}
STYLES = {"last": "-", "mean": (0, (5, 1.5))}
SIZE = (15.6, 9.2)


def draw(result: LayerStudy, folder: Path) -> dict[str, Path]:
    """Draws the picture into `folder` as PNG; the same study gives the same picture.

    Returns:
        Its name -> its file.
    """
    return save({"layers": lambda: _figure(result)}, folder)


def inline(result: LayerStudy) -> dict[str, str]:
    """Draws the same panels one by one for the HTML page, as SVG; name -> SVG."""
    panels: dict[str, Callable[[Any], None]] = {
        "loss": partial(_loss_panel, result=result),
        "above": partial(_above_panel, result=result),
        "correlation": partial(_correlation_panel, result=result),
    }
    for place in range(len(result.levels)):
        panels[f"gain-{place}"] = partial(_gain_panel, result=result, column=place, is_alone=True)
    single = partial(alone, simulated=result.simulated)
    return as_svg({name: partial(single, panel) for name, panel in panels.items()})


def _figure(result: LayerStudy) -> Figure:
    caption = [short(study_words(result)), "leave-one-out ridge"]
    figure = frame(SIZE, caption, simulated=result.simulated)
    halves: Any = figure.subfigures(2, 1)
    upper, lower = halves
    panels = upper.subplots(1, 3)
    _loss_panel(panels[0], result)
    _above_panel(panels[1], result)
    _correlation_panel(panels[2], result)
    panels = lower.subplots(1, len(result.levels), squeeze=False, sharey=True)[0]
    for column, panel in enumerate(panels):
        _gain_panel(panel, result, column, is_alone=column == 0)
    return figure


def _loss_panel(panel: Any, result: LayerStudy) -> None:
    """Log loss of every layer, and of the mean curve."""
    for verdict in result.verdicts:
        rows = result.select(verdict.pooling)
        _line(panel, verdict.pooling, [row.layer for row in rows], [row.log_loss for row in rows])
        best = result.best(verdict)
        panel.plot([best.layer], [best.log_loss.value], marker="*", markersize=15, color="black", zorder=5)
    mean = result.mean_curve.log_loss.value
    panel.axhline(mean, color=COLOURS["uniform"], linewidth=1.2, linestyle=(0, (4, 3)), label="mean curve (blind)")
    panel.set(title="log loss (star: the best layer)", ylabel="nats per trace and budget")
    _layer_axis(panel, result, is_named=True)
    panel.legend(loc="best", **LEGEND)


def _above_panel(panel: Any, result: LayerStudy) -> None:
    """Paired differences to the best layer: these bands, not those of the losses, tell layers apart."""
    for verdict in result.verdicts:
        rows = result.select(verdict.pooling)
        _line(panel, verdict.pooling, [row.layer for row in rows], [row.above_best for row in rows])
        ringed = [(row.layer, row.above_best.value) for row in rows if row.layer in verdict.may_be_best]
        colour = POOLING_COLOURS[verdict.pooling]
        panel.scatter(*zip(*ringed, strict=True), s=75, facecolors="none", edgecolors=colour, linewidths=1.2, zorder=4)
    panel.axhline(0.0, color="#333333", linewidth=0.9)
    panel.set(
        title="log loss less the best layer's, paired (rings: may be the best)", ylabel="nats per trace and budget"
    )
    # Early layers lie far above the rest; what is to be told apart lies near 0.
    highest = sorted(row.above_best.value for row in result.rows)[int(0.85 * (len(result.rows) - 1))]
    lowest = min(row.above_best.low for row in result.rows if row.above_best.value <= highest)
    panel.set_ylim(min(lowest, 0.0) - 0.05 * highest, 1.3 * highest if highest > 0.0 else None)
    _layer_axis(panel, result, is_named=True)


def _gain_panel(panel: Any, result: LayerStudy, column: int, *, is_alone: bool) -> None:
    """Accuracy of the plans at one level, above that of blind: paired, so that the bands tell layers from blind."""
    blind = result.mean_curve.accuracy[column].value
    for pooling in result.poolings:
        rows = result.select(pooling)
        found = [_in_points(row.gain_over_blind[column]) for row in rows]
        _line(panel, pooling, [row.layer for row in rows], found)
    panel.axhline(0.0, color=COLOURS["blind"], linewidth=1.6, label="blind (the mean curve's best split)")
    uniform = 100 * (result.uniform[column].value - blind)
    panel.axhline(uniform, color=COLOURS["uniform"], linewidth=1.2, linestyle=(0, (4, 3)), label="uniform")
    panel.set_title(f"right at {result.levels[column]:,.6g} granted tokens (blind: {100 * blind:.1f}%)")
    _layer_axis(panel, result)
    if is_alone:  # else the panel to its left names them
        panel.set_ylabel("accuracy less blind's (points)")
        panel.legend(loc="best", **LEGEND)


def _in_points(found: Estimate) -> Estimate:
    return Estimate(100 * found.value, 100 * found.low, 100 * found.high)


def _correlation_panel(panel: Any, result: LayerStudy) -> None:
    """Correlation with measured success at every budget, of the best layer of each pooling."""
    for verdict in result.verdicts:
        label = f"{POOLING[verdict.pooling]}, {share_words(verdict.best, result.depth)}"
        found = result.best(verdict).pearson
        _line(panel, verdict.pooling, result.menu.budgets_B.tolist(), found, label=label)
    panel.axhline(0.0, color="#333333", linewidth=0.9)
    panel.set(title="correlation with measured success, best layers", xlabel="cap on reasoning (tokens)")
    low, high = panel.get_ylim()
    panel.set(ylabel="Pearson's r", ylim=(min(0.0, low), high + 0.22 * (high - min(0.0, low))))  # room for the names
    tokens_along(panel, result.menu, num_ticks=8)
    panel.legend(loc="upper right", **LEGEND)


def _layer_axis(panel: Any, result: LayerStudy, *, is_named: bool = False) -> None:
    """Layers along x, and the paper's range in the background."""
    if result.depth is not None:
        first, last, whole = PAPER_RANGE
        left, right = (edge * result.depth / whole for edge in (first, last))
        panel.axvspan(left, right, color="#000000", alpha=0.06, linewidth=0)
        if is_named:
            veil = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.0}
            place = {"ha": "center", "va": "top", "fontsize": 8, "transform": panel.get_xaxis_transform()}
            place |= {"bbox": veil, "zorder": 6}
            text = f"the paper's\n{first} to {last} of {whole}"
            panel.text((left + right) / 2, 0.985, text, color="#555555", **place)
    panel.set_xlabel("layer (0: embeddings)")
    panel.xaxis.set_major_locator(MaxNLocator(15, steps=[1, 2, 4, 5, 10], integer=True))


def _line(panel: Any, pooling: str, x: Sequence[float], found: Sequence[Estimate], *, label: str = "") -> None:
    style: dict[str, Any] = {"linestyle": STYLES[pooling], "marker": MARKERS[pooling], "markersize": 3.5}
    style |= {"linewidth": 1.8, "label": label or POOLING[pooling]}
    band(panel, x, found, colour=POOLING_COLOURS[pooling], alpha=0.14, **style)
