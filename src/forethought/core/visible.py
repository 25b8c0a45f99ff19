r"""Makes text from others safe to print: on a terminal, in JSON, in Markdown.

A question, an answer, a model's name or a server's message may contain escape sequences that set a clipboard, clear a
screen or reverse the order of letters. Here these characters are written as `\x1b` or `\u202e` instead.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Controls but tab and line feed, marks that change the direction of text, line and paragraph separators, invisible
# annotations, and halves of surrogate pairs, which no file can hold.
_HIDDEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
_CONTROLS = re.compile(f"[{_HIDDEN}]")
_CONTROLS_AND_BREAKS = re.compile(f"[\t\n{_HIDDEN}]")
_BREAKS = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_MARKDOWN = re.compile(r"[\\`*_\[\]<>#~$&]")
_STARTS_A_BLOCK = re.compile(r"^(?:([-+=])|(\d+)([.)]))(?=\s|=|-|$)")


def visible(text: str) -> str:
    """`text` with its control characters written out; its lines and tabs stay."""
    return _CONTROLS.sub(_written, text)


def one_line(text: object) -> str:
    """The same on one line: for names, ids and messages, which must not look like another line of a table."""
    return _CONTROLS_AND_BREAKS.sub(_written, str(text))


def _written(match: re.Match[str]) -> str:
    sign = match.group()
    return _BREAKS.get(sign) or (f"\\x{ord(sign):02x}" if ord(sign) < 0x100 else f"\\u{ord(sign):04x}")


def _encoder(indent: int | None) -> json.JSONEncoder:
    return json.JSONEncoder(indent=indent, ensure_ascii=False, allow_nan=False)


_ENCODER = _encoder(None)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON that can be shown and saved: JSON escapes less than a terminal obeys. NaN is a ValueError."""
    text = (_ENCODER if indent is None else _encoder(indent)).encode(value)
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)  # they only stand within strings


def markdown(text: object) -> str:
    """`text` as one line of Markdown that shows what it says, with no heading, link, tag or cell of its own."""
    line = _MARKDOWN.sub(r"\\\g<0>", one_line(text).strip()).replace("|", "&#124;")
    return _STARTS_A_BLOCK.sub(lambda match: f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}", line)


def code(text: object) -> str:
    """`text` as code within a line of Markdown; as escaped text where it holds what would end the code."""
    line = one_line(text)
    return f"`{line}`" if line.strip() and not set("`|") & set(line) else markdown(line) or "(empty)"
