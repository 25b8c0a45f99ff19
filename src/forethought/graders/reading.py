r"""Tokens of mathematics -> their meaning; the whole text is parsed, or it is unreadable.

A recursive descent over a closed grammar: sums and products, fractions, roots, powers, functions, absolute values,
factorials, numbers in other bases, percent, degrees and units; tuples, intervals, sets, unions, matrices, ratios;
equations, inequalities and their chains; lists. What the grammar does not know raises Unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy

from .factors import CURRENCIES, FENCES, GREEK, Factors, as_number, divide, product, raised, signed, undefined
from .latex import FUNCTIONS, Token, Unread, spelled, tokens, wordset
from .meanings import DEGREE, DOTS, PERCENT, Chain, Group, Quantity, Reading, SetTerm, Words
from .words import is_unit

_ACCENTS = wordset(r"\overline \vec \hat \tilde \widehat \widetilde \underline \dot \angle \triangle \mathcal")
_CALLED: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in wordset("sin cos tan cot sec csc sinh cosh tanh exp")},
    **{"arc" + name: getattr(sympy, "a" + name) for name in ("sin", "cos", "tan")},
    "ln": sympy.log, "log": lambda x: sympy.log(x, 10), "lg": lambda x: sympy.log(x, 10), "abs": sympy.Abs,
    "floor": sympy.floor, "ceil": sympy.ceiling, "max": sympy.Max, "min": sympy.Min, "gcd": sympy.gcd,
    "lcm": sympy.lcm, "cis": lambda x: sympy.exp(sympy.I * x), "det": lambda x: undefined("det", x),
}  # fmt: skip
_NAMED = {r"\pi": sympy.pi, r"\infty": sympy.oo, r"\dots": DOTS, r"\i": sympy.I}
_FACTORS = GREEK | _ACCENTS | wordset(r"\frac \sqrt \surd \cbrt \pi \binom \infty \lfloor \lceil \i \begin")
_INVERSES = {"sin": sympy.asin, "cos": sympy.acos, "tan": sympy.atan, "cot": sympy.acot, "sec": sympy.asec,
             "csc": sympy.acsc}  # fmt: skip
MAX_DEPTH = 40
_RELATIONS = wordset(r"= < > \leq \geq \neq \approx \in \notin \subset \subseteq \equiv \cong \to")


def read(text: str, units: tuple[str, ...] = ()) -> Reading:
    """Reads all of `text`; raises Unread where any of it has no meaning.

    Args:
        text: an answer without the marks around it.
        units: letters that are units here ("m", since the other side says metres), not variables.
    """
    plain = spelled(text)
    found = tokens(plain)
    if not found:
        raise Unread("nothing")
    if re.fullmatch(r"(?:\\text\s*\{)?(?i:(?:all )?real numbers|all reals)\}?", plain):
        return Reading(Group("N", (sympy.Symbol("R"),)), False)
    if _are_words(found):
        return Reading(Words(" ".join(token.value for token in found)), False)
    reader = _Reader(found, units)
    meaning = reader.whole()
    return Reading(meaning, reader.is_rounded)


def _are_words(found: list[Token]) -> bool:
    """Whether a text is words, of which a number may be one: "Monday", "(B)", "June 20"."""
    if not any(token.kind == "text" for token in found):
        return False
    if found[0].kind == "text" and len(found[0].value) > 2 and all(t.kind in ("text", "number") for t in found):
        return True
    return found[0].value != "-" and all(token.kind == "text" or token.value in ",.-'()" for token in found)


class _Reader(Factors):
    # --- lists and relations

    def whole(self) -> Any:
        meaning = self.listed()
        if self.position < len(self.tokens):
            raise Unread(f"not read: {self.value!r}")
        return meaning

    def listed(self) -> Any:
        r"""Clauses between commas, semicolons, `\quad`, "and", "or"; one clause is itself."""
        items, words = [self.clause()], set()
        while word := self.separator():
            words.add(word)
            items.append(self.clause())
        words = words - {","} or words
        if len(items) == 1:
            return items[0]
        if len(words) > 1:
            raise Unread("'and' and 'or' together")
        return Group(words.pop(), tuple(items))

    def separator(self) -> str:
        word = self.take(",", ";", r"\quad", r"\or", r"\and")
        if not word:
            return ""
        while also := self.take(r"\quad", r"\or", r"\and"):
            word = also
        return word[1:] if word in (r"\or", r"\and") else ","

    def clause(self) -> Any:
        items, relations = [self.operand()], []
        while self.value in _RELATIONS and self.kind != "text":
            relations.append(self.take(*_RELATIONS))
            items.append(self.operand())
        return Chain(tuple(items), tuple(relations)) if relations else items[0]

    def operand(self) -> Any:
        """A set, a ratio, or a sum with its unit."""
        left = self.ratio()
        while operation := self.take(r"\cup", r"\cap", r"\setminus"):
            left = SetTerm(operation, left, self.ratio())
        return left

    def ratio(self) -> Any:
        items = [self.quantity()]
        while self.value == ":" and self.brackets == 0:
            self.take(":")
            items.append(self.quantity())
        return items[0] if len(items) == 1 else Group(":", tuple(items))

    def quantity(self) -> Any:
        outer, self.money = self.money, ""
        value = self.sum()
        unit = self.unit()
        unit = unit or self.money or (self.take(*CURRENCIES) if self.position == len(self.tokens) - 1 else "")
        self.money = outer
        if self.take(r"\pmod", r"\bmod", r"\mod"):
            return Group("mod", (value, self.argument()))
        if not isinstance(value, sympy.Expr):
            if unit:
                raise Unread("a unit behind what is no number")
            return value
        for mark, name in ((PERCENT, "%"), (DEGREE, "°")):
            if value.has(mark):
                share = sympy.expand(value / mark)
                if not share.has(mark):
                    return Quantity(share, name + unit)
                value = value.subs(mark, sympy.pi / 180 if mark is DEGREE else sympy.Rational(1, 100))
        return Quantity(value, unit) if unit else value

    def unit(self) -> str:
        """The words behind a number, with their powers: "square units", "cm^2", "miles/hour"."""
        parts: list[str] = []
        while True:
            if self.kind == "text" or (
                self.kind == "letter" and (self.value in self.units or parts[-1:] in (["/"], ["*"]))
            ):
                parts.append(self.value)
                self.position += 1
            elif parts and self.take("^"):
                exponent = self.power()
                if exponent not in (-3, -2, -1, 1, 2, 3):
                    raise Unread("no power of a unit")
                parts.append(f"^{exponent}")
            elif (
                parts
                and self.value in ("/", "*")
                and (self.peek().kind == "text" or self.peek().value in (*self.units, "h", "s"))
            ):
                parts.append(self.take("/", "*"))
            else:
                break
        if self.value == "(" and self.kind == "sign" and self.peek().kind == "text" and self.peek(2).value == ")":
            parts.append(self.peek().value)  # "5 (cm)"
            self.position += 3
        words = " ".join(parts)
        if words and not is_unit(words):
            raise Unread(f"no unit: {words!r}")
        return words

    # --- sums and products

    def sum(self) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("too deep")
        total = self.term()
        while sign := self.take("+", "-", r"\pm", r"\mp"):
            term = as_number(self.term())
            total = as_number(total) + signed(sign, term)
        self.depth -= 1
        return total

    def term(self) -> Any:
        if sign := self.take("+", "-", r"\pm", r"\mp"):
            return signed(sign, as_number(self.term()))
        value = self.factor()
        divisor: Token | None = None
        while True:
            if self.take("*"):
                value = product(value, self.signed_factor())
                divisor = None
            elif self.value == "/" and self.kind == "sign":
                if self.peek().kind == "text":
                    return value  # a unit
                self.take("/")
                divisor = self.tokens[self.position] if self.position < len(self.tokens) else None
                value = divide(as_number(value), as_number(self.signed_factor()))
            elif self.is_product():
                if divisor is not None and (divisor.kind == "letter" or divisor.value in GREEK):
                    raise Unread("a/bc: by b or by bc?")
                value = product(value, self.factor())
            else:
                return value

    def signed_factor(self) -> Any:
        if sign := self.take("+", "-"):
            return signed(sign, as_number(self.signed_factor()))
        return self.factor()

    # --- commands

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
        if command in _NAMED and self.value != "_":
            return _NAMED[command]
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
        name = self.value
        self.position += 1
        self.take("}")
        name += f"^{self.power()}" if self.take("^") else ""
        return Group("N", (sympy.Symbol(name),))

    def matrix(self) -> Any:
        """A matrix, row by row; of `vmatrix` its determinant."""
        name = self.skip_braces()
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
        if [self.peek(ahead).value for ahead in range(3)] != ["{", name, "}"]:
            raise Unread("an environment is not closed")
        self.position += 3
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
            return value in "({" or (value == "|" and self.bars == 0) or (value == "[" and self.brackets == 0)
        return kind == "command" and (value in _FACTORS or value[1:] in _CALLED or value[1:] in FUNCTIONS)
