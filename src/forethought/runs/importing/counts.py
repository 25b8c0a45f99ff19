"""Rows of measurements -> counts per query and budget: everything is checked, and rows left out are reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.import_settings import ImportSettings
from ...core.menu import Menu
from ...core.problems import MAX_SHOWN, Problems
from ...core.profile import RIGHT, UNREADABLE, WRONG, Traces
from ...errors import InvalidInputError
from ...questions.fields import PARTLY
from .columns import Columns, Mask
from .counted import Counts, LeftOut
from .named import count_options
from .naming import WIDE, Naming
from .repeats import mixed_groups, refuse_groups, refuse_told_apart
from .rows import Rows, at_last_cuts, few, read_rows

FLOAT16_MAX = float(np.finfo(np.float16).max)


def read_counts(columns: Columns, naming: Naming, settings: ImportSettings, problems: Problems) -> Counts:
    """Counts right, tried and tokens for each query and budget.

    Raises:
        InvalidInputError: everything that is wrong, by line.
    """
    rows = read_rows(columns, naming, settings, problems)
    _check_values(rows, settings)
    notes = [*_mark_notes(rows, problems), *_check_traces(rows, settings, problems)]
    problems.raise_any()
    if settings.last_cut and settings.menu is not None:
        rows = at_last_cuts(rows, settings.menu, problems)
    if rows.length_N is not None:
        rows, notes = _with_lengths(rows), [*notes, *_length_notes(naming)]
    keep_N, left_out = _leave_out(rows, settings, problems)
    problems.raise_any()
    if not keep_N.any():
        reasons = "; ".join(map(str, left_out)) or "it holds no rows"
        raise InvalidInputError(f"{problems.source}: no query is left to import: {reasons}")
    kept = np.flatnonzero(keep_N)
    count = count_options if rows.naming.is_named else _count
    counts = count(rows, kept, settings, left_out, notes)
    problems.raise_any()
    return counts


def _check_values(rows: Rows, settings: ImportSettings) -> None:
    """Blank cells that must not be blank, counts above tried, reasoning above its cap."""
    names, told = rows.naming.columns, rows.naming.told
    if rows.naming.shape != WIDE:  # a wide table's gaps are noted when it is read
        has_id_N = rows.query.code_N >= 0
        axis = "option" if rows.naming.is_named else "budget"
        for meaning in (axis, *(["sample"] if rows.sample is not None else [])):
            blank = np.flatnonzero(has_id_N & rows.columns.blank(names[meaning]))
            rows.refuse(blank, f"{names[meaning]!r} is missing")
        for meaning in ("tokens", "input") if rows.naming.is_named else ("tokens", "reasoning", "length"):
            if meaning in names:
                blank = np.flatnonzero(has_id_N & rows.columns.blank(names[meaning]) & ~np.isnan(rows.right_N))
                rows.refuse(blank, f"{names[meaning]!r} is missing; to leave the column out: --{meaning}-column ''")
    is_told = "tried" in names or settings.tried is not None
    hint = "" if is_told else "; say how many were tried: --tried-column NAME or --tried N"
    is_above_N = (rows.right_N > rows.tried_N) & (is_told or rows.naming.shape != WIDE)
    above = np.flatnonzero(is_above_N)
    for right, tried in np.unique(np.stack([rows.right_N[above], rows.tried_N[above]], axis=1), axis=0).tolist():
        same = above[(rows.right_N[above] == right) & (rows.tried_N[above] == tried)]
        rows.refuse(same, f"{told['correct']!r} counts {right:.0f} right of {tried:.0f} tried{hint}")
    if rows.reasoning_N is not None and not rows.naming.is_named:
        more = np.flatnonzero(rows.reasoning_N > rows.budget_N)
        rows.refuse(more, f"{told['reasoning']!r} is more than the budget")


def _mark_notes(rows: Rows, problems: Problems) -> Iterator[str]:
    """What Inspect's mark P (partly right) was taken for."""
    if (name := rows.naming.columns.get("correct")) is None:
        return
    num_partly = rows.columns.tally(name, PARTLY)
    if num_partly and rows.columns.tally(name, ("f",)):
        problems.add("", f"{name!r} holds P and F: P is read as partly right, not as passed; write true and false")
    elif num_partly:
        yield f"{name!r} holds P (partly right) in {num_partly:,} rows: they count as wrong."


