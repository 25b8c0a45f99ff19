"""Collects all problems of an input, so that the user sees them at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from ..errors import InvalidInputError

MAX_SHOWN = 20


class Problems:
    """Collects complaints about one source, then raises them together.

    Args:
        source: what the complaints are about, in the user's own words: the path they typed, "standard input".
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._messages: list[str] = []
        self._num_more = 0

    def add(self, place: str, message: str) -> None:
        """Notes one problem at `place` ("line 3"), or about the whole source when `place` is empty."""
        if len(self._messages) < MAX_SHOWN:
            self._messages.append(f"{place}: {message}" if place else message)
        else:
            self._num_more += 1

    def add_all(self, places: Iterable[str], num_places: int, message: str) -> None:
        """Notes the same problem at `num_places` places; only as many of `places` are looked at as can be shown."""
        room = max(0, min(num_places, MAX_SHOWN - len(self._messages)))
        for place in itertools.islice(places, room):
            self.add(place, message)
        self._num_more += num_places - room

    def __len__(self) -> int:
        return len(self._messages) + self._num_more

    def raise_any(self) -> None:
        """Raises InvalidInputError with the first 20 problems and how many more there are; nothing when all is well."""
        if not self._messages:
            return
        if len(self) == 1:
            raise InvalidInputError(f"{self.source}: {self._messages[0]}")
        shown = [f"  {message}" for message in self._messages]
        if self._num_more:
            shown.append(f"  … and {len(self) - len(shown):,} more")
        raise InvalidInputError("\n".join([f"{self.source}: {len(self):,} problems", *shown]))


def excerpt(value: object, length: int = 40) -> str:
    """`value` as the user would recognise it, cut to `length` characters: what to quote in a message."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
