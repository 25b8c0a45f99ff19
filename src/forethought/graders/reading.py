r"""Tokens of mathematics -> what they mean, read to the last token or not at all.

A recursive descent over a closed grammar: sums and products, fractions, roots, powers, functions, absolute values,
factorials, numbers in other bases, percent, degrees and units; tuples, intervals, sets, unions, matrices, ratios;
equations, inequalities and their chains; lists. What the grammar does not know raises Unread.
"""

from __future__ import annotations

import re
from typing import Any

import sympy

from .commands import Commands
from .cursor import as_number, divide, product, signed
from .factors import CURRENCIES, GREEK
from .latex import Token, Unread, spelled, tokens, wordset
from .meanings import DEGREE, PERCENT, Chain, Group, Quantity, Reading, SetTerm, Words
from .words import is_unit

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


class _Reader(Commands):
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
            if self.kind == "text" or (self.value in self.units and self.kind == "letter"):
                parts.append(self.value)
                self.position += 1
            elif parts and self.take("^"):
                exponent = self.power()
                if exponent not in (-3, -2, -1, 1, 2, 3):
                    raise Unread("no power of a unit")
                parts.append(f"^{exponent}")
            elif parts and self.value in ("/", "*") and (self.peek().kind == "text" or self.peek().value in self.units):
                parts.append(self.take("/", "*"))
            else:
                break
        if self.value == "(" and self.kind == "sign" and self.peek().kind == "text" and self.peek(2).value == ")":
            self.position += 1  # "5 (cm)"
            parts.append(self.value)
            self.position += 1
            self.need(")")
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
                    break
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
