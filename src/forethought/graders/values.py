"""Expressions at points: how two of them are found to be the same without a proof, and different with one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

from .latex import Unread

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
    """`value` at a point; functions without a definition count as numbers of their own."""
    try:
        value = value.subs(point, simultaneous=True) if point else value
        for unknown in sorted(value.atoms(AppliedUndef), key=str):
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
