r"""The one number that a short answer states, read exactly: "\$1,234.50 each" -> 2469/2.

A text that states no number, or several different ones, has no reading (None): guessing what the writer meant would
turn luck into right answers. The rules, in order:

1. `\boxed{…}`: the last one is the answer. Then, what follows the last "answer is", "answer:" or "result is".
2. With "=" or "≈" in it, the last side that is not blank: "3 + 4 = 7" -> 7.
3. Currency, units, percent signs and words around the number are dropped: "50%" reads as 50, never as 0.5.
4. "thousand" to "trillion" right after the number multiply it.
5. What is left must state one number, if need be several times: "18 (18 dollars)" -> 18; "12 or 13" -> None.
6. What is not worked out (sums, powers, roots, variables), a list, a date or a time has no reading: "2^5", "2π", "3x".
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_CHARACTERS = 2_000
MAX_DIGITS = 100
MAX_EXPONENT = 300  # about a float's range; an exact 10**(10**9) would never end

_MINUS_SIGNS = {ord(sign): "-" for sign in "−‐‑‒–—﹣－"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT_RUN = re.compile(r"[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_ANNOUNCED = re.compile(r"\b(?:answer|result)\s*(?:is\b|[:=])", re.IGNORECASE)
_EQUALS = re.compile(r"[=≈]|\\approx\b")

# Typography that Unicode normalisation would lose: "1½" would turn into "11/2".
_TYPOGRAPHY = (
    (re.compile(r"(?<=\d)(?:[\u00a0\u2009\u202f]|\\[,;!:]|\{,\})(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?=[¼-¾⅐-⅞])"), " "),
)
_LATEX = (
    (re.compile(r"\\(?=[$%])|\*\*|`"), ""),
    (re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"([-+])?\s*\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1\2/\3 "),
    (re.compile(r"([-+])?\s*\\[dtc]?frac\s*(\d)\s*(\d)"), r" \1\2/\3 "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|°"), " degrees "),
    (re.compile(r"\s*(?:[xX×*·]|\\times|\\cdot)\s*10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?"), r"e\1"),
    (re.compile(r"(?<=[A-Za-z])\s?\^\s*\{?\s*-?\d+\s*\}?"), ""),  # the power of a unit: "5 cm^2"
    (re.compile(r"\\(?:left|right|displaystyle|q?quad)\b|\\[()\[\],;:! ]|\\\\"), " "),
    (re.compile(r"\b(?:minus|negative)\s+(?=[$€£¥₹]?\s?[\d.])", re.IGNORECASE), "-"),
)
_NO_READING = re.compile(
    r"""
      [\\^_<>√π∞|{}~≤≥±×·]              # mathematics left over
    | \d\s*(?:[-+*:]|[xX]\s)\s*\d       # 5 - 3, 12-13, 10:30, 3 x 4
    | \d\s*,\s+[-+.\d]                  # 3, 4
    | \d\s*!                            # 5!
    | \d\s?/?\s?[xyzn]\b                # 3x, 5/y
    | \b[a-zA-Z]\s?[-+*/]\s?[\d.]       # x+1, n - 2
    | \d\s?[-+*]\s?[abcnpqrxyz]\b       # 1+x
    | -[-\s]+[\d.$]                     # a sign, or a dash?
    | \d[kK]\b                          # 5k: five thousand, or a race?
    """,
    re.VERBOSE,
)

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|\.\d+"
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
    (?:\s?(?P<scale>thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def read_number(text: str) -> Fraction | None:
    """The number `text` states, exactly, or None when it states none or leaves a doubt. Never raises."""
    if len(text) > MAX_CHARACTERS:
        return None
    plain = _plain(_last_side(_after_announcement(boxed(text))))
    if _NO_READING.search(plain):
        return None
    values = {_value(match) for match in _NUMBER.finditer(plain)}
    left_over = _NUMBER.sub(" ", plain)
    # A digit that no number took belongs to a date, a version or a name such as "H2O".
    if len(values) != 1 or any(character.isdigit() for character in left_over):
        return None
    return values.pop()


def boxed(text: str) -> str:
    r"""What the last `\boxed{…}` holds, braces balanced or cut off by the end; `text` itself without one."""
    openings = list(_BOXED.finditer(text))
    if not openings:
        return text
    start = openings[-1].end()
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return text[start:]


def _after_announcement(text: str) -> str:
    tail = _ANNOUNCED.split(text)[-1]
    return tail if tail.strip() else text


def _last_side(text: str) -> str:
    sides = [side for side in _EQUALS.split(text) if any(character.isalnum() for character in side)]
    return sides[-1] if sides else text


def _plain(text: str) -> str:
    """`text` in plain characters: typography, digits of other scripts and the usual LaTeX undone."""
    for pattern, replacement in _TYPOGRAPHY:
        text = pattern.sub(replacement, text)
    text = _SUPERSCRIPT_RUN.sub(lambda match: "^" + match.group().translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text.translate(_MINUS_SIGNS)).replace("⁄", "/").translate(_MINUS_SIGNS)
    text = "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


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
