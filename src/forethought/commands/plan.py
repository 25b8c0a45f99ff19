"""`forethought plan`: divide a total over questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..core.settings import PlanSettings
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


@verb("plan", short_help="Divide a token total over questions.")
@takes(PlanSettings)
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
@option("--server", default="", metavar="KIND", help="With --batch-out: who takes it: vllm, openai, anthropic, …")
@option("--batch-lines", type=int, default=None, metavar="N", help="With --batch-out: requests in one file, at most.")
@option(
    "--hard-cap",
    default="",
    metavar="N",
    help="With --batch-out: tokens (200000) or money (2.50usd) that the job never passes, counted at their most.",
)
@price_options
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, out: str, dry_run: bool, **values: Any) -> int:
    """Predict the curves of every question and assign the budgets.

    RUN holds the predictor: a trained run, a predictor folder, or a shipped name (qwen2.5-coder-1.5b). QUESTIONS is a
    file, "-", a dataset name, or a profile with recorded hidden states (then no model is loaded).
    """
    from ..control.sources import open_predictor
    from ..core.rows import write_rows
    from ..core.visible import to_json
    from ..runs.folders import check_plan_file
    from . import pipeline
    from .batching import asked_server, take_batch, write_requests, written_words
    from .estimates import plan_estimate
    from .progress import step_bar
    from .tables import plan_header, plan_rows, plan_text

    settings, prices = filled(PlanSettings, values), take_prices(values)
    if out not in ("", "-"):
        check_plan_file(Path(out))
    batch, settings = take_batch(values, settings, prices)
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
        talk(f"the plan is in {out}; carry it out, edited or not: forethought run --plan {out}")
    elif out:
        write_rows(Path(out), rows)
        talk(f"{len(rows)} budgets written to {out}")
    found = {**plan_header(planned), "budgets": rows}
    if batch is not None:
        found["batch"] = write_requests(batch, settings, planned)[1]
        for line in written_words(batch, found["batch"]):
            talk(line)
    emit(as_json, found, plan_text(planned))
    return 0
