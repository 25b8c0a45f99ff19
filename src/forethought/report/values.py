"""Values as short tables for a notebook: HTML without colours of its own, readable on light and on dark pages.

Text from others (questions, answers, names) is escaped and shortened; long tables show a few rows and count the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch
from html import escape

import numpy as np

from ..control.answers import Answers
from ..control.plan import Plan
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.terms import percent, usd_words
from ..core.visible import one_line
from ..evaluation import Comparison, Evaluation, LiveComparison
from ..evaluation.draws import DrawsEvaluation
from ..predictors.predictor import Predictor
from . import page
from .pages import Bullets, Picture, Questions, Table
from .wording import SIMULATED

FEW = 6  # rows of a table of queries
MOST = 8  # rows of any other
LONGEST = 70  # letters of a cell
NUMBER = ";white-space:nowrap"  # a value and its interval stand on one line


class Heading(str):
    """Stands above a table."""

    __slots__ = ()


Block = str | Table


def html(value: object) -> str:
    """The value as HTML: a title, what it is in a line or two, and a table."""
    title, *others = blocks(value)
    return f'<div class="forethought"><strong>{_safe(str(title))}</strong>{"".join(map(_html, others))}</div>'


@singledispatch
def blocks(value: object) -> Iterator[Block]:
    """What is shown of a value: lines and tables, in order; the first line is its title."""
    yield repr(value)


@blocks.register
def _(plan: Plan) -> Iterator[Block]:
    made, curves = plan.allocation, plan.forecast.curves
    yield f"Plan: {len(plan):,} questions, {made.allocator}"
    if plan.card is not None and plan.card.data.simulated:
        yield SIMULATED
    per_question = made.cost.amount(made.taken / len(plan))
    yield f"{made.cost_words} ({per_question} per question), expected accuracy {percent(made.expected_accuracy)}"
    yield from plan.notes
    column_Q = plan.menu.columns(made.budget_Q)
    usd_Q = curves.usd_at(column_Q) if curves.is_billable else None
    head = ["id", "question", "option" if plan.menu.is_named else "cap", "expected right"]
    head += ["expected tokens"] * (curves.tokens_Q_B is not None) + ["expected USD"] * (usd_Q is not None)
    rows = []
    for row in range(min(FEW, len(plan))):
        column, query = int(column_Q[row]), plan.queries[row]
        label = plan.menu.labels[column] if plan.menu.is_named else f"{plan.menu.caps[column]:,}"
        cells = [query.id, query.text, label, percent(float(curves.p_Q_B[row, column]))]
        cells += [] if curves.tokens_Q_B is None else [f"{curves.tokens_Q_B[row, column]:,.0f}"]
        cells += [] if usd_Q is None else [usd_words(float(usd_Q[row])).removesuffix(" USD")]
        rows.append(cells)
    yield Table(head, rows)
    yield from _rest(len(plan) - len(rows), "questions")


@blocks.register
def _(answers: Answers) -> Iterator[Block]:
    counts = answers.counts
    right = f", {counts['right']:,} of {counts['with_reference']:,} right" if counts["graded"] else ""
    failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
    yield f"Answers: {counts['answered']:,} of {counts['queries']:,} questions{right}{failed}"
    bill = f", {usd_words(counts['usd'])}" if "usd" in counts else ""
    unknown = f", {counts['not_counted']:,} answers not counted" if counts["not_counted"] else ""
    yield f"{counts['spent_tokens']:,} tokens generated{unknown}{bill}"
    is_graded, is_named = bool(counts["with_reference"]), any(each.option for each in answers)
    head = ["id", "answer", *["reference", "verdict"] * is_graded, "option" if is_named else "cap", "tokens"]
    rows = []
    for each in answers.rows[:FEW]:
        answer = each.answer if each.error is None else f"failed: {each.error}"
        verdict = [each.reference or "", str(each.grade or "")] if is_graded else []
        tokens = "" if each.tokens is None else f"{each.tokens:,}"
        rows.append([each.id, answer or "", *verdict, each.option or f"{each.budget:,}", tokens])
    yield Table(head, rows)
    yield from _rest(len(answers) - len(rows), "answers")


@blocks.register
def _(profile: Profile) -> Iterator[Block]:
    made, menu, tries_Q_B = profile.provenance, profile.menu, profile.tries_Q_B
    yield f"Profile: {profile.num_queries:,} questions, {int(profile.num_tried_Q.sum()):,} traces"
    if made.simulated:
        yield SIMULATED
    graded = f", graded by {made.judge}" if made.judge else ""
    yield f"model {made.model or 'unknown'}, prompt template {made.template or 'unknown'}{graded}"
    kept = [f"hidden states of {len(profile.layers)} layers"] if profile.layers else []
    kept += ["question texts"] if profile.texts else []
    kept += ["every trace"] if profile.traces is not None else []
    yield f"holds {', '.join(['counts', *kept])}"
    num_B = tries_Q_B.sum(axis=0)
    head = ["option" if menu.is_named else "cap", "right", "mean tokens"]
    rows = []
    for column in _some(menu.num_options):
        num, label = int(num_B[column]), menu.labels[column] if menu.is_named else f"{menu.caps[column]:,}"
        right = "–" if not num else percent(profile.num_right_Q_B[:, column].sum() / num)
        tokens = _mean_tokens(profile, column) if profile.is_spend_measured else "not measured"
        rows.append([label, right, tokens])
    yield Table(head, rows)
    yield from _rest(menu.num_options - len(rows), "caps in between" if not menu.is_named else "options in between")


def _mean_tokens(profile: Profile, column: int) -> str:
    """Mean over traces, as counts are."""
    tries_Q = profile.tries_Q_B[:, column]
    was_tried_Q = tries_Q > 0
    if not was_tried_Q.any():
        return "–"
    return f"{np.average(profile.tokens_Q_B[was_tried_Q, column], weights=tries_Q[was_tried_Q]):,.1f}"


@blocks.register
def _(predictor: Predictor) -> Iterator[Block]:
    card = predictor.card
    yield f"Predictor: {card.predictor} for {card.model or 'an unknown model'}"
    if card.data.simulated:
        yield SIMULATED
    schema, rows = card.features, []
    layer = "" if schema.layer is None else f" of layer {schema.layer}"
    reads = {"hidden": f"hidden states{layer}", "text": "the question's text", "id": "its id"}
    reads |= {"difficulty": "the difficulty that the model states"}
    rows.append(["reads", ", ".join(reads[kind] for kind in sorted(schema.reads)) or "nothing: one curve for all"])
    rows.append(["predicts", f"accuracy{'' if card.mean_tokens_B is None else ' and tokens'} at {card.menu}"])
    rows.append(["trained on", f"{card.data.num_queries:,} questions, {card.data.num_traces:,} traces"])
    rows.append(["prompt template", card.template or "unknown"])
    if card.history is not None:
        known = card.history
        rows.append(["history", f"{known.num_draws:,.0f} earlier samples of {known.num_queries:,} questions"])
    if card.calibration is not None:
        found = card.calibration
        rows.append(["log loss, cross-validated", f"{found.log_loss:.4f} (mean curve {found.mean_log_loss:.4f})"])
    if card.shrinkage is not None:
        rows.append(["weight of its curves", f"{percent(card.shrinkage.accuracy)}; the rest is the mean curve"])
    rows.append(["made", card.created])
    yield Table([], rows)


@blocks.register
def _(menu: Menu) -> Iterator[Block]:
    noun = "options" if menu.is_named else "caps on reasoning tokens"
    yield f"Menu: {menu.num_options} {noun}"
    if not menu.is_named:
        shown = _some(menu.num_options)
        yield ", ".join(f"{menu.caps[column]:,}" for column in shown)
        yield from _rest(menu.num_options - len(shown), "caps in between")
        return
    rows = []
    for column in _some(menu.num_options):
        each = menu.options[column]
        sets = ", ".join(f"{key} = {value}" for key, value in each.set.items())
        price = "" if each.price is None else f"{each.price.input:g} / {each.price.output:g}"
        cap, tokens = ("" if number is None else f"{number:,.0f}" for number in (each.cap, each.tokens))
        rows.append([each.label, sets, cap, tokens, price])
    yield Table(["option", "sets", "cap", "tokens", "USD per million in / out"], rows)
    yield from _rest(menu.num_options - len(rows), "options in between")


@blocks.register(Comparison)
@blocks.register(DrawsEvaluation)
@blocks.register(Evaluation)
@blocks.register(LiveComparison)
def _(result: Comparison | DrawsEvaluation | Evaluation | LiveComparison) -> Iterator[Block]:
    """The terminal's parts of a page; of the long tables of levels only some rows."""
    made = page(result)
    yield f"{made.title}: {made.sample}"
    if result.simulated:
        yield SIMULATED
    yield from made.decision
    for part in made.parts:
        if part.on not in ("terminal", "both"):
            continue
        if part.title:
            yield Heading(f"{part.title[0].upper()}{part.title[1:]}")
        for block in part.blocks:
            if isinstance(block, Table):
                shown = _some(len(block.rows))
                yield Table(block.head, [block.rows[row] for row in shown])
                yield from _rest(len(block.rows) - len(shown), "rows in between")
            elif not isinstance(block, Picture | Questions):
                yield from block if isinstance(block, Bullets) else [block]
    yield made.intervals


