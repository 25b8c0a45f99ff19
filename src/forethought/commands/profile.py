"""`forethought profile`: measure success at every cap."""

from __future__ import annotations

from typing import Any

import click

from .options import (
    dry_run_flag,
    emit,
    engine_options,
    engine_settings,
    grader_options,
    json_flag,
    limit_option,
    price_options,
    question_options,
    quiet_flag,
    retry_flag,
    seed_option,
    skip_flag,
    take_prices,
    taken_options,
    talk,
)


@click.command("profile", short_help="Measure success at every cap.")
@click.argument("model")
@click.argument("questions")
@click.option("--out", default="", metavar="RUN", help="Run directory.  [default: runs/MODEL-QUESTIONS]")
@click.option("--traces", "num_traces", type=int, default=4, show_default=True, help="Traces a question.")
@click.option("--budgets", default="", metavar="CAPS", help="The caps.  [default: 16:256:16]")
@click.option("--window", type=int, metavar="N", help="Evenly spaced caps instead: tokens between two of them.")
@click.option("--max-tokens", type=int, metavar="N", help="The largest of evenly spaced caps.")
@click.option("--layers", default="all", show_default=True, help="Hidden states to keep: all, none, or 4,12,16.")
@grader_options()
@skip_flag
@engine_options(with_sampling=True)
@seed_option
@price_options
@limit_option
@question_options
@retry_flag
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, dry_run: bool, **values: Any) -> int:
    """Sample traces of every question and force an answer at every cap.

    MODEL is an alias (qwen2.5-coder-0.5b, qwen2.5-coder-1.5b), a folder or a hub id; QUESTIONS a JSONL, CSV or Parquet
    file, "-" for standard input, or gsm8k-demo. CAPS are tokens: 512,1024,4096, or 16:256:16 (from, to, step),
    or geometric:256:32768 (doubling). The same command goes on where it stopped.
    """
    from ..core.settings import ProfileSettings
    from ..engines.opening import choose
    from . import pipeline, tables
    from .estimates import profile_estimate
    from .progress import progress_bar

    taken_options(values, "grader")
    prices = take_prices(values)
    settings = ProfileSettings(engine=engine_settings(values), **values)
    estimate = profile_estimate(settings, prices=prices)
    name, reason = choose(settings.model, settings.engine.engine)
    talk(f"engine {name} ({reason}); run directory {estimate.folder}")
    if dry_run:
        emit(as_json, estimate.to_json(), estimate.to_text())
        return 0
    title = "profiling"
    with progress_bar(
        title, num_total=estimate.num_left, tokens_total=estimate.reasoning_tokens, quiet=quiet
    ) as report:
        run = pipeline.profile(settings, report=report)
    result = tables.profile_summary(run)
    result["usd"] = prices.usd(result["prompt_tokens"], result["generated_tokens"])
    emit(as_json, result, tables.profile_text(result))
    return 3 if result["failed"] else 0
