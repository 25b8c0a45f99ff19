"""How far long work is: a bar on a terminal or in a notebook's cell; elsewhere a line on stderr now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from html import escape
from typing import TYPE_CHECKING, Any

import click

from ..core.showing import in_notebook

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_PER_LINE = 30.0  # where it is not a terminal
SECONDS_BEFORE_CELL, SECONDS_PER_CELL = 0.5, 1.0  # in a notebook: what is over before that shows nothing
WIDE = 100  # columns, from which there is room for a bar beside the numbers


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
    num_done = num_right = num_known = num_failed = tokens = 0
    with _shown(title, num_total) as show:

        def advance(record: Mapping[str, Any]) -> None:
            nonlocal num_done, num_right, num_known, num_failed, tokens
            is_failed = record.get("error") is not None
            num_done += 1
            tokens += record.get("reasoning_tokens") or 0
            num_failed += is_failed
            num_known += is_failed or record.get("grade") is not None  # what failed is not right
            num_right += record.get("grade") == "right"
            detail = f"{_short(tokens)} of {_short(tokens_total)} tokens"
            if num_known > num_failed:
                detail += f", {num_right / num_known:.0%} right"
            if num_failed:
                detail += f", {num_failed} failed"
            show(title, num_done, num_total, detail)

        yield advance


@contextmanager
def step_bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields what to call with what is being done, steps done and steps in all: one bar for every kind of step."""
    if quiet:
        yield lambda what, done, total: None
        return
    with _shown("", None) as show:
        yield lambda what, done, total: show(what, done, total, "")


Show = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it, of how much, and details."""


@contextmanager
def _shown(title: str, total: int | None) -> Iterator[Show]:
    if in_notebook():
        cell = _Cell()
        try:
            yield cell
        finally:
            cell.close()
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _bar() as bar:
        task = bar.add_task(title, total=total, detail="")

        def show(what: str, done: int, total: int, detail: str) -> None:
            bar.update(task, description=what, completed=done, total=total, detail=detail)

        yield show


class _Lines:
    """A line whenever enough time has passed since the last one: a short command prints none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = self._last = clock()

    def __call__(self, what: str, done: int, total: int, detail: str) -> None:
        now = self._clock()
        if now - self._last < SECONDS_PER_LINE:
            return
        self._last = now
        click.echo(_line(what, done, total, detail, now - self._started), err=True)


class _Cell:
    """A bar in a notebook's cell: one output that changes in place, and is empty at the end; needs no widgets."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._state: tuple[str, int, int, str] | None = None
        self._handle: Any = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._follow,), daemon=True)
        self._thread.start()

    def __call__(self, what: str, done: int, total: int, detail: str) -> None:
        self._state = what, done, total, detail

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        if self._handle is not None:
            self._handle.update({"text/html": "", "text/plain": ""}, raw=True)

    def _follow(self) -> None:
        """Shows what was last said, so often that a person sees it move and a notebook's file stays small."""
        seconds = SECONDS_BEFORE_CELL
        while not self._is_over.wait(seconds):
            seconds = SECONDS_PER_CELL
            if self._state is not None:
                self._show(*self._state)

    def _show(self, what: str, done: int, total: int, detail: str) -> None:
        from IPython.display import display

        line = _line(what, done, total, detail, time.monotonic() - self._started)
        bar = f'<progress value="{done}" max="{max(total, 1)}" style="vertical-align:middle"></progress>'
        content = {"text/html": f"<div>{bar} {escape(line)}</div>", "text/plain": line}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _line(what: str, done: int, total: int, detail: str, seconds: float) -> str:
    parts = [f"{what} {done:,} of {total:,}".strip(), detail, f"{_clock_text(seconds)} so far"]
    return ", ".join(part for part in parts if part)


def _short(number: int) -> str:
    """Three digits or so, for a line that must fit."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 10 * size:
            return f"{number / size:,.0f}{unit}"
    return f"{number:,}"


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar() -> Progress:
    """A bar on stderr with what is being done, how much of it, details, and the times by name; within 80 columns."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = task.time_remaining
            rest = "" if left is None else f", {_clock_text(left)} left"
            return Text(f"{_clock_text(task.elapsed or 0.0)} gone{rest}")

    console = Console(file=sys.stderr)
    columns = [
        TextColumn("{task.description}", markup=False),
        *([BarColumn(bar_width=20)] if console.width >= WIDE else []),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        Times(),
    ]
    return Progress(*columns, console=console, transient=True, refresh_per_second=4)
