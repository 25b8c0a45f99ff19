"""Queries in batches for reading hidden states, so that the progress shown moves every few seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core.data import EngineInfo, Query
from ..core.showing import Progress

PER_BATCH, PER_BATCH_ON_CPU = 128, 8  # prompts; a pass on a CPU holds about 1,000 tokens, so fewer cost no speed


def batches(
    queries: Sequence[Query], info: EngineInfo, *, num_before: int, total: int, progress: Progress
) -> Iterator[Sequence[Query]]:
    """The queries in order, a batch at a time; reports how many were read before each batch.

    Args:
        queries: to read.
        info: of the engine that reads them; its device decides the size of a batch.
        num_before: queries read earlier in the same stage.
        total: queries of the stage.
        progress: called with "read", queries read and queries in all.
    """
    size = PER_BATCH_ON_CPU if info.device == "cpu" else PER_BATCH
    for start in range(0, len(queries), size):
        progress("read", num_before + start, total)
        yield queries[start : start + size]
