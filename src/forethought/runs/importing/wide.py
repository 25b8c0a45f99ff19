"""A wide table -> counts: one row a query, its counts at every budget in a column of lists or in a column a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.problems import MAX_SHOWN, Problems
from ...core.settings import ImportSettings
from ...questions import fields
from .columns import Columns, Encoded, Mask
from .counts import Counts, LeftOut, few, refuse_nothing_left, wanted_budgets
from .naming import Naming
from .repeats import refuse_groups

FLOAT16_MAX = float(np.finfo(np.float16).max)
TAKES = {"correct": fields.verdict, "tokens": fields.tokens, "reasoning": fields.tokens}


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows as numbers; N rows, NaN or -1 for a blank."""

    query: Encoded
    budgets_B: IntArray
    right_N_B: FloatArray
    tried_N: FloatArray
    tokens_N_B: FloatArray | None
    reasoning_N_B: FloatArray | None
    hidden_N_D: FloatArray | None
    question: Encoded | None


def read_wide(columns: Columns, naming: Naming, settings: ImportSettings, problems: Problems) -> Counts:
    """Takes each query's counts, tokens and hidden state.

    Raises:
        InvalidInputError: everything that is wrong, by line.
    """
    rows = _read(columns, naming, settings, problems)
    refuse_groups(columns, naming, rows.query.code_N, np.flatnonzero(rows.query.code_N >= 0), problems)
    _refuse_repeated(columns, rows.query)
    keep_N, left_out = _leave_out(columns, naming, rows)
    if not problems or len(rows.budgets_B):
        _check(columns, naming, rows, np.flatnonzero(keep_N), problems)
    problems.raise_any()
    refuse_nothing_left(rows.query.values if keep_N.any() else (), left_out, problems.source)
    counts = _on_wanted_budgets(_counts(rows, np.flatnonzero(keep_N), tuple(left_out)), settings, problems)
    problems.raise_any()
    return counts


def _read(columns: Columns, naming: Naming, settings: ImportSettings, problems: Problems) -> _Rows:
    names = naming.columns
    right_N_B = _matrix("correct", columns, naming)
    assert right_N_B is not None  # a table without is refused before
    if "tried" in names:
        tried_N = columns.numbers(names["tried"], fields.count)
    else:
        tried_N = np.full(columns.num_rows, float(settings.tried or 0))
        if settings.tried is None:
            problems.add("", "nothing says how many traces were tried: --tried-column NAME or --tried N")
    if "hidden" in names and settings.layer is None:
        problems.add(
            "",
            f"{names['hidden']!r} holds hidden states of a layer that is not named: --layer N (the stream after N "
            "decoder layers), or --hidden-column '' to leave them out",
        )
    return _Rows(
        query=columns.labels(names["id"]),
        budgets_B=_budgets(columns, naming, settings, right_N_B.shape[1], problems),
        right_N_B=right_N_B,
        tried_N=tried_N,
        tokens_N_B=_matrix("tokens", columns, naming),
        reasoning_N_B=_matrix("reasoning", columns, naming),
        hidden_N_D=columns.lists(names["hidden"], None) if "hidden" in names else None,
        question=columns.encode(names["question"], str) if "question" in names else None,
    )


def _matrix(meaning: str, columns: Columns, naming: Naming) -> FloatArray | None:
    """One number a query and budget, shape (N, B); None where the table has none."""
    if meaning in naming.spread:
        names = naming.spread[meaning].values()
        return np.stack([columns.numbers(name, TAKES[meaning]) for name in names], axis=1)
    name = naming.columns.get(meaning)
    return None if name is None else columns.lists(name, TAKES[meaning])


