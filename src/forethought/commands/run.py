"""`forethought run`: plan, reason under the caps, answer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..core.flags import typed
from ..core.settings import RunPlanSettings, RunSettings
from .options import (
    dry_run_flag,
    emit,
    filled,
    json_flag,
    option,
    price_options,
    quiet_flag,
    take_prices,
    takes,
    talk,
    verb,
)


@verb("run", short_help="Plan, reason under the caps, answer.")
@takes(RunSettings)
@option("--plan", "plan_file", default="", metavar="FILE", help="Run this plan file, without RUN and QUESTIONS.")
@option(
    "--answers",
    default="",
    is_main=True,
    metavar="FILE",
    help="At the end also write the answers to this .csv, .parquet or .jsonl file.",
)
@price_options
@dry_run_flag
@quiet_flag
@json_flag
@click.pass_context
def command(
    ctx: click.Context, /, as_json: bool, quiet: bool, dry_run: bool, plan_file: str, answers: str, **values: Any
) -> int:
    """Answer every question within the total, as JSONL in RUN/answers.jsonl.

    The first RUN holds the predictor (see `forethought plan`). Reference answers are optional; answers to questions
    that have one are graded. The same command resumes an interrupted run. --plan runs a plan file of `forethought
    plan`, edited or not. --compare prints the comparison at the end.
    """
    from .. import report
    from ..control.answers import Answers
    from ..engines.opening import choose
    from ..runs.folders import check_rows_file
    from . import pipeline, reports
    from .estimates import run_estimate, run_plan_estimate
    from .overview import again, by_fewer_samples, not_run, run_result, run_text
    from .progress import progress_bar

    prices = take_prices(values)
    if not plan_file:
        _check_arguments(ctx)
    if answers:
        check_rows_file(Path(answers), "--answers", read=[plan_file or values["questions"]])
    settings: RunSettings | RunPlanSettings
    if plan_file:
        settings = filled(RunPlanSettings, values, plan_file=plan_file)
        _check_left(ctx, plan_file, values)
        estimate, engine = run_plan_estimate(settings, prices=prices), settings.engine.engine
    else:
        settings = filled(RunSettings, values)
        estimate, engine = run_estimate(settings, prices=prices), settings.plan.engine.engine
    name, reason = choose(estimate.model, engine)
    talk(f"engine {name} ({reason}); run directory {estimate.folder}")
    if dry_run:
        emit(as_json, estimate.to_json(), estimate.to_text())
        return 0
    num_left = min(estimate.num_left, estimate.num_queries)  # answers: other allocators' traces are beside them
    with progress_bar("answer", num_total=num_left, tokens_total=int(estimate.total), quiet=quiet) as watch:
        if isinstance(settings, RunPlanSettings):
            run = pipeline.run_plan(settings, report=watch, progress=watch.step, prices=prices)
        else:
            run = pipeline.run(settings, report=watch, progress=watch.step, prices=prices)
        watch.step("report", 0, 1)
        page, compared = reports.write_run(run, settings)
    result = run_result(run)
    billed = prices.usd(result["prompt_tokens"], result["generated_tokens"])
    if billed is not None:
        result = {**result, "usd": billed, "usd_in_all": billed}
    result["report"] = str(page)
    talk(f"wrote {page}")
    if answers:
        Answers.load(run.path).save(answers)
        talk(f"{result['queries']} answers written to {answers}")
    if settings.hard_cap and (kept_back := not_run(run)):
        result["kept_back"] = kept_back
        by_file = isinstance(settings, RunPlanSettings) and settings.cluster.ray  # which the run does not keep
        where = f" {typed('', settings.cluster)}" if by_file else ""
        talk(
            f"{len(kept_back)} questions were not run under the hard cap ({', '.join(kept_back[:5])}"
            f"{', …' if len(kept_back) > 5 else ''}); to go on with them, give the same command, --hard-cap larger: "
            f"{again(run, hard_cap='')}{where} --hard-cap N"
        )
    if fewer := by_fewer_samples(run):
        result["by_fewer_samples"] = fewer
        talk(
            f"{len(fewer)} questions were answered by fewer samples than planned ({', '.join(fewer[:5])}"
            f"{', …' if len(fewer) > 5 else ''}): the others failed, or the hard cap did not hold them"
        )
    text = run_text(result)
    if compared is not None:
        side_by_side = report.page(compared)
        result["comparison"], text = side_by_side.to_json(), f"{text}\n\n{side_by_side.text()}"
    emit(as_json, result, text)
    return 3 if result["failed"] else 0


def _check_arguments(ctx: click.Context) -> None:
    """Without a plan both arguments are needed."""
    for name in ("run", "questions"):
        if ctx.params[name]:
            continue
        what = "a file, -, or gsm8k-demo"
        if ctx.params["run"] and Path(ctx.params["run"]).is_file():
            raise click.UsageError(f"{ctx.params['run']} is given as RUN, which must be a predictor", ctx)
        if name == "run":
            what = "a predictor's run or folder, or a shipped name"
        raise click.UsageError(f"give {name.upper()}, {what}; or a plan: --plan FILE", ctx)


def _check_left(ctx: click.Context, plan_file: str, left: Collection[str]) -> None:
    """With a plan nothing may be given that it says itself, or that goes without one: what its settings have `left`."""
    given = [
        each
        for each in command.params
        if each.name in left and ctx.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
    ]
    for is_stated, why in ((True, f"the plan {plan_file} already states it"), (False, "not with --plan")):
        names = [
            each.opts[-1] if isinstance(each, click.Option) else str(each.name).upper()
            for each in given
            if (each.name not in NOT_BY_PLAN) is is_stated
        ]
        if names:
            raise click.UsageError(f"{', '.join(names)}: {why}; leave it out", ctx)


NOT_BY_PLAN = ("compare", "hard_total")
for _each in command.params:
    if _each.name in ("run", "questions"):
        _each.required = False
