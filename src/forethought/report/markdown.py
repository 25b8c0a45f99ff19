"""Results as one Markdown page: what was found, where it did not pay, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..core.data import Cost
from ..core.visible import code, markdown, one_line
from ..evaluation import Estimate, Evaluation, LiveComparison, Row, Saving
from ..evaluation.policies import POLICIES
from .layout import table
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
    needed_words,
    percent,
    policy_name,
    row_numbers,
    rows_at,
    sample_words,
    savings_at,
    share_right,
    summary_words,
    times,
)

HEADLINES = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of the menu's maximum: the levels shown before the whole menu


def evaluation_markdown(result: Evaluation) -> list[str]:
    """Lines of the page on an evaluation."""
    return [
        "# Evaluation",
        "",
        *([f"> **{SIMULATED}**", ""] if result.simulated else []),
        f"{markdown(sample_words(result))}. Brackets hold 95% paired bootstrap intervals "
        f"({result.num_resamples:,} resamples of questions). {LEGEND}",
        "",
        *(line for cost in result.costs for line in _cost_section(result, cost)),
        *_loss_section(result),
        *_calibration_section(result),
        "## How to read it",
        "",
        *(f"- {markdown(note)}" for note in result.notes),
        "",
        *_made_section(result),
        *(line for cost in result.costs for line in _grid_details(result, cost)),
    ]


def _cost_section(result: Evaluation, cost: Cost) -> list[str]:
    shown = sorted({levels_near(result, part * result.menu.largest)[cost] for part in HEADLINES})
    lines = [f"## Accuracy at equal {cost.value} tokens", ""]
    lines += [f"Mean over all {len(result.levels[cost])} levels: forethought {summary_words(result, cost)}.", ""]
    for level in shown:
        rows = rows_at(result, cost, level)
        lines += [f"**{level:g} tokens a question**", "", *_policy_table([rows[policy] for policy in POLICIES])]
    lines += ["### Tokens saved at equal accuracy", ""]
    savings = [saving for level in shown for saving in savings_at(result, cost, level)]
    return lines + _savings_table(savings)


def _policy_table(rows: Sequence[Row]) -> list[str]:
    head = ["policy", "right", "granted", "spent", "points over uniform", "points over blind"]
    return table([*head, "gap closed over uniform", "gap closed over blind"], [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    return [
        policy_name(row.policy),
        *row_numbers(row),
        gain_words(row.gain),
        gain_words(row.gain_over_blind),
        gap_words(row.gap_closed),
        gap_words(row.gap_closed_over_blind),
    ]


def _savings_table(savings: Sequence[Saving]) -> list[str]:
    head = ["level", "forethought", "with tokens", "baseline", "needs tokens", "times as many", "gets there in"]
    rows = [
        [
            f"{each.budget:g}",
            percent(each.accuracy),
            f"{each.tokens:.1f}",
            each.baseline,
            needed_words(each),
            f"{times(each.ratio.value)} [{times(each.ratio.low)}, {times(each.ratio.high)}]",
            f"{100 * each.reached:.0f}% of resamples",
        ]
        for each in savings
    ]
    return table(head, rows)


def _loss_section(result: Evaluation) -> list[str]:
    """The levels where it did not pay come before anything that could distract from them."""
    lines = ["## Where forethought is not ahead", "", *(f"- {line}" for line in loss_lines(result)), ""]
    rows = [
        [f"{each.budget:g} {each.cost.value}", each.baseline, each.verdict, gain_words(each.gain)]
        for each in result.losses
        if each.verdict != "equal"
    ]
    return lines + (table(["level", "against", "verdict", "points"], rows) if rows else [])


def _calibration_section(result: Evaluation) -> list[str]:
    found = result.calibration
    lines = ["## Calibration", "", f"{calibration_line(result).capitalize()}.", ""]
    gain = found.log_loss_gain
    lines += [
        f"Knowing the question lowers the log loss by {gain.value:.4f} [{gain.low:.4f}, {gain.high:.4f}] nats a trace; "
        f"correlation with measured success {found.overall.pearson:.2f}.",
        "",
    ]
    rows = [
        [
            f"{each.lower:.1f} to {each.upper:.1f}",
            percent(each.predicted),
            share_right(each.observed),
            f"{each.num_traces:,}",
            f"{each.num_queries:,}",
        ]
        for each in found.bins
    ]
    return lines + table(["predicted between", "predicted", "measured", "judgements", "questions"], rows)


def _made_section(result: Evaluation | LiveComparison) -> list[str]:
    """Everything needed to make the numbers again, as far as it was recorded."""
    facts: dict[str, Any] = {"forethought": __version__, "bootstrap seed": result.seed}
    facts["resamples"] = result.num_resamples
    if isinstance(result, Evaluation):
        facts |= {"allocator": result.allocator, "grid": str(result.menu), "data hash": result.data_hash}
    facts |= {key.replace("_", " "): value for key, value in result.provenance.items() if value is not None}
    facts.setdefault("hardware", facts.pop("device", "not recorded"))
    command = one_line(facts.pop("command", None) or "").replace("`" * 3, "'" * 3)
    lines = ["## How it was made", "", *([f"```\n{command}\n```", ""] if command else [])]
    return lines + table(["", ""], [[markdown(key), code(_fact(value))] for key, value in facts.items()])


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def _grid_details(result: Evaluation, cost: Cost) -> list[str]:
    rows = [[f"{row.budget:g}", *_cells(row)] for row in result.rows if row.cost is cost]
    head = ["level", "policy", "right", "granted", "spent", "points over uniform", "points over blind"]
    errors = [
        [
            f"{each.budget}",
            f"{each.brier:.4f}",
            f"{each.mean_brier:.4f}",
            f"{each.log_loss:.4f}",
            f"{each.mean_log_loss:.4f}",
            f"{each.pearson:.2f}",
        ]
        for each in result.calibration.by_budget
    ]
    error_head = ["cap", "Brier", "of the mean curve", "log loss", "of the mean curve", "correlation"]
    return [
        f"<details><summary>Every level, {cost.value} cost</summary>",
        "",
        *table([*head, "gap closed over uniform", "gap closed over blind"], rows),
        "Tokens saved at equal accuracy:",
        "",
        *_savings_table([saving for saving in result.savings if saving.cost is cost]),
        *(["Predictions at every cap:", "", *table(error_head, errors)] if cost is result.costs[0] else []),
        "</details>",
        "",
    ]


def live_markdown(result: LiveComparison) -> list[str]:
    """Lines of the page on a live comparison."""
    few = few_questions(result)
    differences = [
        [
            markdown(f"{each.policy} less {each.baseline}"),
            gain_words(each.accuracy),
            f"{each.num_better} / {each.num_worse}",
            _change(each.granted),
            _change(each.spent),
        ]
        for each in result.differences
    ]
    head = ["", "points", "questions better / worse", "granted tokens", "spent tokens"]
    return [
        "# Live comparison",
        "",
        *([f"> **{SIMULATED}**", ""] if result.simulated else []),
        f"{result.num_questions:,} questions, the same traces for every policy. Brackets hold 95% paired bootstrap "
        f"intervals. {LEGEND}",
        "",
        *table(
            ["policy", "right", "share", "granted", "spent"],
            [[markdown(name), *cells] for name, *cells in live_rows(result)],
        ),
        *(table(head, differences) if differences else []),
        *(f"- {markdown(f'{each.policy} against {each.baseline}: {each.sentence}')}." for each in result.differences),
        *([f"- {few}."] if few else []),
        "",
        *_made_section(result),
    ]


def _change(estimate: Estimate) -> str:
    return f"{estimate.value:+.1f} [{estimate.low:+.1f}, {estimate.high:+.1f}]".replace("-", "−")
