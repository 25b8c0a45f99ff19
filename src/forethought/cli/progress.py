"""A progress bar on stderr: tokens spent of total, and accuracy so far."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress_bar(
    title: str,
    *,
    num_total: int,
    tokens_total: int,
    quiet: bool,
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what to call with each finished record.

    Args:
        title: left of the bar.
        num_total: generations to come.
        tokens_total: reasoning tokens they may take in all.
        quiet: show nothing.
    """
    if quiet or num_total == 0:
        yield lambda record: None
        return
    num_done = num_graded = num_right = num_failed = tokens = 0
    with _bar("{task.fields[detail]}", transient=False) as bar:
        task = bar.add_task(title, total=num_total, detail=f"0 of {tokens_total:,} tokens")

        def advance(record: Mapping[str, Any]) -> None:
            nonlocal num_done, num_graded, num_right, num_failed, tokens
            num_done += 1
            tokens += record.get("reasoning_tokens") or 0  # None: not counted
            num_failed += record.get("error") is not None
            num_graded += record.get("grade") is not None
            num_right += record.get("grade") == "right"
            detail = f"{tokens:,} of {tokens_total:,} tokens"
            if num_graded:
                detail += f", {num_right / num_graded:.0%} right"
            if num_failed:
                detail += f", {num_failed} failed"
            bar.update(task, completed=num_done, detail=detail)

        yield advance


@contextmanager
def step_bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields what to call with what is being done, steps done and steps in all: one bar for every kind of step."""
    if quiet:
        yield lambda what, done, total: None
        return
    with _bar(transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _bar(*details: str, transient: bool) -> Progress:
    """A bar on stderr with what is being done, how much of it, `details`, and the times."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(detail) for detail in details),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(file=sys.stderr), transient=transient, refresh_per_second=4)
