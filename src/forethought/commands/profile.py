"""`forethought profile`: measure success at every cap."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..core.settings import ProfileSettings
from .options import dry_run_flag, emit, filled, json_flag, price_options, quiet_flag, take_prices, takes, talk, verb


@verb("profile", short_help="Measure success at every cap.")
@takes(ProfileSettings, with_sampling=True)
@price_options
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, dry_run: bool, **values: Any) -> int:
    """Sample traces of every question and force an answer at every cap.

    MODEL is an alias (qwen2.5-coder-0.5b, qwen2.5-coder-1.5b), a folder or a hub id. QUESTIONS is a JSONL, CSV or
    Parquet file, "-" for standard input, or gsm8k-demo. CAPS are numbers of tokens: 512,1024,4096, or 16:256:16 (from,
    to, step), or geometric:256:32768 (doubling). The same command resumes an interrupted profile.
    """
    from ..engines.opening import choose, settle
    from . import pipeline, tables
    from .estimates import profile_estimate
    from .progress import progress_bar

    settings, prices = filled(ProfileSettings, values), take_prices(values)
    estimate = profile_estimate(settings, prices=prices, asks=not dry_run)
    name, reason = choose(settings.model, settings.engine.engine)
    talk(f"engine {name} ({reason}); run directory {estimate.folder}")
    known, (settings, lines) = settle(settings)[0], settle(settings, asks=not dry_run)
    if settings != known:  # by what was fetched, or what the server said
        estimate = profile_estimate(settings, prices=prices)
    for line in lines:
        talk(line)
    if dry_run:
        emit(as_json, estimate.to_json(), estimate.to_text())
        return 0
    with progress_bar(
        "profile", num_total=estimate.num_left, tokens_total=estimate.reasoning_tokens, quiet=quiet
    ) as watch:
        started, generated = time.monotonic(), 0

        def counted(record: Mapping[str, Any]) -> None:
            nonlocal generated
            forced = sum(probe["answer_tokens"] or 0 for probe in record["probes"])
            generated += (record["reasoning_tokens"] or 0) + (record["answer_tokens"] or 0) + forced
            watch(record)

        run = pipeline.profile(settings, report=counted, progress=watch.step)
    result = tables.profile_summary(run)
    result["tokens_per_second"] = generated / (time.monotonic() - started) if generated else None
    billed = prices.usd(result["prompt_tokens"], result["generated_tokens"])
    if billed is not None:
        result["usd_in_all"] = billed
    if "options" not in result:  # else what one draw of each cost
        result["usd"] = billed
    emit(as_json, result, tables.profile_text(result))
    return 3 if result["failed"] else 0
