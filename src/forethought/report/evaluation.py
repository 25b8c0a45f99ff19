"""An evaluation, and a live comparison, as pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..core.data import Cost
from ..evaluation.levels import HEADLINES, USUAL, at_share
from ..evaluation.live import LiveComparison
from ..evaluation.policies import BLIND, FORETHOUGHT, ORACLE, POLICIES, UNIFORM
from ..evaluation.results import COUNTED, Evaluation, PolicyRow, Saving
from .pages import Block, Bullets, Page, Part, Said, Table
from .wording import (
    amount,
    amount_interval,
    gain_words,
    gap_words,
    interval,
    level_words,
    percent,
    points,
    policy_name,
    sample_words,
    share_right,
)

SHOWN = (UNIFORM, BLIND, FORETHOUGHT, ORACLE)
GAINS = ("points over uniform", "points over blind", "gap closed over uniform", "gap closed over blind")
FEW_QUESTIONS = 30
MOST_NAMED = 12  # options in a table with a column each
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
        mean_tokens: near this level, counted by the first cost, the terminal shows the policies; None: near
            `levels.USUAL`, a rule, so that no result chooses it.
    """
    shown = levels_near(result, usual_level(result) if mean_tokens is None else mean_tokens)
    parts = [*_options_part(result), *(_policies_part(result, cost, level) for cost, level in shown.items())]
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
    far between the ends as under granted cost. In USD it always is as far between them as under the first cost.
    """
    found: dict[Cost, float] = {}
    for cost, levels in result.levels.items():
        wanted = mean_tokens
        if found:
            first, at = result.levels[result.costs[0]], found[result.costs[0]]
            share = (at - first[0]) / (first[-1] - first[0]) if len(first) > 1 else USUAL
            spent = rows_at(result, result.costs[0], at)[UNIFORM].spent
            wanted = mean_tokens if spent is None else spent
            is_at_end = first[0] < at < first[-1] and wanted > levels[0] + ENDED * (levels[-1] - levels[0])
            wanted = at_share(levels, share) if is_at_end or cost is Cost.USD else wanted
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
            counted = "USD" if cost is Cost.USD else cost.value
            parts = [f"clearly ahead of {baseline} at {len(levels) - len(losses)} of {len(levels)} {counted} levels"]
            for verdict, words in VERDICT_WORDS.items():
                if at := [level_words(each.budget, cost) for each in losses if each.verdict == verdict]:
                    parts.append(f"{words} at {', '.join(at)}")
            yield "; ".join(parts)


def _policies_part(result: Evaluation, cost: Cost, level: float) -> Part:
    """Four policies at one level, and what the baselines need to be as accurate, for the terminal."""
    rows = rows_at(result, cost, level)
    shown = _paid(result, cost)
    table = Table(["", "right", *map(_head, shown), *GAINS], [_cells(rows[policy], shown) for policy in SHOWN])
    at = [each for each in result.savings if each.cost is cost and each.budget == level]
    savings = Bullets(_saving_words(each, is_named=result.menu.is_named) for each in at)
    blocks: list[Block] = [table, *_shares_table(result, rows, SHOWN), savings]
    return Part(f"{level_words(level, cost)} {COUNTED[cost]} a question", blocks, on="terminal")


def _paid(result: Evaluation, cost: Cost) -> list[Cost]:
    """What is shown of what a policy pays: the cost that was planned, then the others that are known."""
    known = [] if result.menu.is_named else [Cost.GRANTED]
    known += [Cost.SPENT, *([Cost.USD] if result.rows[0].usd is not None else [])]
    return known if cost in known and not result.menu.is_named else list(dict.fromkeys([cost, *known]))


def _head(cost: Cost) -> str:
    return "USD" if cost is Cost.USD else cost.value


def _options_part(result: Evaluation) -> Iterator[Part]:
    """Each named option for all questions."""
    if result.options:
        head = ["option", "right", "spent", "on train: right", "on train: spent"]
        has_usd = result.options[0].usd is not None
        rows = [
            [
                Said(each.label),
                share_right(each.accuracy),
                amount(each.spent, Cost.SPENT),
                *([amount(each.usd, Cost.USD)] if has_usd else []),
                percent(each.mean_p),
                amount(each.mean_tokens, Cost.SPENT),
            ]
            for each in result.options
        ]
        table = Table([*head[:3], *(["USD"] if has_usd else []), *head[3:]], rows)
        yield Part("one option for all questions", [table])


def _shares_table(result: Evaluation, rows: Mapping[str, PolicyRow], policies: Sequence[str]) -> Iterator[Table]:
    """How many of the questions each policy gave each named option."""
    if result.menu.is_named and result.menu.num_options <= MOST_NAMED:
        cells = [[policy_name(each), *(percent(share) for share in rows[each].shares)] for each in policies]
        yield Table(["questions at", *map(Said, result.menu.labels)], cells)


def _saving_words(saving: Saving, *, is_named: bool) -> str:
    if not math.isfinite(saving.needed.value):
        noun = "option" if is_named else "cap"
        return f"{saving.baseline} is nowhere as accurate: no {noun} on the menu reaches {percent(saving.accuracy)}"
    unit, times = _units(saving.cost)
    needed, ratio = amount(saving.needed.value, saving.cost), interval(saving.ratio, ".2f")
    return f"{saving.baseline} needs {needed} {unit} to be as accurate: {ratio} {times}"


def _units(cost: Cost) -> tuple[str, str]:
    return ("USD", "times as much") if cost is Cost.USD else ("tokens", "times as many")


def _cost_parts(result: Evaluation, cost: Cost) -> Iterator[Part]:
    """The mean over all levels, then the headline levels in full."""
    levels = result.levels[cost]
    ours = next(each for each in result.summaries if each.cost is cost and each.policy == FORETHOUGHT)
    mean = f"{gain_words(ours.gain)} points over uniform, {gain_words(ours.gain_over_blind)} over blind"
    (unit, _), first, last = _units(cost), *(level_words(each, cost) for each in (levels[0], levels[-1]))
    of_what = f"Mean over {len(levels)} levels from {first} to {last} {unit}, weighed by {unit}"
    if len(levels) == 1:
        of_what = f"At the only level, {first} {unit}"
    yield Part(f"accuracy at equal {COUNTED[cost]}", [f"{of_what}: forethought {mean}."])
    shown = dict.fromkeys(_headlines(result)[cost])
    for level in shown:
        rows = rows_at(result, cost, level)
        paid = _paid(result, cost)
        head = ["policy", "right", *map(_head, paid), *GAINS]
        table = Table(head, [_cells(rows[policy], paid) for policy in POLICIES])
        blocks = [table, *_shares_table(result, rows, POLICIES)]
        yield Part(f"{level_words(level, cost)} {unit} a question", blocks, on="page", level=3)
    savings = [each for each in result.savings if each.cost is cost and each.budget in shown]
    yield Part(f"{unit} saved at equal accuracy", [_savings_table(savings)], on="page", level=3)


def _headlines(result: Evaluation) -> dict[Cost, list[float]]:
    """The levels at some shares of the way between the cheapest and the dearest; the same under both costs."""
    at = [levels_near(result, at_share(result.levels[result.costs[0]], share)) for share in HEADLINES]
    return {cost: sorted({found[cost] for found in at}) for cost in result.costs}


def _cells(row: PolicyRow, paid: Sequence[Cost]) -> list[str]:
    known = {Cost.GRANTED: row.granted, Cost.SPENT: row.spent, Cost.USD: row.usd}
    gains = [gain_words(row.gain), gain_words(row.gain_over_blind)]
    gaps = [gap_words(row.gap_closed), gap_words(row.gap_closed_over_blind)]
    return [policy_name(row.policy), share_right(row.accuracy), *(amount(known[c], c) for c in paid), *gains, *gaps]


def _savings_table(savings: Sequence[Saving]) -> Table:
    """All of one cost; where both are known, what forethought used in its unit and then in the other."""
    cost = savings[0].cost if savings else Cost.SPENT
    (unit, times), has_usd = _units(cost), any(each.usd is not None for each in savings)
    paid = [Cost.USD, Cost.SPENT] if cost is Cost.USD else [cost, *([Cost.USD] if has_usd else [])]
    withs = [f"with {_units(each)[0]}" for each in paid]
    head = ["level", "forethought", *withs, "baseline", f"needs {unit}", times, "gets there in"]
    rows = [
        [
            level_words(each.budget, cost),
            percent(each.accuracy),
            *(amount(each.usd if counted is Cost.USD else each.tokens, counted) for counted in paid),
            each.baseline,
            amount_interval(each.needed, cost) if math.isfinite(each.needed.value) else "never on the menu",
            interval(each.ratio, ".2f"),
            f"{100 * each.reached:.0f}% of resamples",
        ]
        for each in savings
    ]
    return Table(head, rows)


def _losses_table(result: Evaluation) -> Table:
    losses = [each for each in result.losses if each.verdict != "equal"]
    levels = [f"{level_words(each.budget, each.cost)} {_head(each.cost)}" for each in losses]
    rows = [
        [level, each.baseline, each.verdict, gain_words(each.gain)] for level, each in zip(levels, losses, strict=True)
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
    paid = _paid(result, cost)
    rows = [[level_words(row.budget, cost), *_cells(row, paid)] for row in result.rows if row.cost is cost]
    savings = [saving for saving in result.savings if saving.cost is cost]
    blocks: list[str | Table] = [Table(["level", "policy", "right", *map(_head, paid), *GAINS], rows)]
    blocks += [f"{'USD' if cost is Cost.USD else 'Tokens'} saved at equal accuracy:", _savings_table(savings)]
    if cost is result.costs[0]:
        noun = "option" if result.menu.is_named else "cap"
        head = [noun, "Brier", "of the mean curve", "log loss", "of the mean curve", "correlation"]
        errors = [
            [
                Said(result.menu.label(each.budget or 0)),
                *(f"{v:.4f}" for v in (each.brier, each.mean_brier, each.log_loss, each.mean_log_loss)),
                f"{each.pearson:.2f}",
            ]
            for each in result.calibration.by_budget
        ]
        blocks += [f"Predictions at every {noun}:", Table(head, errors)]
    return Part(f"Every level, {'in USD' if cost is Cost.USD else f'{cost.value} cost'}", blocks, on="page", level=0)


def live_page(result: LiveComparison) -> Page:
    """The page of a live comparison."""
    policies = [
        [
            Said(each.policy),
            f"{each.num_right:g} of {result.num_questions}",
            share_right(each.accuracy),
            *([] if each.granted is None else [amount(each.granted, Cost.GRANTED)]),
            amount(each.spent, Cost.SPENT),
            *([] if each.usd is None else [amount(each.usd, Cost.USD)]),
        ]
        for each in result.policies
    ]
    differences = [
        [
            Said(f"{each.policy} less {each.baseline}"),
            gain_words(each.accuracy),
            f"{each.num_better} / {each.num_worse}",
            *([] if each.granted is None else [interval(each.granted, "+.1f")]),
            interval(each.spent, "+.1f"),
            *([] if each.usd is None else [amount_interval(each.usd, Cost.USD, is_signed=True)]),
        ]
        for each in result.differences
    ]
    first = result.policies[0]
    same = "the same traces for every policy"
    if first.granted is None:  # named options
        same = "the same for every policy, and the same answers where policies choose the same option"
    paid = [*([] if first.granted is None else [Cost.GRANTED]), Cost.SPENT]
    paid += [] if first.usd is None else [Cost.USD]
    planned = result.provenance.get("cost")
    heads = [f"{_head(each)}{' (planned)' if each == planned else ''}" for each in paid]
    head = ["", "points", "questions better / worse", *(COUNTED[each] for each in paid)]
    said = [Said(f"{each.policy} against {each.baseline}: {each.sentence}") for each in result.differences]
    return Page(
        name="live",
        title="Live comparison",
        result=result,
        sample=f"{result.num_questions:,} questions, {same}",
        parts=[
            Part("", [Table(["policy", "right", "share", *heads], policies)]),
            *([Part("", [Table(head, differences)])] if differences else []),
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
