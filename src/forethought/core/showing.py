"""How a value is displayed, as a table or a plot, and how progress is reported.

`report` makes tables and plots, and `commands` progress bars. They depend on the values that they show. To make
`plan.plot()` a method without a circular import, they are registered by name and imported when they are first used.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import InvalidSettingsError, MissingExtraError
from .registry import DISPLAYS, load

T = TypeVar("T")

LONGEST_TEXT = 60  # of a question or an answer, where many stand on a line

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all (0: not known)


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""


def part(progress: Progress, what: str, number: int, total: int) -> Progress:
    """Reports that part `number`, counted from 0, of `total` begins; returns the progress of the steps within it."""
    progress(what, number, total)
    return lambda inner, done, steps: progress(f"{what} {number + 1} of {total}: {inner}", done, steps)


async def told(work: AsyncIterator[T], progress: Progress, what: str, total: int) -> AsyncIterator[T]:
    """Passes on what comes, and says how much of `total` has."""
    done = 0
    progress(what, done, total)
    async for each in work:
        done += 1
        progress(what, done, total)
        yield each


class Shown:
    """Shows itself as a short table in a notebook."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """The table; see `report.values`."""
        found: str = load(DISPLAYS["table"])(self)
        return found


def picture(name: str, *values: Any) -> Any:
    """The figure of values, by its name among the registered displays: `picture("plan", plan)`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "pictures need matplotlib; not installed. Get it with: pip install 'forethought[plots]'"
        )
    return load(DISPLAYS["figure"])(load(DISPLAYS[name]), *values)


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, so that what is displayed can change in place."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and shell.has_trait("kernel")


@contextmanager
def watched(progress: Progress | bool | None) -> Iterator[Progress]:
    """Yields what long work calls with what is being done, steps done and steps in all.

    Args:
        progress: to be called itself; True for a bar; False for silence; None for a bar in a notebook, and silence
            elsewhere.
    """
    if progress is None:
        progress = in_notebook()
    if callable(progress):
        yield progress
    elif progress is False:
        yield silent
    elif progress is True:
        with load(DISPLAYS["bar"])(quiet=False) as show:
            yield show
    else:
        raise InvalidSettingsError(f"progress must be True, False or a function, not {progress!r}")


def brief(text: str | None, most: int = LONGEST_TEXT) -> str:
    """A text as Python writes it, shortened for a `repr` on one line."""
    if text is None or len(text) <= most:
        return repr(text)
    return repr(text[: most - 1] + "…")
