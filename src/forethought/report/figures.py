"""Shared parts of all plots: colours, an empty figure, lines with bands, axes of tokens. Drawn without a display."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from ..core.files import replacing
from ..core.menu import Menu
from ..core.visible import one_line
from ..evaluation.policies import FORETHOUGHT
from ..evaluation.results import Calibration, Estimate
from .colours import COLOURS
from .wording import plain_number

LEGEND: dict[str, Any] = {
    "frameon": True,  # a veil over what would strike the names through
    "framealpha": 0.8,
    "edgecolor": "none",
    "labelcolor": "linecolor",
    "handlelength": 1.8,
    "borderaxespad": 0.2,
}
LONGEST_NAME = 60
NOTEBOOK_DPI = 80  # readable, and small in a notebook's file
LONGEST_LABEL = 18  # of an option below its bar
LONGEST_POINT = 24  # of one beside its point
FEWEST_QUERIES = 10
WIDE = 16  # times the cheapest level: costs stand on a logarithmic axis
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
    "svg.fonttype": "none",  # words stay words: they can be searched, read aloud and copied
}
TITLE_ROOM = 1.15  # of a panel's width before the layout, which makes panels wider
ALONE = (5.4, 4.0)  # inches of a picture on the HTML page: its words can be read on a phone, too


def save(pictures: Mapping[str, Callable[[], Figure]], folder: Path) -> dict[str, Path]:
    """Draws pictures and writes each as PNG, whole or not at all; name -> file. The same result, the same picture."""
    files = {name: folder / f"{name}.png" for name in pictures}
    for name, figure in _drawn(pictures):
        with replacing(files[name]) as opened:
            figure.savefig(opened, format="png")
    return files


def as_svg(pictures: Mapping[str, Callable[[], Figure]]) -> dict[str, str]:
    """Draws pictures as SVG without a ground and without titles, which stand beside them on the page; name -> SVG."""
    found = {}
    for name, figure in _drawn(pictures):
        for panel in figure.axes:
            panel.set_title("")
        matplotlib.rcParams["svg.hashsalt"] = name  # marks and clips go by names that no other picture has
        with io.StringIO() as text:
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
            found[name] = text.getvalue()
    return found


def _drawn(pictures: Mapping[str, Callable[[], Figure]]) -> Iterator[tuple[str, Figure]]:
    with _own_settings():
        for name, draw in pictures.items():
            figure = draw()
            FigureCanvasAgg(figure)
            _fold_titles(figure)
            yield name, figure


def _fold_titles(figure: Figure) -> None:
    """Breaks each title that is wider than its panel into lines, so that it does not run into the next panel's."""
    for panel in figure.axes:
        text, place = panel.get_title(), panel.get_subplotspec()
        if not text or place is None:
            continue
        room = TITLE_ROOM * place.get_position(figure).width * figure.bbox.width
        width = panel.title.get_window_extent().width
        if width > room:
            panel.title.set_text(textwrap.fill(text, int(len(text) * room / width)))


def alone(draw: Callable[[Any], object], *, size: tuple[float, float] = ALONE, simulated: bool = False) -> Figure:
    """A figure of one panel, which `draw` fills."""
    figure = frame(size, (), simulated=simulated)
    draw(figure.subplots())
    return figure


@contextmanager
def _own_settings() -> Iterator[None]:
    """Ours, whatever the user's are: the same picture on every machine."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # a name in any script
        yield


def drawn(make: Callable[..., Figure], *values: Any) -> Figure:
    """A figure that can be shown in a notebook, changed, or saved."""
    with _own_settings():
        figure = make(*values)
        FigureCanvasAgg(figure)
        _fold_titles(figure)
        return figure


class Picture(Figure):
    """A figure that a notebook shows, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with _own_settings():
            self.savefig(file, format="png", dpi=NOTEBOOK_DPI)
        return file.getvalue()


