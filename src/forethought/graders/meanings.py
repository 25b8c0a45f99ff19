"""What an answer of mathematics can mean: the classes between reading and comparing. All else is a sympy expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy

DEGREE, PERCENT, DOTS = sympy.Symbol("°"), sympy.Symbol("%"), sympy.Symbol("…")
SIGN = sympy.Symbol("±")


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words: "Monday", "(B)"."""

    text: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with a unit: 5 cm, 30°, 12%."""

    value: Any
    unit: str


@dataclass(frozen=True, slots=True)
class Group:
    r"""Things in order or not: a tuple or interval, a set, a list, a ratio, a matrix.

    Attributes:
        kind: the two brackets ("(]", "{}"), or ",", "or", "and", ":", "mod"; "m" followed by the number of columns.
        items: what it holds.
    """

    kind: str
    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """Relations in a row: a < b <= c."""

    items: tuple[Any, ...]
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetTerm:
    r"""Two sets under `\cup`, `\cap` or `\setminus`."""

    operation: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text means.

    Attributes:
        meaning: one of this file's classes, or a sympy expression.
        is_rounded: a decimal number stands in it, so that a small difference is allowed.
    """

    meaning: Any
    is_rounded: bool
