"""A live comparison as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.data import Cost
from ..evaluation.live import FEW, LiveComparison
from ..evaluation.results import COUNTED
from .findings import live_decision
from .pages import Bullets, Page, Part, Questions, Said, Table
from .wording import amount, amount_interval, cost_name, gain_words, interval, points, share_right


def live_page(
    result: LiveComparison, *, questions: Questions | None = None, facts: Mapping[str, Any] | None = None
) -> Page:
    """The page of a live comparison.

    Args:
        result: what to show.
        questions: those compared, with their traces.
        facts: how it was made, beside its provenance.
    """
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
    paid = [*([] if first.granted is None else [Cost.GRANTED]), Cost.SPENT]
    paid += [] if first.usd is None else [Cost.USD]
    same = "the same traces for every policy"
    if first.granted is None:  # named options
        same = "the same for every policy, and the same answers where policies choose the same option"
    planned = result.provenance.get("cost")
    heads = [f"{cost_name(each)}{' (planned)' if each == planned else ''}" for each in paid]
    head = ["", "points", "questions better / worse", *(COUNTED[each] for each in paid)]
    said = [Said(f"{each.policy} against {each.baseline}: {each.sentence}") for each in result.differences]
    return Page(
        name="live",
        title="Live comparison",
        result=result,
        sample=f"{result.num_questions:,} questions, {same}",
        decision=tuple(live_decision(result)),
        parts=[
            Part("", [Table(["policy", "right", "share", *heads], policies)]),
            *([Part("", [Table(head, differences)])] if differences else []),
            *([Part("", [Bullets([*said, *_few_questions(result)])])] if said else []),
            *([Part("which questions gained and lost", [questions], on="html")] if questions else []),
        ],
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        facts={"bootstrap seed": result.seed, **result.provenance, **(facts or {})},
    )


def _few_questions(result: LiveComparison) -> Iterator[str]:
    """A warning when there are too few questions to prove a difference between policies."""
    if result.num_questions < FEW:
        widest = max(result.differences, key=lambda each: each.accuracy.high - each.accuracy.low).accuracy
        ends = f"{points(widest.low)} to {points(widest.high)}"
        yield f"n = {result.num_questions} questions are too few to prove a difference; interval {ends} points"
