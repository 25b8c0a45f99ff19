"""How numbers, intervals and findings are worded, the same on the terminal and in Markdown."""

from __future__ import annotations

import math

from ..core.data import Cost
from ..core.visible import one_line
from ..evaluation import CostSummary, Estimate, Evaluation, LiveComparison, Row, Saving
from ..evaluation.policies import BLIND, FORETHOUGHT, GREEDY_ORACLE, ORACLE, UNIFORM
from ..evaluation.resampled import SAME

NAMES = {ORACLE: "exact oracle", GREEDY_ORACLE: "greedy oracle"}
WORSE, UNPROVEN, EQUAL = "▼", "~", "="
LEGEND = f"{WORSE} the whole interval is below 0; {UNPROVEN} it includes 0; {EQUAL} no difference."
SIMULATED = "SIMULATED: these numbers come from a simulation or a replay; no model was measured."
FEW_QUESTIONS = 30
VERDICT_WORDS = {
    "worse": "worse",
    "behind": "behind (interval includes 0)",
    "not proven": "not proven (interval includes 0)",
    "equal": "the same",
}


def usual_level(result: Evaluation) -> float:
    """The budget shown where only one is: a quarter of the menu's maximum. A rule, so that no result chooses it."""
    levels = result.levels[result.costs[0]]
    return min(levels, key=lambda level: abs(level - result.menu.largest / 4.0))


def levels_near(result: Evaluation, mean_tokens: float) -> dict[Cost, float]:
    """The level shown under each cost: nearest to `mean_tokens`; under spent cost, to what uniform spends there."""
    found: dict[Cost, float] = {}
    for cost, levels in result.levels.items():
        wanted = mean_tokens
        if cost is Cost.SPENT and Cost.GRANTED in found:
            spent = rows_at(result, Cost.GRANTED, found[Cost.GRANTED])[UNIFORM].spent
            wanted = mean_tokens if spent is None else spent
        found[cost] = min(levels, key=lambda level: abs(level - wanted))
    return found


def rows_at(result: Evaluation, cost: Cost, level: float) -> dict[str, Row]:
    """Policy -> its row at one level."""
    return {row.policy: row for row in result.rows if row.cost is cost and row.budget == level}


def savings_at(result: Evaluation, cost: Cost, level: float) -> list[Saving]:
    """Against each baseline, at one level."""
    return [saving for saving in result.savings if saving.cost is cost and saving.budget == level]


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    """Percentage points with a sign; what rounds to nothing has none."""
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0.0 else text.replace("-", "−")


def share_right(estimate: Estimate) -> str:
    """An accuracy with its interval."""
    return f"{percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def gain_words(estimate: Estimate | None) -> str:
    """Points with their interval, and a mark where the interval is not wholly above 0."""
    if estimate is None:
        return "–"
    return f"{points(estimate.value)} [{points(estimate.low)}, {points(estimate.high)}]{_mark(estimate)}"


def _mark(gain: Estimate) -> str:
    if gain.low > -SAME and gain.high < SAME:
        return f" {EQUAL}"
    return f" {WORSE}" if gain.high < 0.0 else f" {UNPROVEN}" if gain.low <= 0.0 else ""


def gap_words(estimate: Estimate | None) -> str:
    """A share of the gap closed, with its interval."""
    if estimate is None:
        return "–"
    value, low, high = (
        str(round(100 * each)).replace("-", "−") for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value}% [{low}, {high}]"


def times(value: float) -> str:
    """A ratio; infinite where the baseline never gets there."""
    return f"{value:.2f}" if math.isfinite(value) else "∞"


def needed_words(saving: Saving) -> str:
    """Tokens a baseline needs, with their interval."""
    if not math.isfinite(saving.needed.value):
        return "never on the menu"
    return f"{saving.needed.value:.1f} [{_tokens(saving.needed.low)}, {_tokens(saving.needed.high)}]"


def _tokens(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "∞"


def saving_words(saving: Saving) -> str:
    """One saving as a sentence."""
    if not math.isfinite(saving.needed.value):
        return f"{saving.baseline} is nowhere as accurate: no cap on the menu reaches {percent(saving.accuracy)}"
    ratio = saving.ratio
    return (
        f"{saving.baseline} needs {saving.needed.value:.1f} tokens to be as accurate: "
        f"{ratio.value:.2f} [{times(ratio.low)}, {times(ratio.high)}] times as many"
    )


def policy_name(policy: str) -> str:
    """What a policy is called in tables."""
    return NAMES.get(policy, policy)


def sample_words(result: Evaluation) -> str:
    """What was measured, and on how much."""
    fewest, most = result.num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    plural = "" if traces == "1" else "s"
    model = one_line(result.provenance.get("model") or "unknown model")
    return f"{model}: {result.num_queries:,} questions, {traces} trace{plural} each"


def summary_words(result: Evaluation, cost: Cost) -> str:
    """Forethought's mean gains over all levels of one cost."""
    ours = _summary_of(result, cost, FORETHOUGHT)
    return f"{gain_words(ours.gain)} points over uniform, {gain_words(ours.gain_over_blind)} over blind"


def _summary_of(result: Evaluation, cost: Cost, policy: str) -> CostSummary:
    return next(each for each in result.summaries if each.cost is cost and each.policy == policy)


def loss_lines(result: Evaluation) -> list[str]:
    """Where forethought is not ahead, one line a cost and baseline, the worst said first."""
    lines = []
    for cost, levels in result.levels.items():
        for baseline in (UNIFORM, BLIND):
            losses = [each for each in result.losses if each.cost is cost and each.baseline == baseline]
            parts = []
            for verdict, words in VERDICT_WORDS.items():
                at = [f"{each.budget:g}" for each in losses if each.verdict == verdict]
                if at:
                    parts.append(f"{words} at {', '.join(at)}")
            ahead = f"clearly ahead of {baseline} at {len(levels) - len(losses)} of {len(levels)} {cost.value} levels"
            lines.append("; ".join([ahead, *parts]))
    return lines


def calibration_line(result: Evaluation) -> str:
    """How far the predictions can be believed, beside the mean curve."""
    found, overall = result.calibration, result.calibration.overall
    return (
        f"predictions: calibration error {100 * found.calibration_error:.1f} points, Brier {overall.brier:.4f} "
        f"(mean curve {overall.mean_brier:.4f}), log loss {overall.log_loss:.4f} ({overall.mean_log_loss:.4f})"
    )


def row_numbers(row: Row) -> list[str]:
    """Cells of what a policy reached and used."""
    spent = "not measured" if row.spent is None else f"{row.spent:.1f}"
    return [share_right(row.accuracy), f"{row.granted:.1f}", spent]


def live_rows(result: LiveComparison) -> list[list[str]]:
    """Cells of every policy of a live comparison."""
    return [
        [
            policy.name,
            f"{policy.num_right:g} of {result.num_questions}",
            share_right(policy.accuracy),
            f"{policy.granted:.1f}",
            f"{policy.spent:.1f}",
        ]
        for policy in result.policies
    ]


def few_questions(result: LiveComparison) -> str | None:
    """So few that no difference between policies could be taken for proof."""
    if result.num_questions >= FEW_QUESTIONS or not result.differences:
        return None
    widest = max(result.differences, key=lambda each: each.accuracy.high - each.accuracy.low).accuracy
    ends = f"{points(widest.low)} to {points(widest.high)}"
    return f"n = {result.num_questions} questions proves nothing by itself; interval {ends} points"
