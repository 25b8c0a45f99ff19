"""An evaluation, and a live comparison, as pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.data import Cost
from ..evaluation.levels import HEADLINES, USUAL, at_share
from ..evaluation.live import LiveComparison
from ..evaluation.policies import BLIND, FORETHOUGHT, ORACLE, POLICIES, UNIFORM
from ..evaluation.results import Evaluation, PolicyRow, Saving
from .pages import Bullets, Page, Part, Said, Table
from .wording import (
    gain_words,
    gap_words,
    interval,
    percent,
    points,
    policy_name,
    sample_words,
    share_right,
)

SHOWN = (UNIFORM, BLIND, FORETHOUGHT, ORACLE)
GAINS = ("points over uniform", "points over blind", "gap closed over uniform", "gap closed over blind")
FEW_QUESTIONS = 30
ENDED = 0.99  # of the way between the ends of spent cost: so near to the dearer one, nothing is left to choose
VERDICT_WORDS = {
    "worse": "worse",
    "behind": "behind (interval includes 0)",
    "not proven": "not proven (interval includes 0)",
    "equal": "the same",
}


def evaluation_page(result: Evaluation, *, mean_tokens: float | None = None) -> Page:
    """The page of an evaluation.

    Args:
        result: what to show.
        mean_tokens: near this level the terminal shows the policies; None: near `levels.USUAL`, a rule, so that no
            result chooses it.
    """
    shown = levels_near(result, usual_level(result) if mean_tokens is None else mean_tokens)
    parts = [_policies_part(result, cost, level) for cost, level in shown.items()]
    parts += [part for cost in result.costs for part in _cost_parts(result, cost)]
    parts += [
        Part("where forethought is not ahead", [Bullets(loss_lines(result))]),
        Part("", [_losses_table(result)], on="page"),
        Part("calibration", [_calibration_line(result)]),
        Part("", [*_calibration_blocks(result)], on="page"),
        *(_every_level(result, cost) for cost in result.costs),
    ]

    def draw(folder: Path) -> dict[str, Path]:
        from .plots import draw

        return draw(result, folder, mean_tokens=usual_level(result))

    return Page(
        name="evaluation",
        title="Evaluation",
        result=result,
        sample=sample_words(result.provenance, result.num_queries, result.num_traces),
        parts=[part for part in parts if any(not isinstance(block, Table) or block.rows for block in part.blocks)],
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        notes=result.notes,
        facts={
            "bootstrap seed": result.seed,
            "allocator": result.allocator,
            "menu": result.menu,
            "data hash": result.data_hash,
            **result.provenance,
        },
        draw=draw,
    )


def usual_level(result: Evaluation) -> float:
    """The level shown where only one is."""
    return at_share(result.levels[result.costs[0]], USUAL)


def levels_near(result: Evaluation, mean_tokens: float) -> dict[Cost, float]:
    """The level shown under each cost: nearest to `mean_tokens`; under spent cost, to what uniform spends there.

    Where all thoughts have ended there by themselves, nothing is left to choose under spent cost: the level is then as
    far between the ends as under granted cost.
    """
    found: dict[Cost, float] = {}
    for cost, levels in result.levels.items():
        wanted = mean_tokens
        if cost is Cost.SPENT and Cost.GRANTED in found:
            granted = result.levels[Cost.GRANTED]
            spent = rows_at(result, Cost.GRANTED, found[Cost.GRANTED])[UNIFORM].spent
            wanted = mean_tokens if spent is None else spent
            if granted[0] < found[Cost.GRANTED] < granted[-1] and wanted > levels[0] + ENDED * (levels[-1] - levels[0]):
                share = (found[Cost.GRANTED] - granted[0]) / (granted[-1] - granted[0])
                wanted = at_share(levels, share)
        found[cost] = min(levels, key=lambda level: abs(level - wanted))
    return found


def rows_at(result: Evaluation, cost: Cost, level: float) -> dict[str, PolicyRow]:
    """Policy -> its row at one level."""
    return {row.policy: row for row in result.rows if row.cost is cost and row.budget == level}


def loss_lines(result: Evaluation) -> Iterator[str]:
    """Where forethought is not ahead, one line a cost and baseline, the worst said first."""
    for cost, levels in result.levels.items():
        for baseline in (UNIFORM, BLIND):
            losses = [each for each in result.losses if each.cost is cost and each.baseline == baseline]
            parts = [f"clearly ahead of {baseline} at {len(levels) - len(losses)} of {len(levels)} {cost.value} levels"]
            for verdict, words in VERDICT_WORDS.items():
                if at := [f"{each.budget:g}" for each in losses if each.verdict == verdict]:
                    parts.append(f"{words} at {', '.join(at)}")
            yield "; ".join(parts)


def _policies_part(result: Evaluation, cost: Cost, level: float) -> Part:
    """Four policies at one level, and what the baselines need to be as accurate, for the terminal."""
    rows = rows_at(result, cost, level)
    table = Table(["", "right", "granted", "spent", *GAINS], [_cells(rows[policy]) for policy in SHOWN])
    savings = [_saving_words(each) for each in result.savings if each.cost is cost and each.budget == level]
    return Part(f"{level:g} {cost.value} tokens a question", [table, Bullets(savings)], on="terminal")


def _saving_words(saving: Saving) -> str:
    if not math.isfinite(saving.needed.value):
        return f"{saving.baseline} is nowhere as accurate: no cap on the menu reaches {percent(saving.accuracy)}"
    ratio = interval(saving.ratio, ".2f")
    return f"{saving.baseline} needs {saving.needed.value:.1f} tokens to be as accurate: {ratio} times as many"


def _cost_parts(result: Evaluation, cost: Cost) -> Iterator[Part]:
    """The mean over all levels, then the headline levels in full."""
    levels = result.levels[cost]
    ours = next(each for each in result.summaries if each.cost is cost and each.policy == FORETHOUGHT)
    mean = f"{gain_words(ours.gain)} points over uniform, {gain_words(ours.gain_over_blind)} over blind"
    of_what = f"Mean over {len(levels)} levels from {levels[0]:g} to {levels[-1]:g} tokens, weighed by tokens"
    if len(levels) == 1:
        of_what = f"At the only level, {levels[0]:g} tokens"
    yield Part(f"accuracy at equal {cost.value} tokens", [f"{of_what}: forethought {mean}."])
    shown = dict.fromkeys(_headlines(result)[cost])
    for level in shown:
        rows = rows_at(result, cost, level)
        table = Table(["policy", "right", "granted", "spent", *GAINS], [_cells(rows[policy]) for policy in POLICIES])
        yield Part(f"{level:g} tokens a question", [table], on="page", level=3)
    savings = [each for each in result.savings if each.cost is cost and each.budget in shown]
    yield Part("tokens saved at equal accuracy", [_savings_table(savings)], on="page", level=3)


def _headlines(result: Evaluation) -> dict[Cost, list[float]]:
    """The levels at some shares of the way between the cheapest and the dearest; the same under both costs."""
    at = [levels_near(result, at_share(result.levels[result.costs[0]], share)) for share in HEADLINES]
    return {cost: sorted({found[cost] for found in at}) for cost in result.costs}


def _cells(row: PolicyRow) -> list[str]:
    spent = "not measured" if row.spent is None else f"{row.spent:.1f}"
    gains = [gain_words(row.gain), gain_words(row.gain_over_blind)]
    gaps = [gap_words(row.gap_closed), gap_words(row.gap_closed_over_blind)]
    return [policy_name(row.policy), share_right(row.accuracy), f"{row.granted:.1f}", spent, *gains, *gaps]


def _savings_table(savings: Sequence[Saving]) -> Table:
    head = ["level", "forethought", "with tokens", "baseline", "needs tokens", "times as many", "gets there in"]
    rows = [
        [
            f"{each.budget:g}",
            percent(each.accuracy),
            f"{each.tokens:.1f}",
            each.baseline,
            interval(each.needed, ".1f") if math.isfinite(each.needed.value) else "never on the menu",
            interval(each.ratio, ".2f"),
            f"{100 * each.reached:.0f}% of resamples",
        ]
        for each in savings
    ]
    return Table(head, rows)


def _losses_table(result: Evaluation) -> Table:
    rows = [
        [f"{each.budget:g} {each.cost.value}", each.baseline, each.verdict, gain_words(each.gain)]
        for each in result.losses
        if each.verdict != "equal"
    ]
    return Table(["level", "against", "verdict", "points"], rows)


def _calibration_line(result: Evaluation) -> str:
    found, overall = result.calibration, result.calibration.overall
    return (
        f"Predictions: calibration error {100 * found.calibration_error:.1f} points, Brier {overall.brier:.4f} "
        f"(mean curve {overall.mean_brier:.4f}), log loss {overall.log_loss:.4f} ({overall.mean_log_loss:.4f})."
    )


def _calibration_blocks(result: Evaluation) -> Iterator[str | Table]:
    found = result.calibration
    yield (
        f"Knowing the question lowers the log loss by {interval(found.log_loss_gain, '.4f')} nats a trace; "
        f"correlation with measured success {found.overall.pearson:.2f}."
    )
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
    yield Table(["predicted between", "predicted", "measured", "judgements", "questions"], rows)


def _every_level(result: Evaluation, cost: Cost) -> Part:
    """All levels of one cost, folded away."""
    rows = [[f"{row.budget:g}", *_cells(row)] for row in result.rows if row.cost is cost]
    savings = [saving for saving in result.savings if saving.cost is cost]
    blocks: list[str | Table] = [Table(["level", "policy", "right", "granted", "spent", *GAINS], rows)]
    blocks += ["Tokens saved at equal accuracy:", _savings_table(savings)]
    if cost is result.costs[0]:
        head = ["cap", "Brier", "of the mean curve", "log loss", "of the mean curve", "correlation"]
        errors = [
            [
                f"{each.budget}",
                *(f"{v:.4f}" for v in (each.brier, each.mean_brier, each.log_loss, each.mean_log_loss)),
                f"{each.pearson:.2f}",
            ]
            for each in result.calibration.by_budget
        ]
        blocks += ["Predictions at every cap:", Table(head, errors)]
    return Part(f"Every level, {cost.value} cost", blocks, on="page", level=0)


def live_page(result: LiveComparison) -> Page:
    """The page of a live comparison."""
    policies = [
        [
            Said(each.policy),
            f"{each.num_right:g} of {result.num_questions}",
            share_right(each.accuracy),
            f"{each.granted:.1f}",
            f"{each.spent:.1f}",
        ]
        for each in result.policies
    ]
    differences = [
        [
            Said(f"{each.policy} less {each.baseline}"),
            gain_words(each.accuracy),
            f"{each.num_better} / {each.num_worse}",
            interval(each.granted, "+.1f"),
            interval(each.spent, "+.1f"),
        ]
        for each in result.differences
    ]
    head = ["", "points", "questions better / worse", "granted tokens", "spent tokens"]
    said = [Said(f"{each.policy} against {each.baseline}: {each.sentence}") for each in result.differences]
    return Page(
        name="live",
        title="Live comparison",
        result=result,
        sample=f"{result.num_questions:,} questions, the same traces for every policy",
        parts=[
            Part("", [Table(["policy", "right", "share", "granted", "spent"], policies)]),
            *([Part("", [Table(head, differences)], on="page")] if differences else []),
            *([Part("", [Bullets([*said, *_few_questions(result)])])] if said else []),
        ],
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        facts={"bootstrap seed": result.seed, **result.provenance},
    )


def _few_questions(result: LiveComparison) -> Iterator[str]:
    """So few that no difference between policies could be taken for proof."""
    if result.num_questions < FEW_QUESTIONS:
        widest = max(result.differences, key=lambda each: each.accuracy.high - each.accuracy.low).accuracy
        ends = f"{points(widest.low)} to {points(widest.high)}"
        yield f"n = {result.num_questions} questions proves nothing by itself; interval {ends} points"
