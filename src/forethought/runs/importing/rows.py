"""A table of measurements -> its rows as numbers: one per trace and budget, or one of counts a query and budget.

The lists of a wide table are expanded to such rows, so that all checks and sums are in one place, `counts`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.import_settings import ImportSettings
from ...core.menu import Menu
from ...core.problems import Problems
from ...questions import fields as cells
from .columns import Columns, Encoded
from .naming import PER_BUDGET, WEAK_SAMPLES, WIDE, Naming

TAKES = {"correct": cells.verdict, "tokens": cells.tokens, "reasoning": cells.tokens}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N rows; NaN or -1 for a blank.

    Attributes:
        columns: the table.
        naming: which of its columns means what.
        row_N: where each stands in the table.
        query, sample, answer, question: the ids, which trace, what was answered, the text; None where no column says.
        budget_N, right_N, tried_N: numbers.
        tokens_N, reasoning_N, length_N, input_N: the same; None where no column says.
        labels: the names of options, of which `budget_N` then holds the indexes; empty where options are caps.
        hidden_R_D: hidden states of the table's rows.
    """

    columns: Columns
    naming: Naming
    row_N: IntArray
    query: Encoded
    budget_N: FloatArray
    right_N: FloatArray
    tried_N: FloatArray
    sample: Encoded | None = None
    tokens_N: FloatArray | None = None
    reasoning_N: FloatArray | None = None
    length_N: FloatArray | None = None
    input_N: FloatArray | None = None
    labels: tuple[str, ...] = ()
    answer: Encoded | None = None
    question: Encoded | None = None
    hidden_R_D: FloatArray | None = None

    @property
    def trace_N(self) -> IntArray:
        """Which trace a row belongs to; its query, where no column says which trace."""
        if self.sample is None:
            return self.query.code_N
        traces: IntArray = self.query.code_N * (len(self.sample.values) + 1) + self.sample.code_N
        return traces

    def taken(self, index_M: IntArray, budget_M: FloatArray) -> Rows:
        """Some of the rows, under other budgets."""
        changes: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Encoded):
                changes[each.name] = Encoded(value.values, value.code_N[index_M])
            elif each.name.endswith("_N") and value is not None:
                changes[each.name] = value[index_M]
        return replace(self, **{**changes, "budget_N": budget_M})

    def refuse(self, index_M: IntArray, message: str) -> None:
        """Notes one problem at each of the rows."""
        self.columns.refuse(np.unique(self.row_N[index_M]), message)

    def place(self, index: int) -> str:
        """The position of a row."""
        return self.columns.place(int(self.row_N[index]))

    def at(self, index: int) -> str:
        """A row's budget or option, as text."""
        budget = self.budget_N[index]
        return f" under {self.labels[int(budget)]!r}" if self.labels else f" at budget {budget:.0f}"

    def words(self, index: int) -> str:
        """A row's query and trace, as text."""
        query = f"query {self.query.values[self.query.code_N[index]]!r}"
        if self.sample is None or self.sample.code_N[index] < 0:
            return query
        return f"{query} sample {self.sample.values[self.sample.code_N[index]]!r}"

    def texts(self, kept: IntArray, query_K: IntArray, num_queries: int) -> tuple[str, ...] | None:
        """Every query's text, or None where one has none; two texts under one id are refused.

        `kept` are rows, and `query_K` says which query each is of, from 0.
        """
        if (question := self.question) is None:
            return None
        code_K = question.code_N[kept]
        filled = np.flatnonzero(code_K >= 0)
        seen, first = np.unique(query_K[filled], return_index=True)
        text_Q = np.full(num_queries, -1, dtype=np.int64)
        text_Q[seen] = code_K[filled[first]]
        other = filled[code_K[filled] != text_Q[query_K[filled]]]
        self.refuse(kept[other], "another question has the same id")
        return tuple(question.values[code] for code in text_Q) if (text_Q >= 0).all() else None

    def answers(self, query_N: IntArray, code_N_B: IntArray) -> tuple[IntArray, tuple[tuple[str, ...], ...]]:
        """`(answer_N_B, answers_Q)` as in `Traces`, of codes of `answer`; "" where there is none.

        `query_N` ascends: the query of each row of `code_N_B`.
        """
        values = ("",) if self.answer is None else (*self.answer.values, "")  # -1 is the last
        answers_Q, answer_N_B = [], np.zeros_like(code_N_B)
        for index in np.split(np.arange(len(query_N)), np.flatnonzero(np.diff(query_N)) + 1):
            codes, at = np.unique(code_N_B[index], return_inverse=True)
            answer_N_B[index] = at.reshape(code_N_B[index].shape)
            answers_Q.append(tuple(values[code] for code in codes.tolist()))
        return answer_N_B, tuple(answers_Q)


