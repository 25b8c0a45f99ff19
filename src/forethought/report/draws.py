"""What earlier draws of the same questions buy, as a page."""

from __future__ import annotations

import math
from pathlib import Path

from ..core.data import Cost
from ..evaluation.draws import DRAWS_POLICIES, FAIR_ORACLE, HISTORY, DrawsEvaluation
from ..evaluation.levels import USUAL, at_share
from ..evaluation.policies import BLIND, UNIFORM
from ..evaluation.results import Estimate
from .pages import Page, Part, Table
from .wording import gain_words, interval, percent, sample_words, share_right

NAMES = {UNIFORM: "uniform", BLIND: "blind", HISTORY: "history", FAIR_ORACLE: "fair oracle"}
UNITS = {Cost.SPENT: "tokens", Cost.USD: "USD"}
FORMS = {Cost.SPENT: ",.0f", Cost.USD: ",.4g"}


def draws_page(result: DrawsEvaluation) -> Page:
    """The page of an evaluation by draws."""
    parts = []
    for cost in result.levels:
        unit = UNITS[cost]
        parts += [
            Part(f"accuracy at the same mean {unit} a question", [_policies(result, cost)]),
            Part(f"one option for all, and what is as accurate in {unit}", [_options(result, cost)]),
        ]
        if any(row.cost is cost for row in result.by_num_draws):
            parts.append(Part(f"how many earlier draws it takes, in {unit}", [_num_draws(result, cost)]))

    def draw(folder: Path) -> dict[str, Path]:
        from .draws_plots import draw_draws

        return draw_draws(result, folder)

    return Page(
        name="draws",
        title="What earlier draws of the same questions buy",
        result=result,
        sample=f"{sample_words(result.provenance, result.num_queries, result.num_traces)}; {result.halving}",
        parts=parts,
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        notes=result.notes,
        facts={
            "seed": result.seed,
            "menu": result.menu,
            "data hash": result.data_hash,
            **result.provenance,
        },
        draw=draw,
    )


def usual_level(result: DrawsEvaluation, cost: Cost) -> float:
    """The level shown where only one is: a rule, so that no result chooses it."""
    return at_share(result.levels[cost], USUAL)


def _policies(result: DrawsEvaluation, cost: Cost) -> Table:
    head = [f"{UNITS[cost]}", *(NAMES[each] for each in DRAWS_POLICIES), "history over uniform", "over blind"]
    rows = []
    for level in result.levels[cost]:
        found = {row.policy: row for row in result.rows if row.cost is cost and row.level == level}
        own = found[HISTORY]
        rights = [share_right(found[each].accuracy) for each in DRAWS_POLICIES]
        rows.append([f"{level:{FORMS[cost]}}", *rights, gain_words(own.gain), gain_words(own.gain_over_blind)])
    return Table(head, rows)


def _options(result: DrawsEvaluation, cost: Cost) -> Table:
    rows = [
        [
            each.label,
            f"{each.realised.value:{FORMS[cost]}}",
            share_right(each.accuracy),
            interval(each.needed[HISTORY], FORMS[cost]),
            _saved(each.saved[HISTORY]),
        ]
        for each in result.options
        if each.cost is cost
    ]
    return Table(["option", UNITS[cost], "right", "the history needs", "saved"], rows)


def _saved(found: Estimate) -> str:
    value, low, high = (percent(each) if math.isfinite(each) else "−∞" for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]".replace("-", "−")


def _num_draws(result: DrawsEvaluation, cost: Cost) -> Table:
    rows = [
        [
            f"{row.level:{FORMS[cost]}}",
            str(row.num_draws),
            f"{row.num_queries:,}",
            share_right(row.accuracy),
            gain_words(row.gain),
            gain_words(row.gain_over_blind),
        ]
        for row in sorted(result.by_num_draws, key=lambda row: (row.level, row.num_draws))
        if row.cost is cost
    ]
    return Table([UNITS[cost], "draws that choose", "questions", "right", "over uniform", "over blind"], rows)
