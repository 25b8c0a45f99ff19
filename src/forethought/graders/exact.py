"""Grader `exact`: the same text."""

from __future__ import annotations

import functools
import re
import unicodedata

from ..core.data import Grade
from ..core.protocols import GraderBase
from .answers import KEPT_READINGS, shortened, stated_answer

# Signs that stand for one another, and signs that cannot be seen.
_SAME = str.maketrans(
    dict.fromkeys("’‘‛ʼ＇`´′‹›", "'")
    | dict.fromkeys("“”„‟«»″＂", '"')
    | dict.fromkeys("‐‑‒–—―−﹣－⁃", "-")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff")
)
_LATEX_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|emph|operatorname)\s*\{([^{}]*)\}"
)
_AROUND = tuple(  # each around the whole of it
    re.compile(pattern)
    for pattern in (
        r"\\\((?P<inside>.*)\\\)",
        r"\\\[(?P<inside>.*)\\\]",
        r"(?P<mark>\$\$?)(?P<inside>[^$]*)(?P=mark)",
        r"(?P<mark>\*\*\*|\*\*|\*|__|_|`+)(?P<inside>(?!\s).*(?<!\s))(?P=mark)",
        r"[「『《](?P<inside>[^「」『』《》]*)[」』》]",
        r"""(?P<mark>['"])(?P<inside>.*)(?P=mark)""",
    )
)
_MARKED = re.compile(r"(?P<mark>\*{1,3}|__?|`+)(?P<inside>[^*_`]+)(?P=mark)(?P<end>[.,;:!。]+)")
_MEANING = ("<super>", "<sub>", "<fraction>", "<circle>", "<square>")
_FINAL = re.compile(r"(?<=[^\W_]|[)\]}\"'%+#!?°*$])[.,;:。]$|(?<=[^\W\d_]{2})!+$")


class ExactGrader(GraderBase):
    r"""Compares texts: case, blanks, Markdown, quotes around it, a full stop behind it, `\text{}` and `$` do not count.

    Neither do Unicode's several forms of one sign (’ and ', – and -, full-width letters). Any other punctuation does:
    "5!" is not "5", nor "C#" "C", nor "$5" "5".
    """

    version = "4"

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both are the same text; unreadable when the answer is blank."""
        stated = _bare(answer)
        if not stated:
            return Grade.UNREADABLE
        return Grade.RIGHT if stated == _bare(reference) else Grade.WRONG

    def read(self, answer: str) -> str | None:
        """The text that counts; None for a blank answer."""
        return _bare(answer) or None


@functools.lru_cache(maxsize=KEPT_READINGS)
def _bare(text: str) -> str:
    short = shortened(text, announced=False)
    plain = text if short is None else stated_answer(short, announced=False)
    plain = unicodedata.normalize("NFC", plain).translate(_SAME)
    plain = "".join(_one_form(sign) for sign in plain).translate(_SAME)
    plain = " ".join(
        re.sub(r"\\[ ,;:]|(?<=[\w}])~(?=[\w\\])", " ", unicodedata.normalize("NFC", plain)).casefold().split()
    )
    for _ in range(4):  # quotes within stars within dollars
        before = plain
        plain = _LATEX_TEXT.sub(r"\1", plain)
        if match := _MARKED.fullmatch(plain):
            plain = match["inside"] + match["end"]
        for around in _AROUND:
            if (match := around.fullmatch(plain)) and match["inside"].strip():
                plain = match["inside"].strip()
        plain = _FINAL.sub("", plain).strip() or plain
        if plain == before:
            break
    return re.sub(r"\\([%#&_$])", r"\1", plain)


def _one_form(sign: str) -> str:
    """The usual form of a full-width letter, a ligature or a blank; a raised or lowered sign stays: x², ½."""
    if sign.isascii() or unicodedata.decomposition(sign).startswith(_MEANING):
        return sign
    return unicodedata.normalize("NFKC", sign)
