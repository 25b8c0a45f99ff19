r"""Finds the answer that a model's text states: the part that all graders share.

In this order: text after the end (special tokens, a next question, an explanation) is removed; then the last
`\boxed{…}`, `<answer>…</answer>`, `#### …`, or the text after "answer is", "答案是" or "Answer:" is the answer;
then the marks around it (full stop, `\[ \]`, `$`, `**`, backquotes) are removed.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 2_000
KEPT_READINGS = 4_096  # answers whose readings a grader keeps: a vote compares each with several others

# What tokenizers add: <|im_end|>, <｜end▁of▁sentence｜>, </s>, <eos>, <end_of_turn>, [/INST] …
_SPECIAL = re.compile(
    r"<[|｜][^<>\n]{1,40}[|｜]>"
    r"|</?(?:s|sep|eos|bos|pad|unk|eot|eod|eom|end|start|stop|mask|endoftext|im_end|im_start|extra_id)(?:_\w{1,20})?>"
    r"|\[/?INST\]|\[(?:EOS|BOS|PAD|SEP|CLS)\]",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_TAGGED = re.compile(r"<answer>(?P<inside>(?:(?!<answer>).)*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_CLOSING = re.compile("</answer>", re.IGNORECASE)
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*[*_#>]*[ \t]*(?:(?:next\s+|new\s+)?(?:question|problem|exercise)|q|human|user|assistant|instruction|input"
    r"|问题|题目|問題|질문|вопрос)(?:\s*\d+)?[*_]*\s*[:.：]",
    re.IGNORECASE,
)
_EXPLANATION = re.compile(
    r"\n[ \t]*[*_#>]*[ \t]*(?:(?:explanations?|justification|rationale|reason|reasoning|note|proof|verification|check"
    r"|解释|解析|说明|解説|설명|пояснение|объяснение)[*_]*\s*[:：]|because\s)",
    re.IGNORECASE,
)
MAX_ALONE = 60  # characters of an answer that stands before an explanation or a next question without being announced
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct.*\Z", re.DOTALL | re.IGNORECASE)
_DISPLAY = re.compile(r"\\(?:begin|end)\s*\{(?:align(?:ed)?|equation|gather(?:ed)?|split|multline|displaymath)\*?\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?P<brace>\{)?")
_HASHES = re.compile(r"(?:^|(?<=\s))####(?!#)[ \t]*(?=\S)")
ANNOUNCED = re.compile(
    r"(?<![A-Za-z])(?<!wrong )(?<!incorrect )(?<!false )(?<!not the )(?<!not an )(?:answers?|result)\b\s*(?:\*\*|__)?"
    r"\s*(?:is\b|are\b|was\b|(?:would|should|must|will)\s+be\b|[:=：]|[-–—→]+>?(?=\s+\(?[A-Za-z]))(?:\s*[:：])?(?:\*\*|__)?"
    r"|\bfinal\s+answer[*_ ]*\n|\bans\s*[.:=–—-]+|\bsolution\s*[:：]"
    r"|(?:答案|答え|答|正解|정답|답)\s*(?:应该|應該)?\s*(?:是|为|為|は|은|는|選|选|[:：])+\s*[:：]?"
    r"|\b(?:antwort|réponse|reponse|respuesta|risposta|resposta|odpowiedź|antwoord|svar|svaret|vastaus|válasz|răspuns|odgovor|απάντηση|ответ|відповідь|cevap|jawaban"
    r"|đáp án)\b"
    r"\s*(?:\w{2,12}\s+)?(?:ist|lautet|est|es|è|é|er|är|on|jest|to|is|adalah|là|[:=：—–-])\s*[:：]?"
    r"|(?:الإجابة|الجواب)\s*(?:الصحيحة\s*)?(?:هي|هو|[:：])?\s*[:：]?"
    r"|(?:उत्तर)\s*(?:है|[:：])?\s*",
    re.IGNORECASE,
)

_DOLLAR = re.compile(r"(?<!\\)\$")
_PAIRED = re.compile(r"""(?P<mark>[*_"'])(?P<inside>(?!\s)[^*_"']*(?<!\s))(?P=mark)|[“‘](?P<also>[^”’]*)[”’]""")
_MARKS = (
    re.compile(r"^(?:\\\[|\\\(|\*\*|__|`+|\\displaystyle\b|\\(?:q?quad)\b|\\[,;:! ]|[-=]+>|[→⇒∴]|[\s:：=])+"),
    re.compile(r"(?:\\\]|\\\)|\*\*|__|`+|(?<!\\)\\q?quad|(?<!\\)\\[,;: ]|\\\\|\\\Z|(?<!\.)\.|[\s;,。；，、．]|~)+$"),
)


def stated_answer(text: str, *, announced: bool = True) -> str:
    """The part of `text` that is its answer, with the marks around it.

    Args:
        text: what a model wrote, or a reference.
        announced: also look for "the answer is …" and "Answer: …".
    """
    text = _DISPLAY.sub(" ", _HOPE.sub("", _finished(text))).replace("&=", "=")
    if tagged := list(_TAGGED.finditer(text)):
        text = tagged[-1]["inside"]
    elif (closed := _CLOSING.search(text)) and text[: closed.start()].strip():
        text = text[: closed.start()]  # the tag was opened by the prompt
    if _BOXED.search(text):
        return boxed(text)
    for pattern in (_HASHES, ANNOUNCED) if announced else (_HASHES,):
        if found := list(pattern.finditer(text)):
            tail = text[found[-1].end() :]
            if pattern is _HASHES:
                tail = tail.split("\n")[0]
            if unmarked(tail := _without_loose_brace(tail)):
                return tail
    return text


def shortened(text: str, *, announced: bool = True) -> str | None:
    """At most `MAX_CHARACTERS` of a text: those in which its answer stands; None where that cannot be told.

    Of a long text these are its end, where an answer is announced there, or its beginning, where the answer was
    over before an explanation or a next question.
    """
    if len(text) <= MAX_CHARACTERS:
        return text
    text = _THOUGHT.sub("", text)
    start, end = text[:MAX_CHARACTERS], text[-MAX_CHARACTERS:]
    if len(_finished(start)) < len(start.strip()):
        return start
    return end if len(text) <= MAX_CHARACTERS or _is_stated(end, announced=announced) else None


def unmarked(text: str) -> str:
    r"""`text` without marks at its ends: blank, full stop, comma, semicolon, `$`, `\[ \]`, `**`, backquote, quote."""
    for _ in range(4):  # marks within marks
        before = text
        for marks in _MARKS:
            text = marks.sub("", text)
        text = _without_dollars(_without_braces(text))
        if match := _PAIRED.fullmatch(text):
            text = match["inside"] or match["also"] or text
        if text == before:
            break
    return text


def boxed(text: str) -> str:
    r"""What the last `\boxed{…}` holds, braces balanced or cut off by the end; `text` itself without one."""
    openings = [one for one in _BOXED.finditer(text) if text[one.end() :].strip()]
    if not openings:
        return text
    start = openings[-1].end()
    if not openings[-1]["brace"]:  # \boxed 18
        return text[start:].strip().split("\n")[0]
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            inside = text[start:position]
            return boxed(inside) if _BOXED.search(inside) else inside
    return text[start:]


def _finished(text: str) -> str:
    """`text` up to where a model should have stopped."""
    if "</think" in text:
        text = _THOUGHT.sub("", text)
    for token in _SPECIAL.finditer(text):
        if text[: token.start()].strip():
            text = text[: token.start()]
            break
        text = " " * token.end() + text[token.end() :]
    text = text.strip()
    for pattern in (_NEXT_QUESTION, _EXPLANATION):
        cut = pattern.search(text)
        before = text[: cut.start()].strip() if cut else ""
        if not cut or not before or (pattern is _EXPLANATION and _is_stated(text[cut.end() :])):
            continue
        if _is_stated(before) or ("\n" not in before and len(before) <= MAX_ALONE):
            text = before
    return text


def _is_stated(text: str, *, announced: bool = True) -> bool:
    patterns = (_BOXED, _HASHES, _TAGGED, *([ANNOUNCED] if announced else []))
    return any(pattern.search(text) for pattern in patterns)


def _without_braces(text: str) -> str:
    """Without a pair of braces around the whole of it: `{18}`."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    depth = 0
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0 and position < len(text) - 1:
            return text
    return text[1:-1]


def _without_dollars(text: str) -> str:
    """Without TeX's dollar signs around the whole of it, or a lone one behind it; a lone one before it is money."""
    num_dollars = len(_DOLLAR.findall(text))
    if num_dollars and _DOLLAR.search(text, len(text) - 1) and (num_dollars == 1 or text.strip("$").count("$") == 0):
        return text.strip("$") if num_dollars > 1 else text[:-1]
    return text


def _without_loose_brace(text: str) -> str:
    r"""Without the first brace that closes what was opened before the announcement: \text{Answer: }x."""
    depth = 0
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return text[:position] + text[position + 1 :]
    return text
