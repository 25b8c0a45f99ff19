r"""A cursor over tokens, and the factors of a product: numbers, symbols, brackets, powers, factorials, degrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy

from .latex import Token, Unread, wordset
from .meanings import DEGREE, DOTS, PERCENT, SIGN, TOO_LARGE, Group, Quantity
from .words import is_unit

MAX_BITS = 100_000  # of a power that is worked out at once
MOST_BITS = 10_000_000  # of one that is worked out where it is compared
MAX_FACTORIAL = 3_000
MAX_DIGITS = 400

GREEK = wordset(
    r"\alpha \beta \gamma \delta \epsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \rho \sigma \tau "
    r"\upsilon \phi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi \Omega \ell "
    r"\hbar"
)
CURRENCIES = ("$", "€", "£", "¥", "₹")
_UNDEFINED = frozenset("fghFGHPQ")
FENCES = {r"\lfloor": (r"\rfloor", sympy.floor), r"\lceil": (r"\rceil", sympy.ceiling),
           r"\|": (r"\|", lambda x: undefined("norm", x)), "|": ("|", sympy.Abs)}  # fmt: skip


class Factors:
    """Where the reading of a text stands, and the lowest level of the grammar.

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

    # What the other levels of the grammar read.
    sum: Callable[[], Any]
    clause: Callable[[], Any]
    command: Callable[[], Any]
    argument: Callable[[], Any]
    signed_factor: Callable[[], Any]

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

    # --- factors

    def factor(self) -> Any:
        """A base with what stands behind it: powers, factorials, percent, degrees, primes."""
        start = self.position
        value = self.base()
        while True:
            if self.value == "^" and self.peek().value in (r"\circ", r"\deg"):
                self.position += 2
                value = self.degrees(value)
            elif self.value == "^" and self.peek().value == "{" and self.peek(2).value in (r"\circ", r"\deg"):
                self.position += 3
                self.need("}")
                value = self.degrees(value)
            elif self.take(r"\deg"):
                value = self.degrees(value)
            elif self.take("^"):
                value = raised(as_number(value), as_number(self.power()))
            elif self.value == "!" and self.kind == "sign":
                self.position += 1
                value = factorial(as_number(value), is_double=bool(self.take("!")))
            elif self.take("%"):
                value = as_number(value) * PERCENT
            elif self.value == "'" and self.tokens[start].kind == "letter" and isinstance(value, sympy.Symbol):
                self.position += 1
                value = sympy.Symbol(value.name + "'")
            else:
                return value

    def degrees(self, value: Any) -> Any:
        """Degrees, with the scale of a temperature at the end of the text."""
        if self.value in ("C", "F") and self.position == len(self.tokens) - 1:
            self.tokens[self.position] = Token("text", self.value)
        return as_number(value) * DEGREE

    def power(self) -> Any:
        """An exponent: the whole number behind it, although TeX would take one digit."""
        if self.take("-"):
            return -as_number(self.power())
        if self.take("+"):
            return self.power()
        return self.number() if self.kind == "number" else self.base()

    def base(self) -> Any:
        """What powers and the like stand behind."""
        kind, value = self.kind, self.value
        if kind == "number":
            return self.mixed()
        if kind == "letter":
            return self.symbol()
        if kind == "text" and self.peek().value == "=" and is_unit(value):
            self.position += 1  # \text{Area} = 5
            return sympy.Symbol(value)
        if kind == "text" and len(value) == 1 and value.isalpha():
            return self.symbol()
        if kind == "sign":
            if value in ("(", "["):
                return self.bracketed()
            if value == "{":
                return self.braces()
            if value in CURRENCIES and (self.peek().kind == "number" or self.peek().value == "-"):
                self.position += 1
                self.money = value
                return self.signed_factor()
            if value in FENCES:
                return self.fenced()
        if kind == "command":
            return self.command()
        raise Unread(f"no factor: {value!r}")

    def mixed(self) -> Any:
        r"""A number; with a proper fraction of numbers behind it, a mixed number: 1\frac12, 1 1/2."""
        number = self.number()
        if not isinstance(number, sympy.Integer) or number < 0:
            return number
        if self.value == r"\frac":
            start = self.position
            fraction = self.command()
            if isinstance(fraction, sympy.Rational) and 0 < fraction < 1 and not fraction.is_integer:
                inside = self.tokens[start + 1 : self.position]
                if all(token.kind == "number" or token.value in "{}" for token in inside) and self.value != "^":
                    return number + fraction
            self.position = start
        elif self.kind == "number" and self.peek().value == "/" and self.peek(2).kind == "number":
            top, bottom = self.value, self.peek(2).value
            if top.isdigit() and bottom.isdigit() and 0 < int(top) < int(bottom):
                self.position += 3
                return number + sympy.Rational(int(top), int(bottom))
        return number

    def number(self) -> Any:
        """Digits, with the groups, the period or the base behind them."""
        digits = self.value
        if self.kind != "number" or len(digits) > MAX_DIGITS:
            raise Unread(f"no number: {digits!r}")
        self.position += 1
        if "." not in digits:
            digits = self.thousands(digits)
        if "." in digits and self.value in (r"\overline", r"\dot"):
            return self.repeating(digits)
        if self.value == "_":
            self.position += 1
            return undefined("in_base", sympy.Integer(digits), as_number(self.argument()))
        if "." in digits:
            self.is_rounded = True
        if self.value in ("e", "E") and self.kind == "letter" and not self.tokens[self.position].spaced:
            sign, power = self.peek(), self.peek(2)
            if sign.kind == "number" and sign.value.isdigit() and not sign.spaced and len(sign.value) < 4:
                self.position += 2
                return sympy.Rational(digits) * 10 ** int(sign.value)
            if sign.value == "-" and power.kind == "number" and not sign.spaced and not power.spaced:
                if (self.value == "E" or "." in digits) and power.value.isdigit() and len(power.value) < 4:
                    self.position += 3
                    return sympy.Rational(digits) / 10 ** int(power.value)
                raise Unread("2e-3: a thousandth, or less three?")
        if self.kind == "number" and not self.tokens[self.position].spaced and self.peek(-1).kind == "number":
            raise Unread("a number right behind a number")
        return sympy.Rational(digits)

    def thousands(self, digits: str) -> str:
        """`digits` with the groups behind it: 1,234,567. In brackets a comma separates, unless 000 tells otherwise."""
        end, groups = self.position, []
        while True:
            comma, group = self.peek(end - self.position), self.peek(end - self.position + 1)
            if comma.value != "," or comma.spaced or group.kind != "number" or group.spaced:
                break
            groups.append(group.value)
            end += 2
        whole = [group.split(".")[0] for group in groups]
        is_grouped = groups and len(digits) <= 3 and digits[0] != "0" and all(len(group) == 3 for group in whole)
        if not is_grouped or any("." in group for group in groups[:-1]):
            return digits
        if self.brackets and not any(group.startswith("0") for group in whole):
            return digits
        self.position = end
        return digits + "".join(groups)

    def repeating(self, digits: str) -> Any:
        """A repeating decimal: the digits before the period, then the period."""
        mark = self.take(r"\overline", r"\dot")
        period = self.period()
        if mark == r"\dot" and self.kind == "number" and self.peek().value == r"\dot":
            period += self.value
            self.position += 1
        if mark == r"\dot" and self.take(r"\dot"):  # a dot over its first digit and one over its last
            period += self.period()
        if not period.isdigit() or len(period) > 30:
            raise Unread("no period")
        whole, _, fixed = digits.partition(".")
        shift = 10 ** len(fixed)
        return sympy.Rational(int((whole or "0") + fixed), shift) + sympy.Rational(
            int(period), shift * (10 ** len(period) - 1)
        )

    def period(self) -> str:
        """The digits under a bar or a dot."""
        if self.value == "{":
            return self.skip_braces()
        period = self.value[:1]
        self.argument()
        return period

    def symbol(self) -> Any:
        """A letter with its subscript, or a function without definition: f(x)."""
        letter = self.value
        self.position += 1
        if letter == "e":
            return sympy.E
        if letter == "i":
            return sympy.I
        if letter == "m" and self.value == r"\angle":  # the measure of an angle
            return self.command()
        name = letter.removeprefix("\\")
        name += self.subscript()
        if letter in _UNDEFINED and [self.peek(ahead).value for ahead in range(6)] == ["^", "{", "-", "1", "}", "("]:
            self.position += 5
            name += "^-1"
        if letter in _UNDEFINED and self.value == "(":
            self.brackets += 1
            self.take("(")
            arguments = [as_number(self.sum())]
            while self.take(","):
                arguments.append(as_number(self.sum()))
            self.need(")")
            self.brackets -= 1
            return undefined(name, *arguments)
        return sympy.Symbol(name)

    def subscript(self) -> str:
        """What a subscript adds to a name; "" without one."""
        if not self.take("_"):
            return ""
        if self.value == "{":
            return "_" + self.skip_braces()
        if self.kind not in ("number", "letter", "text"):
            raise Unread("no subscript")
        self.position += 1
        return "_" + self.peek(-1).value

    # --- brackets

    def bracketed(self) -> Any:
        """A tuple, an interval, or brackets around one value."""
        opening = self.take("(", "[")
        bars, self.bars = self.bars, 0
        self.brackets += 1
        items = [self.clause()]
        while self.take(",", ";"):
            items.append(self.clause())
        closing = self.take(")", "]")
        self.brackets -= 1
        self.bars = bars
        if not closing:
            raise Unread("a bracket is not closed")
        if len(items) == 1 and opening + closing in ("()", "[]"):
            if isinstance(items[0], Quantity) and items[0].unit in ("°", "%"):
                return items[0].value * (DEGREE if items[0].unit == "°" else PERCENT)
            return items[0]
        return Group(opening + closing, tuple(items))

    def braces(self) -> Any:
        """TeX's braces around one value."""
        self.need("{")
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.need("}")
        self.bars = bars
        return value

    def fenced(self) -> Any:
        """An absolute value, a norm, a floor or a ceiling."""
        closing, function = FENCES[self.take(*FENCES)]
        self.bars += 1
        value = as_number(self.sum())
        self.bars -= 1
        self.need(closing)
        return function(value)


def undefined(name: str, *arguments: Any) -> Any:
    """A function of which nothing is known but its name."""
    return sympy.Function(name)(*arguments)


def raised(base: Any, exponent: Any) -> Any:
    """`base` to the power of `exponent`; left as it stands where it would fill the memory, or never end."""
    if base.is_Rational and exponent.is_Rational and base not in (0, 1, -1):
        bits = max(abs(int(base.p)).bit_length(), int(base.q).bit_length()) * abs(exponent)
        if bits > MOST_BITS:
            return undefined(TOO_LARGE, base, exponent)
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
    function = sympy.factorial2 if is_double else sympy.factorial
    return function(value, evaluate=not (value.is_Integer and value > MAX_FACTORIAL))


def signed(sign: str, value: Any) -> Any:
    r"""`value` under its sign; `\pm` and `\mp` leave the choice to a symbol of their own."""
    if sign == "+":
        return value
    if sign == "-":
        return -value
    return value * SIGN if sign == r"\pm" else -value * SIGN