def read_rows(columns: Columns, naming: Naming, settings: ImportSettings, problems: Problems) -> Rows:
    """Takes every column that means something; notes what cannot be taken."""
    names = naming.columns
    query = columns.labels(names["id"])
    question = columns.encode(names["question"], str) if "question" in names else None
    if naming.shape == WIDE:
        return _read_wide(columns, naming, settings, problems, (query, question))
    return _read_long(columns, naming, settings, (query, question))


_Texts = tuple[Encoded, Encoded | None]  # ids, and questions


def _read_long(columns: Columns, naming: Naming, settings: ImportSettings, texts: _Texts) -> Rows:
    names = naming.columns

    def numbers(meaning: str, convert: Any) -> FloatArray | None:
        return columns.numbers(names[meaning], convert) if meaning in names else None

    tried_N = numbers("tried", cells.count)
    option = columns.labels(names["option"], "option") if naming.is_named else None
    if option is None:
        budget_N = columns.numbers(names["budget"], cells.budget)
    else:
        budget_N = np.where(option.code_N < 0, np.nan, option.code_N.astype(np.float64))
    return Rows(
        columns,
        naming,
        row_N=np.arange(columns.num_rows),
        query=texts[0],
        budget_N=budget_N,
        right_N=columns.numbers(names["correct"], cells.verdict),
        tried_N=np.full(columns.num_rows, float(settings.tried or 1)) if tried_N is None else tried_N,
        sample=_samples(columns, naming, settings),
        tokens_N=numbers("tokens", cells.tokens),
        reasoning_N=numbers("reasoning", cells.tokens),
        length_N=numbers("length", cells.tokens),
        input_N=numbers("input", cells.tokens),
        labels=() if option is None else option.values,
        answer=columns.encode(names["answer"], _answer) if "answer" in names else None,
        question=texts[1],
    )


def _answer(value: Any) -> str:
    """An answer as text; numbers in their shortest form."""
    return cells.reference(value) or ""


def _samples(columns: Columns, naming: Naming, settings: ImportSettings) -> Encoded | None:
    """Which trace each row is of; a column such as "seed" that is the same everywhere says nothing."""
    if "sample" not in naming.columns:
        return None
    name = naming.columns["sample"]
    found = columns.labels(name, "sample")
    is_weak = name.lower() in WEAK_SAMPLES and settings.columns.get("sample") is None
    return None if is_weak and len(found.values) <= 1 else found


def _read_wide(columns: Columns, naming: Naming, settings: ImportSettings, problems: Problems, texts: _Texts) -> Rows:
    names, (query, question) = naming.columns, texts
    tried_R = np.full(columns.num_rows, float(settings.tried or 0))
    if "tried" in names:
        tried_R = columns.numbers(names["tried"], cells.count)
    elif settings.tried is None:
        problems.add("", "the number of traces is not known: --tried-column NAME or --tried N")
    if "hidden" in names and settings.layer is None:
        problems.add(
            "",
            f"{names['hidden']!r} holds hidden states of a layer that is not named: --layer N (the stream after N "
            "decoder layers), or --hidden-column '' to leave them out",
        )
    found = {meaning: _matrix(meaning, columns, naming) for meaning in PER_BUDGET}
    right_R_B = found["correct"]
    assert right_R_B is not None  # a table without is refused before
    for meaning in PER_BUDGET[1:]:
        _check_shape(meaning, found, columns, naming, problems)
    num = right_R_B.shape[1]
    budgets_B = _budgets(columns, naming, settings, num, problems)
    if not len(budgets_B):
        problems.raise_any()
    row_N = np.repeat(np.arange(columns.num_rows), num)
    flat = {meaning: None if value is None else value.ravel() for meaning, value in found.items()}
    return Rows(
        columns,
        naming,
        row_N=row_N,
        query=Encoded(query.values, query.code_N[row_N]),
        budget_N=np.tile(budgets_B.astype(np.float64), columns.num_rows),
        right_N=right_R_B.ravel(),
        tried_N=tried_R[row_N],
        tokens_N=flat["tokens"],
        reasoning_N=flat["reasoning"],
        question=None if question is None else Encoded(question.values, question.code_N[row_N]),
        hidden_R_D=columns.lists(names["hidden"], None) if "hidden" in names else None,
    )


def _matrix(meaning: str, columns: Columns, naming: Naming) -> FloatArray | None:
    """One number per row and budget, shape (R, B); None where the table has none."""
    if meaning in naming.spread:
        names = naming.spread[meaning].values()
        return np.stack([columns.numbers(name, TAKES[meaning]) for name in names], axis=1)
    name = naming.columns.get(meaning)
    return None if name is None else columns.lists(name, TAKES[meaning])


