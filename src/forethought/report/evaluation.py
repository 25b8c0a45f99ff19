"""An evaluation as a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.data import Cost
from ..core.terms import percent
from ..evaluation.levels import HEADLINES, at_share
from ..evaluation.policies import BLIND, FAIR_ORACLE, FORETHOUGHT, POLICIES, UNIFORM
from ..evaluation.results import COUNTED, Evaluation, PolicyRow, Saving
from .findings import (
    MOST_NAMED,
    SHOWN,
    calibration_title,
    costs_shown,
    evaluation_decision,
    frontier_title,
    gain_title,
    groups_title,
    rows_at,
    shares_title,
)
from .groups import group_costs
from .pages import Block, Bullets, Page, Part, Picture, Said, Table, facts_of
from .questions import ReadRecords, evaluated_questions, kinds_of_questions
from .wording import (
    NOT_REACHED,
    amount,
    amount_interval,
    cost_name,
    gain_words,
    gap_words,
    interval,
    level_words,
    policy_name,
    sample_words,
    share_right,
)

GAINS = ("points over uniform", "points over blind", "gap closed over uniform", "gap closed over blind")
ENDED = 0.99  # of the range of spent cost: beyond this, all thoughts have ended and nothing is left to choose
VERDICT_WORDS = {
    "worse": "worse",
    "behind": "behind (interval includes 0)",
    "not proven": "not proven (interval includes 0)",
    "equal": "the same",
}


def evaluation_page(
    result: Evaluation,
    *,
    mean_tokens: float | None = None,
    records: ReadRecords | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Page:
    """The page of an evaluation; spent cost comes before granted cost.

    Args:
        result: what to show.
        mean_tokens: the terminal shows the policies at the level nearest to this, counted by the first cost; None: at
            the headline level of each cost, which a rule chooses before any result is known.
        records: reads the traces of some questions, if they are stored with the profile.
        facts: the command and its settings, in addition to the provenance.
    """
    costs = costs_shown(result)
    shown = result.headline if mean_tokens is None else levels_near(result, mean_tokens)
    parts = [*_options_part(result), *(_policies_part(result, cost, shown[cost]) for cost in costs)]
    parts += [part for cost in costs for part in _cost_parts(result, cost)]
    parts += [
        *_division_parts(result, costs),
        Part("which questions gained and lost", [evaluated_questions(result, costs[0], records)], on="html"),
        Part("where forethought is not ahead", [Bullets(loss_lines(result))]),
        Part("", [_losses_table(result)], on="page"),
        Part("calibration", [Picture("calibration", calibration_title(result)), _calibration_line(result)]),
        Part("", [*_calibration_blocks(result)], on="page"),
        *(_every_level(result, cost) for cost in costs),
    ]

    def draw(folder: Path) -> dict[str, Path]:
        from .plots import draw

        return draw(result, folder)

    def inline() -> dict[str, str]:
        from .plots import inline

        return inline(result)

    return Page(
        name="evaluation",
        title="Evaluation",
        result=result,
        sample=sample_words(result.provenance, result.num_queries, result.num_traces),
        decision=tuple(evaluation_decision(result)),
        parts=[part for part in parts if any(not isinstance(block, Table) or block.rows for block in part.blocks)],
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        notes=result.notes,
        facts=facts_of(result, facts, allocator=result.allocator, menu=result.menu),
        draw=draw,
        inline=inline,
    )


def levels_near(result: Evaluation, mean_tokens: float) -> dict[Cost, float]:
    """The level shown under each cost: nearest to `mean_tokens`; under spent cost, to what uniform spends there.

    If all thoughts have ended by themselves at that level, nothing is left to choose under spent cost: the level then
    has the same relative place in its range as under granted cost. In USD it always has that of the first cost.
    """
    found: dict[Cost, float] = {}
    for cost, levels in result.levels.items():
        wanted = mean_tokens
        if found:
            first, at = result.levels[result.costs[0]], found[result.costs[0]]
            share = (at - first[0]) / (first[-1] - first[0]) if len(first) > 1 else 1.0
            spent = rows_at(result, result.costs[0], at)[UNIFORM].spent
            wanted = mean_tokens if spent is None else spent
            is_at_end = first[0] < at < first[-1] and wanted > levels[0] + ENDED * (levels[-1] - levels[0])
            wanted = at_share(levels, share) if is_at_end or cost is Cost.USD else wanted
        found[cost] = min(levels, key=lambda level: abs(level - wanted))
    return found


def loss_lines(result: Evaluation) -> Iterator[str]:
    """Where forethought is not ahead: one line per cost and baseline, the worst verdict first."""
    for cost in costs_shown(result):
        levels = result.levels[cost]
        for baseline in (UNIFORM, BLIND):
            losses = [each for each in result.losses if each.cost is cost and each.baseline == baseline]
            counted = "USD" if cost is Cost.USD else cost.value
            parts = [
                f"significantly better than {baseline} at {len(levels) - len(losses)} of {len(levels)} {counted} levels"
            ]
            for verdict, words in VERDICT_WORDS.items():
                if at := [level_words(each.budget, cost) for each in losses if each.verdict == verdict]:
                    parts.append(f"{words} at {', '.join(at)}")
            yield "; ".join(parts)


def _policies_part(result: Evaluation, cost: Cost, level: float) -> Part:
    """The policies at one level, and what the baselines need for the same accuracy, for the terminal."""
    rows = rows_at(result, cost, level)
    shown = _paid(result, cost)
    policies = [each for each in (*SHOWN, FAIR_ORACLE) if each in rows]
    table = Table(["", "right", *map(cost_name, shown), *GAINS], [_cells(rows[each], shown) for each in policies])
    at = [each for each in result.savings if each.cost is cost and each.budget == level]
    savings = Bullets(_saving_words(each, is_named=result.menu.is_named) for each in at)
    blocks: list[Block] = [table, *_shares_table(result, rows, policies), savings]
    return Part(f"{level_words(level, cost)} {COUNTED[cost]} per question", blocks, on="terminal")


def _paid(result: Evaluation, cost: Cost) -> list[Cost]:
    """The costs shown for a policy: the planned one, then the others that are known."""
    known = [] if result.menu.is_named else [Cost.GRANTED]
    known += [Cost.SPENT, *([Cost.USD] if result.rows[0].usd is not None else [])]
    return known if cost in known and not result.menu.is_named else list(dict.fromkeys([cost, *known]))


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
    """The share of the questions that each policy gave each named option."""
    if result.menu.is_named and result.menu.num_options <= MOST_NAMED:
        cells = [[policy_name(each), *(percent(share) for share in rows[each].shares)] for each in policies]
        yield Table(["questions at", *map(Said, result.menu.labels)], cells)


def _saving_words(saving: Saving, *, is_named: bool) -> str:
    if not math.isfinite(saving.needed.value):
        noun = "option" if is_named else "cap"
        return (
            f"{saving.baseline} never reaches this accuracy: no {noun} on the menu reaches {percent(saving.accuracy)}"
        )
    unit, times = _units(saving.cost)
    needed, ratio = amount(saving.needed.value, saving.cost), interval(saving.ratio, ".2f")
    return f"{saving.baseline} needs {needed} {unit} for the same accuracy: {ratio} {times}"


def _units(cost: Cost) -> tuple[str, str]:
    return ("USD", "times as much") if cost is Cost.USD else ("tokens", "times as many")


def _cost_parts(result: Evaluation, cost: Cost) -> Iterator[Part]:
    """The mean over all levels, then the headline levels in full."""
    levels = result.levels[cost]
    ours = next(each for each in result.summaries if each.cost is cost and each.policy == FORETHOUGHT)
    mean = f"{gain_words(ours.gain)} points over uniform, {gain_words(ours.gain_over_blind)} over blind"
    (unit, _), first, last = _units(cost), *(level_words(each, cost) for each in (levels[0], levels[-1]))
    of_what = f"Mean over {len(levels)} levels from {first} to {last} {unit}, weighted by {unit}"
    if len(levels) == 1:
        of_what = f"At the only level, {first} {unit}"
    pictures = [
        Picture(f"accuracy-{cost.value}", frontier_title(result, cost)),
        Picture(f"gain-{cost.value}", gain_title(result, cost)),
    ]
    yield Part(f"accuracy at equal {COUNTED[cost]}", [f"{of_what}: forethought {mean}.", *pictures])
    yield Part("", [_levels_table(result, cost)], on="page")
    level, paid = result.headline[cost], _paid(result, cost)
    rows = rows_at(result, cost, level)
    known = [each for each in POLICIES if each in rows]
    table = Table(["policy", "right", *map(cost_name, paid), *GAINS], [_cells(rows[each], paid) for each in known])
    blocks = [table, *_shares_table(result, rows, known)]
    yield Part(f"{level_words(level, cost)} {unit} per question", blocks, on="page", level=3)
    savings = [each for each in result.savings if each.cost is cost and each.budget in _headlines(result)[cost]]
    yield Part(f"{unit} saved at equal accuracy", [_savings_table(savings)], on="page", level=3)


def _levels_table(result: Evaluation, cost: Cost) -> Table:
    """Four policies at a few levels, and forethought's gains."""
    head = [f"{_units(cost)[0]} per question", *map(policy_name, SHOWN), "points over uniform", "over blind"]
    cells = []
    for level in _headlines(result)[cost]:
        rows = rows_at(result, cost, level)
        ours = rows[FORETHOUGHT]
        rights = [percent(rows[each].accuracy.value) for each in SHOWN]
        cells.append([level_words(level, cost), *rights, gain_words(ours.gain), gain_words(ours.gain_over_blind)])
    return Table(head, cells)