def short(text: object, most: int = LONGEST_NAME) -> str:
    """A name as it fits into a picture."""
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def frame(
    size: tuple[float, float],
    caption: Sequence[str],
    *,
    simulated: bool,
    w_pad: float = 0.1,
    ending: str = "95% bootstrap intervals",
) -> Figure:
    """An empty figure with what was measured below, and across its middle that it was simulated, where it was."""
    bottom = 0.26 / size[1] if caption else 0.0  # room for the caption
    layout = ConstrainedLayoutEngine(rect=(0.0, bottom, 1.0, 1.0 - bottom), w_pad=w_pad, h_pad=0.08)
    figure = Picture(figsize=size, layout=layout)
    if simulated:
        style: dict[str, Any] = {"fontsize": min(9.0 * size[0], 14.0 * size[1]), "color": "#b00000", "alpha": 0.1}
        figure.text(0.5, 0.5, "SIMULATED", ha="center", va="center", rotation=18, **style)
    text = " · ".join(["SIMULATED"] * simulated + [*caption, ending]) if caption else ""
    figure.text(0.995, 0.05 / size[1], text, ha="right", va="bottom", fontsize=8.5, color="#555555")
    return figure


def band(panel: Any, x: Sequence[float], found: Sequence[Estimate], *, colour: str, alpha: float, **line: Any) -> None:
    """Values as a line, their intervals as a band around it; a single one as a dot with a bar."""
    value, low, high = ([getattr(each, name) for each in found] for name in ("value", "low", "high"))
    if len(found) == 1:
        reach = [[max(0.0, value[0] - low[0])], [max(0.0, high[0] - value[0])]]
        panel.errorbar(x, value, yerr=reach, color=colour, elinewidth=1.3, **(line | {"marker": "o"}))
        return
    panel.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)
    panel.plot(x, value, color=colour, **line)


