"""`forethought run`: plan, reason under the caps, answer."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from ..core.settings import RunPlanSettings, RunSettings
from .options import dry_run_flag, emit, filled, json_flag, price_options, quiet_flag, take_prices, takes, talk


@click.command("run", short_help="Plan, reason under the caps, answer.")
@takes(RunSettings)
@click.option("--plan", "plan_file", default="", metavar="FILE", help="Carry out this plan, without RUN and QUESTIONS.")
@price_options
@dry_run_flag
@quiet_flag
@json_flag
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, quiet: bool, dry_run: bool, plan_file: str, **values: Any) -> int:
    """Answer every question within the total, as JSONL in RUN/answers.jsonl.

    The first RUN holds the predictor (see `forethought plan`). Reference answers are not needed; where there are some,
    answers are graded. The same command goes on where it stopped. With --plan, the plan that `forethought plan --out
    FILE.json` wrote is carried out, edited or not.
    """
    from ..engines.opening import choose
    from . import pipeline, reports
    from .estimates import run_estimate, run_plan_estimate
    from .progress import progress_bar
    from .tables import run_result, run_text

    prices = take_prices(values)
    _check_given(ctx, plan_file)
    settings: RunSettings | RunPlanSettings
    if plan_file:
        settings = filled(RunPlanSettings, values, plan_file=plan_file)
        estimate, engine = run_plan_estimate(settings, prices=prices), settings.engine.engine
    else:
        settings = filled(RunSettings, values)
        estimate, engine = run_estimate(settings, prices=prices), settings.plan.engine.engine
    name, reason = choose(estimate.model, engine)
    talk(f"engine {name} ({reason}); run directory {estimate.folder}")
    if dry_run:
        emit(as_json, estimate.to_json(), estimate.to_text())
        return 0
    title = "answering"
    with progress_bar(title, num_total=estimate.num_left, tokens_total=int(estimate.total), quiet=quiet) as report:
        if isinstance(settings, RunPlanSettings):
            run = pipeline.run_plan(settings, report=report)
        else:
            run = pipeline.run(settings, report=report)
    page = reports.write_run(run, settings)
    result = run_result(run)
    billed = prices.usd(result["prompt_tokens"], result["generated_tokens"])
    result["usd"] = result.get("usd") if billed is None else billed
    emit(as_json, {**result, "report": str(page)}, run_text(result))
    talk(f"wrote {page}")
    return 3 if result["failed"] else 0


def _check_given(ctx: click.Context, plan_file: str) -> None:
    """Arguments are needed without a plan; with one, nothing may be given that it says itself."""
    given = [
        each for each in command.params if ctx.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
    ]
    if not plan_file:
        for each in command.params:
            if each.name in ("run", "questions") and not ctx.params[each.name]:
                raise click.MissingParameter(ctx=ctx, param=each)
        return
    for wrong, why in ((IN_THE_PLAN, f"the plan {plan_file} says this itself"), (NOT_BY_PLAN, "not with --plan")):
        names = [
            each.opts[-1] if isinstance(each, click.Option) else str(each.name).upper()
            for each in given
            if each.name in wrong
        ]
        if names:
            raise click.UsageError(f"{', '.join(names)}: {why}; leave it out", ctx)


IN_THE_PLAN = (
    *("run", "questions", "mean_tokens", "total_tokens", "mean_usd", "total_usd", "allocator", "allocator_option"),
    *("cost", "min_tokens", "max_tokens", "limit", "question_column", "answer_column", "id_column", "seed"),
)
NOT_BY_PLAN = ("compare", "hard_total")
for _each in command.params:
    if _each.name in ("run", "questions"):
        _each.required = False
