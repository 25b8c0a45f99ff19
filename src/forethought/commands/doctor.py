"""`forethought doctor`: what is installed, and whether a server keeps a budget."""

from __future__ import annotations

from typing import Any

import click

from .options import (
    dry_run_flag,
    emit,
    json_flag,
    limit_option,
    parse_pairs,
    question_options,
    server_options,
    with_server,
)


@click.command("doctor", short_help="Look at this machine, and whether a server keeps budgets.")
@with_server
@click.option("--template", default="boxed", show_default=True, help="Prompt template to try budgets with.")
@click.option("--temperature", type=float, help="Of the thought.  [default: 0 for caps, 0.6 for effort levels]")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Nucleus of the thought.")
@click.option("--timeout", "timeout_seconds", type=float, default=120.0, show_default=True, help="Seconds a request.")
@click.option("--questions", default="", metavar="FILE", help="With --enforce effort: questions to measure levels on.")
@limit_option
@question_options
@click.option("--levels", default="", metavar="A,B", help="Only these effort levels.  [default: all that are known]")
@click.option(
    "--out", default="effort-costs.json", show_default=True, metavar="FILE", help="Where their costs are written."
)
@click.option("--engine-option", "engine_option", multiple=True, metavar="KEY=VALUE", help="Passed to the engine.")
@dry_run_flag
@json_flag
def command(as_json: bool, engine_option: tuple[str, ...], levels: str, **values: Any) -> int:
    """Say what is here and what a server can really do.

    With --base-url: reachable, which kind it is and how that is told, its models, token ids, continuation, logprobs,
    usage, prefix caching, seeds; then a few small questions at several caps, whose thoughts are counted. Ends with the
    flags to use. --dry-run says what that costs at most, and generates nothing. After a request that is not answered
    within --timeout, nothing more is tried. Exit code 1 when budgets are not kept in the way that --enforce asks for
    (auto: in none).

    Effort levels take whole thoughts, and are measured only with --enforce effort. With --questions FILE they are
    measured on these questions, under --template, and --out holds what each costs, for
    --engine-option effort_costs=FILE.
    """
    from ..core.settings import DoctorSettings
    from ..studies import doctor

    _, options = server_options(values, "openai")
    settings = DoctorSettings(
        base_url=options.pop("base_url", ""),
        served_model=options.pop("served_model", ""),
        enforce=options.pop("enforce", "auto"),
        levels=tuple(level.strip() for level in levels.split(",") if level.strip()),
        options={**options, **parse_pairs("--engine-option", engine_option)},
        **values,
    )
    diagnosis = doctor.examine(settings)
    emit(as_json, diagnosis.to_json(), diagnosis.to_text())
    return 1 if diagnosis.is_kept is False else 0
