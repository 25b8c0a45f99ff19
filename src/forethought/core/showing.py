"""How a value shows itself to a person, in a notebook or as a picture.

`report` makes tables and pictures, and stands above the values that it shows. So that `plan.plot()` is a method all the
same, this file is the one door upwards: `report` is loaded by name when a person looks at a value, and never before.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import Any

from ..errors import MissingExtraError

LONGEST_TEXT = 60  # of a question or an answer, where many stand on a line


class Shown:
    """Shows itself as a short table in a notebook."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """The table; see `report.values`."""
        found: str = import_module("forethought.report.values").html(self)
        return found


def picture(name: str, *values: Any) -> Any:
    """The figure that a function of `report` draws: `picture("plots:plan_picture", plan)`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "pictures need matplotlib; not installed. Get it with: pip install 'forethought[plots]'"
        )
    module, _, function = name.partition(":")
    make = getattr(import_module(f"forethought.report.{module}"), function)
    return import_module("forethought.report.figures").drawn(make, *values)


def brief(text: str | None, most: int = LONGEST_TEXT) -> str:
    """A text as Python writes it, cut where it is long: for a `repr` that stands on a line."""
    if text is None or len(text) <= most:
        return repr(text)
    return repr(text[: most - 1] + "…")
