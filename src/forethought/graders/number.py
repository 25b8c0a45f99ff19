r"""Grader `number`: the same number, and how the one number that a short answer states is read.

A text that states no number, or several different ones, has no reading (None): guessing what the writer meant would
turn luck into right answers. The rules, in order:

1. Where the answer stands: see `answers`.
2. With "=" or "≈" in it, the last side, where what stands before it is a sum of numbers, or the name of what is
   stated: "3 + 4 = 7" -> 7, "x = 5" -> 5; "x^2 - 25 = 0" -> None.
3. Currency, units, percent signs and words around the number are dropped: "50%" reads as 50, never as 0.5. Words that
   may change its value are not: see `words`.
4. "hundred" to "trillion", "lakh" and "crore" right after the number multiply it.
5. What is left must state one number, if need be several times: "18 (18 dollars)" -> 18; "12 or 13" -> None.
6. What is not worked out (sums, powers, roots, variables), a list, a date or a time has no reading: "2^5", "2π", "3x".
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from fractions import Fraction

from ..core.data import Grade
from ..core.protocols import GraderBase
from .answers import KEPT_READINGS, MAX_CHARACTERS, shortened, stated_answer, unmarked
from .latex import THOUSANDS
from .words import is_name, is_noun, is_stated

RELATIVE_TOLERANCE = Fraction(1, 10**6)


class NumberGrader(GraderBase):
    """Compares the numbers that two texts state.

    Whole numbers must be equal; others may differ by a millionth, so that 0.333333 is right for 1/3.
    "50%" is right for 50, never for 0.5.
    """

    version = "4"

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both state the same number; unreadable when either states none, or several."""
        stated, expected = read_number(answer), read_number(reference)
        if stated is None or expected is None:
            return Grade.UNREADABLE
        return Grade.RIGHT if is_same_number(stated, expected) else Grade.WRONG

    def read(self, answer: str) -> Fraction | None:
        """The number that an answer states, exactly."""
        return read_number(answer)


def is_same_number(stated: Fraction, expected: Fraction) -> bool:
    """Whether two numbers are the same, up to a millionth where they are not both whole."""
    if stated.denominator == expected.denominator == 1:
        return stated == expected
    return abs(stated - expected) <= RELATIVE_TOLERANCE * max(abs(stated), abs(expected))


MAX_DIGITS = 100
MAX_EXPONENT = 300  # about a float's range; an exact 10**(10**9) would never end

