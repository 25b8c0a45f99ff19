"""The study as text for the terminal, as Markdown with a picture, and as JSON."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...core.files import make_folder
from ...core.visible import code, markdown
from ...evaluation import Estimate
from ...report import plain, write_pages
from ...report.layout import aligned, table
from ...report.wording import SIMULATED, gain_words, percent, share_right
from .results import LayerRow, LayerStudy, Scores
from .wording import POOLING, difference_words, finding_lines, pooling_words, sample_words

LEGEND = "~ the interval includes 0."


def write_report(folder: Path, result: LayerStudy, *, plots: bool = True) -> dict[str, Path]:
    """Writes JSON, Markdown and a picture into `folder`; without matplotlib the Markdown says why there is none.

    Returns:
        What it is -> the file: "json", "markdown" and "layers".
    """
    make_folder(folder)
    files = {"json": folder / "layers.json", "markdown": folder / "layers.md"}
    lines = list(_markdown(result))
    pictures: dict[str, Path] = {}
    if plots and importlib.util.find_spec("matplotlib") is not None:
        from .plots import draw

        pictures = draw(result, folder)
        lines += ["## Picture", "", *(f"![{name}]({file.name})" for name, file in pictures.items()), ""]
    elif plots:
        lines += ["No picture: matplotlib is not installed; get it with `pip install 'forethought[plots]'`.", ""]
    write_pages(files, report_json(result), lines)
    return files | pictures


def report_json(result: LayerStudy) -> dict[str, Any]:
    """One object of plain values; None where a number does not apply, never NaN or infinity."""
    versions = {"forethought": __version__, "numpy": np.__version__, "python": platform.python_version()}
    found: dict[str, Any] = plain({"schema": 1, "kind": "layers", **result.to_json(), "versions": versions})
    return found


def report_text(result: LayerStudy) -> str:
    """The study for a person: a row a layer, then the findings in sentences."""
    lines = [SIMULATED] if result.simulated else []
    lines.append(f"{sample_words(result)}; 95% paired bootstrap intervals in brackets")
    for pooling in result.poolings:
        rows = [_short(str(row.layer), row.scores, row) for row in result.select(pooling)]
        lines += ["", POOLING[pooling], *aligned([_short_head(result), *rows, *_short_baselines(result)])]
    lines += ["", *(line for finding in result.findings for line in (*finding_lines(result, finding), ""))]
    return "\n".join([*lines, *([words] if (words := pooling_words(result)) else []), LEGEND])


def _short_head(result: LayerStudy) -> list[str]:
    right = [f"right at {level:g}" for level in result.levels]
    return ["layer", "log loss", "less the best's", "squared error", "correlation", *right]


def _short(name: str, scores: Scores, row: LayerRow | None) -> list[str]:
    return [
        name,
        f"{scores.log_loss.value:.4f}",
        "" if row is None else _above(row),
        f"{scores.squared_error.value:.4f}",
        f"{scores.pearson.value:.3f}",
        *(share_right(each) for each in scores.accuracy),
    ]


def _above(row: LayerRow) -> str:
    return "best" if row.above_best.value == row.above_best.high == 0.0 else difference_words(row.above_best)


def _short_baselines(result: LayerStudy) -> Iterator[list[str]]:
    yield _short("mean curve, blind", result.mean_curve, None)
    for name, found in (("uniform", result.uniform), ("oracle", result.oracle)):
        yield [name, "", "", "", "", *(share_right(each) for each in found)]


def _markdown(result: LayerStudy) -> Iterator[str]:
    yield from ("# Layers", "")
    if result.simulated:
        yield from (f"> **{SIMULATED}**", "")
    resamples = f"({result.num_resamples:,} resamples of questions)"
    yield from (
        f"{markdown(sample_words(result))}. Brackets hold 95% paired bootstrap intervals {resamples}. {LEGEND}",
        "",
    )
    yield from ("## What was found", "")
    for finding in result.findings:
        yield from (*(f"- {line[0].upper()}{line[1:].rstrip('.')}." for line in finding_lines(result, finding)), "")
    if words := pooling_words(result):
        yield from (f"- {words[0].upper()}{words[1:]}.", "")
    for pooling in result.poolings:
        yield from (f"## {POOLING[pooling].capitalize()}", "")
        yield from _errors_table(result, pooling)
        yield from _accuracy_table(result, pooling)
        yield from ("<details><summary>Correlation at every budget</summary>", "")
        yield from _correlation_table(result, pooling)
        yield from ("</details>", "")
    yield from ("## How to read it", "", *(f"- {markdown(note)}" for note in result.notes), "")
    facts = {"resamples": result.num_resamples, "bootstrap seed": result.seed, "data hash": result.data_hash}
    facts |= {key.replace("_", " "): value for key, value in result.provenance.items() if value is not None}
    yield from (
        "## How it was made",
        "",
        *table(["", ""], [[markdown(key), code(value)] for key, value in facts.items()]),
    )


def _errors_table(result: LayerStudy, pooling: str) -> list[str]:
    head = ["layer", "log loss", "less the best's", "best in", "squared error", "Brier", "mean correlation"]
    rows = [_errors(str(row.layer), row.scores, _above(row), percent(row.wins)) for row in result.select(pooling)]
    return table(head, [*rows, _errors("mean curve", result.mean_curve, "–", "–")])


def _errors(name: str, scores: Scores, above: str, wins: str) -> list[str]:
    errors = [_number(each) for each in (scores.log_loss, scores.squared_error, scores.brier)]
    return [name, errors[0], above, wins, *errors[1:], _number(scores.pearson, 3)]


def _accuracy_table(result: LayerStudy, pooling: str) -> list[str]:
    head = ["layer"]
    for level in result.levels:
        head += [f"right at {level:g}", "granted", "points over blind"]

    def cells(scores: Scores, gain: Callable[[Estimate], str]) -> Iterator[str]:
        for right, granted, over in zip(scores.accuracy, scores.granted, scores.gain_over_blind, strict=True):
            yield from (share_right(right), f"{granted:.1f}", gain(over))

    rows = [[str(row.layer), *cells(row.scores, gain_words)] for row in result.select(pooling)]
    rows.append(["blind", *cells(result.mean_curve, lambda _: "–")])
    for name, found in (("uniform", result.uniform), ("oracle", result.oracle)):
        rows.append([name, *(cell for each in found for cell in (share_right(each), "", "–"))])
    return table(head, rows)


def _correlation_table(result: LayerStudy, pooling: str) -> list[str]:
    head = ["layer", *(str(budget) for budget in result.menu.budgets_B)]
    rows = [[str(row.layer), *(_number(each, 2) for each in row.scores.pearson_B)] for row in result.select(pooling)]
    return table(head, rows)


def _number(found: Estimate, digits: int = 4) -> str:
    value, low, high = (f"{each:.{digits}f}".replace("-", "−") for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
