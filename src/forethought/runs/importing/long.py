"""A long table -> counts: one row a trace and budget, or a row of counts a query and budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.menu import Menu
from ...core.problems import MAX_SHOWN, Problems
from ...core.settings import ImportSettings
from ...questions import fields
from .columns import Columns, Encoded, Mask
from .counts import Counts, LeftOut, few, refuse_nothing_left, wanted_budgets
from .naming import WEAK_SAMPLES, Naming
from .repeats import mixed_groups, refuse_groups, refuse_told_apart


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows as numbers; N rows, NaN or -1 for a blank. `row_N` says where each stands in the files."""

    row_N: IntArray
    query: Encoded
    sample: Encoded | None
    budget_N: FloatArray
    right_N: FloatArray
    tried_N: FloatArray
    tokens_N: FloatArray | None
    reasoning_N: FloatArray | None
    length_N: FloatArray | None
    question: Encoded | None

    def taken(self, index_M: IntArray, budget_M: FloatArray) -> _Rows:
        """Some of the rows, under other budgets."""
        changes: dict[str, Any] = {}
        for each in fields_of(self):
            value = getattr(self, each.name)
            if isinstance(value, Encoded):
                changes[each.name] = Encoded(value.values, value.code_N[index_M])
            elif value is not None:
                changes[each.name] = value[index_M]
        return replace(self, **{**changes, "budget_N": budget_M})

    @property
    def trace_N(self) -> IntArray:
        """Which trace a row belongs to; its query, where no column says which trace."""
        if self.sample is None:
            return self.query.code_N
        traces: IntArray = self.query.code_N * (len(self.sample.values) + 1) + self.sample.code_N
        return traces


def read_long(columns: Columns, naming: Naming, settings: ImportSettings, problems: Problems) -> Counts:
    """Counts right, tried and tokens for each query and budget.

    Raises:
        InvalidInputError: everything that is wrong, by line.
    """
    rows = _read(columns, naming, settings)
    _check_values(columns, naming, rows, settings)
    keyed_N = (rows.query.code_N >= 0) & ~np.isnan(rows.budget_N)
    keyed = np.flatnonzero(keyed_N)
    refuse_groups(columns, naming, rows.trace_N, keyed, problems)
    has_keys = settings.last_cut or rows.sample is not None or "tried" in naming.columns or settings.tried is not None
    notes = list(_mark_notes(columns, naming, problems))
    most = _most_rows(rows, keyed)
    if problems:
        problems.raise_any()
    if has_keys or most <= 1:
        _check_keys(columns, rows, keyed, is_ordered=not settings.any_order)
        notes += mixed_groups(columns, naming, rows.query) if rows.sample is not None else []
    else:
        if settings.columns.get("sample") is None:
            refuse_told_apart(columns, naming, rows.query.code_N[keyed], rows.budget_N[keyed], keyed, problems)
        notes.append(
            f"Up to {most:,} rows a query and budget were taken for as many traces: no column says which trace a row "
            "is (--sample-column NAME)."
        )
    problems.raise_any()
    if settings.last_cut and settings.menu is not None:
        rows = _at_last_cuts(columns, naming, rows, settings.menu, problems)
    if rows.length_N is not None:
        rows, notes = _with_lengths(rows), [*notes, *_length_notes(naming)]
    keep_N, left_out = _leave_out(columns, naming, rows, settings, problems)
    problems.raise_any()
    refuse_nothing_left(rows.query.values if keep_N.any() else (), left_out, problems.source)
    counts = _count(columns, rows, np.flatnonzero(keep_N), tuple(left_out))
    problems.raise_any()
    return replace(counts, notes=tuple(notes))


def _mark_notes(columns: Columns, naming: Naming, problems: Problems) -> Iterator[str]:
    """What Inspect's mark P (partly right) was taken for."""
    name = naming.columns["correct"]
    num_partly = columns.tally(name, fields.PARTLY)
    if num_partly and columns.tally(name, ("f",)):
        problems.add("", f"{name!r} holds P and F: P is read as partly right, not as passed; write true and false")
    elif num_partly:
        yield f"{name!r} holds P (partly right) in {num_partly:,} rows: they count as wrong."


def _read(columns: Columns, naming: Naming, settings: ImportSettings) -> _Rows:
    names = naming.columns
    tried_N = np.full(columns.num_rows, float(settings.tried or 1))
    return _Rows(
        row_N=np.arange(columns.num_rows),
        query=columns.labels(names["id"]),
        sample=_samples(columns, naming, settings),
        budget_N=columns.numbers(names["budget"], fields.budget),
        right_N=columns.numbers(names["correct"], fields.verdict),
        tried_N=columns.numbers(names["tried"], fields.count) if "tried" in names else tried_N,
        tokens_N=columns.numbers(names["tokens"], fields.tokens) if "tokens" in names else None,
        reasoning_N=columns.numbers(names["reasoning"], fields.tokens) if "reasoning" in names else None,
        length_N=columns.numbers(names["length"], fields.tokens) if "length" in names else None,
        question=columns.encode(names["question"], str) if "question" in names else None,
    )


