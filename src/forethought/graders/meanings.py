r"""Possible meanings of a mathematical answer: numbers, groups, sets, relations; values at points, and sets of numbers.

Everything else is a sympy expression.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

from .latex import Unread

DEGREE, PERCENT, DOTS = sympy.Symbol("°"), sympy.Symbol("%"), sympy.Symbol("…")
SIGN = sympy.Symbol("±")
TOO_LARGE = "power"  # the function that stands for a power that nobody can work out


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


DIGITS = 30
_POINTS = [sympy.Rational(*pair) for pair in ((7, 5), (11, 3), (19, 7), (-13, 6), (-5, 8), (23, 9))]


def points(symbols: list[Any]) -> Iterable[dict[Any, Any]]:
    """Six places to look at, the first three positive; one without symbols."""
    if not symbols:
        return [{}]
    return (
        {
            symbol: _POINTS[(turn + 2 * place) % 6] + sympy.Rational(place, 17) if turn > 2 else
            abs(_POINTS[(turn + place) % 6]) + sympy.Rational(place, 19)
            for place, symbol in enumerate(symbols)
        }
        for turn in range(6)
    )  # fmt: skip


def evaluated(value: Any, point: dict[Any, Any]) -> Any:
    """`value` at a point; functions without a definition count as numbers of their own, but for a power too large."""
    try:
        value = value.subs(point, simultaneous=True) if point else value
        for unknown in sorted(value.atoms(AppliedUndef), key=str):
            if unknown.name == TOO_LARGE:
                raise Unread("a power too large to be worked out")
            digits = int.from_bytes(hashlib.sha256(sympy.srepr(unknown).encode()).digest()[:6])
            value = value.subs(unknown, sympy.Rational(digits, 2**45))
    except (TypeError, ValueError, ZeroDivisionError, ArithmeticError):
        return None
    return value


def is_defined(value: Any) -> bool:
    """Whether it is a finite number."""
    return not value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo)


def is_real(value: Any) -> bool:
    """Whether it has no imaginary part, up to 25 digits."""
    if value.is_real is not None:
        return bool(value.is_real)
    imaginary = sympy.im(value.evalf(DIGITS))
    return bool(abs(imaginary) < sympy.Float("1e-25"))


def is_zero(difference: Any) -> bool:
    """Whether nothing is left of a difference of numbers within 400 digits of cancelling."""
    if difference.is_zero is not None and difference.is_number and difference.is_Rational:
        return bool(difference.is_zero)
    value = difference.evalf(DIGITS, maxn=400)
    parts = value.as_real_imag()
    for part in parts:
        if not part.is_number or part.has(sympy.nan, sympy.zoo):
            raise Unread("cannot be evaluated")
        if part != 0 and part.is_Float and part._prec > 1:
            return False
        if part != 0 and not part.is_Float:
            return False
    return True


_RELATIONS = {"<": sympy.Lt, r"\leq": sympy.Le, ">": sympy.Gt, r"\geq": sympy.Ge}
FLIPPED = {">": "<", r"\geq": r"\leq"}


def symbols_of(value: Any) -> set[Any]:
    """The variables of a meaning."""
    if isinstance(value, Quantity):
        return symbols_of(value.value)
    if isinstance(value, (Group, Chain)):
        return set().union(*map(symbols_of, value.items))
    if isinstance(value, SetTerm):
        return symbols_of(value.left) | symbols_of(value.right)
    return set(value.free_symbols) - {SIGN} if isinstance(value, sympy.Basic) else set()


def both_signs(value: Any) -> Any:
    r"""`a \pm b` as the two values it stands for."""
    sides = tuple(_with_sign(value, sign) for sign in (1, -1))
    return value if sides[0] == value else Group(",", sides)


def _with_sign(value: Any, sign: int) -> Any:
    r"""An expression, a quantity or a tuple with one of the two signs that `\pm` stands for; all else as it is."""
    if isinstance(value, Quantity):
        return Quantity(_with_sign(value.value, sign), value.unit)
    if isinstance(value, Group) and value.kind in ("()", "[]", "(]", "[)"):
        return Group(value.kind, tuple(_with_sign(item, sign) for item in value.items))
    return value.subs(SIGN, sign) if isinstance(value, sympy.Expr) and SIGN in value.free_symbols else value


def spread(item: Any) -> tuple[Any, ...]:
    """The two values of `a ± b`, or the one of all else."""
    both = both_signs(item)
    return both.items if both is not item else (item,)


def as_set(value: Any) -> Any:
    """The sympy set that `value` stands for; None where it stands for none."""
    if isinstance(value, SetTerm):
        left, right = as_set(value.left), as_set(value.right)
        if left is None or right is None:
            return None
        operation = {r"\cup": sympy.Union, r"\cap": sympy.Intersection, r"\setminus": sympy.Complement}
        return operation[value.operation](left, right)
    if isinstance(value, Group):
        if value.kind == "N":
            names = {"R": sympy.S.Reals, "Z": sympy.S.Integers, "N": sympy.S.Naturals, "Q": sympy.S.Rationals}
            return names.get(value.items[0].name)
        items = [part for item in value.items for part in spread(item)]
        if value.kind in ("or", "and"):
            sets = [as_set(item) for item in items]
            if None in sets or len(set().union(*map(symbols_of, items))) != 1:
                return None
            return sympy.Union(*sets) if value.kind == "or" else sympy.Intersection(*sets)
        if not all(isinstance(item, sympy.Expr) for item in items):
            return None
        if value.kind == "{}":
            return sympy.FiniteSet(*items)
        if value.kind in ("()", "[]", "(]", "[)") and len(items) == 2:
            return sympy.Interval(*items, value.kind[0] == "(", value.kind[1] == ")")
    if isinstance(value, Chain) and len(symbols_of(value)) == 1:
        return _solved(value)
    return None


def _solved(chain: Chain) -> Any:
    """What a chain of inequalities in one variable, alone on its side, allows."""
    (variable,) = symbols_of(chain)
    allowed = sympy.S.Reals
    for left, relation, right in zip(chain.items, chain.relations, chain.items[1:], strict=False):
        if not all(isinstance(side, sympy.Expr) for side in (left, right)):
            return None
        if variable not in (left, right):
            if relation not in _RELATIONS:
                return None
            allowed = sympy.Intersection(allowed, _worked_out(_RELATIONS[relation](left, right), variable))
            continue
        relation = FLIPPED.get(relation, relation) if (is_up := relation in FLIPPED) else relation
        low, high = (right, left) if is_up else (left, right)
        bound = low if high == variable else high
        if bound.free_symbols:
            return None
        if relation == r"\neq":
            allowed = sympy.Complement(allowed, sympy.FiniteSet(bound))
        elif relation in ("<", r"\leq"):
            is_open = relation == "<"
            span = sympy.Interval(bound, sympy.oo, is_open) if high == variable else sympy.Interval(
                -sympy.oo, bound, True, is_open)  # fmt: skip
            allowed = sympy.Intersection(allowed, span)
        else:
            return None
    return allowed


def _worked_out(relation: Any, variable: Any) -> Any:
    """What an inequality in one variable allows; raises Unread where sympy does not know."""
    real = sympy.Dummy(real=True)
    try:
        return sympy.solve_univariate_inequality(relation.subs(variable, real), real, relational=False)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise Unread("an inequality that cannot be worked out") from error
