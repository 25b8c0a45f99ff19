"""Results as a few aligned lines for the terminal."""

from __future__ import annotations

from ..evaluation import Evaluation, LiveComparison, Row
from ..evaluation.policies import BLIND, FORETHOUGHT, ORACLE, UNIFORM
from .layout import aligned
from .wording import (
    LEGEND,
    SIMULATED,
    calibration_line,
    few_questions,
    gain_words,
    gap_words,
    levels_near,
    live_rows,
    loss_lines,
    policy_name,
    row_numbers,
    rows_at,
    sample_words,
    saving_words,
    savings_at,
    summary_words,
    usual_level,
)

SHOWN = (UNIFORM, BLIND, FORETHOUGHT, ORACLE)


def evaluation_text(result: Evaluation | LiveComparison) -> str:
    """The result for a person: what to know before opening the report."""
    if isinstance(result, LiveComparison):
        return live_text(result)
    return "\n".join(
        [
            policies_text(result, usual_level(result)),
            "",
            *(f"mean over all {cost.value} levels: {summary_words(result, cost)}" for cost in result.costs),
            *loss_lines(result),
            calibration_line(result),
        ]
    )


def policies_text(result: Evaluation, mean_tokens: float) -> str:
    """Uniform, blind, forethought and the exact oracle at one budget, under each cost, with intervals.

    Under granted cost at the level nearest to `mean_tokens`; under spent cost at the level nearest to what uniform
    spends there, so that both tables are about the same budget.
    """
    lines = [SIMULATED] if result.simulated else []
    lines.append(f"{sample_words(result)}; 95% paired bootstrap intervals in brackets")
    for cost, level in levels_near(result, mean_tokens).items():
        rows = rows_at(result, cost, level)
        head = [
            "",
            "right",
            "granted",
            "spent",
            "points over uniform",
            "points over blind",
            "gap, uniform",
            "gap, blind",
        ]
        table = [head, *(_cells(rows[policy]) for policy in SHOWN)]
        lines += ["", f"{level:g} {cost.value} tokens a question", *aligned(table)]
        lines += [f"  {saving_words(saving)}" for saving in savings_at(result, cost, level)]
    return "\n".join([*lines, "", LEGEND])


def _cells(row: Row) -> list[str]:
    gains = [gain_words(row.gain), gain_words(row.gain_over_blind)]
    gaps = [gap_words(row.gap_closed), gap_words(row.gap_closed_over_blind)]
    return [policy_name(row.policy), *row_numbers(row), *gains, *gaps]


def live_text(result: LiveComparison) -> str:
    """A live comparison for a person."""
    lines = [SIMULATED] if result.simulated else []
    lines.append(f"{result.num_questions:,} questions, the same traces for every policy; 95% intervals in brackets")
    head = ["", "right", "share", "granted", "spent"]
    lines += aligned([head, *live_rows(result)])
    lines += ["", *(f"{each.policy} against {each.baseline}: {each.sentence}" for each in result.differences)]
    if (line := few_questions(result)) is not None:
        lines.append(line)
    return "\n".join(lines)
