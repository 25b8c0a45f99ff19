"""Grader `choice`: the letter of a multiple choice."""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from typing import Any

from ..core.data import Grade
from ..core.protocols import GraderBase
from ..errors import InvalidSettingsError
from .answers import ANNOUNCED, KEPT_READINGS, MAX_CHARACTERS, shortened, stated_answer, unmarked

_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_CHOSEN = (
    r"(?:(?:(?:i|we)(?:'d|'ll|\s+would|\s+will)?\s+)?(?:think|say|answer|choose|chose|chosen|picked|pick|selected|select"
    r"|go(?:ing)?\s+with|went\s+with)|(?:it|that|this)(?:'s|\s+is|\s+(?:must|would|should)\s+be)|must\s+be|is|therefore"
    r"|thus|hence|so|letter|clearly|probably|definitely|certainly|obviously)\s*,?\s*:?"
)
_FALSE = (
    r"(?:not\b(?!\s*\(?[A-Z]\b)|n't|never|wrong|incorrect|false|invalid|impossible|eliminated|excluded|ruled\s+out"
    r"|out\b(?!\s+of))"
)
_DENIED_BEHIND = re.compile(
    r"[)\]]?(?:\s*\?|\s+(?:(?:is|was|are|(?:would|can|could|must)\s+be|has\s+been)\s+)?(?:\w+ly\s+)?" + _FALSE +
    r"|\s+(?:isn't|can't|cannot|wasn't|doesn't|does\s+not|fails|contradicts)|\s+(?:major|minor|sharp|flat)\b"
    r"|(?:(?!\b(?:because|since|as)\b)[^.;,\n]){0,60},?\s+but\s+(?:\w+\s+)?" + _FALSE + ")"
)  # fmt: skip
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|cannot|never|except|unlike|(?:other|rather)\s+than|instead\s+of|(?<!no )(?<!without a )doubt"
    r"|rul(?:e[sd]?|ing)\s+out|eliminat\w+|exclud\w+|(?:anything|everything|all)\s+but"
    r"|(?:wrong|incorrect)[ \t]+(?:answer|option|choice|letter|one))|n't)\s*:?\s*"
    r"(?:(?:that|the|it|it's|is|be|was|are|been|answer|option|choice|letter|think|believe|pick|choose|correct|right"
    r"|would|could|should)\s*:?\s+)*(?:is\s*:?\s*)?\W{0,2}$",
    re.IGNORECASE,
)
_NAMED = (
    r"(?:^|[.,;:!?—–-]\s*|\b(?:option|choice|letter|that|so|thus|therefore|hence|think|believe|say|only|and|but|in)\s+)"
)
_CONTINUED = r"(?!\s*[=<>+*/^≤≥])(?=\s*$|\s*[.,;:!、\n–—]|\s+-\s|\s+(?:is|because|since|as(?!\s+well))\b|\s+[^a-z\s])"