def _at_last_cuts(columns: Columns, naming: Naming, rows: _Rows, menu: Menu, problems: Problems) -> _Rows:
    """A row for each trace and cap: what the trace's last cut at or below the cap says."""
    names = naming.columns
    spent = [names[meaning] for meaning in ("tokens", "reasoning") if meaning in names]
    if spent and rows.length_N is None:
        problems.add(
            "",
            f"{spent[0]!r} says what was used at a cut, not what is used at a cap behind it: give the whole trace's "
            "tokens with --length-column NAME, or leave the column out with --tokens-column ''",
        )
    keyed = np.flatnonzero(rows.query.code_N >= 0)
    keyed = keyed[np.lexsort((rows.budget_N[keyed], rows.trace_N[keyed]))]
    units, first_U, unit_M = np.unique(rows.trace_N[keyed], return_index=True, return_inverse=True)
    key_M = unit_M * (1 << 31) + rows.budget_N[keyed].astype(np.int64)  # a budget is below 2^30
    key_U_B = np.arange(len(units))[:, None] * (1 << 31) + menu.budgets_B
    at_U_B = np.searchsorted(key_M, key_U_B, side="right") - 1
    for unit in np.flatnonzero(at_U_B[:, 0] < first_U).tolist():
        row = int(keyed[first_U[unit]])
        columns.refuse(
            rows.row_N[[row]],
            f"{_trace_words(rows, row)} has no cut at or below {menu.smallest}, its first is at "
            f"{rows.budget_N[row]:.0f}; leave smaller caps out of --budgets",
        )
    problems.raise_any()
    nameless = np.flatnonzero(rows.query.code_N < 0)
    caps = np.tile(menu.budgets_B.astype(np.float64), len(units))
    return rows.taken(
        np.concatenate([keyed[at_U_B.ravel()], nameless]), np.concatenate([caps, rows.budget_N[nameless]])
    )


def _with_lengths(rows: _Rows) -> _Rows:
    """What a trace of a known length uses at a cap, where no column says it."""
    assert rows.length_N is not None
    used_N = np.minimum(rows.budget_N, rows.length_N)
    return replace(
        rows,
        tokens_N=used_N if rows.tokens_N is None else rows.tokens_N,
        reasoning_N=used_N if rows.reasoning_N is None else rows.reasoning_N,
    )


def _length_notes(naming: Naming) -> Iterator[str]:
    if "tokens" not in naming.columns:
        name = naming.columns["length"]
        yield f"Tokens at a cap are those of the trace, as {name!r} says, up to the cap: no answer is counted."


def _samples(columns: Columns, naming: Naming, settings: ImportSettings) -> Encoded | None:
    """Which trace each row is of; a column such as "seed" that is the same everywhere says nothing."""
    if "sample" not in naming.columns:
        return None
    name = naming.columns["sample"]
    found = columns.labels(name)
    is_weak = name.lower() in WEAK_SAMPLES and settings.columns.get("sample") is None
    return None if is_weak and len(found.values) <= 1 else found


def _check_values(columns: Columns, naming: Naming, rows: _Rows, settings: ImportSettings) -> None:
    """Blank cells that must not be blank, counts above tried, reasoning above its cap."""
    names = naming.columns
    has_id_N = rows.query.code_N >= 0
    columns.refuse(np.flatnonzero(has_id_N & columns.blank(names["budget"])), f"{names['budget']!r} is missing")
    if rows.sample is not None:
        columns.refuse(np.flatnonzero(has_id_N & columns.blank(names["sample"])), f"{names['sample']!r} is missing")
    for meaning in ("tokens", "reasoning", "length"):
        if meaning in names:
            blank = np.flatnonzero(has_id_N & columns.blank(names[meaning]) & ~np.isnan(rows.right_N))
            columns.refuse(blank, f"{names[meaning]!r} is missing; to leave the column out: --{meaning}-column ''")
    hint = "" if "tried" in names or settings.tried else "; say how many were tried: --tried-column NAME or --tried N"
    above = np.flatnonzero(rows.right_N > rows.tried_N)
    for right, tried in np.unique(np.stack([rows.right_N[above], rows.tried_N[above]], axis=1), axis=0).tolist():
        same = above[(rows.right_N[above] == right) & (rows.tried_N[above] == tried)]
        columns.refuse(same, f"{names['correct']!r} counts {right:.0f} right of {tried:.0f} tried{hint}")
    if rows.reasoning_N is not None:
        columns.refuse(
            np.flatnonzero(rows.reasoning_N > rows.budget_N), f"{names['reasoning']!r} is more than the budget"
        )


