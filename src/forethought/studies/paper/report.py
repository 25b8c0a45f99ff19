"""The benchmark's findings as text for the terminal, as Markdown with pictures, and as JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...core.files import make_folder
from ...core.visible import code, markdown
from ...evaluation.policies import FORETHOUGHT
from ...report import plain, write_pages
from ...report.layout import aligned, table
from ...report.wording import LEGEND, gain_words, gap_words, percent, policy_name, share_right
from .results import BatchRow, PaperBench, PolicyRow

SHOWN = (48.0, 128.0)  # the budgets shown in full on the terminal: those of the paper's own table

Table = tuple[str, list[str], list[list[str]]]  # title, head, rows


def write_report(folder: Path, result: PaperBench, *, plots: bool = True) -> dict[str, Path]:
    """Writes JSON, Markdown and pictures into `folder`; without matplotlib the Markdown says why there are none.

    Returns:
        What it is -> the file: "json", "markdown", and one entry a picture.
    """
    make_folder(folder)
    files = {"json": folder / "paper.json", "markdown": folder / "paper.md"}
    lines = _markdown(result)
    pictures: dict[str, Path] = {}
    if plots and importlib.util.find_spec("matplotlib") is not None:
        from .plots import draw

        pictures = draw(result, folder)
        lines += ["## Pictures", "", *(f"![{name}]({file.name})" for name, file in pictures.items()), ""]
    elif plots:
        lines += ["No pictures: matplotlib is not installed; get it with `pip install 'forethought[plots]'`.", ""]
    write_pages(files, report_json(result), lines)
    return files | pictures


def report_json(result: PaperBench) -> dict[str, Any]:
    """One object of plain values; None where a number does not apply, never NaN or infinity."""
    found: dict[str, Any] = plain(result.to_json())
    return found


def report_text(result: PaperBench) -> str:
    """The findings for a person: accuracy everywhere, two budgets in full, means, predictors, batches."""
    lines = [_sample(result)]
    shown = [min(result.levels, key=lambda level: abs(level - wanted)) for wanted in SHOWN]
    tables = [_accuracy(result), *(_level(result, level) for level in dict.fromkeys(shown)), *_means(result)]
    for title, head, rows in [*tables, _predictors(result), _batches(result, dict.fromkeys(shown))]:
        lines += ["", title, *aligned([head, *rows])]
    return "\n".join([*lines, "", LEGEND, *result.notes[len(result.notes) - _num_missing(result) :]])


def _num_missing(result: PaperBench) -> int:
    return sum(note.startswith("Left out") for note in result.notes)


def _sample(result: PaperBench) -> str:
    return (
        f"{result.split}: {result.num_queries:,} questions judged, {result.num_train:,} trained on; forethought is "
        f"{result.predictor} + {result.allocator}; 95% paired bootstrap intervals in brackets"
    )


def _markdown(result: PaperBench) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    hashes = ", ".join(f"{markdown(name)} {code(value)}" for name, value in result.data_hashes.items())
    tables: list[Table] = [_accuracy(result), *_means(result)]
    tables += [_level(result, level) for level in result.levels]
    tables += [_predictors(result), _by_budget(result, "mean squared error"), _by_budget(result, "correlation")]
    tables += [_calibration(result), _batches(result, result.levels), _classes(result)]
    lines = ["# The paper on its own data", "", f"{_sample(result)} ({result.num_resamples:,} resamples). {LEGEND}", ""]
    for title, head, rows in tables:
        lines += [f"## {title[0].upper()}{title[1:]}", "", *table(head, rows)]
    lines += ["## How to read it", "", *(f"- {markdown(note)}" for note in result.notes), ""]
    return [*lines, f"Data: arXiv 2602.01237; hashes: {hashes}. Seed {result.seed}; {versions}.", ""]


def _accuracy(result: PaperBench) -> Table:
    rows = [
        [policy_name(policy), *(f"{100 * each.row.accuracy.value:.1f}" for each in result.select(policy))]
        for policy in result.policies
    ]
    return "accuracy in percent by mean tokens granted", ["", *(f"{level:g}" for level in result.levels)], rows


def _level(result: PaperBench, level: float) -> Table:
    head = ["", "right", "tokens", "points over uniform", "points over blind", "gap closed", "forethought's lead"]
    rows = [_cells(each) for each in result.rows if each.row.budget == level]
    return f"{level:g} tokens a question", head, rows


def _cells(each: PolicyRow) -> list[str]:
    row = each.row
    gains = [gain_words(row.gain), gain_words(row.gain_over_blind), gap_words(row.gap_closed), gain_words(each.lead)]
    return [policy_name(row.policy), share_right(row.accuracy), f"{row.granted:.1f}", *gains]


def _means(result: PaperBench) -> list[Table]:
    found: list[Table] = []
    for budgets in dict.fromkeys(each.budgets for each in result.means):
        title = f"mean over {len(budgets)} budgets from {budgets[0]:g} to {budgets[-1]:g} tokens"
        rows = [
            [policy_name(each.policy), *map(gain_words, (each.gain, each.gain_over_blind, each.lead))]
            for each in result.means
            if each.budgets == budgets
        ]
        found.append((title, ["", "points over uniform", "points over blind", "forethought's lead"], rows))
    return found


def _predictors(result: PaperBench) -> Table:
    head = ["", "mean squared error", "correlation", "calibration error", "log loss", "of the mean curve"]
    rows = [
        [
            each.predictor,
            f"{_mean(each.mean_squared_error_B):.4f}",
            f"{_mean(each.pearson_B):.3f}",
            percent(each.calibration.calibration_error),
            f"{each.calibration.overall.log_loss:.4f}",
            f"{each.calibration.overall.mean_log_loss:.4f}",
        ]
        for each in result.predictors
    ]
    return "predictors, mean over all budgets", head, rows


def _by_budget(result: PaperBench, what: str) -> Table:
    rows = [
        [each.predictor, *(f"{value:.3f}" for value in values)]
        for each in result.predictors
        for values in [each.pearson_B if what == "correlation" else each.mean_squared_error_B]
    ]
    return f"{what} at every budget", ["", *(str(budget) for budget in result.menu.budgets_B)], rows


def _calibration(result: PaperBench) -> Table:
    rows = [
        [
            each.predictor,
            f"{part.lower:.1f} to {part.upper:.1f}",
            percent(part.predicted),
            share_right(part.observed),
            f"{part.num_queries:,}",
        ]
        for each in result.predictors
        for part in each.calibration.bins
    ]
    return "calibration", ["predictor", "predicted between", "predicted", "measured", "questions"], rows


def _batches(result: PaperBench, levels: Sequence[float] | dict[float, None]) -> Table:
    head = ["", "budget", "tokens", "right", "points over uniform", "points over blind", "lost", "at equal tokens"]
    return "forethought in batches, and as a stream under one price", head, list(_batch_rows(result, levels))


def _batch_rows(result: PaperBench, levels: Sequence[float] | dict[float, None]) -> Iterator[list[str]]:
    for level in levels:
        whole = next(each.row for each in result.select(FORETHOUGHT) if each.row.budget == level)
        together = ["all together", f"{level:g}", f"{whole.granted:.1f}", share_right(whole.accuracy)]
        yield [*together, gain_words(whole.gain), gain_words(whole.gain_over_blind), "–", "–"]
        yield from (_batch_cells(each) for each in result.batches if each.row.budget == level)


def _batch_cells(each: BatchRow) -> list[str]:
    row = each.row
    numbers = [f"{row.budget:g}", f"{row.granted:.1f}", share_right(row.accuracy)]
    lost = (each.lost, each.lost_at_equal_tokens)
    return [each.planned, *numbers, gain_words(row.gain), gain_words(row.gain_over_blind), *map(gain_words, lost)]


def _classes(result: PaperBench) -> Table:
    rows = [
        [policy, f"{level:g}", ", ".join(f"{name} {budget}" for name, budget in budgets.items())]
        for policy, by_level in result.classes.items()
        for level, budgets in by_level.items()
    ]
    return "budgets of the difficulty policies", ["policy", "budget", "tokens of each class"], rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
