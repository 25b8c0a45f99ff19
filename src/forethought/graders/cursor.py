"""A cursor over tokens, and the numbers that the parts of the descent share."""

from __future__ import annotations

from typing import Any

import sympy

from .latex import Token, Unread
from .meanings import DOTS, SIGN, Group

MAX_BITS = 100_000  # of a power that is worked out
MAX_FACTORIAL = 3_000


class Cursor:
    """Where the reading of a text stands. `factors`, `commands` and `reading` add a level of the grammar each.

    Args:
        found: the tokens.
        units: letters that are units here ("m", since the other side says metres), not variables.
    """

    def __init__(self, found: list[Token], units: tuple[str, ...]) -> None:
        self.tokens = found
        self.units = units
        self.position = 0
        self.depth = 0
        self.bars = 0
        self.brackets = 0
        self.is_rounded = False
        self.money = ""

    # --- what the other levels read

    def sum(self) -> Any:
        """A sum of products."""
        raise NotImplementedError

    def clause(self) -> Any:
        """A value, or values in relation."""
        raise NotImplementedError

    def listed(self) -> Any:
        """Clauses between commas or words."""
        raise NotImplementedError

    def separator(self) -> str:
        """A comma or a word that separates the elements of a list."""
        raise NotImplementedError

    def command(self) -> Any:
        """A LaTeX command with what it takes."""
        raise NotImplementedError

    def argument(self) -> Any:
        """What a LaTeX command takes."""
        raise NotImplementedError

    def signed_factor(self) -> Any:
        """A factor that may have a sign."""
        raise NotImplementedError

    # --- moving on

    @property
    def value(self) -> str:
        """The next token as it is written; "" at the end."""
        return self.tokens[self.position].value if self.position < len(self.tokens) else ""

    @property
    def kind(self) -> str:
        """The next token's kind; "" at the end."""
        return self.tokens[self.position].kind if self.position < len(self.tokens) else ""

    def peek(self, distance: int = 1) -> Token:
        """The token so far ahead; an empty one beyond the ends."""
        place = self.position + distance
        return self.tokens[place] if 0 <= place < len(self.tokens) else Token("", "")

    def take(self, *values: str) -> str:
        """The next token's value when it is one of `values`, which is then behind us; else ""."""
        found = self.value
        if found in values and self.kind != "text":
            self.position += 1
            return found
        return ""

    def need(self, value: str) -> None:
        """Takes `value`, or raises Unread."""
        if not self.take(value):
            raise Unread(f"expected {value!r}, found {self.value!r}")

    def skip_braces(self) -> str:
        """Passes over a pair of braces; what stands in them, as it is written."""
        start, depth = self.position, 0
        while self.position < len(self.tokens):
            depth += {"{": 1, "}": -1}.get(self.value, 0)
            self.position += 1
            if depth == 0:
                return "".join(token.value for token in self.tokens[start : self.position]).strip("{}")
        raise Unread("a brace is not closed")


def undefined(name: str, *arguments: Any) -> Any:
    """A function of which nothing is known but its name."""
    return sympy.Function(name)(*arguments)


def raised(base: Any, exponent: Any) -> Any:
    """`base` to the power of `exponent`; left as it stands where it would fill the memory."""
    if base.is_Rational and exponent.is_Rational and base not in (0, 1, -1):
        bits = max(abs(int(base.p)).bit_length(), int(base.q).bit_length()) * abs(exponent)
        if bits > MAX_BITS:
            return sympy.Pow(base, exponent, evaluate=False)
    return base**exponent


def as_number(value: Any) -> Any:
    """`value` where it is an expression; raises Unread where it is a set, a tuple or dots."""
    if not isinstance(value, sympy.Expr) or value is DOTS:
        raise Unread("no number")
    return value


def product(left: Any, right: Any) -> Any:
    """The product of two expressions, or of a number and a matrix."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Group) and one.kind[0] == "m" and isinstance(other, sympy.Expr):
            return Group(one.kind, tuple(entry * other for entry in one.items))
    return as_number(left) * as_number(right)


def divide(top: Any, bottom: Any) -> Any:
    """The quotient; raises Unread where it has none."""
    if bottom == 0:
        raise Unread("a division by zero")
    return top / bottom


def factorial(value: Any, *, is_double: bool) -> Any:
    """N! or n!!; left as it stands where it would be too long."""
    if value.is_Integer and value > MAX_FACTORIAL:
        return sympy.factorial(value, evaluate=False)
    return sympy.factorial2(value) if is_double else sympy.factorial(value)


def signed(sign: str, value: Any) -> Any:
    r"""`value` under its sign; `\pm` and `\mp` leave the choice to a symbol of their own."""
    if sign == "+":
        return value
    if sign == "-":
        return -value
    return value * SIGN if sign == r"\pm" else -value * SIGN
