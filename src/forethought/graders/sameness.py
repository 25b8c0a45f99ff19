"""Whether two parsed answers mean the same.

Numbers without variables, and quotients of polynomials, are compared exactly at rational points; the rest to 30 digits
beyond what cancels. Where neither "the same" nor "different" is certain, Unread is raised.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

from .latex import Unread
from .meanings import (
    DIGITS,
    DOTS,
    FLIPPED,
    SIGN,
    Chain,
    Group,
    Quantity,
    Reading,
    SetTerm,
    Words,
    as_set,
    both_signs,
    evaluated,
    is_defined,
    is_real,
    is_zero,
    points,
    spread,
    symbols_of,
)
from .words import same_unit

TOLERANCE = sympy.Rational(1, 10**6)  # of decimals, as in NumberGrader


_IN_ORDER = ("xy", "xyz", "ab", "abc", "abcd", "pq", "uv", "mn", "hk")  # names whose values are a tuple's in this order


def is_same(answer: Reading, reference: Reading) -> bool:
    """True or False; raises Unread where that cannot be said."""
    return _Comparison(is_rounded=answer.is_rounded or reference.is_rounded).same(answer.meaning, reference.meaning)


class _Comparison:
    def __init__(self, *, is_rounded: bool) -> None:
        self.is_rounded = is_rounded

    def same(self, left: Any, right: Any) -> bool:
        """Whether two meanings are the same, whatever they are."""
        if isinstance(left, Words) or isinstance(right, Words):
            return self.same_words(left, right)
        named, also_named = _values_by_name(left), _values_by_name(right)
        if named and also_named and (len(named) > 1 or len(also_named) > 1):
            return named.keys() == also_named.keys() and all(self.same(named[name], also_named[name]) for name in named)
        for names, other in ((named, right), (also_named, left)):
            letters = "".join(sorted(map(str, names)))
            if (
                letters in _IN_ORDER
                and isinstance(other, Group)
                and other.kind == "()"
                and len(other.items) == len(names)
            ):
                return all(
                    self.same(names[sympy.Symbol(name)], item) for name, item in zip(letters, other.items, strict=True)
                )
        if isinstance(left, Chain) and isinstance(right, Chain):
            return self.same_chains(left, right)
        left, right = self.without_name(left, right), self.without_name(right, left)
        left, right = both_signs(left), both_signs(right)
        if isinstance(left, Quantity) or isinstance(right, Quantity):
            return self.same_quantities(left, right)
        if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
            return self.same_values(left, right)
        if isinstance(left, Group) and isinstance(right, Group):
            return self.same_groups(left, right)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Group) and one.kind == "{}" and len(one.items) == 1 and isinstance(other, sympy.Expr):
                return self.same(one.items[0], other)
        return self.same_sets(left, right)

    # --- words

    def same_words(self, left: Any, right: Any) -> bool:
        if isinstance(left, Words) and isinstance(right, Words):
            return _plain(left.text) == _plain(right.text)
        words, other = (left, right) if isinstance(left, Words) else (right, left)
        if isinstance(other, sympy.Symbol):
            return _plain(words.text) == _plain(other.name)
        if isinstance(other, sympy.Mul) and all(isinstance(part, sympy.Symbol) for part in other.args):
            letters = sorted(str(part) for part in other.args)
            if letters == sorted(_plain(words.text, keep_case=True)):
                raise Unread("a word or a product of letters?")
            return False
        raise Unread("words against mathematics")

    # --- names, units, signs

    def without_name(self, side: Any, other: Any) -> Any:
        """The value in "x = 5" or "x in S"; a chain of equal numbers is that number; all else as it is."""
        if isinstance(side, Group) and side.kind in (",", "or", "and"):
            return self.unnamed_list(side)
        if not isinstance(side, Chain):
            return side
        name, value = self.named(side)
        if name is None and value is None:
            return side
        if isinstance(name, AppliedUndef) and isinstance(other, sympy.Expr) and not other.free_symbols:
            return side
        return value

    def named(self, chain: Chain) -> tuple[Any, Any]:
        r"""(name, value) of "x = 5", "x = 3 + 4 = 7", "x \in S"; (None, value) of "3 + 4 = 7"; else (None, None)."""
        items, relations = list(chain.items), set(chain.relations)
        if relations == {r"\in"} and len(items) == 2 and isinstance(items[0], sympy.Symbol):
            return items[0], items[1]
        if not relations <= {"=", r"\approx"}:
            return None, None
        name = None
        if _is_name(items[0]):
            name = items.pop(0)
        elif len(items) == 2 and isinstance(items[1], sympy.Symbol) and _is_constant(items[0]):
            name = items.pop()
        own = set() if name is None or isinstance(name, AppliedUndef) else symbols_of(name)
        if own & set().union(*map(symbols_of, items)) or (name is None and not all(map(_is_constant, items))):
            return None, None
        # "1/3 ≈ 0.33" states 1/3; "x ≈ 0.33" states 0.33.
        equal = [item for item, relation in zip(items[1:], chain.relations[-len(items) + 1 :] if len(items) > 1 else (),
                                                strict=True) if relation == "="]  # fmt: skip
        if any(not self.same(items[0], item) for item in equal):
            raise Unread("an equation that does not hold")
        return name, items[0]

    def unnamed_list(self, group: Group) -> Group:
        """Makes "1 or 2" of "x = 1 or x = 2", and of "x = 1, 2"; leaves it where names differ."""
        pairs = [self.named(item) if isinstance(item, Chain) else (None, item) for item in group.items]
        names = {name for name, _ in pairs if name is not None}
        if len(names) != 1 or any(value is None for _, value in pairs):
            return group
        return Group(group.kind, tuple(value for _, value in pairs))

    def same_quantities(self, left: Any, right: Any) -> bool:
        units = [side.unit if isinstance(side, Quantity) else "" for side in (left, right)]
        values = [side.value if isinstance(side, Quantity) else side for side in (left, right)]
        if not all(isinstance(value, sympy.Expr) for value in values):
            raise Unread("a quantity against what is none")
        if not self.same_values(*values):
            if sorted(units) == ["", "°"] and any(value.has(sympy.pi) for value in values):
                raise Unread("degrees or radians?")
            return False
        if all(units) and not same_unit(*units):
            raise Unread("units differ")
        return True

    # --- values

    def same_values(self, left: Any, right: Any) -> bool:
        if left == right:
            return left is not sympy.nan
        if SIGN in left.free_symbols or SIGN in right.free_symbols:
            return False
        if any(side.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan, DOTS) for side in (left, right)):
            return False
        symbols = sorted(left.free_symbols | right.free_symbols, key=str)
        num_points = 0
        for point in points(symbols):
            values = [evaluated(side, point) for side in (left, right)]
            if None in values or (symbols and not all(map(is_defined, values))):
                continue
            if symbols and not (left.has(sympy.I) or right.has(sympy.I)) and not all(map(is_real, values)):
                continue  # outside of what the variables stand for: log(x) at -1
            if not self.same_numbers(*values):
                return False
            num_points += 1
        if num_points < (3 if symbols else 1):
            raise Unread("cannot be evaluated")
        return True

    def same_numbers(self, left: Any, right: Any) -> bool:
        if left == right:
            return True
        difference = left - right
        if self.is_rounded and not (left.is_Integer and right.is_Integer):
            return bool(
                abs(difference.evalf(DIGITS)) <= TOLERANCE * max(abs(left.evalf(DIGITS)), abs(right.evalf(DIGITS)))
            )
        if left.is_Rational and right.is_Rational:
            return False
        return is_zero(difference)

    # --- lists, tuples, sets

    def same_groups(self, left: Group, right: Group) -> bool:
        kinds = {left.kind, right.kind}
        if any(isinstance(side, Group) and side.kind == "N" for side in (left, right)):
            return self.same_sets(left, right)
        has_chains = any(isinstance(item, Chain) for item in (*left.items, *right.items))
        if has_chains and kinds & {"or", "and"} and not kinds <= {",", "or", "and"}:
            return self.same_sets(left, right)
        if kinds <= {",", "or", "and", "{}"}:
            if "{}" in kinds:
                left, right = self.distinct(left), self.distinct(right)
            elif {"or", "and"} <= kinds and not all(map(_is_constant, (*left.items, *right.items))):
                return False
            if DOTS in left.items or DOTS in right.items:
                return len(left.items) == len(right.items) and all(map(self.same, left.items, right.items))
            return self.same_in_any_order(left.items, right.items)
        if kinds == {":"}:
            return self.same_ratios(left, right)
        if len(left.items) != len(right.items):
            return False
        is_same = all(map(self.same, left.items, right.items))
        if len(kinds) == 1 or (len(left.items) > 2 and kinds <= {"()", "[]"}):
            return is_same
        if is_same and any(kind[0] == "m" or kind in (",", "and", ":") for kind in kinds):
            raise Unread("a tuple, a vector or a list?")
        return False

    def distinct(self, group: Group) -> Group:
        kept: list[Any] = []
        items = [part for item in group.items for part in spread(item)]
        for item in items:
            if not any(self.same(item, one) for one in kept):
                kept.append(item)
        return Group(group.kind, tuple(kept))

    def same_in_any_order(self, left: Iterable[Any], right: Iterable[Any]) -> bool:
        ours = [part for item in left for part in spread(item)]
        theirs = [part for item in right for part in spread(item)]
        if len(ours) != len(theirs):
            return False
        for item in ours:
            for place, other in enumerate(theirs):
                if type(item) is not type(other) and not isinstance(item, sympy.Expr):
                    continue
                if self.same(item, other):
                    del theirs[place]
                    break
            else:
                return False
        return True

    def same_ratios(self, left: Group, right: Group) -> bool:
        if len(left.items) != len(right.items):
            return False
        if all(map(self.same, left.items, right.items)):
            return True
        values = [*left.items, *right.items]
        if not all(isinstance(value, sympy.Expr) for value in values):
            raise Unread("a ratio of what are no numbers")
        first = left.items[0], right.items[0]
        is_same = all(
            self.same_values(one * first[1], other * first[0])
            for one, other in zip(left.items, right.items, strict=True)
        )
        if (
            is_same
            and len(left.items) == 2
            and all(0 <= side.items[0] <= 24 and 10 <= side.items[1] < 60 for side in (left, right))
        ):
            raise Unread("a ratio or a time?")
        return is_same

    def same_sets(self, left: Any, right: Any) -> bool:
        if isinstance(left, SetTerm) and isinstance(right, SetTerm):
            pairs = [(left.left, right.left), (left.right, right.right)]
            if left.operation == right.operation and all(type(a) is type(b) and self.same(a, b) for a, b in pairs):
                return True
        ours, theirs = as_set(left), as_set(right)
        if ours is None or theirs is None:
            if isinstance(left, SetTerm) and isinstance(right, SetTerm):
                raise Unread("sets that cannot be worked out")
            return False
        if ours == theirs:
            return True
        rest = sympy.SymmetricDifference(ours, theirs)
        if rest.is_empty is None:
            raise Unread("sets that cannot be compared")
        return bool(rest.is_empty)

    # --- equations and inequalities

    def same_chains(self, left: Chain, right: Chain) -> bool:
        names, values = zip(self.named(left), self.named(right), strict=True)
        if None not in names and self.same(*names):
            return self.same(*values)
        if names == (None, None) and None not in values:
            return self.same(*values)
        for one, other, name, value in ((left, right, names[0], values[0]), (right, left, names[1], values[1])):
            if one.relations == (r"\in",) and symbols_of(other) == {name}:
                return self.same_sets(value, other)
        if _is_ordered(left) and _is_ordered(right) and symbols_of(left) == symbols_of(right):
            if self.same_pairs(left, right):
                return True
            return len(symbols_of(left)) == 1 and self.same_sets(left, right)
        return self.same_pairs(left, right)

    def same_pairs(self, left: Chain, right: Chain) -> bool:
        """Whether every two neighbours of one are multiples of two of the other."""
        ours, theirs = _pairs(left), _pairs(right)
        if ours is None or theirs is None:
            return left.relations == right.relations and all(map(self.same, left.items, right.items))
        if len(ours) != len(theirs):
            return False
        for relation, difference in ours:
            for place, (other_relation, other) in enumerate(theirs):
                if relation == other_relation and self.is_multiple(relation, difference, other):
                    del theirs[place]
                    break
            else:
                return False
        return True

    def is_multiple(self, relation: str, left: Any, right: Any) -> bool:
        """Whether one is a number times the other: a positive one where the order counts."""
        unknown = {each: sympy.Symbol(str(each)) for each in left.atoms(AppliedUndef) | right.atoms(AppliedUndef)}
        left, right = left.subs(unknown), right.subs(unknown)
        symbols = sorted(left.free_symbols | right.free_symbols, key=str)
        if not symbols:
            raise Unread("relations of numbers alone")
        ratios = []
        for point in points(symbols):
            top, bottom = evaluated(left, point), evaluated(right, point)
            if top is None or bottom is None or not is_defined(top) or not is_defined(bottom) or bottom == 0:
                continue
            ratios.append(top / bottom)
        if len(ratios) < 3:
            raise Unread("cannot be evaluated")
        if ratios[0] == 0 or not all(self.same_numbers(ratios[0], ratio) for ratio in ratios[1:]):
            return False
        return relation in ("=", r"\neq") or bool(ratios[0].is_positive or ratios[0].evalf() > 0)


def _plain(text: str, *, keep_case: bool = False) -> str:
    bare = " ".join(re.sub(r"[.,()'\"-]", " ", text).replace("solutions", "solution").split())
    return bare if keep_case else bare.casefold()


def _is_constant(value: Any) -> bool:
    return isinstance(value, (sympy.Expr, Quantity)) and not symbols_of(value) and not (
        isinstance(value, sympy.Expr) and value.atoms(AppliedUndef)
    )  # fmt: skip


def _is_name(value: Any) -> bool:
    if isinstance(value, Group):
        return value.kind == "()" and all(isinstance(item, sympy.Symbol) for item in value.items)
    if isinstance(value, AppliedUndef):
        return all(isinstance(argument, sympy.Symbol) for argument in value.args)
    return isinstance(value, sympy.Symbol)


def _is_ordered(chain: Chain) -> bool:
    return set(chain.relations) <= {"<", r"\leq", ">", r"\geq"}


def _values_by_name(side: Any) -> dict[Any, Any]:
    """Symbol -> value of "x = 1, y = 2" and of "(x, y) = (1, 2)"; nothing for all else, or a name twice."""
    parts = side.items if isinstance(side, Group) and side.kind in (",", "and") else (side,)
    found: dict[Any, Any] = {}
    for part in parts:
        if not isinstance(part, Chain) or part.relations != ("=",):
            return {}
        name, value = part.items
        names, values = (name,), (value,)
        if isinstance(name, Group) and isinstance(value, Group) and name.kind == value.kind == "()":
            names, values = name.items, value.items
        if len(names) != len(values) or not all(isinstance(each, sympy.Symbol) for each in names):
            return {}
        for each, its in zip(names, values, strict=True):
            if each in found or each in symbols_of(its):
                return {}
            found[each] = its
    return found


def _pairs(chain: Chain) -> list[tuple[str, Any]] | None:
    """Neighbours as (relation, difference), the smaller side first; None where a side is no expression."""
    found = []
    for (left, right), relation in zip(itertools.pairwise(chain.items), chain.relations, strict=True):
        if relation not in ("=", r"\neq", "<", r"\leq", ">", r"\geq"):
            return None
        if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
            return None
        if relation in FLIPPED:
            left, right, relation = right, left, FLIPPED[relation]
        if any(side.has(sympy.oo, -sympy.oo) for side in (left, right)):
            return None
        found.append((relation, right - left))
    return found