def _budgets(columns: Columns, naming: Naming, settings: ImportSettings, num: int, problems: Problems) -> IntArray:
    """The budgets of the counts: of the columns' names, of a column of lists, or multiples of the window asked for."""
    none = np.zeros(0, dtype=np.int64)
    if "correct" in naming.spread:
        budgets = list(naming.spread["correct"])
        for meaning in ("tokens", "reasoning"):
            if meaning in naming.spread and list(naming.spread[meaning]) != budgets:
                problems.add("", f"{naming.told[meaning]} and {naming.told['correct']} are of unequal budgets")
        return np.array(budgets, dtype=np.int64)
    if "budget" in naming.columns:
        return _listed_budgets(columns, naming.columns["budget"], num)
    name = naming.columns["correct"]
    if (menu := settings.menu) is not None:
        if menu.num_options == num:
            return menu.budgets_B
        problems.add("", f"{name!r} holds {num} counts, but --budgets names {menu.num_options} caps")
        return none
    if settings.window is None:
        problems.add("", f"{name!r} holds {num} counts, and nothing says at which budgets: --budgets CAPS")
        return none
    return settings.window * np.arange(1, num + 1)


def _listed_budgets(columns: Columns, name: str, num: int) -> IntArray:
    budget_N_B = columns.lists(name, fields.budget)
    none = np.zeros(0, dtype=np.int64)
    filled = np.flatnonzero(~np.isnan(budget_N_B).any(axis=1))
    columns.refuse(np.flatnonzero(np.isnan(budget_N_B).any(axis=1)), f"{name!r} has a gap")
    if not len(filled):
        return none
    falling = filled[(np.diff(budget_N_B[filled], axis=1) <= 0).any(axis=1)]
    columns.refuse(falling, f"{name!r} must ascend")
    sets, set_M, counts = np.unique(budget_N_B[filled], axis=0, return_inverse=True, return_counts=True)
    usual = int(counts.argmax())
    other = np.setdiff1d(filled[set_M.reshape(-1) != usual], falling)
    columns.refuse(other, f"{name!r} differs from that of other queries ({few(sets[usual])})")
    if sets.shape[1] != num:
        columns.refuse(filled[:1], f"{name!r} has {sets.shape[1]} budgets, but there are {num} counts")
        return none
    return none if len(falling) else sets[usual].astype(np.int64)


def _refuse_repeated(columns: Columns, query: Encoded) -> None:
    with_id = np.flatnonzero(query.code_N >= 0)
    _, first, at = np.unique(query.code_N[with_id], return_index=True, return_inverse=True)
    repeated = np.setdiff1d(np.arange(len(with_id)), first)
    for row in repeated[:MAX_SHOWN]:
        before = columns.place(int(with_id[first[at[row]]]))
        columns.refuse(with_id[[row]], f"query {query.values[query.code_N[with_id[row]]]!r} is already in {before}")
    columns.refuse(with_id[repeated[MAX_SHOWN:]], "is repeated")


def _leave_out(columns: Columns, naming: Naming, rows: _Rows) -> tuple[Mask, list[LeftOut]]:
    """`(rows to keep, what is left out)`: no id, a blank count, nothing tried, no hidden state."""
    keep_N = np.ones(columns.num_rows, dtype=bool)
    left_out: list[LeftOut] = []

    def leave(is_out_N: Mask | np.bool_, what: str, why: str) -> None:
        index = np.flatnonzero(keep_N & is_out_N)
        if len(index):
            left_out.append(LeftOut.of(what, why, len(index), [columns.place(int(row)) for row in index[:5]]))
            keep_N[index] = False

    leave(rows.query.code_N < 0, "rows", f"no {naming.columns['id']!r}")
    leave(np.isnan(rows.right_N_B).any(axis=1), "queries", f"a count in {naming.told['correct']} is blank")
    if "tried" in naming.columns:
        leave(np.isnan(rows.tried_N), "queries", f"{naming.columns['tried']!r} is blank")
        leave(rows.tried_N == 0, "queries", "nothing was tried")
    if rows.hidden_N_D is not None:
        leave(np.isnan(rows.hidden_N_D).all(axis=1), "queries", "no hidden state")
    return keep_N, left_out


