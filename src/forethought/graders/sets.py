r"""Meanings as sets: intervals, unions, inequalities in one variable, the two values of `\pm`."""

from __future__ import annotations

from typing import Any

import sympy

from .latex import Unread
from .meanings import SIGN, Chain, Group, Quantity, SetTerm

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


def symbols_with_sign(group: Group) -> set[Any]:
    r"""The variables of a tuple, the sign of `\pm` among them."""
    return set().union(*(item.free_symbols for item in group.items if isinstance(item, sympy.Expr)))


def both_signs(value: Any) -> Any:
    r"""`a \pm b` as the two values it stands for."""
    if isinstance(value, sympy.Expr) and SIGN in value.free_symbols:
        return Group(",", (value.subs(SIGN, 1), value.subs(SIGN, -1)))
    if isinstance(value, Group) and value.kind in ("()", "[]", "(]", "[)") and SIGN in symbols_with_sign(value):
        sides = [
            [item.subs(SIGN, sign) if isinstance(item, sympy.Expr) else item for item in value.items]
            for sign in (1, -1)
        ]
        return Group(",", tuple(Group(value.kind, tuple(side)) for side in sides))
    if isinstance(value, Quantity) and SIGN in value.value.free_symbols:
        return Group(",", tuple(Quantity(value.value.subs(SIGN, sign), value.unit) for sign in (1, -1)))
    return value


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