class ChoiceGrader(GraderBase):
    """Compares the letter of a multiple choice: "B", "(b)", "B. Paris", "option B", "the answer is B", "答案是B".

    A letter on its own is the choice, also on a first line of its own. In a longer text the first kind of marking that
    occurs decides (announced as answer or option; labelled "(B)", or "B." and "B:" where a line begins; chosen: "I pick
    B"; a capital where the text begins), and must name one choice only. A letter that belongs to other words is none:
    "Vitamin C", "A dog", "B is wrong".

    Args:
        letters: the choices' letters, "ABCDE" unless told.
        first_index: also read a whole number as a choice, counting from this one (MMLU labels count from 0).
    """

    version = "4"

    def __init__(self, *, letters: str = "ABCDE", first_index: int | None = None) -> None:
        if not letters or len(set(letters)) < len(letters) or not set(letters) <= set(string.ascii_uppercase):
            raise InvalidSettingsError(f"letters must be different capital letters such as 'ABCD', got {letters!r}")
        self.letters = letters
        self.first_index = first_index
        capital, either = f"[{letters}]", f"[{letters}{letters.lower()}]"
        end = r"(?![A-Za-z0-9'’+#])(?!-\w)"
        article = r"[AI]\s+(?!(?:because|since|as|is|which|that|and|or)\b)[a-z]"  # "A cat", "I am"
        self._alone = re.compile(rf"[(\[]?({either})[)\].:,;。]*")
        self._markings = [
            re.compile(pattern, re.MULTILINE)
            for pattern in (
                rf"(?:(?i:{ANNOUNCED.pattern})|\b(?i:answers?|choice|option|correct)\b\s*:?|选项|選項|选择?|選択肢|選擇?|선택)\s*(?i:(?:is|(?:would|should|must|will)\s+be)\b|是|为|為|:)?"
                rf"\s*(?i:(?:(?:the|la|le|el|die|der)\s+)?(?:option|choice|letter)?\b|选项|選項)?\s*:?\s*"
                rf"(?:[(（[]({either})[)）\]]|(?!{article})({capital}){end}|({either})[\s.,;:!)\]'’。]*$)(?!\s*(?:or|and|[,;/&+])\s*\(?{capital}\b)",
                rf"(?<!\w)\(({either})\)|^\s*({capital})[).:](?=\s|$)|\A\s*({either})[).:]\s",
                rf"(?i:\b{_CHOSEN})\s*({capital}){end}{_CONTINUED}",
                rf"\A\s*({capital}){end}{_CONTINUED}",
                rf"{_NAMED}({capital}){end}(?=\s+(?:is|must\s+be)\s+(?:the\s+)?(?:right|correct|true|best|answer))",
            )
        ]
        self._capital = re.compile(rf"(?<![\w'’-])({capital}){end}")
        self._kept = functools.lru_cache(maxsize=KEPT_READINGS)(self._read)

    def __reduce__(self) -> tuple[Any, ...]:
        """It is made anew in another process: what it has read stays here."""
        return functools.partial(type(self), letters=self.letters, first_index=self.first_index), ()

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both name the same choice; unreadable when either names none, or several."""
        stated, expected = self.read(answer), self.read(reference)
        if stated is None or expected is None:
            return Grade.UNREADABLE
        return Grade.RIGHT if stated == expected else Grade.WRONG

    def read(self, answer: str) -> str | None:
        """The letter that an answer chooses; None when it chooses none, or leaves a doubt."""
        return self._kept(shortened(answer) or answer[:MAX_CHARACTERS])

    def _read(self, text: str) -> str | None:
        whole = unicodedata.normalize("NFKC", stated_answer(text, announced=False))
        plain = _LATEX_TEXT.sub(r"\1", whole)
        plain = re.sub(r"[*$`\"“”{}【】「」『』〈〉<>]|\\[()\[\]]", " ", plain).strip()
        plain = re.sub(r"^(['_]{1,2})([^'_]*)\1(?=\W*$)", r"\2", plain)
        plain = re.sub(r"^(?:[→⇒∴✓✔✅☑•]|[-=]+>?\s|A\s*:(?=\s*\(?\w\)?\W*$))\s*", "", plain)
        lines = [line.strip() for line in plain.splitlines() if line.strip()] or [""]
        is_announced = self._markings[0].search(plain) is not None
        alone = [match.group(1).upper() for line in lines if (match := self._alone.fullmatch(line))]
        if alone and not is_announced and self._alone.fullmatch(lines[0]):
            return alone[0] if len(set(alone)) == 1 else None
        if self.first_index is not None and (index := self._index(text)) is not None:
            position = index - self.first_index
            return self.letters[position] if 0 <= position < len(self.letters) else None
        for marking in self._markings:
            chosen = {
                letter.upper()
                for match in marking.finditer(plain)
                for place, letter in enumerate(match.groups(), 1)
                if letter and not _is_denied(plain, *match.span(place))
            }
            if not chosen:
                continue
            if marking in self._markings[2:] and not self._is_only(plain, chosen):
                return None
            return chosen.pop() if len(chosen) == 1 else None
        return None

    def _index(self, text: str) -> int | None:
        bare = unmarked(stated_answer(text))
        match = re.fullmatch(
            r"(?i:(?:option|choice|index|label)\s*)?[(\[]?(\d{1,2})(?:[)\]]|[.:)]?|[.:)]\s+\D.*)",
            _LATEX_TEXT.sub(r"\1", bare),
        )
        return int(match.group(1)) if match else None

    def _is_only(self, plain: str, chosen: set[str]) -> bool:
        """Whether no other lone capital stands in the text, the article "A" and the pronoun "I" apart."""
        stated = re.split(r"\b(?:because|since|as(?!\s+well))\b", plain)[0]  # an explanation may name other choices
        others = {
            match.group(1)
            for match in self._capital.finditer(stated)
            if not (match.group(1) in "AI" and re.match(r"\s+[a-z]", stated[match.end() :]))
        }
        return others <= chosen


def _is_denied(plain: str, start: int, end: int) -> bool:
    """Whether the letter there is what is not chosen: "not (C)", "C is wrong", "C?"."""
    return bool(_DENIED_BEHIND.match(plain, end) or _DENIED_BEFORE.search(plain[max(0, start - 80) : start]))