def _check(columns: Columns, naming: Naming, rows: _Rows, kept: IntArray, problems: Problems) -> None:
    """Counts above tried, tokens with gaps or of other budgets, reasoning above its cap."""
    name = naming.told["correct"]
    if "tried" in naming.columns or rows.tried_N.any():
        most_K = rows.right_N_B[kept].max(axis=1, initial=0)
        above = most_K > rows.tried_N[kept]
        pairs_A_2 = np.stack([most_K[above], rows.tried_N[kept][above]], axis=1)
        for right, tried in np.unique(pairs_A_2, axis=0).tolist():
            same = kept[above][(pairs_A_2 == (right, tried)).all(axis=1)]
            columns.refuse(same, f"{name!r} counts {right:.0f} right of {tried:.0f} tried")
    for meaning, value_N_B in (("tokens", rows.tokens_N_B), ("reasoning", rows.reasoning_N_B)):
        if value_N_B is None:
            continue
        told, leave = naming.told[meaning], f"; to leave it out: --{meaning}-column ''"
        if value_N_B.shape != rows.right_N_B.shape:
            problems.add(
                "", f"{told!r} has {value_N_B.shape[1]} budgets, {name!r} has {rows.right_N_B.shape[1]}{leave}"
            )
            continue
        columns.refuse(kept[np.isnan(value_N_B[kept]).any(axis=1)], f"{told!r} has a gap{leave}")
        if meaning == "reasoning" and len(rows.budgets_B) == value_N_B.shape[1]:
            columns.refuse(kept[(value_N_B[kept] > rows.budgets_B).any(axis=1)], f"{told!r} is more than the budget")


def _counts(rows: _Rows, kept: IntArray, left_out: tuple[LeftOut, ...]) -> Counts:
    question, hidden_N_D = rows.question, rows.hidden_N_D
    has_texts = question is not None and bool((question.code_N[kept] >= 0).all())
    notes = []
    hidden_Q_D = None if hidden_N_D is None else hidden_N_D[kept]
    if hidden_Q_D is not None and (num_large := int((np.abs(hidden_Q_D) > FLOAT16_MAX).sum())):
        notes.append(f"{num_large:,} numbers of the hidden states are beyond float16's range and are clipped to it.")
        hidden_Q_D = np.clip(hidden_Q_D, -FLOAT16_MAX, FLOAT16_MAX)
    return Counts(
        query_ids=tuple(rows.query.values[code] for code in rows.query.code_N[kept]),
        budgets_B=rows.budgets_B,
        num_right_Q_B=rows.right_N_B[kept].astype(np.int64),
        num_tried_Q=rows.tried_N[kept].astype(np.int64),
        tokens_Q_B=None if rows.tokens_N_B is None else rows.tokens_N_B[kept],
        reasoning_Q_B=None if rows.reasoning_N_B is None else rows.reasoning_N_B[kept],
        texts=tuple(question.values[code] for code in question.code_N[kept]) if question and has_texts else None,
        hidden_Q_D=hidden_Q_D,
        left_out=left_out,
        notes=tuple(notes),
    )


def _on_wanted_budgets(counts: Counts, settings: ImportSettings, problems: Problems) -> Counts:
    """Only the budgets on the menu asked for; the others are left out."""
    wanted = wanted_budgets(counts.budgets_B, settings, problems)
    off = np.setdiff1d(counts.budgets_B, counts.budgets_B[wanted])
    if not len(off):
        return counts
    left_out = (*counts.left_out, LeftOut.of("budgets", "not on the menu asked for", len(off), off))
    refuse_nothing_left(counts.query_ids if len(wanted) else (), left_out, problems.source)
    return replace(
        counts,
        budgets_B=counts.budgets_B[wanted],
        num_right_Q_B=counts.num_right_Q_B[:, wanted],
        tokens_Q_B=None if counts.tokens_Q_B is None else counts.tokens_Q_B[:, wanted],
        reasoning_Q_B=None if counts.reasoning_Q_B is None else counts.reasoning_Q_B[:, wanted],
        left_out=left_out,
    )
