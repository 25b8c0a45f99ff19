"""`forethought collect`: the results of a file of requests, as a run."""

from __future__ import annotations

from typing import Any

from ..core.settings import CollectSettings
from .options import emit, filled, json_flag, takes, talk, verb


@verb("collect", short_help="Collect the results of a batch of requests.")
@takes(CollectSettings)
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Grade and count the results of `forethought plan --batch-out`, and plan questions without an answer again.

    RESULTS are result and error files of the server, all or some of them, in any order; repeated ones do no harm. The
    run directory is like that of `forethought run`. Requests that failed, expired, or were cut without an answer are
    listed, and written to a new file of requests under the rest of the total.
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
