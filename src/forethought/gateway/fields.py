"""What an option is called in a request's body, by route: caps, effort levels, and whatever else it sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.menu import Menu
from ..core.options import Option
from ..servers.kinds import ServerKind

EFFORT = "reasoning_effort"  # what a menu calls an effort level, as chat completions do
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
THINKING = "thinking.budget_tokens"


def cap_fields(path: str, cap: int, kind: ServerKind) -> dict[str, Any] | None:
    """The fields that cap a thought at `cap` tokens; None where this server has none for it on this route."""
    if path == RESPONSES or not kind.cap or cap < kind.least or (path == MESSAGES and kind.cap != THINKING):
        return None
    return kind.native(cap)


def option_fields(path: str, option: Option, kind: ServerKind) -> dict[str, Any] | None:
    """The fields of an option with a name, its cap included; None where this route has none for it."""
    found: dict[str, Any] = {}
    for name, value in option.set.items():
        if name != EFFORT or path not in (RESPONSES, MESSAGES):
            if path == RESPONSES and name not in ("model", "reasoning", "service_tier", "text", "temperature", "top_p"):
                return None
            found[name] = value
        elif path == RESPONSES:
            found["reasoning"] = {"effort": value}
        else:
            found["output_config"] = {"effort": value}
    if option.cap is not None:
        cap = cap_fields(path, option.cap, kind)
        if cap is None:
            return None
        found |= cap
    return found


def own_option(path: str, body: Mapping[str, Any], kind: ServerKind, menu: Menu | None) -> int | None:
    """Column of the option that a body asks for itself; -1 where that is none of the menu's; None where it asks none.

    The name of a model alone asks for none: every body has one.
    """
    if menu is None or not menu.options:
        return -1 if _asks_effort(path, body) else None
    options = [option_fields(path, option, kind) for option in menu.options]
    known = [fields for fields in options if fields is not None]
    paths = {place for fields in known for place in _places(fields)}
    given = [place for place in paths if place != "model" and _at(body, place) is not None]
    if not given:
        return -1 if _asks_effort(path, body) else None
    for column, fields in enumerate(options):
        if fields is not None and all(_at(body, place) == _at(fields, place) for place in [*_places(fields), *given]):
            return column
    return -1


def _asks_effort(path: str, body: Mapping[str, Any]) -> bool:
    if path not in (RESPONSES, MESSAGES):
        return body.get(EFFORT) is not None
    return _at(body, "reasoning.effort") is not None or _at(body, "output_config.effort") is not None


def _places(fields: Mapping[str, Any], before: str = "") -> list[str]:
    """Dotted paths of all that is set."""
    found: list[str] = []
    for name, value in fields.items():
        found += _places(value, f"{before}{name}.") if isinstance(value, Mapping) and value else [f"{before}{name}"]
    return found


def _at(body: Any, place: str) -> Any:
    for name in place.split("."):
        body = body.get(name) if isinstance(body, Mapping) else None
    return body
