r"""Mathematics in different spellings -> tokens: Unicode, plain text and LaTeX are converted to one spelling.

Nothing with a possible meaning is dropped: an unknown spelling raises Unread.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from typing import NamedTuple


def wordset(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑᵢⱼₖₘₙₓ", "0123456789+-()aeijkmnx", strict=True))
_SIGNS = {
    "√": r"\surd ", "∛": r"\cbrt ", "π": r"\pi ", "∞": r"\infty ", "÷": "/", "∕": "/", "⁄": "/",
    **dict.fromkeys("·⋅∙•×✕✖⨯∗＊", r"\cdot "), **dict.fromkeys("−–—‐‑‒﹣－", "-"), "±": r"\pm ", "∓": r"\mp ",
    "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ", "∅": r"\emptyset ",
    "≤": r"\leq ", "⩽": r"\leq ", "≦": r"\leq ", "≥": r"\geq ", "⩾": r"\geq ", "≧": r"\geq ", "≠": r"\neq ",
    "≈": r"\approx ", "≃": r"\approx ", "≅": r"\cong ", "≡": r"\equiv ", "⊂": r"\subset ", "⊆": r"\subseteq ",
    "→": r"\to ", "⇒": r"\Rightarrow ", "⇔": r"\iff ", "∧": r"\land ", "∨": r"\lor ",
    "°": r"^\circ ", "º": r"^\circ ", "′": "'", "’": "'", "″": "''", "…": r"\dots ", "⋯": r"\dots ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "ℯ": r"\mathrm{e}", "ⅇ": r"\mathrm{e}", "ⅈ": r"\mathrm{i}", "𝑖": "i", "∠": r"\angle ", "△": r"\triangle ", "∣": "|",
    "，": ",", "；": ";", "（": "(", "）": ")", "％": "%", "∆": r"\Delta ",
}  # fmt: skip
_GREEK = {
    chr(code): "\\" + unicodedata.name(chr(code)).split()[-1].lower().replace("lamda", "lambda") + " "
    for code in range(0x3B1, 0x3CA)
    if code != 0x3C2
} | {
    chr(code): "\\" + unicodedata.name(chr(code)).split()[-1].title().replace("Lamda", "Lambda") + " "
    for code in range(0x391, 0x3AA)
    if code != 0x3A2
}  # fmt: skip
_RUN = re.compile("([" + "".join(_SUPERSCRIPTS) + "]+)|([" + "".join(_SUBSCRIPTS) + "]+)")

_THIN = (  # what stands between thousands, but for a plain comma or blank
    r"(?:\\[,!:; ]|\\thinspace\s*|\{\\[,!;:]\}|\\mathord\s*\{\s*,\s*\}|\{,\}|\\text\s*\{\s*,\s*\}|,\\!\s*|"
    r"[\u00a0\u2000-\u200a\u202f\u205f\u3000\u066c~]|(?<=\d)[’'ʼ‘′´`](?=\d)|(?<=\d)_(?=\d)){1,3}"
)
THOUSANDS = re.compile(rf"(?<![\d.,_])(\d{{1,3}})((?:{_THIN}\d{{3}})+)(?![\d_])")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,_/^}] )(?<![\d.,_/^}])(\d{1,3})((?: \d{3})+)(?![\d/]| \d|\.\d*\s*\d{3})")

FUNCTIONS = wordset("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp max min gcd lcm det cis")
_WORDS_OF_MATHEMATICS = {
    **{name: "\\" + name for name in FUNCTIONS},
    "asin": r"\arcsin", "acos": r"\arccos", "atan": r"\arctan", "cosec": r"\csc", "tg": r"\tan",
    "sqrt": r"\sqrt", "cbrt": r"\cbrt", "pi": r"\pi", "theta": r"\theta", "alpha": r"\alpha", "beta": r"\beta",
    "gamma": r"\gamma", "lambda": r"\lambda", "infinity": r"\infty", "inf": r"\infty", "oo": r"\infty",
    "or": r"\or", "and": r"\and", "abs": r"\abs", "floor": r"\floor", "ceil": r"\ceil", "in": r"\in", "union": r"\cup",
}  # fmt: skip
_ALIASES = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\dbinom": r"\binom", r"\tbinom": r"\binom",
    r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "/", r"\le": r"\leq", r"\leqslant": r"\leq", r"\ge": r"\geq",
    r"\geqslant": r"\geq", r"\ne": r"\neq", r"\lt": "<", r"\gt": ">", r"\ldots": r"\dots", r"\cdots": r"\dots",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\lparen": "(", r"\rparen": ")",
    r"\vert": "|", r"\lvert": "|", r"\rvert": "|", r"\mid": "|", r"\Vert": r"\|", r"\lVert": r"\|", r"\rVert": r"\|",
    r"\varnothing": r"\emptyset", r"\isin": r"\in", r"\imath": r"\i", r"\colon": ":", r"\degree": r"\deg",
    r"\degrees": r"\deg", r"\langle": "(", r"\rangle": ")", r"\lor": r"\or",
    r"\land": r"\and", r"\backslash": r"\setminus", r"\varphi": r"\phi", r"\varepsilon": r"\epsilon", r"\prime": "'",
    r"\vartheta": r"\theta", r"\lnot": r"\neg", r"\bigcup": r"\cup", r"\bigcap": r"\cap", r"\doteq": r"\approx",
    r"\simeq": r"\approx", r"\overrightarrow": r"\vec", r"\bar": r"\overline", r"\arctg": r"\arctan",
}  # fmt: skip
_SPACING = wordset(
    r"\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \displaystyle \textstyle \limits \, "
    r"\; \: \! \> \quad \qquad \hfill \nobreak \allowbreak \boldsymbol \bold \mathbf \mathit "
    r"\bf \rm \mathsf \mathnormal \thinspace \bm \scriptstyle \middle"
) | {"\\ "}
TEXT_COMMANDS = wordset(
    r"\text \textbf \textit \textrm \textsf \texttt \textnormal \mbox \hbox \mathrm \operatorname \emph"
)

_PIECE = re.compile(
    r"(?P<space>\s+|~)|(?P<number>\d*\.(?=\s*\\(?:overline|bar|dot)\b)|\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<power>\*\*)"
    r"|(?P<relation><=|>=|!=|<>|==|=<)|(?P<dots>\.\.\.)|(?P<sign>[-+*/^_!%'(){}\[\]|<>=,;:&$€£¥₹])",
)
_RELATIONS = {"<=": r"\leq", "=<": r"\leq", ">=": r"\geq", "!=": r"\neq", "<>": r"\neq", "==": "="}


class Unread(Exception):  # noqa: N818 (a verdict, not a fault)
    """The text, or a comparison with it, cannot be read to the end."""


class Token(NamedTuple):
    """One piece of mathematics.

    Attributes:
        kind: "number", "letter", "text" (words), "command" (with its backslash) or "sign".
        value: its spelling.
        spaced: a blank stands before it.
    """

    kind: str
    value: str
    spaced: bool = False


def spelled(text: str) -> str:
    """`text` in ASCII LaTeX: Unicode signs and letters by their commands, groups of thousands joined."""
    text = THOUSANDS.sub(lambda match: match[1] + re.sub(r"\D", "", match[2]), text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = re.sub(r"(?<![A-Za-z])([apAP])\.\s?([mM])\.?(?![A-Za-z])", r"\1\2", text)
    text = re.sub(r"(?<=[)\]}])\s*U\s*(?=\\left|\\\{|[(\[])", r"\\cup ", text)
    text = _RUN.sub(_raised, text)
    text = "".join(_sign(one) for one in text)
    # A bare dollar sign is TeX's mark around mathematics, an escaped one is money.
    return re.sub(r"(?<!\\)\$", " ", text).replace(r"\$", "$").replace(r"\%", "%").strip()


def tokens(text: str) -> list[Token]:
    """The tokens of a spelled text; raises Unread at a sign that has no meaning here."""
    found: list[Token] = []
    position, is_spaced = 0, False
    while position < len(text):
        match = _PIECE.match(text, position)
        if match is None:
            raise Unread(f"no meaning: {text[position]!r}")
        position = match.end()
        value = match.group()
        if match["space"] or value in _SPACING:
            is_spaced = is_spaced or bool(match["space"]) or value in ("\\ ", r"\quad", r"\qquad", r"\,", r"\;", r"\:")
            if value in (r"\quad", r"\qquad") and found and found[-1].kind != "sign":
                found.append(Token("command", r"\quad", True))
            continue
        if value in TEXT_COMMANDS:
            inside, position = _braced(text, position)
            found.extend(_texts(inside, value, is_spaced))
        elif match["word"]:
            found.extend(_letters(value, found[-1] if found else None, text[position:], is_spaced))
        elif match["command"]:
            value = _ALIASES.get(value, value)
            found.append(Token("command" if value.startswith("\\") else "sign", value, is_spaced))
        elif match["number"]:
            found.append(Token("number", value, is_spaced))
        else:
            value = {"**": "^", "...": r"\dots"}.get(value, _RELATIONS.get(value, value))
            found.append(Token("command" if value.startswith("\\") else "sign", value, is_spaced))
        is_spaced = False
    while found and found[-1].value == r"\quad":
        found.pop()
    return found


def _raised(match: re.Match[str]) -> str:
    if match[1]:
        return "^{" + "".join(_SUPERSCRIPTS[one] for one in match[1]) + "}"
    return "_{" + "".join(_SUBSCRIPTS[one] for one in match[2]) + "}"


def _sign(one: str) -> str:
    if one.isascii():
        return one
    if one in _SIGNS:
        return _SIGNS[one]
    if one.isdecimal():
        return str(unicodedata.decimal(one))
    plain = unicodedata.normalize("NFKC", one)
    if "⁄" in plain:  # ½
        return r"\frac{" + plain.replace("⁄", "}{") + "}"
    return "".join(_SIGNS.get(part) or _GREEK.get(part, part) for part in plain)


def _braced(text: str, position: int) -> tuple[str, int]:
    """What stands in braces behind a command (or its one letter), and where it ends."""
    while position < len(text) and text[position].isspace():
        position += 1
    if position >= len(text):
        raise Unread("nothing behind a command")
    if text[position] != "{":
        return text[position], position + 1
    depth = 0
    for end in range(position, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[position + 1 : end], end + 1
    raise Unread("a brace is not closed")


def _texts(inside: str, command: str, is_spaced: bool) -> list[Token]:
    r"""What `\text{…}` or `\mathrm{…}` stands for."""
    words = " ".join(re.sub(r"\\[,;: !]|~|\$", " ", inside).split())
    if words.lower() in ("or", "and"):
        return [Token("command", "\\" + words.lower(), is_spaced)]
    if (command in (r"\mathrm", r"\operatorname") or words == "cis") and words in _WORDS_OF_MATHEMATICS:
        return [Token("command", _WORDS_OF_MATHEMATICS[words], is_spaced)]
    if command == r"\mathrm" and words in ("e", "i"):
        return [Token("letter", words, is_spaced)]
    if not words:
        return []
    if match := re.fullmatch(r"([A-Za-z. ]+)\^\{?(-?\d)\}?", words):  # cm^2
        return [Token("text", match[1], True), Token("sign", "^"), *tokens(match[2])]
    if re.search(r"[\d+=^\\<>]", words):
        with contextlib.suppress(Unread):
            return [token._replace(spaced=token.spaced or (is_spaced and not place))
                    for place, token in enumerate(tokens(spelled(words)))]  # fmt: skip
    return [Token("text", words, is_spaced or inside[:1] in " ~")]


def _letters(run: str, before: Token | None, after: str, is_spaced: bool) -> list[Token]:
    """A run of bare letters: a function, a word, or a product of letters."""
    is_unit = run in ("in", "min") and before is not None and before.kind == "number" and after[:1] not in ("(", "{")
    if run in _WORDS_OF_MATHEMATICS and not is_unit:
        return [Token("command", _WORDS_OF_MATHEMATICS[run], is_spaced)]
    if match := re.fullmatch(r"([a-zA-Z]?)(sqrt|sin|cos|tan|ln|log|exp|pi|theta)([a-zA-Z]?)", run):
        parts = [Token("letter", match[1], is_spaced)] if match[1] else []
        parts.append(Token("command", "\\" + match[2], is_spaced and not match[1]))
        return [*parts, Token("letter", match[3])] if match[3] else parts
    if run in ("AM", "PM") and _is_measured(before):
        run = run.lower()
    if len(run) == 1 or (_is_product(run, after) and not (_is_unit(run) and _is_measured(before))):
        return [Token("letter", letter, is_spaced and place == 0) for place, letter in enumerate(run)]
    return [Token("text", run, is_spaced)]


def _is_product(run: str, after: str) -> bool:
    r"""Whether a run of letters is a product ("xy", "2ab", "bi", "xe^x") rather than a word."""
    if re.fullmatch(r"i[wxyz]", run) or (re.fullmatch(r"[A-Z]{2}", run) and run.lower() not in _SHORT_WORDS):
        return True
    body = run[:-1] if run[-1] == "i" or (run[-1] == "e" and after.lstrip().startswith("^")) else run
    return len(run) <= 4 and not set(body) & set("eiouEIOU") and (len(run) == 2 or not set(body[1:]) & set("aA"))


def _is_unit(run: str) -> bool:
    return run in UNITS


def _is_measured(before: Token | None) -> bool:
    return before is not None and (before.kind == "number" or before.value in (")", "}", "]", r"\pi", "%"))


_SHORT_WORDS = wordset("no on or in if is it of to so we he be me go do up us as at by my an am ok")
UNITS = wordset("mm cm dm km mg kg ml mL cL dL kL lb lbs oz ft yd yds sq cu hr hrs min mph kph kmh ms ns pm Hz kHz am")
