"""The plots of a comparison of votes: accuracy against tokens with the samples as colour, and where samples went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.core.data import FloatArray
from forethought.evaluation.policies import BLIND, FORETHOUGHT, GREEDY, ORACLE, UNIFORM
from forethought.report.colours import COLOURS
from forethought.report.figures import LEGEND, band, costs_along, count_percent, frame, save
from votes_frontiers import PricedRule, VoteComparison

LINES = {
    "uniform": (COLOURS[UNIFORM], "-"),
    "single": (COLOURS[UNIFORM], ":"),
    "adaptive": (COLOURS[BLIND], "-"),
    "early stopping": (COLOURS[BLIND], ":"),
    "blend": (COLOURS[GREEDY], "-"),
    "plan": (COLOURS[FORETHOUGHT], ":"),
    "waves": (COLOURS[FORETHOUGHT], "--"),
    "plan and waves": (COLOURS[FORETHOUGHT], "-"),
    "fair oracle": (COLOURS[ORACLE], "-"),
    "oracle": (COLOURS[ORACLE], ":"),
}
PALETTE = "viridis"
BINS = 6  # of the share of right samples
BAND = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class VotePicture:
    """What is drawn of one comparison.

    Attributes:
        comparison: of the rules.
        rules: what they did, the one whose samples are shown last.
        caption: what was measured.
        simulated: whether it was simulated.
        tokens_N, right_N, samples_N: mean tokens and accuracy of each option with each number of samples, as dots.
        share_Q: share of each question's samples that are right.
        with_accuracy: False to show differences alone.
    """

    comparison: VoteComparison
    rules: Sequence[PricedRule]
    caption: Sequence[str]
    simulated: bool
    tokens_N: FloatArray
    right_N: FloatArray
    samples_N: FloatArray
    share_Q: FloatArray
    with_accuracy: bool = True


def draw_votes(pictured: VotePicture, folder: Path) -> dict[str, Path]:
    """Draws one comparison into `folder` as `votes.png`."""
    return save({"votes": partial(votes_picture, pictured)}, folder)


def votes_picture(pictured: VotePicture) -> Figure:
    """Accuracy against spent tokens, or the gain over uniform; beside it where samples went."""
    figure = frame((11.0, 4.6), pictured.caption, simulated=pictured.simulated)
    left, right = figure.subplots(1, 2)
    if pictured.with_accuracy:
        _accuracy_panel(figure, left, pictured)
    else:
        _gain_panel(left, pictured)
    costs_along(left, pictured.comparison.levels, in_usd=False)
    left.legend(loc="lower right" if pictured.with_accuracy else "upper right", fontsize=8.5, **LEGEND)
    _samples_panel(right, pictured)
    return figure


def _accuracy_panel(figure: Figure, panel: Any, pictured: VotePicture) -> None:
    levels = pictured.comparison.levels
    shown = (0.5 * levels[0] <= pictured.tokens_N) & (pictured.tokens_N <= 1.1 * levels[-1])
    dots = panel.scatter(
        pictured.tokens_N[shown], pictured.right_N[shown], c=pictured.samples_N[shown], cmap=PALETTE, s=14, alpha=0.8
    )
    bar = figure.colorbar(dots, ax=panel, pad=0.01, fraction=0.04)
    bar.set_label("samples, the same for all", fontsize=8.5)
    for name, (colour, dashes) in LINES.items():
        found = [row.accuracy for row in pictured.comparison.rows if row.rule == name]
        if found and name != "oracle":
            style = {"label": name, "linestyle": dashes, "linewidth": 1.5}
            band(panel, levels, found, colour=colour, alpha=BAND if name == pictured.rules[-1].name else 0.0, **style)
    low = min(row.accuracy.value for row in pictured.comparison.rows)
    high = max(row.accuracy.value for row in pictured.comparison.rows if row.rule != "oracle")
    panel.set_ylim(low - 0.1 * (high - low), high + 0.15 * (high - low))
    panel.set(title="accuracy", xlabel="tokens spent per question")
    count_percent(panel.yaxis)


def _gain_panel(panel: Any, pictured: VotePicture) -> None:
    levels = pictured.comparison.levels
    for name, (colour, dashes) in LINES.items():
        found = [row.gain for row in pictured.comparison.rows if row.rule == name and row.gain is not None]
        if found and name != "oracle":
            style = {"label": name, "linestyle": dashes, "linewidth": 1.5}
            band(panel, levels, found, colour=colour, alpha=BAND if name == pictured.rules[-1].name else 0.0, **style)
    panel.axhline(0.0, color=COLOURS[UNIFORM], linewidth=1.0)
    panel.set(title="gain over uniform", xlabel="tokens spent per question")
    count_percent(panel.yaxis)


def _samples_panel(panel: Any, pictured: VotePicture) -> None:
    """Samples per question against the share of its samples that are right, at a low, a middle and a high level."""
    rule, levels = pictured.rules[-1], pictured.comparison.levels
    edges = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    bin_Q = np.searchsorted(edges, pictured.share_Q, side="right")
    known = [number for number in range(BINS) if (bin_Q == number).any()]
    places = [pictured.share_Q[bin_Q == number].mean() for number in known]
    for level, shade in zip((levels[len(levels) // 4], levels[len(levels) // 2], levels[-1]), (0.35, 0.65, 1.0)):  # noqa: B905
        column = int(np.abs(rule.tokens_Q_P.mean(axis=0) - level).argmin())
        means = [rule.samples_Q_P[bin_Q == number, column].mean() for number in known]
        spent = rule.tokens_Q_P[:, column].mean()
        panel.plot(
            places, means, color=COLOURS[FORETHOUGHT], alpha=shade, marker="o", markersize=4, label=f"{spent:,.0f}"
        )
    panel.set(title=f"where samples went: {rule.name}", xlabel="share of the question's samples that are right")
    panel.set(ylabel="samples per question")
    panel.set_ylim(bottom=0.0)
    panel.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    panel.legend(title="tokens spent", fontsize=8.5, loc="best", **(LEGEND | {"labelcolor": "#444444"}))
