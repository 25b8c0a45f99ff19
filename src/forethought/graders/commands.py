r"""What LaTeX commands mean: fractions, roots, functions, accents, sets, matrices."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy

from .cursor import as_number, divide, raised, undefined
from .factors import FENCES, GREEK, Factors
from .latex import FUNCTIONS, Token, Unread, wordset
from .meanings import DEGREE, DOTS, Group

_ACCENTS = wordset(r"\overline \vec \hat \tilde \widehat \widetilde \underline \dot \angle \triangle \mathcal")
_CALLED: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in wordset("sin cos tan cot sec csc sinh cosh tanh exp")},
    **{"arc" + name: getattr(sympy, "a" + name) for name in ("sin", "cos", "tan")},
    "ln": sympy.log, "log": lambda x: sympy.log(x, 10), "lg": lambda x: sympy.log(x, 10), "abs": sympy.Abs,
    "floor": sympy.floor, "ceil": sympy.ceiling, "max": sympy.Max, "min": sympy.Min, "gcd": sympy.gcd,
    "lcm": sympy.lcm, "cis": lambda x: sympy.exp(sympy.I * x), "det": lambda x: undefined("det", x),
}  # fmt: skip
_INVERSES = {"sin": sympy.asin, "cos": sympy.acos, "tan": sympy.atan, "cot": sympy.acot, "sec": sympy.asec,
             "csc": sympy.acsc}  # fmt: skip


class Commands(Factors):
    """The level of commands."""

    def command(self) -> Any:
        """A command with what it takes."""
        command = self.value
        self.position += 1
        name = command[1:]
        if command == r"\frac":
            top = self.argument()
            return divide(as_number(top), as_number(self.argument()))
        if command == r"\binom":
            top = self.argument()
            return sympy.binomial(as_number(top), as_number(self.argument()))
        if command in (r"\sqrt", r"\surd", r"\cbrt"):
            return self.root(command)
        if command == r"\pi" and self.value != "_":
            return sympy.pi
        if command == r"\infty":
            return sympy.oo
        if command == r"\dots":
            return DOTS
        if command == r"\i":
            return sympy.I
        if command in GREEK or command == r"\pi":
            self.position -= 1
            return self.symbol()
        if command in _ACCENTS:
            return self.accented(command)
        if command in (r"\emptyset", r"\mathbb"):
            return self.named_set(command)
        if command == r"\{":
            return self.set()
        if command in FENCES:
            self.position -= 1
            return self.fenced()
        if command == r"\begin":
            return self.matrix()
        if name in _CALLED:
            return self.called(name)
        raise Unread(f"no meaning: {command!r}")

    def argument(self) -> Any:
        r"""What a LaTeX command takes: braces, or one token, of a number one digit."""
        if self.value == "{":
            return self.braces()
        if self.kind == "number" and len(self.value) > 1 and self.value.isdigit():
            digits = self.value
            self.tokens[self.position : self.position + 1] = [Token("number", one) for one in digits]
            self.position += 1
            return sympy.Integer(digits[0])
        if self.kind == "number":
            return self.number()
        if self.value in ("(", "["):
            return self.bracketed()
        return self.base()

    def root(self, command: str) -> Any:
        """A root with its index; `√12` is that of the whole number."""
        index: Any = sympy.Integer(3 if command == r"\cbrt" else 2)
        if command == r"\sqrt" and self.take("["):
            index = as_number(self.sum())
            self.need("]")
        if command != r"\sqrt" and self.kind == "number":
            inside = self.number()
        else:
            is_digit = self.kind == "number"
            inside = self.argument()
            if is_digit and self.kind == "number" and not self.tokens[self.position].spaced:
                raise Unread("a root of one digit or of more?")
        inside = as_number(inside)
        if index.is_odd and inside.is_negative and inside.is_number:
            return -raised(-inside, 1 / index)  # the real one
        return raised(inside, 1 / index)

    def accented(self, command: str) -> Any:
        """A letter with a mark, or points that name a line or an angle: a name of its own."""
        if self.value == "{":
            inside = self.skip_braces()
        else:
            inside = self.value
            self.position += 1
        if command in (r"\angle", r"\triangle"):
            while self.kind == "letter":
                inside += self.value
                self.position += 1
        if not re.fullmatch(r"[A-Za-z\\]{1,12}(_\{?\w{1,4}\}?)?", inside):
            raise Unread(f"no name: {inside!r}")
        return sympy.Symbol(f"{command} {inside}" + self.subscript())

    def called(self, name: str) -> Any:
        """A function with its base, its power and its arguments."""
        function = _CALLED[name]
        exponent = index = None
        if name == "log" and self.take("_"):
            index = as_number(self.argument())
        if self.take("^"):
            exponent = self.power()
        if exponent == -1 and name in _INVERSES:
            function, exponent = _INVERSES[name], None
        elif exponent is not None and exponent.could_extract_minus_sign():
            raise Unread("a negative power of a function")
        arguments = self.function_arguments()
        value = function(*arguments)
        if index is not None:
            value = sympy.log(*arguments) / sympy.log(index)
        if index is None and name in ("sin", "cos", "tan", "cot", "sec", "csc", "cis"):
            value = value.subs(DEGREE, sympy.pi / 180)
        return value if exponent is None else raised(value, as_number(exponent))

    def function_arguments(self) -> list[Any]:
        """What a function is applied to: brackets, or the product behind it."""
        if self.value in ("(", "{") and self.kind == "sign":
            closing = {"(": ")", "{": "}"}[self.take("(", "{")]
            self.brackets += 1
            arguments = [as_number(self.sum())]
            while self.take(","):
                arguments.append(as_number(self.sum()))
            self.need(closing)
            self.brackets -= 1
            return arguments
        value = as_number(self.factor())
        while self.is_product() and self.value[1:] not in _CALLED and self.value not in ("(", "{", "["):
            value *= as_number(self.factor())
        return [value]

    def set(self) -> Any:
        """A set between braces."""
        if self.take(r"\}"):
            return Group("{}", ())
        self.brackets += 1
        if condition := self.condition():
            return condition
        items = [self.clause()]
        while self.separator():
            items.append(self.clause())
        self.need(r"\}")
        self.brackets -= 1
        return Group("{}", tuple(items))

    def condition(self) -> Any:
        r"""What holds for the elements of {x | x > 3} or {x \in R : x > 3}; None in a set that lists its own."""
        start = self.position
        if self.kind == "letter":
            self.position += 1
            if self.take(r"\in") and self.take(r"\mathbb") and self.skip_braces() != "R":
                raise Unread("a condition on what is not real")
            if self.take("|", ":"):
                found = self.listed()
                self.need(r"\}")
                self.brackets -= 1
                return found
        self.position = start
        return None

    def named_set(self, command: str) -> Any:
        """The empty set, or a set of numbers."""
        if command == r"\emptyset":
            return Group("{}", ())
        self.take("{")
        letter = self.value
        self.position += 1
        self.take("}")
        name = letter + (f"^{self.power()}" if self.take("^") else "")
        return Group("N", (sympy.Symbol(name),))

    def matrix(self) -> Any:
        """A matrix, row by row; of `vmatrix` its determinant."""
        self.need("{")
        name = self.value
        self.position += 1
        self.need("}")
        if name == "array":
            self.skip_braces()
        elif name not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "smallmatrix"):
            raise Unread(f"no environment: {name!r}")
        rows = [[as_number(self.sum())]]
        while not self.take(r"\end"):
            if self.take("&"):
                rows[-1].append(as_number(self.sum()))
            elif self.take(r"\\"):
                if self.value != r"\end":
                    rows.append([as_number(self.sum())])
            else:
                raise Unread(f"not read in a matrix: {self.value!r}")
        for value in ("{", name, "}"):
            if self.value != value:
                raise Unread("an environment is not closed")
            self.position += 1
        if len({len(row) for row in rows}) > 1:
            raise Unread("rows of a matrix differ")
        if name == "vmatrix":
            return sympy.Matrix(rows).det()
        return Group(f"m{len(rows[0])}", tuple(entry for row in rows for entry in row))

    def is_product(self) -> bool:
        """Whether the next token begins a factor although no sign stands before it."""
        kind, value = self.kind, self.value
        if kind == "letter":
            return value not in self.units
        if kind == "sign":
            if value == "|":
                return self.bars == 0
            return value in ("(", "{") or (value == "[" and self.brackets == 0)
        if kind == "command":
            name = value[1:]
            return (
                value in GREEK | _ACCENTS | {r"\frac", r"\sqrt", r"\surd", r"\cbrt", r"\pi", r"\binom", r"\infty"}
                or value in (r"\lfloor", r"\lceil", r"\i", r"\begin")
                or name in _CALLED
                or name in FUNCTIONS
            )
        return False
