"""The results of the benchmark as a page: accuracy everywhere, single budgets, means, predictors, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.terms import percent
from ...evaluation.policies import FORETHOUGHT
from ...evaluation.results import Estimate, PolicyRow
from ...report import Page, Part, Said, Table
from ...report.wording import gain_words, gap_words, policy_name, share_right
from .results import PaperBench

SHOWN = (48.0, 128.0)  # the budgets shown in full on the terminal: those of the paper's own table


def page(result: PaperBench) -> Page:
    """The page of the benchmark."""

    def draw(folder: Path) -> dict[str, Path]:
        from .plots import draw

        return draw(result, folder)

    shown = dict.fromkeys(min(result.levels, key=lambda level: abs(level - wanted)) for wanted in SHOWN)
    left_out = [note for note in result.notes if note.startswith("Left out")]
    parts = [
        Part("accuracy in percent by mean tokens granted", [_accuracy(result)]),
        *(_level(result, level, "terminal") for level in shown),
        *_means(result),
        *(_level(result, level, "page") for level in result.levels),
        Part("predictors, mean over all budgets", [_predictors(result)]),
        Part("mean squared error at every budget", [_by_budget(result, "mean_squared_error")], on="page"),
        Part("correlation at every budget", [_by_budget(result, "pearson")], on="page"),
        Part("calibration", [_calibration(result)], on="page"),
        Part("forethought in batches, and as a stream under one price", [_batches(result, [*shown])], on="terminal"),
        Part("forethought in batches, and as a stream under one price", [_batches(result, result.levels)], on="page"),
        Part("budgets of the difficulty policies", [_classes(result)], on="page"),
        *([Part("", [Said(note) for note in left_out], on="terminal")] if left_out else []),
    ]
    return Page(
        name="paper",
        title="Comparison with the paper on its data",
        result=result,
        sample=(
            f"{result.split}: {result.num_queries:,} questions evaluated, {result.num_train:,} for training; "
            f"forethought is {result.predictor} + {result.allocator}"
        ),
        parts=parts,
        num_resamples=result.num_resamples,
        notes=result.notes,
        facts={"data": result.source, "data hashes": result.data_hashes, "seed": result.seed},
        draw=draw,
    )


def _accuracy(result: PaperBench) -> Table:
    rows = [
        [policy_name(policy), *(f"{100 * each.accuracy.value:.1f}" for each in result.select(policy))]
        for policy in result.policies
    ]
    return Table(["", *(f"{level:g}" for level in result.levels)], rows)


def _level(result: PaperBench, level: float, on: str) -> Part:
    head = ["", "right", "tokens", "points over uniform", "points over blind", "gap closed", "forethought's lead"]
    rows = [
        [
            policy_name(row.policy),
            share_right(row.accuracy),
            f"{row.granted:.1f}",
            gain_words(row.gain),
            gain_words(row.gain_over_blind),
            gap_words(row.gap_closed),
            gain_words(row.lead),
        ]
        for row in result.rows
        if row.budget == level
    ]
    return Part(f"{level:g} tokens per question", [Table(head, rows)], on=on)


def _means(result: PaperBench) -> Iterator[Part]:
    for budgets in dict.fromkeys(each.budgets for each in result.means):
        rows = [
            [policy_name(each.policy), *map(gain_words, (each.gain, each.gain_over_blind, each.lead))]
            for each in result.means
            if each.budgets == budgets
        ]
        title = f"mean over {len(budgets)} budgets from {budgets[0]:g} to {budgets[-1]:g} tokens"
        yield Part(title, [Table(["", "points over uniform", "points over blind", "forethought's lead"], rows)])


def _predictors(result: PaperBench) -> Table:
    width_B = result.menu.width_B
    rows = [
        [
            each.predictor,
            f"{width_B @ each.mean_squared_error:.4f}",
            f"{width_B @ each.pearson:.3f}",
            percent(each.calibration.calibration_error),
            f"{each.calibration.overall.log_loss:.4f}",
            f"{each.calibration.overall.mean_log_loss:.4f}",
        ]
        for each in result.predictors
    ]
    return Table(["", "mean squared error", "correlation", "calibration error", "log loss", "of the mean curve"], rows)


def _by_budget(result: PaperBench, field: str) -> Table:
    rows = [[each.predictor, *(f"{value:.3f}" for value in getattr(each, field))] for each in result.predictors]
    return Table(["", *(str(budget) for budget in result.menu.budgets_B)], rows)


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
    return Table(["predictor", "predicted between", "predicted", "measured", "questions"], rows)


def _batches(result: PaperBench, levels: Sequence[float]) -> Table:
    head = ["", "budget", "tokens", "right", "points over uniform", "points over blind", "lost", "at equal tokens"]
    rows = []
    for level in levels:
        whole = next(each for each in result.select(FORETHOUGHT) if each.budget == level)
        ways: list[tuple[str, PolicyRow, Estimate | None, Estimate | None]] = [("all together", whole, None, None)]
        ways += [(b.planned, b, b.lost, b.lost_at_equal_tokens) for b in result.batches if b.budget == level]
        for name, row, *lost in ways:
            numbers = [f"{row.budget:g}", f"{row.granted:.1f}", share_right(row.accuracy)]
            rows.append([name, *numbers, *map(gain_words, (row.gain, row.gain_over_blind, *lost))])
    return Table(head, rows)


def _classes(result: PaperBench) -> Table:
    rows = [
        [policy, f"{level:g}", ", ".join(f"{name} {budget}" for name, budget in budgets.items())]
        for policy, by_level in result.classes.items()
        for level, budgets in by_level.items()
    ]
    return Table(["policy", "budget", "tokens of each class"], rows)
