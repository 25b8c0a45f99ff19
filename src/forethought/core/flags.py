"""Flags as part of a settings' field: name, default and help of each stand in one place, and click is told by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from types import MappingProxyType
from typing import Any

KEY = "flag"


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is given on the command line; its type and default are the field's own.

    Attributes:
        help: what it is, one sentence; "" for an argument.
        name: "--traces"; "" for the field's own name.
        metavar: what stands for the value in the help.
        shown: what happens where it is not given, in words, where the default's value does not say it.
        choices: the values that it takes; empty for any.
        is_argument: given by place, not by name.
        is_pairs: KEY=VALUE, repeatable, collected into one mapping.
    """

    help: str = ""
    name: str = ""
    metavar: str | None = None
    shown: str = ""
    choices: tuple[str, ...] = ()
    is_argument: bool = False
    is_pairs: bool = False


def flag(default: Any, help: str, **how: Any) -> Any:  # noqa: A002  (click's own word)
    """A field that is a flag; `how` as in `Flag`."""
    metadata: Mapping[str, Any] = MappingProxyType({KEY: Flag(help, **how)})
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def argument(default: Any = MISSING, *, metavar: str | None = None) -> Any:
    """A field that is given by place."""
    metadata = {KEY: Flag(metavar=metavar, is_argument=True)}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def pairs(name: str, help: str) -> Any:  # noqa: A002
    """A field of KEY=VALUE pairs."""
    return flag({}, help, name=name, metavar="KEY=VALUE", is_pairs=True)