def _division_parts(result: Evaluation, costs: Sequence[Cost]) -> Iterator[Part]:
    """How the budget was divided, at the headline level of each cost that has plots of its own."""
    blocks: list[Block] = []
    for cost in costs[: 2 if result.menu.is_named else 1]:
        blocks += [
            Picture(f"shares-{cost.value}", shares_title(result, cost, result.headline[cost])),
            Picture(
                f"groups-{cost.value}",
                groups_title(group_costs(result, cost, FORETHOUGHT, result.headline[cost]), cost),
            ),
        ]
    blocks += [kinds_of_questions(result, costs[0])]
    yield Part("where the tokens went", blocks, on="page")


def _headlines(result: Evaluation) -> dict[Cost, list[float]]:
    """Levels at some shares of the range from the cheapest to the most expensive; the same under both costs."""
    at = [levels_near(result, at_share(result.levels[result.costs[0]], share)) for share in HEADLINES]
    return {cost: sorted({result.headline[cost], *(found[cost] for found in at)}) for cost in result.costs}


def _cells(row: PolicyRow, paid: Sequence[Cost]) -> list[str]:
    known = {Cost.GRANTED: row.granted, Cost.SPENT: row.spent, Cost.USD: row.usd}
    gains = [gain_words(row.gain), gain_words(row.gain_over_blind)]
    gaps = [gap_words(row.gap_closed), gap_words(row.gap_closed_over_blind)]
    return [policy_name(row.policy), share_right(row.accuracy), *(amount(known[c], c) for c in paid), *gains, *gaps]


