"""`forethought collect`: what came back of a file of requests, as a run."""

from __future__ import annotations

from typing import Any

from ..core.settings import CollectSettings
from .options import emit, filled, json_flag, takes, talk, verb


@verb("collect", short_help="Collect the results of a batch of requests.")
@takes(CollectSettings)
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Grade and settle the results of `forethought plan --batch-out`, and plan again what has no answer.

    RESULTS are the result and error files of the server: all of them or some, in any order, and twice if it happens so.
    The run directory is as `forethought run` makes it. What failed, expired, or was cut with nothing to show is named,
    and asked again in a new file of requests under what is left of the total.
    """
    from .batching import collect, collected_words
    from .overview import run_result, run_text

    settings = filled(CollectSettings, values)
    found = collect(settings)
    result = {**run_result(found.run), **found.to_json()}
    for line in collected_words(found):
        talk(line)
    emit(as_json, result, run_text(result))
    return 3 if found.failures or found.unreadable else 0
