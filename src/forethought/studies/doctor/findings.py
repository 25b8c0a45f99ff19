"""Findings, one line each, and the largest cost of the tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MARKS = {True: "ok", False: "no", None: "--"}


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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: "machine" or "server".
        name: what was looked at.
        is_fine: whether it is as one would want; None where that is no question.
        detail: what was seen.
        hint: what to type, where something can be done about it.
    """

    topic: str
    name: str
    is_fine: bool | None
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All of it.

    Attributes:
        findings: in the order in which they were looked at.
        flags: what to give to `profile`, `plan` and `run`; "" where there is nothing to recommend.
        is_kept: whether budgets were kept in the way that was asked for; None where that was not tried.
        bill: what it cost to find out, at most; None where no server was reached.
    """

    findings: tuple[Finding, ...]
    flags: str = ""
    is_kept: bool | None = None
    bill: Bill | None = None

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {**asdict(self), "bill": self.bill.to_json() if self.bill else None}

    def to_text(self) -> str:
        """The same as text."""
        lines: list[str] = []
        topic = ""
        for finding in self.findings:
            if finding.topic != topic:
                lines += [*([""] if lines else []), finding.topic]
                topic = finding.topic
            lines.append(f"  {MARKS[finding.is_fine]}  {finding.name:22} {finding.detail}")
            if finding.hint:
                lines.append(f"      {'':22} {finding.hint}")
        if self.bill:
            lines += ["", f"bill: {self.bill.to_text()}"]
        if self.flags:
            lines += ["", f"use: {self.flags}"]
        return "\n".join(lines)