_MINUS_SIGNS = {ord(sign): "-" for sign in "−‐‑‒–—―﹘﹣－˗➖"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT_RUN = re.compile(r"[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")

_EQUALS = re.compile(r"[=≈]|\\approx\b")
_ASSIGNED = re.compile(
    r"\W*([A-Za-z])\s*=[^=A-Za-z]*\d[^=A-Za-z]*?(?:,|;|\band\b)\s*(?:and\s+)?([A-Za-z])\s*="
)  # x = 1, y = 2
_ORDER = re.compile(r"[<>≤≥≠≮≯≰≱]|[!:~]=|\\n?(?:leq?|geq?|neq?|lt|gt)(?:slant)?(?![a-zA-Z])")
_STATEMENT = re.compile(r"[,;:\n]|\b(?:so|then|thus|hence|therefore)\b|\\(?:Rightarrow|implies|to)\b|=>|[⇒→]")

# Typography that Unicode normalisation would lose: "1½" would turn into "11/2".
_TYPOGRAPHY = ((re.compile(r"(?=[¼-¾⅐-⅞])"), " "),)
_LATEX = (
    (
        re.compile(r"(?<=[\w)])\s*\*\*\s*(?=[\d(])"),
        "^",
    ),  # a power in a programmer's spelling; other stars are Markdown's
    (re.compile(r"\\(?=[$%#&])|\*\*|`"), ""),
    (re.compile(r"~(?=[A-Za-z\\])"), " "),
    (re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"([-+])?\s*\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1\2/\3 "),
    (re.compile(r"([-+])?\s*\\[dtc]?frac\s*(\d)\s*(\d)"), r" \1\2/\3 "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|°"), " degrees "),
    (re.compile(r"\s*(?:[xX×*·]|\\times|\\cdot)\s*10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?"), r"e\1"),
    (
        re.compile(
            r"(?<=[\s\d/.])((?:[mcdk]?m|s|in|ft|yd|mi|sq|inch(?:es)?|foot|feet|(?:yard|mile|unit|centimet(?:er|re)|met(?:er|re))s?)\.?)"
            r"\s*\^\s*\{?\s*-?[123]\s*\}?(?!\d)"
        ),
        r"\1",  # the power of a unit: "5 cm^2"
    ),
    (re.compile(r"\\(?:left|right|displaystyle|q?quad)\b|\\[()\[\],;:! ]|\\\\"), " "),
    (re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE), r"\1m"),
    (re.compile(r"\b(?:minus|negative)\s+(?=[$€£¥₹]?\s?[\d.])", re.IGNORECASE), "-"),
)
_NO_READING = re.compile(
    r"""
      [\\^_<>√π∞|{}~≤≥±∓×·÷∼∸⊖⊟¬]       # mathematics left over
    | \.\d+\s?\.{2,} | \.\d*\(\d        # 0.333..., 0.(3): digits without end
    | \d\s*(?:[-+*:]|[xX]\s)\s*\d       # 5 - 3, 12-13, 10:30, 3 x 4
    | \d\s*,\s+[-+.\d]                  # 3, 4
    | \d\s*!                            # 5!
    | \d[^.?\n]*\?\s*\w                 # 5? No
    | \d\s?/?\s?[xyzn]\b  # 3x, 5/y
    | \b[a-zA-Z]\s?[-+*/]\s?[\d.]       # x+1, n - 2
    | \d\s?[-+*]\s?[a-zA-Z]\b           # 1+x
    | \d\s*[-+*/](?:\s|$)(?!\s*[a-z])   # 5+: five or more
    | \d\s*\+\s*[a-z]
    | -[-\s]+[\d.$] | [-+]\s*\(         # a sign, or a dash?
    | ^[^'"]*\d\s?'\s*$                 # 5': feet, or the quotation's end?
    | \d[kKMBTG]\b                      # 5k: five thousand, or a race?
    | [$€£¥₹]\s?[\d.,]+\s?[mbkt]\b      # $5m
    """,
    re.VERBOSE,
)

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!,?\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?<![\w.,/])(?<![A-Za-z]-)                  # not inside a word, a date or another number
    (?:(?<![\w)\]])(?P<sign>[-+]))?
    (?:[$€£¥₹]\s?)?
    (?P<inner_sign>-)?
    (?:(?P<whole>\d+)\s+(?=\d+\s?/\s?\d))?      # the 1 of "1 1/2"
    (?P<number>{_UNSIGNED})
    (?:e(?P<exponent>[-+]?\d+))?
    (?:\s?/\s?(?P<denominator>-?(?:{_UNSIGNED})))?
    (?:\s?(?P<scale>hundred|thousand|million|billion|trillion|lakh|crore)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
_SPACED = re.compile(r"(?<![\d.,])(?<![\d.,] )(\d{1,3})((?: \d{3})+)(?![\d/]| \d)")
_DOLLARS = re.compile(r"(?<!\\)\$([^$\s][^$]*?)(?<!\\)\$(?!\d)")


def read_number(text: str) -> Fraction | None:
    """The number `text` states, exactly, or None when it states none or leaves a doubt. Never raises."""
    short = shortened(text)
    return None if short is None else _read(short)


@functools.lru_cache(maxsize=KEPT_READINGS)
def _read(text: str) -> Fraction | None:
    stated = unmarked(stated_answer(text))
    if _ORDER.search(stated):
        return None
    side = _last_side(stated)
    if side is None:
        return None
    plain = _plain(side)
    if _NO_READING.search(plain):
        return None
    found = list(_NUMBER.finditer(plain))
    values = {_value(match) for match in found}
    # A digit that no number took belongs to a date, a version or a name such as "H2O".
    if len(values) != 1 or any(character.isdigit() for character in _NUMBER.sub(" ", plain)):
        return None
    edges = [0, *itertools.chain.from_iterable(match.span() for match in found), len(plain)]
    between = [plain[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    if not all(map(is_stated, between[:-1])) or not all(map(is_noun, between[1:])):
        return None
    return values.pop()


def bare_number(text: str) -> Fraction | None:
    r"""The number that `text` is, with nothing but its own signs: "-1,234.5", "1/2", "\frac{1}{2}", "$5"; else None."""
    plain = _plain(text).strip() if len(text) <= MAX_CHARACTERS else ""
    match = _NUMBER.fullmatch(plain)
    if match is None or match["exponent"] or match["scale"]:
        return None
    return _value(match)


def _last_side(text: str) -> str | None:
    """What stands behind the last "=", where it is a value on its own; None where it is half of an equation."""
    if (match := _ASSIGNED.match(text)) and match[1] != match[2]:
        return None
    sides = [side for side in _EQUALS.split(text) if any(character.isalnum() for character in side)]
    for side in reversed(sides[:-1]):
        statements = [part for part in _STATEMENT.split(side) if part.strip()]
        if not is_name(_plain(statements[-1])):
            return None
        if len(statements) > 1:
            break
    return sides[-1] if sides else text


def _plain(text: str) -> str:
    """`text` in plain characters: typography, digits of other scripts and the usual LaTeX undone."""
    text = THOUSANDS.sub(lambda match: match[1] + re.sub(r"\D", "", match[2]), text)
    text = _DOLLARS.sub(r" \1 ", text)
    for pattern, replacement in _TYPOGRAPHY:
        text = pattern.sub(replacement, text)
    text = _SUPERSCRIPT_RUN.sub(lambda match: "^" + match.group().translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text.translate(_MINUS_SIGNS)).replace("⁄", "/").translate(_MINUS_SIGNS)
    text = "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _SPACED.sub(lambda match: match[0].replace(" ", ""), text)
    return re.sub(r"^\s*([-+])\s+(?=[$€£¥₹]?[\d.]+[\d.,/%]*\s*$)", r"\1", text)


def _value(match: re.Match[str]) -> Fraction | None:
    """The exact value of one match of `_NUMBER`; None when it divides by zero or is beyond any sensible size."""
    exponent = match["exponent"] or "0"
    if sum(map(str.isdigit, match.group())) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    denominator = _decimal(match["denominator"] or "1")
    if denominator == 0:
        return None
    value = _decimal(match["whole"] or "0") + _decimal(match["number"]) * Fraction(10) ** int(exponent) / denominator
    if match["scale"]:
        value *= _SCALES[match["scale"].lower()]
    return -value if (match["sign"] == "-") != (match["inner_sign"] == "-") else value


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))