def _most_rows(rows: _Rows, keyed: IntArray) -> int:
    """The most rows that a query has at one budget."""
    budgets, budget_M = np.unique(rows.budget_N[keyed], return_inverse=True)
    key_M = rows.query.code_N[keyed] * len(budgets) + budget_M
    return int(np.unique(key_M, return_counts=True)[1].max(initial=0))


def _check_keys(columns: Columns, rows: _Rows, keyed: IntArray, *, is_ordered: bool) -> None:
    """One row a trace and budget, and within a trace the budgets ascend.

    Args:
        columns: tells where a row stands.
        rows: the rows.
        keyed: those with an id and a budget, ascending.
        is_ordered: also refuse a smaller budget below a larger one.
    """
    trace_M, budget_M = rows.trace_N[keyed], rows.budget_N[keyed]
    by_trace = np.argsort(trace_M, kind="stable")
    step = np.diff(budget_M[by_trace])
    step[np.diff(trace_M[by_trace]) != 0] = 1.0
    if (step > 0).all():
        return
    order = np.lexsort((keyed, budget_M, trace_M))
    same = (np.diff(trace_M[order]) == 0) & (np.diff(budget_M[order]) == 0)
    repeated = order[1:][same]
    for row, before in sorted(zip(keyed[repeated].tolist(), keyed[order[:-1][same]].tolist(), strict=True))[:MAX_SHOWN]:
        columns.refuse(
            np.array([row]),
            f"{_trace_words(rows, row)} at budget {rows.budget_N[row]:.0f} is already in {columns.place(before)}",
        )
    columns.refuse(np.sort(keyed[repeated])[MAX_SHOWN:], "is repeated")
    if is_ordered:
        before_of = dict(zip(by_trace[1:][step < 0].tolist(), by_trace[:-1][step < 0].tolist(), strict=True))
        fallen = np.setdiff1d(by_trace[1:][step < 0], repeated)
        for index in fallen[:MAX_SHOWN].tolist():
            row, before = int(keyed[index]), int(keyed[before_of[index]])
            columns.refuse(
                keyed[[index]],
                f"budget {rows.budget_N[row]:.0f} comes after {rows.budget_N[before]:.0f} ({columns.place(before)}) of "
                f"{_trace_words(rows, row)}; if the rows are in no order: --any-order",
            )
        columns.refuse(keyed[fallen[MAX_SHOWN:]], "its budget is below that of the row before it of the same trace")


def _trace_words(rows: _Rows, row: int) -> str:
    query = f"query {rows.query.values[rows.query.code_N[row]]!r}"
    if rows.sample is None or rows.sample.code_N[row] < 0:
        return query
    return f"{query} sample {rows.sample.values[rows.sample.code_N[row]]!r}"


def _leave_out(
    columns: Columns, naming: Naming, rows: _Rows, settings: ImportSettings, problems: Problems
) -> tuple[Mask, list[LeftOut]]:
    """`(rows to keep, what is left out)`: no id, no grade, nothing tried, a budget off the menu asked for."""
    left_out: list[LeftOut] = []

    def places(index: IntArray) -> list[str]:
        return [columns.place(int(row)) for row in rows.row_N[index[:5]]]

    keep_N = rows.query.code_N >= 0
    if len(nameless := np.flatnonzero(~keep_N)):
        left_out.append(LeftOut.of("rows", f"no {naming.columns['id']!r}", len(nameless), places(nameless)))
    budgets = np.unique(rows.budget_N[keep_N]).astype(np.int64)
    wanted = budgets[wanted_budgets(budgets, settings, problems)]
    if len(off := np.setdiff1d(budgets, wanted)):
        left_out.append(LeftOut.of("budgets", "not on the menu asked for", len(off), off))
        keep_N &= np.isin(rows.budget_N, wanted)
    what = "queries" if rows.sample is None else "traces"
    unit_N = rows.trace_N
    for value_N, meaning in ((rows.right_N, "correct"), (rows.tried_N, "tried")):
        blank = np.flatnonzero(keep_N & np.isnan(value_N))
        if len(blank):
            units = np.unique(unit_N[blank])
            left_out.append(LeftOut.of(what, f"{naming.columns[meaning]!r} is blank", len(units), places(blank)))
            keep_N &= ~np.isin(unit_N, units)
    untried = np.flatnonzero(keep_N & (rows.tried_N == 0))
    if len(untried):
        codes = np.unique(rows.query.code_N[untried])
        left_out.append(LeftOut.of("queries", "nothing was tried", len(codes), [rows.query.values[c] for c in codes]))
        keep_N &= ~np.isin(rows.query.code_N, codes)
    return keep_N, left_out


