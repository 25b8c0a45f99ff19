"""What looking at a server costs, at most, before anything is asked of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is tried.

    Attributes:
        name: as in the findings.
        num_requests: that generate something; lists of models and the like are free.
        num_tokens: generated at most, whatever the server does with the fields that it is sent.
    """

    name: str
    num_requests: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Bill:
    """All that will be tried.

    Attributes:
        items: in order.
    """

    items: tuple[Item, ...]

    @property
    def num_requests(self) -> int:
        """In all."""
        return sum(item.num_requests for item in self.items)

    @property
    def num_tokens(self) -> int:
        """Generated in all, at most."""
        return sum(item.num_tokens for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {**asdict(self), "num_requests": self.num_requests, "num_tokens": self.num_tokens}

    def to_text(self) -> str:
        """One line."""
        parts = "; ".join(f"{item.name}: {item.num_requests:,} requests, {item.num_tokens:,}" for item in self.items)
        return f"{self.num_requests:,} requests, at most {self.num_tokens:,} generated tokens ({parts})"
