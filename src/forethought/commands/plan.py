"""`forethought plan`: divide a total over questions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.settings import ClusterSettings, PlanSettings
from ..core.terms import percent
from ..errors import InvalidSettingsError
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

if TYPE_CHECKING:
    from ..cluster.hosts import Host
    from ..cluster.planning import Effort
    from ..control.predictions import Predictions


@verb("plan", short_help="Divide a token total over questions.")
@takes(PlanSettings)
@takes(ClusterSettings)
@option(
    "--out",
    is_main=True,
    default="",
    metavar="FILE",
    help="Write the plan, for `run --plan` (.json), or one row per question (.jsonl, .csv, .parquet; - for stdout).",
)
@option(
    "--batch-out",
    default="",
    metavar="FILE",
    help="Also write the plan as a file of requests (.jsonl) for a server's batch queue; `collect` reads its answers.",
)
@option("--server", default="", metavar="KIND", help="With --batch-out: kind of the server: vllm, openai, anthropic, …")
@option("--batch-lines", type=int, default=None, metavar="N", help="With --batch-out: most requests per file.")
@option(
    "--hard-cap",
    default="",
    metavar="N",
    help="With --batch-out: hard limit of the job in tokens (200000) or money (2.50usd), for the worst case.",
)
@option("--budgets", default="", metavar="CAPS", help="The caps of a folder of predictions that does not say them.")
@price_options
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, out: str, budgets: str, dry_run: bool, **values: Any) -> int:
    """Predict the curves of every question and assign the budgets.

    RUN holds the predictor: a trained run, a predictor folder, or a shipped name (qwen2.5-coder-1.5b). QUESTIONS is a
    file, "-", a dataset name, or a profile with recorded hidden states (then no model is loaded).

    If there are more questions than fit in memory, give a folder of Parquet files as QUESTIONS, or a folder of
    predictions as RUN and no QUESTIONS, and --out FILE.parquet, or with --ray --out FOLDER: docs/scale.md.
    """
    from ..control.predictions import is_folder
    from ..control.sources import open_predictor
    from ..core.rows import write_rows
    from ..core.visible import to_json
    from ..runs.folders import check_plan_file
    from . import pipeline
    from .batching import asked_server, take_batch, write_requests, written_words
    from .estimates import plan_estimate
    from .progress import step_bar
    from .tables import plan_header, plan_rows, plan_text

    cluster = filled(ClusterSettings, values)
    settings, prices = filled(PlanSettings, values), take_prices(values)
    batch, settings = take_batch(values, settings, prices)
    if not settings.questions or is_folder(settings.questions):
        if batch is not None:
            raise InvalidSettingsError("--batch-out needs questions that fit in memory: a file, not a folder")
        return _plan_folder(settings, cluster, out, budgets, dry_run=dry_run, as_json=as_json, quiet=quiet)
    if cluster.ray:
        raise InvalidSettingsError("--ray plans folders of Parquet files: docs/scale.md")
    if budgets:
        raise InvalidSettingsError("--budgets is for a folder of predictions; a predictor knows its budgets")
    if out not in ("", "-"):
        check_plan_file(Path(out), read=[settings.questions])
    if batch is not None:
        asked_server(batch, settings, open_predictor(settings.run).card)
    if dry_run:
        estimate = plan_estimate(settings, prices=prices)
        emit(as_json, estimate.to_json(), estimate.to_text())
        return 0
    with step_bar(quiet=quiet) as progress:
        planned = pipeline.plan(settings, progress=progress)
    rows = plan_rows(planned)
    lines = "".join(f"{to_json(row)}\n" for row in rows)
    for note in planned.notes:
        talk(f"note: {note}")
    if out == "-" and batch is None:
        talk(plan_text(planned))
        click.echo(lines, nl=False)
        return 0
    if out.lower().endswith(".json"):
        planned.save(out)
        talk(f"the plan is in {out}; run it, edited or not: forethought run --plan {out}")
    elif out:
        write_rows(Path(out), rows)
        talk(f"{len(rows)} budgets written to {out}")
    found = {**plan_header(planned), "budgets": rows}
    if batch is not None:
        made, found["batch"] = write_requests(batch, settings, planned)
        for line in written_words(batch, made, found["batch"]):
            talk(line)
    emit(as_json, found, plan_text(planned))
    return 0


def _plan_folder(
    settings: PlanSettings,
    cluster: ClusterSettings,
    out: str,
    budgets: str,
    *,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """The same for folders of Parquet files, in bounded memory, or on a cluster."""
    from ..control.large import header, plan_folder
    from .progress import step_bar

    target = Path(out or "-")
    efforts: list[Effort] = []
    _check_folder_plan(settings, cluster, target, dry_run=dry_run)
    with ExitStack() as stack:
        progress, host = stack.enter_context(step_bar(quiet=quiet)), None
        if cluster.ray and not dry_run:
            from ..cluster.planning import host_for, plan_on

            progress(f"start Ray ({cluster.ray})", 0, 0)
            host = stack.enter_context(host_for(cluster))
        found = _predictions(settings, cluster, host, target, budgets, progress)
        number = found.num_queries
        if dry_run:
            emit(as_json, {"questions": number, "menu": found.menu.to_json()}, f"{number:,} questions, {found.menu}")
            return 0
        terms: dict[str, Any] = {
            "total": settings.total_for(number),
            "cost": settings.cost,
            "min_tokens": settings.min_tokens,
            "max_tokens": settings.max_tokens,
            "progress": progress,
        }
        if host is None:
            made = plan_folder(found, target, **terms)
        else:
            made, efforts = plan_on(host, found, target, num_workers=cluster.workers or 1, **terms)
    for note in made.notes:
        talk(f"note: {note}")
    talk(f"{number:,} budgets written to {target}")
    said = header(made)
    lines = [f"{number:,} questions, envelope under {made.cost.value} cost"]
    lines += [f"{key:10} {said[key]:,.10g}" for key in ("total", "granted", "expected_spent", "price") if said[key]]
    lines.append(f"accuracy   {percent(made.expected_accuracy)} expected")
    lines += [f"{label:>10} {count:13,d}" for label, count in said["queries"].items()]
    for place, each in enumerate(efforts):
        sent, peak = each.sent_bytes / 1e6, each.peak_bytes / 1e6
        lines.append(
            f"worker {place + 1}: {each.num_queries:,} questions, sent {sent:.1f} MB, {peak:,.0f} MB of memory"
        )
    emit(as_json, said | ({"workers": [asdict(each) for each in efforts]} if efforts else {}), "\n".join(lines))
    return 0


def _check_folder_plan(settings: PlanSettings, cluster: ClusterSettings, target: Path, *, dry_run: bool) -> None:
    """Refuses flags that do not go with a folder."""
    from ..control.predictions import is_folder
    from ..runs.folders import check_folder, check_rows_file

    if not settings.questions and not is_folder(settings.run):
        raise InvalidSettingsError(
            f"{settings.run} is no folder of predictions (Parquet files with columns id and p); to plan for questions, "
            f"name them: forethought plan {settings.run} QUESTIONS"
        )
    if cluster.ray:
        if target == Path("-"):
            raise InvalidSettingsError("a plan made on Ray is a folder of Parquet files; give --out FOLDER")
        check_folder(target)
    elif target.suffix.lower() != ".parquet":
        raise InvalidSettingsError("a plan of a folder is written as Parquet; give --out FILE.parquet")
    else:
        check_rows_file(target)
    if settings.allocator != "envelope" or settings.allocator_options or settings.limit is not None:
        raise InvalidSettingsError("a folder is planned by the allocator envelope, as a whole: leave out other flags")
    if settings.waves or settings.min_agreement or settings.vote_weights:
        raise InvalidSettingsError(
            "a folder is planned as budgets alone, which do not say how samples vote: leave --waves, --min-agreement "
            "and --vote-weights out"
        )
    if dry_run and settings.questions:
        raise InvalidSettingsError("--dry-run of a folder of questions: they are predicted, and no token is paid")


def _predictions(
    settings: PlanSettings,
    cluster: ClusterSettings,
    host: Host | None,
    target: Path,
    budgets: str,
    progress: Callable[[str, int, int], None],
) -> Predictions:
    """Those of a folder, or of questions that are predicted, by the workers of a host where there is one."""
    from ..control.large import predict_folder, reading
    from ..control.predictions import Predictions
    from ..control.sources import open_predictor
    from ..core.menu import Menu
    from ..runs.folders import beside

    if not settings.questions:
        return Predictions.open(settings.run, menu=Menu.parse(budgets) if budgets else None)
    predictor, out = open_predictor(settings.run), beside(target, "predictions")
    if host is not None:
        from ..cluster.planning import predict_on

        return predict_on(host, settings, out, num_workers=cluster.workers or 1, progress=progress)
    with reading(predictor, settings.engine, settings.model, settings.template) as engine:
        return predict_folder(
            predictor,
            Path(settings.questions),
            out,
            question_column=settings.question_column,
            id_column=settings.id_column,
            engine=engine,
            progress=progress,
        )