def _check_shape(
    meaning: str, found: dict[str, FloatArray | None], columns: Columns, naming: Naming, problems: Problems
) -> None:
    """Notes values of other budgets than the counts are of, and gaps; takes them out where they are of others."""
    value_R_B, right_R_B = found[meaning], found["correct"]
    if value_R_B is None or right_R_B is None:
        return
    told, counts, leave = naming.told[meaning], naming.told["correct"], f"; to leave it out: --{meaning}-column ''"
    if meaning in naming.spread and list(naming.spread[meaning]) != list(naming.spread["correct"]):
        problems.add("", f"{told} and {counts} are of unequal budgets")
    elif value_R_B.shape != right_R_B.shape:
        problems.add("", f"{told!r} has {value_R_B.shape[1]} budgets, {counts!r} has {right_R_B.shape[1]}{leave}")
    else:
        is_gap_R = (np.isnan(value_R_B) & ~np.isnan(right_R_B)).any(axis=1)
        columns.refuse(np.flatnonzero(is_gap_R), f"{told!r} has a gap{leave}")
        return
    found[meaning] = None


def _budgets(columns: Columns, naming: Naming, settings: ImportSettings, num: int, problems: Problems) -> IntArray:
    """The budgets of the counts: of the columns' names, of a column of lists, or those asked for; none if unknown."""
    none = np.zeros(0, dtype=np.int64)
    if "correct" in naming.spread:
        return np.array(list(naming.spread["correct"]), dtype=np.int64)
    if "budget" in naming.columns:
        return _listed_budgets(columns, naming.columns["budget"], num)
    name = naming.columns["correct"]
    if (menu := settings.menu) is not None:
        if menu.num_options == num:
            return menu.budgets_B
        problems.add("", f"{name!r} holds {num} counts, but --budgets names {menu.num_options} caps")
        return none
    if settings.window is None:
        problems.add("", f"{name!r} holds {num} counts, and their budgets are not known: --budgets CAPS")
        return none
    return settings.window * np.arange(1, num + 1)


def _listed_budgets(columns: Columns, name: str, num: int) -> IntArray:
    budget_R_B = columns.lists(name, cells.budget)
    none = np.zeros(0, dtype=np.int64)
    is_gap_R = np.isnan(budget_R_B).any(axis=1)
    columns.refuse(np.flatnonzero(is_gap_R), f"{name!r} has a gap")
    filled = np.flatnonzero(~is_gap_R)
    if not len(filled):
        return none
    falling = filled[(np.diff(budget_R_B[filled], axis=1) <= 0).any(axis=1)]
    columns.refuse(falling, f"{name!r} must ascend")
    sets, set_M, counts = np.unique(budget_R_B[filled], axis=0, return_inverse=True, return_counts=True)
    usual = int(counts.argmax())
    other = np.setdiff1d(filled[set_M.reshape(-1) != usual], falling)
    columns.refuse(other, f"{name!r} differs from that of other queries ({few(sets[usual])})")
    if sets.shape[1] != num:
        columns.refuse(filled[:1], f"{name!r} has {sets.shape[1]} budgets, but there are {num} counts")
        return none
    return none if len(falling) else sets[usual].astype(np.int64)


def few(budgets: Any, most: int = 6) -> str:
    """The first few budgets, as a message names them."""
    shown = [f"{budget:.0f}" for budget in budgets]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def at_last_cuts(rows: Rows, menu: Menu, problems: Problems) -> Rows:
    """A row for each trace and cap: what the trace's last cut at or below the cap says."""
    names = rows.naming.columns
    spent = [names[meaning] for meaning in ("tokens", "reasoning") if meaning in names]
    if spent and rows.length_N is None:
        problems.add(
            "",
            f"{spent[0]!r} is the usage at a cut, not at a larger cap: give the whole trace's "
            "tokens with --length-column NAME, or leave the column out with --tokens-column ''",
        )
    keyed = np.flatnonzero(rows.query.code_N >= 0)
    keyed = keyed[np.lexsort((rows.budget_N[keyed], rows.trace_N[keyed]))]
    units, first_U, unit_M = np.unique(rows.trace_N[keyed], return_index=True, return_inverse=True)
    key_M = unit_M * (1 << 31) + rows.budget_N[keyed].astype(np.int64)  # a budget is below 2^30
    key_U_B = np.arange(len(units))[:, None] * (1 << 31) + menu.budgets_B
    at_U_B = np.searchsorted(key_M, key_U_B, side="right") - 1
    for unit in np.flatnonzero(at_U_B[:, 0] < first_U).tolist():
        index = int(keyed[first_U[unit]])
        rows.refuse(
            keyed[first_U[[unit]]],
            f"{rows.words(index)} has no cut at or below {menu.smallest}, its first is at {rows.budget_N[index]:.0f}; "
            "leave smaller caps out of --budgets",
        )
    problems.raise_any()
    nameless = np.flatnonzero(rows.query.code_N < 0)
    caps = np.tile(menu.budgets_B.astype(np.float64), len(units))
    return rows.taken(
        np.concatenate([keyed[at_U_B.ravel()], nameless]), np.concatenate([caps, rows.budget_N[nameless]])
    )