def _check_traces(rows: Rows, settings: ImportSettings, problems: Problems) -> Iterator[str]:
    """Whether the rows of one query and budget are its traces: notes what is not, and says what was assumed."""
    naming = rows.naming
    is_keyed_N = (rows.query.code_N >= 0) & ~np.isnan(rows.budget_N)
    keyed = np.flatnonzero(is_keyed_N)
    if naming.shape == WIDE:  # a row of the table is a query's at every budget
        keyed = keyed[np.diff(rows.row_N[keyed], prepend=-1) != 0]
    refuse_groups(rows, rows.trace_N, keyed, problems)
    _, budget_M = np.unique(rows.budget_N[keyed], return_inverse=True)
    key_M = rows.query.code_N[keyed] * (budget_M.max(initial=0) + 1) + budget_M
    most = int(np.unique(key_M, return_counts=True)[1].max(initial=0))
    is_told = "tried" in naming.columns or settings.tried is not None
    if problems:
        return
    if settings.last_cut or rows.sample is not None or is_told or naming.shape == WIDE or most <= 1:
        _check_keys(rows, keyed, is_ordered=not settings.any_order and not rows.naming.is_named)
        if rows.sample is not None:
            yield from mixed_groups(rows)
        return
    if settings.columns.get("sample") is None:
        refuse_told_apart(rows, keyed, problems)
    axis = "option" if rows.naming.is_named else "budget"
    yield (
        f"Up to {most:,} rows per query and {axis} were counted as separate traces: no column identifies the "
        "trace of a row (--sample-column NAME)."
    )


