"""Keeps transformers' own progress bars off the terminal, where ours may be."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import transformers


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """No bars of transformers inside, nor the one of its GGUF reader, which does not heed that."""
    bars = transformers.utils.logging
    were_on = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    own = getattr(reader, "tqdm", None)
    if own is not None:
        reader.tqdm = partial(own, disable=True)
    try:
        yield
    finally:
        if own is not None:
            reader.tqdm = own
        if were_on:
            bars.enable_progress_bar()
