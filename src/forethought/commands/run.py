"""`forethought run`: plan, reason under the caps, answer."""

from __future__ import annotations

from typing import Any

import click

from ..core.settings import RunSettings
from .options import dry_run_flag, emit, filled, json_flag, price_options, quiet_flag, take_prices, takes, talk


@click.command("run", short_help="Plan, reason under the caps, answer.")
@takes(RunSettings)
@price_options
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, dry_run: bool, **values: Any) -> int:
    """Answer every question within the total, as JSONL in RUN/answers.jsonl.

    The first RUN holds the predictor (see `forethought plan`). Reference answers are not needed; where there are some,
    answers are graded. The same command goes on where it stopped.
    """
    from ..engines.opening import choose
    from . import pipeline
    from .estimates import run_estimate
    from .progress import progress_bar
    from .tables import run_result, run_text

    settings, prices = filled(RunSettings, values), take_prices(values)
    estimate = run_estimate(settings, prices=prices)
    name, reason = choose(estimate.model, settings.plan.engine.engine)
    talk(f"engine {name} ({reason}); run directory {estimate.folder}")
    if dry_run:
        emit(as_json, estimate.to_json(), estimate.to_text())
        return 0
    title = "answering"
    with progress_bar(title, num_total=estimate.num_left, tokens_total=int(estimate.total), quiet=quiet) as report:
        run = pipeline.run(settings, report=report)
    result = run_result(run)
    result["usd"] = prices.usd(result["prompt_tokens"], result["generated_tokens"])
    emit(as_json, result, run_text(result))
    return 3 if result["failed"] else 0
