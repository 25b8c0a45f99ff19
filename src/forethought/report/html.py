"""A page as one HTML file: nothing is loaded from elsewhere, and text from others is escaped.

Jinja escapes every value (autoescape). Plots are SVG within the page; their colours become variables of the page's
style, which has a light and a dark set. Printing uses the light set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from ..core.versions import versions
from ..core.visible import visible
from .colours import COLOUR, COLOURS
from .pages import Bullets, Page, Picture, Questions, Table, fact_words
from .style import base_style, variable
from .wording import SIMULATED, policy_name

WIDE_CELL = 40  # letters: a cell with more is a text and may be broken into lines
NUMBER = re.compile(r"^(?:[−+<>]?[\d.,]+|–|∞|not (?:known|measured|reached))")
POLICIES = {policy_name(policy): policy for policy in COLOURS}

_PROLOGUE = re.compile(
    r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->|\s(?:xmlns(?::\w+)?|version)=\"[^\"]*\"", re.DOTALL
)
_UNUSED_ID = re.compile(r'<(g|path|text)\sid="[^"]*"')


def render(page: Page, pictures: Mapping[str, str] | None) -> str:
    """The page as HTML.

    Args:
        page: what is said.
        pictures: name -> SVG as matplotlib writes it; None: there are none because matplotlib is missing.
    """
    drawn = {name: _inlined(text) for name, text in (pictures or {}).items()}
    found = {"#5f5f5f", *COLOURS.values(), *(each for text in drawn.values() for each in COLOUR.findall(text))}
    facts = {"versions": versions(), **page.facts}
    command = facts.pop("command", "")
    return _template().render(
        page=page,
        parts=[part for part in page.parts if part.on != "terminal"],
        pictures={name: Markup(_coloured(text)) for name, text in drawn.items()},
        has_none=pictures is None,
        simulated=SIMULATED,
        command=command,
        facts={
            key.replace("_", " "): fact_words(value) for key, value in facts.items() if value not in (None, "", {}, ())
        },
        style=Markup(f"{base_style(found)}{_read('page.css')}"),
        script=Markup(_read("page.js")),
        policies={policy: variable(colour) for policy, colour in COLOURS.items()},
    )


@cache
def _template() -> Template:
    """The page's template, compiled once."""
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "bullets": lambda block: isinstance(block, Bullets),
        "picture": lambda block: isinstance(block, Picture),
        "questions": lambda block: isinstance(block, Questions),
    }
    environment.filters |= {
        "is_number": lambda text: bool(NUMBER.match(text)),
        "is_text": _is_text,
        "policy": POLICIES.get,
    }
    return environment.get_template("page.html")


def _read(name: str) -> str:
    return (resources.files(__package__ or "") / "html_page" / name).read_text("utf-8")


def _harmless(value: Any) -> Any:
    """What is printed, with control characters written out; markup of the page's own stays."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_text(text: str) -> bool:
    return len(text) > WIDE_CELL


def _inlined(text: str) -> str:
    """An SVG file as a part of an HTML page: without prologue, metadata, addresses, and names that pictures share."""
    text = _PROLOGUE.sub("", text).replace("xlink:href", "href")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    return _UNUSED_ID.sub(lambda match: match[0] if match[0].split('"')[1] in used else f"<{match[1]}", text).replace(
        "<svg ", '<svg aria-hidden="true" focusable="false" ', 1
    )


def _coloured(text: str) -> str:
    return COLOUR.sub(lambda match: f"var({variable(match[0])})", text)
