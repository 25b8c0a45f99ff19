"""Validates the curves given to an allocator; errors name the query."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..core.data import Curves, FloatArray
from ..errors import InvalidInputError
from .costs import CHUNK


def check_curves(curves: Curves, any_order: bool) -> bool:
    """Refuses curves that cannot be true, and ids used twice; returns whether no usage curve falls."""
    ids = curves.query_ids
    if not ids:
        raise InvalidInputError("there are no queries to plan for; give at least one")
    # Different hashes prove it for nearly all batches, without a set of all ids.
    hash_Q = np.sort(np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids)))
    if (hash_Q[1:] == hash_Q[:-1]).any() and len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(query_id for query_id in ids if query_id in seen or seen.add(query_id))  # type: ignore[func-returns-value]
        raise InvalidInputError(f"the id {twice!r} is used by more than one query; ids must be unique within a batch")
    return check_values(curves, any_order)


def check_values(curves: Curves, any_order: bool) -> bool:
    """The same without a look at ids."""
    p_Q_B, tokens_Q_B = curves.p_Q_B, curves.tokens_Q_B
    _check_shape(curves, "p_Q_B", p_Q_B)
    if not _lies_within(p_Q_B, 1.0):
        _refuse(curves, p_Q_B, ~((p_Q_B >= 0) & (p_Q_B <= 1)), "a chance of success must lie in [0, 1]")
    if tokens_Q_B is None:
        return True
    check_tokens(curves, "tokens_Q_B", tokens_Q_B)
    is_ordered = not any(map(_falls, _chunks(tokens_Q_B)))
    if not is_ordered and not any_order:
        wrong_Q_B = np.pad(tokens_Q_B[:, 1:] < tokens_Q_B[:, :-1], ((0, 0), (1, 0)))
        advice = "expected tokens must not fall as the cap grows; take np.maximum.accumulate(tokens_Q_B, axis=1)"
        _refuse(curves, tokens_Q_B, wrong_Q_B, advice)
    return is_ordered


def _check_shape(curves: Curves, name: str, array: FloatArray) -> None:
    shape = (len(curves.query_ids), curves.menu.num_options)
    if array.shape != shape:
        raise InvalidInputError(
            f"{name} has shape {array.shape}; {shape[0]} queries on the menu {curves.menu} need {shape}"
        )


def check_tokens(curves: Curves, name: str, tokens_Q_B: FloatArray) -> None:
    """Refuses tokens of another shape, or that are no numbers of at least 0."""
    _check_shape(curves, name, tokens_Q_B)
    if not _lies_within(tokens_Q_B, float(np.finfo(np.float64).max)):
        _refuse(curves, tokens_Q_B, ~((tokens_Q_B >= 0) & (tokens_Q_B < math.inf)), "tokens must be 0 or more")


def _chunks(array_Q_B: FloatArray) -> Iterator[FloatArray]:
    return (array_Q_B[at : at + CHUNK] for at in range(0, len(array_Q_B), CHUNK))


def _falls(array_C_B: FloatArray) -> bool:
    """Whether any row falls anywhere; in one line, where a comparison is fastest."""
    array_A = np.ascontiguousarray(array_C_B).reshape(-1)
    falls_A = array_A[1:] < array_A[:-1]
    falls_A[array_C_B.shape[1] - 1 :: array_C_B.shape[1]] = False  # from one row to the next
    return bool(falls_A.any())


def _lies_within(array_Q_B: FloatArray, most: float) -> bool:
    """Whether every entry is in [0, most], by the extremes: no temporaries, and NaN fails both comparisons."""
    return all(float(array_C_B.min()) >= 0.0 and float(array_C_B.max()) <= most for array_C_B in _chunks(array_Q_B))


def _refuse(curves: Curves, array_Q_B: FloatArray, wrong_Q_B: NDArray[np.bool_], rule: str) -> None:
    row, column = (int(index) for index in np.argwhere(wrong_Q_B)[0])
    raise InvalidInputError(
        f"the curve of query {curves.query_ids[row]!r} is {array_Q_B[row, column]} at budget "
        f"{curves.menu.budgets_B[column]}: {rule} ({int(wrong_Q_B.any(axis=1).sum())} such queries)"
    )
