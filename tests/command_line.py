"""The command line as tests call it, and question files to call it with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forethought.commands import _exit_code


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


def write_questions(path: Path, count: int, *, references: bool = True, start: int = 0) -> Path:
    numbers = range(start, start + count)
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i * 7 % 11}?"} for i in numbers]
    for i, row in zip(numbers, rows, strict=True):
        if references:
            row["answer"] = str(i + i * 7 % 11)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


JsonCall = Callable[..., tuple[int, Any, str]]


def json_caller(capsys: pytest.CaptureFixture[str]) -> JsonCall:
    """Runs a command with --json: exit code, the object that it printed (None for nothing), and what it said."""

    def run(*args: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = _exit_code([str(arg) for arg in (*args, "--json", "--quiet")])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


def write_sums(path: Path, count: int) -> None:
    """Questions with answers, one per line."""
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
