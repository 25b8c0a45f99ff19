"""The gain from earlier samples of the same questions, as a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.data import Cost
from ..core.terms import percent
from ..evaluation.draws import DRAWS_POLICIES, HISTORY, DrawsEvaluation
from ..evaluation.levels import HEADLINES, at_share
from ..evaluation.results import Estimate
from .findings import costs_shown, draws_decision, draws_title, num_draws_title
from .pages import Block, Page, Part, Picture, Said, Table, facts_of
from .wording import NOT_REACHED, UNITS, amount, amount_interval, gain_words, policy_name, sample_words, share_right


def draws_page(result: DrawsEvaluation, *, facts: Mapping[str, Any] | None = None) -> Page:
    """The page of an evaluation by draws; `facts`: how it was made, in addition to its provenance."""

    def draw(folder: Path) -> dict[str, Path]:
        from .draws_plots import draw_draws

        return draw_draws(result, folder)

    def inline() -> dict[str, str]:
        from .draws_plots import inline_draws

        return inline_draws(result)

    return Page(
        name="draws",
        title="Gain from earlier samples of the same questions",
        result=result,
        sample=f"{sample_words(result.provenance, result.num_queries, result.num_traces)}; {result.halving}",
        decision=tuple(draws_decision(result)),
        parts=[part for cost in costs_shown(result) for part in _cost_parts(result, cost)],
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        notes=result.notes,
        facts=facts_of(result, facts, menu=result.menu),
        draw=draw,
        inline=inline,
    )


def _cost_parts(result: DrawsEvaluation, cost: Cost) -> Iterator[Part]:
    """A few levels, then the options; all levels in a closed section."""
    unit, levels = UNITS[cost], result.levels[cost]
    some = sorted({result.headline[cost], *(at_share(levels, share) for share in HEADLINES)})
    has_counts = any(row.cost is cost for row in result.by_num_draws)
    pictures = [Picture(f"draws-{cost.value}", draws_title(result, cost))]
    if has_counts:
        pictures.append(Picture(f"num-draws-{cost.value}", num_draws_title(result, cost)))
    yield Part(f"accuracy at the same mean {unit} per question", [*pictures, _policies(result, cost, some)])
    yield Part(f"one option for all, and the {unit} of the same accuracy", [_options(result, cost)])
    if has_counts:
        yield Part(
            f"how many earlier samples are needed, in {unit}", [_num_draws(result, cost, [result.headline[cost]])]
        )
    if set(levels) - set(some):
        blocks: list[Block] = [_policies(result, cost, levels)]
        blocks += [_num_draws(result, cost, levels)] if has_counts else []
        yield Part(f"Every level, in {unit}", blocks, on="page", level=0)


def _policies(result: DrawsEvaluation, cost: Cost, levels: Sequence[float]) -> Table:
    head = [f"{UNITS[cost]}", *map(policy_name, DRAWS_POLICIES), "history over uniform", "over blind"]
    rows = []
    for level in levels:
        found = {row.policy: row for row in result.rows if row.cost is cost and row.level == level}
        own = found[HISTORY]
        rights = [share_right(found[each].accuracy) for each in DRAWS_POLICIES]
        rows.append([_level(level, cost), *rights, gain_words(own.gain), gain_words(own.gain_over_blind)])
    return Table(head, rows)


def _level(level: float, cost: Cost) -> str:
    return amount(level, cost) if cost is Cost.USD else f"{level:,.0f}"


def _options(result: DrawsEvaluation, cost: Cost) -> Table:
    rows = [
        [
            Said(each.label),
            _level(each.realised.value, cost),
            share_right(each.accuracy),
            amount_interval(each.needed[HISTORY], cost),
            _saved(each.saved[HISTORY]),
        ]
        for each in result.options
        if each.cost is cost
    ]
    return Table(["option", UNITS[cost], "right", "the history needs", "saved"], rows)


def _saved(found: Estimate) -> str:
    """The share of the cost that is saved; in words if the accuracy is not reached."""
    if not math.isfinite(found.value):
        return NOT_REACHED
    value, low, high = (
        percent(each) if math.isfinite(each) else NOT_REACHED for each in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def _num_draws(result: DrawsEvaluation, cost: Cost, levels: Sequence[float]) -> Table:
    rows = [
        [
            _level(row.level, cost),
            str(row.num_draws),
            f"{row.num_queries:,}",
            share_right(row.accuracy),
            gain_words(row.gain),
            gain_words(row.gain_over_blind),
        ]
        for row in sorted(result.by_num_draws, key=lambda row: (row.level, row.num_draws))
        if row.cost is cost and row.level in levels
    ]
    return Table([UNITS[cost], "samples that choose", "questions", "right", "over uniform", "over blind"], rows)
