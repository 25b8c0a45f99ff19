"""Everything that is wrong with an input, gathered so that the user hears it all at once."""

from __future__ import annotations

from .errors import InvalidInputError

MAX_SHOWN = 20


class Problems:
    """Collects complaints about one source, then raises them together.

    Args:
        source: what the complaints are about, in the user's own words: the path they typed, "standard input".
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._messages: list[str] = []

    def add(self, place: str, message: str) -> None:
        """Notes one problem at `place` ("line 3"), or about the whole source when `place` is empty."""
        self._messages.append(f"{place}: {message}" if place else message)

    def __len__(self) -> int:
        return len(self._messages)

    def raise_any(self) -> None:
        """Raises InvalidInputError with the first 20 problems and how many more there are; nothing when all is well."""
        if not self._messages:
            return
        if len(self._messages) == 1:
            raise InvalidInputError(f"{self.source}: {self._messages[0]}")
        shown = [f"  {message}" for message in self._messages[:MAX_SHOWN]]
        if len(self._messages) > MAX_SHOWN:
            shown.append(f"  … and {len(self._messages) - MAX_SHOWN} more")
        raise InvalidInputError("\n".join([f"{self.source}: {len(self._messages)} problems", *shown]))


def excerpt(value: object, length: int = 40) -> str:
    """`value` as the user would recognise it, cut to `length` characters: what to quote in a message."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
