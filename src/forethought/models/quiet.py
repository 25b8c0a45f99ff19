"""Keeps transformers' own progress bars off the terminal, where ours may be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import transformers


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """No bars of transformers inside."""
    bars = transformers.utils.logging
    were_on = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            bars.enable_progress_bar()
