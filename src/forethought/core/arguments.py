"""Arguments of public functions: taken as what they must be, or refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ..errors import InvalidInputError, InvalidSettingsError
from .codec import MOST
from .problems import excerpt


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number; True and 1.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a number that a float can hold, finite or not; True is none."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    return isinstance(value, float | np.floating) or abs(int(value)) <= MOST


def whole(name: str, value: object, *, least: int = 0, most: int = MOST) -> int:
    """A whole number from `least` to `most`; raises InvalidSettingsError."""
    if is_whole(value) and least <= value <= most:
        return int(value)
    bounds = f"of at least {least}" if most == MOST else f"from {least} to {most:,}"
    raise InvalidSettingsError(f"{name} must be a whole number {bounds}, not {excerpt(value)}")


def wholes(name: str, values: object) -> list[int]:
    """A list of whole numbers of at least 1; raises InvalidSettingsError."""
    return [whole(f"each of {name}", value, least=1) for value in _items(name, values)]


def numbers(name: str, values: object) -> list[float]:
    """A list of numbers; raises InvalidSettingsError."""
    found = _items(name, values)
    if wrong := [value for value in found if not is_number(value)]:
        raise InvalidSettingsError(f"each of {name} must be a number, not {excerpt(wrong[0])}")
    return found


def path_of(value: object) -> Path:
    """The path that names a file or a folder; raises InvalidInputError."""
    if not isinstance(value, str | os.PathLike):
        raise InvalidInputError(f"a file or a folder is named by text or a Path, not by {excerpt(value)}")
    return Path(value)


def _items(name: str, values: object) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidSettingsError(f"{name} must be a list, not {excerpt(values)}")
    return list(values)
