"""Several rows per query and budget: traces, or groups that differ in another column (a filter, a task)?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.data import IntArray
from ...core.problems import Problems, excerpt
from .columns import Encoded
from .naming import GROUPS
from .rows import Rows

MOST_GROUPS = 256  # values of a column that tells such rows apart


def refuse_groups(rows: Rows, unit_N: IntArray, kept: IntArray, problems: Problems) -> None:
    """Notes a column such as "filter" or "task" that has several values within one query or trace.

    `unit_N` is the query, or the trace, that each row belongs to; `kept` are the rows to look at.
    """
    for name, group in _groups(rows):
        mixed = _mixed_units(unit_N[kept], group.code_N[rows.row_N[kept]])
        if len(mixed):
            problems.add("", _words(rows, name, group, kept[unit_N[kept] == mixed[0]], len(mixed)))


def mixed_groups(rows: Rows) -> Iterator[str]:
    """A sentence for every such column that differs between the traces of a query."""
    for name, group in _groups(rows):
        mixed = _mixed_units(rows.query.code_N, group.code_N[rows.row_N])
        if len(mixed):
            yield (
                f"{name!r} differs between the traces of {_queries(len(mixed))} ({_few(group)}), which are counted "
                f"together; to read one of them: --where {name}={group.values[0]}"
            )


def refuse_told_apart(rows: Rows, kept: IntArray, problems: Problems) -> None:
    """Notes a column of texts whose values are the same at every query and budget, each once: no traces do that."""
    query_M = rows.query.code_N[kept]
    budgets, column_M = np.unique(rows.budget_N[kept], return_inverse=True)
    cell_M = query_M * len(budgets) + column_M
    num_cells = len(np.unique(cell_M))
    for name in rows.columns.others(MOST_GROUPS):
        group = rows.columns.texts(name)
        code_M = group.code_N[rows.row_N[kept]]
        is_whole = len(group.values) * num_cells == len(code_M) and (code_M >= 0).all()
        if is_whole and len(group.values) > 1 and len(np.unique(cell_M * len(group.values) + code_M)) == len(code_M):
            if all(_is_number(value) for value in group.values):
                continue
            problems.add("", _words(rows, name, group, kept[cell_M == cell_M[0]], len(np.unique(query_M))))


def _groups(rows: Rows) -> Iterator[tuple[str, Encoded]]:
    read = {part for name in rows.naming.columns.values() for part in (name, *name.split(","))}
    for name in rows.columns.names:
        if name.lower() in GROUPS and name not in read:
            group = rows.columns.texts(name)
            if len(group.values) > 1:
                yield name, group


def _mixed_units(unit_M: IntArray, code_M: IntArray) -> IntArray:
    """The units with rows of several groups."""
    known = (unit_M >= 0) & (code_M >= 0)
    pairs = np.unique(np.stack([unit_M[known], code_M[known]], axis=1), axis=0)
    units, counts = np.unique(pairs[:, 0], return_counts=True)
    mixed: IntArray = units[counts > 1]
    return mixed


def _words(rows: Rows, name: str, group: Encoded, mixed: IntArray, num_mixed: int) -> str:
    row_M = rows.row_N[mixed]
    code_M, naming = group.code_N[row_M], rows.naming
    first = next(row for row, code in zip(row_M, code_M, strict=True) if code >= 0)
    other = next(row for row, code in zip(row_M, code_M, strict=True) if code not in (-1, group.code_N[first]))
    value = group.values[group.code_N[first]]
    samples = "" if "sample" in naming.columns else f"; if they are traces of one query: --sample-column {name}"
    option = f"{naming.columns['option']},{name}" if naming.is_named else name
    choose = f"; to choose among them: --option-column {option}"
    return (
        f"{_queries(num_mixed)} {'has' if num_mixed == 1 else 'have'} rows that {name!r} tells apart ({_few(group)}), "
        f"such as {rows.columns.place(int(first))} and {rows.columns.place(int(other))}. To read one of them: --where "
        f"{name}={value}; to take each for a query of its own: --id-column {naming.columns['id']},{name}{samples}"
        f"{choose}"
    )


def _queries(number: int) -> str:
    return "1 query" if number == 1 else f"{number:,} queries"


def _few(group: Encoded) -> str:
    return ", ".join(excerpt(value, 24) for value in group.values[:3]) + (", …" if len(group.values) > 3 else "")


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