def _savings_table(savings: Sequence[Saving]) -> Table:
    """Savings under one cost; if both units are known, forethought's usage in the cost's unit first, then the other."""
    cost = savings[0].cost if savings else Cost.SPENT
    (unit, times), has_usd = _units(cost), any(each.usd is not None for each in savings)
    paid = [Cost.USD, Cost.SPENT] if cost is Cost.USD else [cost, *([Cost.USD] if has_usd else [])]
    withs = [f"with {_units(each)[0]}" for each in paid]
    head = ["level", "forethought", *withs, "baseline", f"needs {unit}", times, "reached in"]
    rows = [
        [
            level_words(each.budget, cost),
            percent(each.accuracy),
            *(amount(each.usd if counted is Cost.USD else each.tokens, counted) for counted in paid),
            each.baseline,
            amount_interval(each.needed, cost) if math.isfinite(each.needed.value) else NOT_REACHED,
            interval(each.ratio, ".2f") if math.isfinite(each.ratio.value) else NOT_REACHED,
            f"{percent(each.reached, 0)} of resamples",
        ]
        for each in savings
    ]
    return Table(head, rows)


def _losses_table(result: Evaluation) -> Table:
    losses = [each for each in result.losses if each.verdict != "equal"]
    levels = [f"{level_words(each.budget, each.cost)} {cost_name(each.cost)}" for each in losses]
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
        f"The predictions lower the log loss by {interval(found.log_loss_gain, '.4f')} nats per trace; "
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
    """All levels of one cost, in a closed section."""
    paid = _paid(result, cost)
    rows = [[level_words(row.budget, cost), *_cells(row, paid)] for row in result.rows if row.cost is cost]
    savings = [saving for saving in result.savings if saving.cost is cost]
    blocks: list[str | Table] = [Table(["level", "policy", "right", *map(cost_name, paid), *GAINS], rows)]
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
