"""Pictures are drawn, are what they say, and say when they are simulated. Whether they are good, a person must see."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation_data import OPTIONS, made_up, named, profile, synthetic

pytest.importorskip("matplotlib", reason="needs matplotlib")

from forethought import report
from forethought.core.data import Cost
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.evaluation import Evaluation, evaluate
from forethought.report import plots
from forethought.report.figures import drawn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate(*synthetic(40, noise=1.0), num_resamples=100, mean_tokens=[32, 64, 128])


def texts(figure: Any) -> list[str]:
    return [each.get_text() for each in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_report_draws_and_links_every_picture(result: Evaluation, tmp_path: Path) -> None:
    files = report.page(result).write(tmp_path, plots=True)
    pictures = {name: file for name, file in files.items() if file.suffix == ".png"}
    assert set(pictures) == {"summary", "accuracy", "calibration", "tokens"}
    page = files["markdown"].read_text("utf-8")
    for name, file in pictures.items():
        content = file.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert int.from_bytes(content[16:20], "big") >= 800  # wide enough to be read
        assert f"![{name}]({file.name})" in page


FIGURES = {
    "summary": plots.summary,
    "accuracy": plots._accuracy,
    "calibration": plots._calibration,
    "tokens": lambda result: plots._divided(result, Cost.GRANTED, 64.0),
}


@pytest.mark.parametrize("name", ["summary", "tokens"])
def test_titles_of_panels_side_by_side_do_not_overlap(name: str, result: Evaluation) -> None:
    figure = drawn(FIGURES[name], result)
    figure.draw_without_rendering()
    boxes = [panel.title.get_window_extent() for panel in figure.axes if panel.get_title()]
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
@pytest.mark.parametrize("simulated", [True, False])
def test_every_picture_says_when_it_is_simulated_and_on_how_much(
    draw: Any, simulated: bool, result: Evaluation
) -> None:
    found = texts(draw(replace(result, simulated=simulated)))
    assert ("SIMULATED" in found) is simulated
    assert any("40 questions × 4 traces" in text for text in found)


def test_accuracy_has_a_line_and_a_band_for_every_policy_and_both_costs(result: Evaluation) -> None:
    figure = plots._accuracy(result)
    for panel, cost in zip(figure.axes[:2], (Cost.GRANTED, Cost.SPENT), strict=True):
        lines = {line.get_label(): line for line in panel.get_lines()}
        assert set(lines) == {"uniform", "blind", "greedy", "forethought", "exact oracle"}
        assert len(panel.collections) == len(lines)
        rows = result.select(cost, "forethought")
        assert list(lines["forethought"].get_xdata()) == [row.realised for row in rows]
        assert list(lines["forethought"].get_ydata()) == [row.accuracy.value for row in rows]
    assert {text for text in texts(figure) if text.startswith("over ")} == {"over uniform", "over blind"}


def test_calibration_shows_counts(result: Evaluation) -> None:
    found = texts(plots._calibration(result))
    assert all(f"{each.num_traces:,}" in found for each in result.calibration.bins)


def test_budgets_are_those_of_the_nearest_level(result: Evaluation) -> None:
    figure = plots._divided(result, Cost.GRANTED, 70.0)
    assert any("At 64 granted tokens" in text for text in texts(figure))
    panels = {panel.get_label(): panel for panel in figure.axes}
    for policy in ("uniform", "blind", "forethought", "oracle"):
        (row,) = [row for row in result.select(Cost.GRANTED, policy) if row.budget == 64.0]
        assert tuple(bar.get_height() for bar in panels[policy].patches) == row.shares


ODD: dict[str, dict[str, Any]] = {
    "one cost": {"costs": [Cost.SPENT]},
    "one level": {"mean_tokens": [64]},
    "both": {"costs": [Cost.GRANTED], "mean_tokens": [64]},
}


@pytest.mark.parametrize("options", ODD.values(), ids=ODD.keys())
def test_narrow_evaluations_can_be_drawn(options: Any, tmp_path: Path) -> None:
    found = evaluate(*synthetic(12), num_resamples=100, **options)
    assert all(file.stat().st_size > 0 for file in plots.draw(found, tmp_path).values())


MENUS = {
    "geometric:256:32768": ("log", [512, 2048, 8192, 32768]),
    "0,16,32,64,128,256,512": ("symlog", [0, 32, 128, 512]),
    "512,2048,8192": ("log", [512, 2048, 8192]),
    "16:256:16": ("linear", None),
}


@pytest.mark.parametrize(("menu", "scale", "ticks"), [(menu, *found) for menu, found in MENUS.items()])
def test_tokens_are_shown_on_the_axis_that_fits_the_menu(menu: str, scale: str, ticks: list[int] | None) -> None:
    result = evaluate(*made_up(menu, num_queries=30), num_resamples=100)
    panel = plots._accuracy(result).axes[0]
    assert panel.get_xscale() == scale
    low, high = panel.get_xlim()
    assert all(low <= x <= high for line in panel.get_lines() for x in line.get_xdata())
    assert ticks is None or list(panel.get_xticks()) == ticks
    bars = {panel.get_label(): panel for panel in plots._divided(result, Cost.GRANTED, 64.0).axes}[
        "forethought"
    ].patches
    assert len(bars) == result.menu.num_options
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(edges))


def test_thoughts_that_end_before_the_smallest_cap_can_be_drawn(tmp_path: Path) -> None:
    measured, predicted, mean = made_up("512,2048,8192", num_queries=20)
    tokens_Q_B = np.minimum(measured.tokens_Q_B, 140.0 + np.arange(3))
    found = evaluate(
        replace(measured, tokens_Q_B=tokens_Q_B),
        replace(predicted, tokens_Q_B=tokens_Q_B),
        replace(mean, tokens_Q_B=tokens_Q_B[:1]),
        num_resamples=100,
    )
    assert len(plots.draw(found, tmp_path)) == 4


@pytest.mark.parametrize("menu", ["64", "0,512", "100,1000", "7,11,13"])
def test_few_caps_have_a_bar_and_a_name_each(menu: str) -> None:
    """Evenly spaced or not: an axis of tokens would name caps that are none, below 0 too."""
    caps = Menu.parse(menu)
    figure = plots._divided(
        evaluate(*made_up(menu, num_queries=20), num_resamples=100), Cost.GRANTED, float(caps.largest)
    )
    axes = [axis for axis in figure.axes if axis.get_xlabel() == "cap on reasoning (tokens)"]
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == [f"{cap:,}" for cap in caps.caps]


def test_a_profile_of_one_query_can_be_drawn(tmp_path: Path) -> None:
    measured = profile([[0, 1]], 1, [[5.0, 9.0]])
    found = evaluate(measured, measured.curves, measured.curves, num_resamples=100)
    assert len(plots.draw(found, tmp_path)) == 4


def test_the_same_evaluation_gives_the_same_picture(result: Evaluation, tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        plots._calibration(result).savefig(tmp_path / name, format="png", dpi=40)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1]


def ticks(axis: Any) -> dict[str, float]:
    """Text -> place of what is seen."""
    axis.axes.figure.canvas.draw()
    low, high = axis.get_view_interval()
    seen = [at for at in axis.get_ticklocs() if low <= at <= high]
    texts = axis.get_major_formatter().format_ticks(seen)
    assert len(set(texts)) == len(texts)
    return dict(zip(texts, seen, strict=True))


def test_ticks_say_where_they_are() -> None:
    """Of small shares as of large ones; and no number is written twice where there is one level."""
    measured, predicted, mean = made_up("512,1024", num_queries=20)
    few = np.zeros_like(measured.num_right_Q_B)
    few[:3] = 1
    alike = [replace(each, tokens_Q_B=np.full_like(each.tokens_Q_B, 124.8)) for each in (measured, predicted, mean)]
    alike[0] = replace(alike[0], num_right_Q_B=few)
    figure = plots._accuracy(evaluate(*alike, num_resamples=100))
    for panel in figure.axes:
        ticks(panel.xaxis)
        ticks(panel.yaxis)
    for text, at in ticks(figure.axes[0].yaxis).items():
        assert float(text.rstrip("%")) / 100 == pytest.approx(at)
    low, high = figure.axes[0].get_xlim()
    assert low <= 512 < 1024 <= high


def test_named_options_are_marked_and_money_has_pictures_of_its_own(tmp_path: Path) -> None:
    found = evaluate(*named(30), num_resamples=100)
    assert set(plots.draw(found, tmp_path)) == {
        "summary",
        "accuracy",
        "calibration",
        "tokens",
        "usd",
    }
    labels = {option.label for option in OPTIONS}
    accuracy = plots._accuracy(found)
    for panel, axis in zip(
        accuracy.axes[:2], ("tokens generated per question (mean)", "USD per question (mean)"), strict=True
    ):
        assert labels <= {text.get_text() for text in panel.texts}
        assert axis in texts(accuracy)
    places = {text.get_text(): text.xy for text in accuracy.axes[1].texts}
    for option in found.options:
        assert places[option.label] == pytest.approx((option.usd, option.accuracy.value))
    divided = plots._divided(found, Cost.USD, found.levels[Cost.USD][3])
    assert {"mean USD", *labels} <= set(texts(divided))
    assert any(text.startswith("At 0.00") for text in texts(divided))
    bars = {panel.get_label(): panel for panel in divided.axes}["forethought"].patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1.0)


def test_one_level_has_a_dot_and_a_bar_for_every_policy() -> None:
    found = evaluate(*made_up("16:64:16", num_queries=20), costs=[Cost.SPENT], mean_tokens=[20], num_resamples=100)
    (panel, *_) = plots.summary(found).axes
    assert {str(each.get_label()) for each in panel.containers} == set(plots.NAMES.values()) - {"greedy"}
    assert all(each.has_yerr and each[0].get_marker() == "o" for each in panel.containers)


def test_of_many_named_options_all_are_marked_and_some_named() -> None:
    options = [Option(f"option {number} with a long name", tokens=10 * number) for number in range(1, 41)]
    found = evaluate(*named(20, options=options), costs=[Cost.SPENT], mean_tokens=[40, 300], num_resamples=100)
    (panel, *_) = plots.summary(found).axes
    assert sum(line.get_marker() == "D" for line in panel.lines) == 40
    names = [text.get_text() for text in panel.texts]
    assert 3 <= len(names) <= 8
    assert all(name.endswith("…") for name in names)  # a name that was cut says so


def test_costs_that_span_much_stand_on_a_logarithmic_axis() -> None:
    prices = [Price(0.0, price) for price in (0.01, 1.0, 60.0)]
    dear = [replace(option, price=price) for option, price in zip(OPTIONS, prices, strict=True)]
    figure = plots._accuracy(evaluate(*named(20, options=dear), num_resamples=100))
    assert [panel.get_xscale() for panel in figure.axes[:2]] == ["linear", "log"]
    for text, at in ticks(figure.axes[3].xaxis).items():
        assert float(text.replace(",", "")) == pytest.approx(at)