def _check_keys(rows: Rows, keyed: IntArray, *, is_ordered: bool) -> None:
    """One row per trace and budget, and within a trace the budgets ascend.

    `keyed` are those with an id and a budget, ascending; ordered ones may not have a smaller budget below a larger one.
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
    pairs = sorted(zip(keyed[repeated].tolist(), keyed[order[:-1][same]].tolist(), strict=True))
    for row, before in pairs[:MAX_SHOWN]:
        at = "" if rows.naming.shape == WIDE else rows.at(row)
        rows.refuse(np.array([row]), f"{rows.words(row)}{at} is already in {rows.place(before)}")
    rows.refuse(np.sort(keyed[repeated])[MAX_SHOWN:], "is repeated")
    if is_ordered:
        before_of = dict(zip(by_trace[1:][step < 0].tolist(), by_trace[:-1][step < 0].tolist(), strict=True))
        fallen = np.setdiff1d(by_trace[1:][step < 0], repeated)
        for index in fallen[:MAX_SHOWN].tolist():
            row, before = int(keyed[index]), int(keyed[before_of[index]])
            rows.refuse(
                keyed[[index]],
                f"budget {rows.budget_N[row]:.0f} comes after {rows.budget_N[before]:.0f} ({rows.place(before)}) of "
                f"{rows.words(row)}; if the rows are in no order: --any-order",
            )
        rows.refuse(keyed[fallen[MAX_SHOWN:]], "its budget is below that of the row before it of the same trace")


def _with_lengths(rows: Rows) -> Rows:
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


def _leave_out(rows: Rows, settings: ImportSettings, problems: Problems) -> tuple[Mask, list[LeftOut]]:
    """`(rows to keep, what is left out)`: no id, a budget off the menu, no grade, nothing tried, no hidden state."""
    told, left_out = rows.naming.told, []
    keep_N = rows.query.code_N >= 0
    if len(nameless := np.unique(rows.row_N[~keep_N])):
        places = map(rows.columns.place, nameless.tolist())
        left_out.append(LeftOut.of("rows", f"no {told['id']!r}", len(nameless), places))
    unit_N, what = rows.trace_N, "queries" if rows.sample is None else "traces"
    nothing = "queries", rows.query.code_N
    if rows.naming.is_named:  # draws of one number under two options are independent: each counts by itself
        unit_N, what = rows.row_N, "rows"
        nothing = what, unit_N
    budgets = np.unique(rows.budget_N[keep_N]).astype(np.int64)
    wanted = budgets[_wanted(budgets, settings, problems)]
    if len(off := np.setdiff1d(budgets, wanted)):
        left_out.append(LeftOut.of("budgets", "not on the menu asked for", len(off), off))
        keep_N &= np.isin(rows.budget_N, wanted)
    reasons = [
        (np.isnan(rows.right_N), f"{told['correct']!r} is blank", what, unit_N),
        (np.isnan(rows.tried_N), f"{told.get('tried')!r} is blank", what, unit_N),
        (rows.tried_N == 0, "nothing was tried", *nothing),
    ]
    if rows.hidden_R_D is not None:
        is_stateless_R: Mask = np.isnan(rows.hidden_R_D).all(axis=1)  # type: ignore[assignment]
        reasons.append((is_stateless_R[rows.row_N], "no hidden state", "queries", rows.query.code_N))
    for is_out_N, why, what, unit_N in reasons:
        out = np.flatnonzero(keep_N & is_out_N)
        if len(out):
            units = np.unique(unit_N[out])
            places = map(rows.columns.place, dict.fromkeys(rows.row_N[out[:1000]].tolist()))
            left_out.append(LeftOut.of(what, why, len(units), places))
            keep_N &= ~np.isin(unit_N, units)
    return keep_N, left_out


def _wanted(budgets_B: IntArray, settings: ImportSettings, problems: Problems) -> IntArray:
    """Columns of the budgets that are asked for; notes a cap asked for by name that the files lack."""
    if (menu := settings.menu) is None:
        step, most = settings.window or 1, settings.max_tokens or np.inf
        return np.flatnonzero((budgets_B % step == 0) & (budgets_B <= most))
    if missing := sorted(set(menu.caps) - set(budgets_B.tolist())):
        problems.add("", f"--budgets: no budget {few(missing)} in the files; they have {few(budgets_B, 12)}")
    return np.flatnonzero(np.isin(budgets_B, menu.caps))


def _count(
    rows: Rows, kept: IntArray, settings: ImportSettings, left_out: Sequence[LeftOut], notes: list[str]
) -> Counts:
    """Sums over the traces; refuses queries on another menu than most, and those tried unequally often."""
    query_codes, first_Q, query_K = np.unique(rows.query.code_N[kept], return_index=True, return_inverse=True)
    budgets_B, budget_K = np.unique(rows.budget_N[kept], return_inverse=True)
    shape = (len(query_codes), len(budgets_B))
    cell_K, tried_K = query_K * shape[1] + budget_K, rows.tried_N[kept]

    def summed(value_K: FloatArray) -> FloatArray:
        return np.bincount(cell_K, weights=value_K, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    has_Q_B, tried_Q_B = summed(np.ones(len(kept))) > 0, summed(tried_K)
    has_B = _usual_budgets(has_Q_B)
    query_ids = tuple(rows.query.values[code] for code in query_codes)
    for query, column, message in _unequal(query_ids, budgets_B.astype(np.int64), has_Q_B, tried_Q_B, has_B):
        rows.refuse(kept[np.flatnonzero(cell_K == query * shape[1] + column)[-1:]], message)

    def mean(value_N: FloatArray | None) -> FloatArray | None:
        return None if value_N is None else summed(tried_K * value_N[kept]) / np.maximum(tried_Q_B, 1.0)

    hidden_Q_D = None if rows.hidden_R_D is None else rows.hidden_R_D[rows.row_N[kept[first_Q]]]
    if hidden_Q_D is not None and (num_large := int((np.abs(hidden_Q_D) > FLOAT16_MAX).sum())):
        notes.append(f"{num_large:,} numbers of the hidden states are beyond float16's range and are clipped to it.")
        hidden_Q_D = np.clip(hidden_Q_D, -FLOAT16_MAX, FLOAT16_MAX)
    return Counts(
        query_ids=query_ids,
        menu=Menu.of(budgets_B.astype(np.int64).tolist()),
        num_right_Q_B=summed(rows.right_N[kept]).astype(np.int64),
        num_tried_Q=tried_Q_B[:, int(has_B.argmax())].astype(np.int64),
        tokens_Q_B=mean(rows.tokens_N),
        reasoning_Q_B=mean(rows.reasoning_N),
        texts=rows.texts(kept, query_K, len(query_ids)),
        hidden_Q_D=hidden_Q_D,
        traces=_traces(rows, kept, budget_K, query_K, notes),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _traces(rows: Rows, kept: IntArray, budget_K: IntArray, query_K: IntArray, notes: list[str]) -> Traces | None:
    """Each trace with its answers; None, with the reason noted, where rows cannot be told to be of one trace."""
    if (answer := rows.answer) is None:
        return None
    _, first_N, trace_K = np.unique(rows.trace_N[kept], return_index=True, return_inverse=True)
    num_options = int(budget_K.max()) + 1
    row_N_B = np.full((len(first_N), num_options), -1, dtype=np.int64)
    row_N_B[trace_K, budget_K] = kept
    if row_N_B.size != len(kept) or (row_N_B < 0).any() or (rows.tried_N[kept] != 1).any():
        notes.append("Answers are not stored: rows are not single traces, or the trace of a row is not known.")
        return None
    query_N, right_N_B = query_K[first_N], rows.right_N[row_N_B] == 1
    code_N_B = answer.code_N[row_N_B]
    answer_N_B, answers_Q = rows.answers(query_N, code_N_B)
    budget_N_B = rows.budget_N[row_N_B]
    used_N_B = budget_N_B if rows.tokens_N is None else rows.tokens_N[row_N_B]
    reasoning_N_B = np.minimum(budget_N_B, used_N_B) if rows.reasoning_N is None else rows.reasoning_N[row_N_B]
    length_N = reasoning_N_B[:, -1] if rows.length_N is None else rows.length_N[row_N_B[:, -1]]
    same_query = np.diff(query_N, prepend=-1) == 0
    start_N = np.maximum.accumulate(np.where(same_query, 0, np.arange(len(query_N))))
    return Traces(
        sample_N=np.arange(len(query_N)) - start_N,
        length_N=np.rint(length_N).astype(np.int64),
        tokens_N_B=np.rint(used_N_B).astype(np.int64),
        grade_N_B=np.where(right_N_B, RIGHT, np.where(code_N_B < 0, UNREADABLE, WRONG)).astype(np.int8),
        answer_N_B=answer_N_B,
        answers_Q=answers_Q,
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
