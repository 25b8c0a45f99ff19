"""`forethought run`: plan, reason under the caps, answer."""

from __future__ import annotations

from typing import Any

import click

from .options import (
    QUESTION_KEYS,
    dry_run_flag,
    emit,
    engine_options,
    engine_settings,
    grader_options,
    json_flag,
    limit_option,
    plan_options,
    price_options,
    question_options,
    quiet_flag,
    retry_flag,
    seed_option,
    take_prices,
    taken_options,
    talk,
)


@click.command("run", short_help="Plan, reason under the caps, answer.")
@click.argument("run")
@click.argument("questions")
@plan_options
@click.option("--out", default="", metavar="RUN", help="Run directory.  [default: runs/run-QUESTIONS-TOKENS-COST]")
@click.option(
    "--compare", multiple=True, metavar="NAME", help="Judge this allocator on the same traces too (repeatable)."
)
@click.option(
    "--hard-total", is_flag=True, help="With --cost spent: never generate more; later questions get what is left."
)
@grader_options()
@engine_options(with_sampling=False)
@seed_option
@price_options
@limit_option
@question_options
@retry_flag
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, dry_run: bool, **values: Any) -> int:
    """Answer every question within the total, as JSONL in RUN/answers.jsonl.

    The first RUN holds the predictor (see `forethought plan`). Reference answers are not needed; where there are some,
    answers are graded. The same command goes on where it stopped.
    """
    from ..core.data import Cost
    from ..core.settings import PlanSettings, RunSettings
    from ..engines.opening import choose
    from . import pipeline
    from .estimates import run_estimate
    from .progress import progress_bar
    from .tables import run_result, run_text

    plan_keys = (
        "run",
        "questions",
        "mean_tokens",
        "total_tokens",
        "allocator",
        "allocator_options",
        "min_tokens",
        "max_tokens",
        "limit",
        *QUESTION_KEYS,
        "model",
        "template",
    )
    taken_options(values, "grader", "allocator")
    prices = take_prices(values)
    plan_values = {key: values.pop(key) for key in plan_keys}
    plan = PlanSettings(engine=engine_settings(values), cost=Cost(values.pop("cost")), **plan_values)
    settings = RunSettings(plan=plan, **values)
    estimate = run_estimate(settings, prices=prices)
    name, reason = choose(estimate.model, plan.engine.engine)
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
