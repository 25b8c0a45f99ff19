"""Progress of long work: a bar on a terminal or in a notebook cell; elsewhere a line at the start and the end."""

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
from ..core.terms import percent

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BEFORE_LINE = 30.0  # where it is not a terminal: what is over before that prints nothing
SECONDS_BEFORE_CELL, SECONDS_PER_CELL = 0.5, 1.0  # in a notebook: what is over before that shows nothing
WIDE = 100  # columns, from which there is room for a bar beside the numbers


Show = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it, of how much (0 or 1: a single step), and details."""


class Watch:
    """What long work reports to: `step` what is being done, and the object itself each record that is done."""

    def __init__(self, show: Show, title: str, num_total: int, tokens_total: int) -> None:
        self._show, self._title, self._num_total, self._tokens_total = show, title, num_total, tokens_total
        self._num_done = self._num_right = self._num_known = self._num_failed = self._tokens = 0

    def step(self, what: str, done: int, total: int) -> None:
        """Says what is being done, steps done and steps in all; what comes as records is said by them."""
        if what != self._title:
            self._show(what, done, total, "")
        elif self._num_done == 0:
            self._show(what, 0, self._num_total, "")

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Counts one finished record."""
        is_failed = record.get("error") is not None
        self._num_done += 1
        self._tokens += record.get("reasoning_tokens") or 0
        self._num_failed += is_failed
        self._num_known += is_failed or record.get("grade") is not None  # what failed is not right
        self._num_right += record.get("grade") == "right"
        detail = f"{_short(self._tokens)} of {_short(self._tokens_total)} tokens"
        if self._num_known > self._num_failed:
            detail += f", {percent(self._num_right / self._num_known, 0)} right"
        if self._num_failed:
            detail += f", {self._num_failed} failed"
        self._show(self._title, self._num_done, self._num_total, detail)


@contextmanager
def progress_bar(title: str, *, num_total: int, tokens_total: int, quiet: bool) -> Iterator[Watch]:
    """Yields what to call with each finished record, and with the steps before the first.

    Args:
        title: of the work that ends in records; the library calls it the same.
        num_total: generations to come.
        tokens_total: reasoning tokens they may take in all.
        quiet: show nothing.
    """
    with _shown(quiet) as show:
        yield Watch(show, title, num_total, tokens_total)


@contextmanager
def step_bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields what to call with what is being done, steps done and steps in all: one bar for every kind of step."""
    with _shown(quiet) as show:
        yield lambda what, done, total: show(what, done, total, "")


@contextmanager
def _shown(quiet: bool) -> Iterator[Show]:
    if quiet:
        yield lambda what, done, total, detail: None
    elif in_notebook():
        cell = _Cell()
        try:
            yield cell
        finally:
            cell.close()
    elif not sys.stderr.isatty():
        lines = _Lines()
        yield lines
        lines.close()  # not after an error: that is said
    else:
        pace = _Pace()
        with _bar(pace) as bar:
            task = bar.add_task("", total=None, detail="", count="", visible=False)

            def show(what: str, done: int, total: int, detail: str) -> None:
                pace.see(what, done, total)
                known = {"total": total, "count": f"{done}/{total}"} if total > 1 else {"total": None, "count": ""}
                bar.update(task, description=what, completed=done, detail=detail, visible=True, **known)

            yield show


class _Pace:
    """Since when what is done is being done, and how long the rest of it takes at its pace so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._step: tuple[str, int, float] | None = None
        self._end: float | None = None

    def see(self, what: str, done: int, total: int) -> None:
        """Sees how far it is; what was done before this is first seen, in an earlier run say, took no time of it."""
        now = self._clock()
        if self._step is None or self._step[0] != what or done < self._step[1]:
            self._step = what, done, now
        _, first, since = self._step
        self._end = now + (now - since) / (done - first) * (total - done) if total > done > first else None

    @property
    def gone(self) -> float:
        """Seconds since the beginning of all steps."""
        return self._clock() - self._started

    @property
    def left(self) -> float | None:
        """Seconds until this step is done; None where that is not known."""
        return None if self._end is None else max(0.0, self._end - self._clock())


class _Lines:
    """A line once it takes long, and one at the end of what took long: a short command prints none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = _Pace(clock)
        self._last: tuple[str, int, int, str] | None = None
        self._has_begun = False

    def __call__(self, what: str, done: int, total: int, detail: str) -> None:
        self._pace.see(what, done, total)
        self._last = what, done, total, detail
        if not self._has_begun and self._pace.gone >= SECONDS_BEFORE_LINE:
            self._has_begun = True
            click.echo(_line(*self._last, self._pace), err=True)

    def close(self) -> None:
        """Says that it is over, and how long it took."""
        if self._has_begun and self._last is not None:
            *_, detail = self._last
            click.echo(
                ", ".join(part for part in (f"done in {_clock_text(self._pace.gone)}", detail) if part), err=True
            )


class _Cell:
    """A bar in a notebook's cell: one output that changes in place, and is empty at the end; needs no widgets."""

    def __init__(self) -> None:
        self._pace = _Pace()
        self._state: tuple[str, int, int, str] | None = None
        self._handle: Any = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._follow,), daemon=True)
        self._thread.start()

    def __call__(self, what: str, done: int, total: int, detail: str) -> None:
        self._pace.see(what, done, total)
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

        line = _line(what, done, total, detail, self._pace)
        how = f' value="{done}" max="{total}"' if total > 1 else ""  # without, it moves to and fro
        bar = f'<progress{how} style="vertical-align:middle"></progress>'
        content = {"text/html": f"<div>{bar} {escape(line)}</div>", "text/plain": line}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _line(what: str, done: int, total: int, detail: str, pace: _Pace) -> str:
    count = f"{what} {done:,} of {total:,}" if total > 1 else what
    left = "" if pace.left is None else f"{_clock_text(pace.left)} left"
    return ", ".join(part for part in (count, detail, f"{_clock_text(pace.gone)} so far", left) if part)


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


def _bar(pace: _Pace) -> Progress:
    """A bar on stderr with what is being done, how much of it, details, and the times by name; within 80 columns."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            rest = "" if pace.left is None else f", {_clock_text(pace.left)} left"
            return Text(f"{_clock_text(pace.gone)} gone{rest}")

    console = Console(file=sys.stderr)
    columns = [
        TextColumn("{task.description}", markup=False),
        *([BarColumn(bar_width=20)] if console.width >= WIDE else []),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[detail]}", markup=False),
        Times(),
    ]
    return Progress(*columns, console=console, transient=True, refresh_per_second=4)