def _count(columns: Columns, rows: _Rows, kept: IntArray, left_out: tuple[LeftOut, ...]) -> Counts:
    """Sums over the traces; refuses queries on another grid than most, and those tried unequally often."""
    query_codes, query_N = np.unique(rows.query.code_N[kept], return_inverse=True)
    budgets_B, budget_N = np.unique(rows.budget_N[kept], return_inverse=True)
    shape = (len(query_codes), len(budgets_B))
    cell_N = query_N * shape[1] + budget_N

    def summed(value_N: FloatArray) -> FloatArray:
        return np.bincount(cell_N, weights=value_N, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    has_Q_B = summed(np.ones(len(kept))) > 0
    query_ids = tuple(rows.query.values[code] for code in query_codes)
    row_K, tried_N = rows.row_N[kept], rows.tried_N[kept]
    tried_Q_B = summed(tried_N)
    has_B = _usual_budgets(has_Q_B)
    for query, column, message in _unequal(query_ids, budgets_B.astype(np.int64), has_Q_B, tried_Q_B, has_B):
        columns.refuse(row_K[np.flatnonzero(cell_N == query * shape[1] + column)[-1:]], message)
    right_Q_B = summed(rows.right_N[kept])
    least_one_Q_B = np.maximum(tried_Q_B, 1.0)
    return Counts(
        query_ids=query_ids,
        budgets_B=budgets_B.astype(np.int64),
        num_right_Q_B=right_Q_B.astype(np.int64),
        num_tried_Q=tried_Q_B[:, int(has_B.argmax())].astype(np.int64),
        tokens_Q_B=None if rows.tokens_N is None else summed(tried_N * rows.tokens_N[kept]) / least_one_Q_B,
        reasoning_Q_B=None if rows.reasoning_N is None else summed(tried_N * rows.reasoning_N[kept]) / least_one_Q_B,
        texts=_texts(columns, rows.question, kept, row_K, query_N, query_ids),
        left_out=left_out,
    )


def _usual_budgets(has_Q_B: Mask) -> Mask:
    """The budgets that most queries have, shape (B,); of two sets as common the larger."""
    sets, counts = np.unique(has_Q_B, axis=0, return_counts=True)
    best = max(range(len(sets)), key=lambda index: (counts[index], sets[index].sum()))
    usual: Mask = sets[best]
    return usual


def _unequal(
    query_ids: tuple[str, ...], budgets_B: IntArray, has_Q_B: Mask, tried_Q_B: FloatArray, has_B: Mask
) -> Iterator[tuple[int, int, str]]:
    """`(query, column of a row of its, what is unequal)` of every query that cannot be counted with the others."""
    differs_Q = (has_Q_B != has_B).any(axis=1)
    for query in np.flatnonzero(differs_Q).tolist():
        lacks_B, more_B = has_B & ~has_Q_B[query], has_Q_B[query] & ~has_B
        parts = [f"has no row at budget {few(budgets_B[lacks_B])}"] if lacks_B.any() else []
        parts += [f"has budget {few(budgets_B[more_B])}, which other queries lack"] if more_B.any() else []
        column = int((more_B if more_B.any() else has_Q_B[query]).argmax())
        yield query, column, f"query {query_ids[query]!r} {' and '.join(parts)}"
    least_Q = np.where(has_B, tried_Q_B, np.inf).min(axis=1)
    for query in np.flatnonzero(~differs_Q & (least_Q < tried_Q_B.max(axis=1))).tolist():
        tried_B = tried_Q_B[query]
        low, high = int(np.where(has_B, tried_B, np.inf).argmin()), int(tried_B.argmax())
        words = [f"{tried_B[column]:.0f} at budget {budgets_B[column]}" for column in (low, high)]
        message = f"query {query_ids[query]!r} has unequal numbers of traces, {' and '.join(words)}; is a row repeated?"
        yield query, high, message


def _texts(
    columns: Columns,
    question: Encoded | None,
    kept: IntArray,
    row_K: IntArray,
    query_N: IntArray,
    query_ids: tuple[str, ...],
) -> tuple[str, ...] | None:
    """Every query's text, or None where one has none; two texts under one id are refused."""
    if question is None:
        return None
    code_N = question.code_N[kept]
    filled = np.flatnonzero(code_N >= 0)
    seen, first = np.unique(query_N[filled], return_index=True)
    text_Q = np.full(len(query_ids), -1, dtype=np.int64)
    text_Q[seen] = code_N[filled[first]]
    other = filled[code_N[filled] != text_Q[query_N[filled]]]
    columns.refuse(row_K[other], "the question is another than before under the same id")
    return tuple(question.values[code] for code in text_Q) if (text_Q >= 0).all() else None