def count_tokens(axis: Any, num_ticks: int = 6) -> None:
    """Whole numbers of tokens along a linear axis, with separators of thousands as in the texts."""
    axis.set_major_locator(MaxNLocator(num_ticks, integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def tokens_along(panel: Any, menu: Menu, *, num_ticks: int = 6) -> None:
    """Tokens along x: logarithmic where the menu's caps are, linear up to the first cap above 0 where 0 is one."""
    low, high = panel.dataLim.intervalx
    left, right = panel.get_xlim()
    if right - left < 1:  # one level: an axis of fractions of a token would name one number at every tick
        panel.set_xlim(left - 1.5, right + 1.5)
    caps = [cap for cap in menu.caps if 0.9 * low <= cap <= 1.1 * high]
    if not menu.is_geometric or len(caps) < 2:  # what is spent may lie between two caps
        count_tokens(panel.xaxis, num_ticks)
        return
    first = next(cap for cap in menu.caps if cap)
    if low < first / 2:
        panel.set_xscale("symlog", base=2, linthresh=first, linscale=0.5)
    else:
        panel.set_xscale("log", base=2)
    margin = (high / max(low, first)) ** 0.04
    panel.set_xlim(-0.15 * first if low < first / 2 else low / margin, high * margin)
    caps = [cap for cap in caps if cap <= high * margin and (cap >= low / margin or low < first / 2)]
    panel.xaxis.set_major_locator(FixedLocator(sorted(caps[:: -max(1, -(-len(caps) // num_ticks))])))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def costs_along(panel: Any, levels: Sequence[float], *, in_usd: bool, num_ticks: int = 6) -> None:
    """What named options cost along x, in tokens or USD: logarithmic where the levels span much."""
    if levels[0] > 0 and levels[-1] >= WIDE * levels[0]:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(10.0, (1.0, 2.0, 5.0), numticks=3 * num_ticks))
        panel.xaxis.set_minor_locator(NullLocator())
    else:
        panel.xaxis.set_major_locator(MaxNLocator(num_ticks, integer=not in_usd))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: plain_number(number)))


def count_usd(axis: Any) -> None:
    """USD along a linear axis."""
    axis.set_major_formatter(FuncFormatter(lambda number, _: plain_number(number)))


def label_points(
    panel: Any,
    points: Mapping[str, tuple[float, float, str]],
    *,
    gap: float = 0.05,
    below: float = 0.0,
    fontsize: float = 9.0,
) -> None:
    """Writes each point's name next to it, lower if another name is there, within the panel.

    Args:
        panel: whose limits are as they shall stay.
        points: name -> (x, y, colour).
        gap: between two names, as a share of the panel's height.
        below: how far a name stands below its point, as a share of that height.
        fontsize: of the names.
    """
    panel.set_xlim(panel.get_xlim())
    panel.set_ylim(panel.get_ylim())
    taken: list[tuple[float, float, float]] = []  # from, to, height, as shares of the panel
    for name, (x, y, colour) in sorted(points.items(), key=lambda item: -item[1][1]):
        across, height = panel.transAxes.inverted().transform(panel.transData.transform((x, y))).tolist()
        text = short(name, LONGEST_POINT)
        length, is_beyond = 0.02 * len(text), across + 0.02 + 0.02 * len(text) > 1.0
        start = across - 0.02 - length if is_beyond else across + 0.02
        end, wanted = start + length, height - below
        place = wanted
        for other_start, other_end, other_height in sorted(taken, key=lambda each: -each[2]):
            if start < other_end and other_start < end and abs(place - other_height) < gap:
                place = other_height - gap
        taken.append((start, end, place))
        panel.annotate(
            text,
            xy=(x, y),
            xytext=(end if is_beyond else start, max(place, 0.01)),
            textcoords=panel.transAxes,
            ha="right" if is_beyond else "left",
            va="center",
            color=colour,
            fontsize=fontsize,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},  # no bar strikes it through
            arrowprops=None
            if place == wanted
            else {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6},
        )


def count_percent(axis: Any) -> None:
    """Shares along an axis, as percent: whole where the ticks are."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%"))


def reliability(panel: Any, found: Calibration, *, colour: str = COLOURS[FORETHOUGHT]) -> None:
    """Predicted against measured success; the area of a dot follows the judgements behind it."""
    bins = found.bins
    panel.plot([0, 1], [0, 1], color="#999999", linewidth=1.0, linestyle=(0, (4, 3)))
    predicted, observed = [each.predicted for each in bins], [each.observed.value for each in bins]
    reach = [
        [max(0.0, each.observed.value - each.observed.low) for each in bins],
        [max(0.0, each.observed.high - each.observed.value) for each in bins],
    ]
    panel.errorbar(predicted, observed, yerr=reach, fmt="none", ecolor=colour, elinewidth=1.3, alpha=0.8)
    sizes = [14 + 130 * each.num_traces / max(each.num_traces for each in bins) for each in bins]
    # Hollow: so few questions that their interval means nothing.
    fills = [colour if each.num_queries >= FEWEST_QUERIES else "white" for each in bins]
    panel.scatter(predicted, observed, s=sizes, c=fills, zorder=3, edgecolor=colour, linewidth=1.2)
    error = f"calibration error {100 * found.calibration_error:.1f} points"
    panel.text(0.97, 0.05, error, ha="right", transform=panel.transAxes, color="#333333")
    panel.set(title="predicted against measured", xlabel="predicted success", ylabel="measured success")
    panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    for axis in (panel.xaxis, panel.yaxis):
        count_percent(axis)


def label_ends(panel: Any, ends: Mapping[str, tuple[float, float]], names: Mapping[str, str]) -> None:
    """Writes each line's name to the right of its end, moved apart where ends lie closer than a line of text."""
    gap = 0.055
    low, high = panel.get_ylim()
    panel.set_ylim(low, high)
    order = sorted(ends, key=lambda policy: (ends[policy][1], -list(names).index(policy)), reverse=True)
    wanted = [(ends[policy][1] - low) / (high - low) for policy in order]
    places = list(wanted)
    for place in range(1, len(places)):
        places[place] = min(places[place], places[place - 1] - gap)
    shift = min(float(np.mean(np.subtract(wanted, places))), 1.0 - places[0])
    for policy, place in zip(order, places, strict=True):
        panel.annotate(
            names[policy],
            xy=ends[policy],
            xytext=(1.03, max(place + shift, 0.0)),
            textcoords=panel.transAxes,
            va="center",
            color=COLOURS[policy],
            fontweight="bold" if policy == FORETHOUGHT else "normal",
            arrowprops={"arrowstyle": "-", "color": COLOURS[policy], "linewidth": 0.7, "alpha": 0.6, "shrinkB": 2},
            annotation_clip=False,
        )