def _rest(number: int, noun: str) -> Iterator[str]:
    if number > 0:
        yield f"… and {number:,} more {noun}"


def _some(number: int) -> list[int]:
    """Indices of at most `MOST` rows, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, number - 1, min(number, MOST)).round().astype(int)).tolist() if number else []


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f'<div style="margin-top:0.6em"><em>{_safe(block)}</em></div>'
    if isinstance(block, str):
        return f"<div>{_safe(block)}</div>"
    sides = [
        "right" if column and all(map(_is_number, cells)) else "left"
        for column, cells in enumerate(zip(*(block.rows or [block.head]), strict=True))
    ]
    head = f"<thead>{_row('th', block.head, sides)}</thead>" if block.head else ""
    rows = "".join(_row("td", row, sides) for row in block.rows)
    return f"<table>{head}<tbody>{rows}</tbody></table>"


def _row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    styles = (f"text-align:{side};padding:0.15em 0.6em{NUMBER if side == 'right' else ''}" for side in sides)
    found = (
        f'<{tag} style="{style}">{_safe(cell, LONGEST)}</{tag}>' for cell, style in zip(cells, styles, strict=True)
    )
    return f"<tr>{''.join(found)}</tr>"


def _is_number(text: str) -> bool:
    return not text or text[0] in "+−-–<>" or text[0].isdigit()


def _safe(text: str, most: int = 10_000) -> str:
    line = one_line(text)
    return escape(line if len(line) <= most else f"{line[: most - 1]}…")
