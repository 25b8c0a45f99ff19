"""`forethought demo`: plan and run, live, with a built-in model; or evaluate a history on shipped samples."""

from __future__ import annotations

from typing import Any

from ..core.study_settings import DemoSettings
from .options import emit, filled, json_flag, quiet_flag, takes, talk, verb


@verb("demo", short_help="Plan and run, live, with a built-in model.")
@takes(DemoSettings)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Compare uniform, blind and forethought: on the shipped held-out profile, then live.

    NAME is a model with a shipped predictor: qwen2.5-coder-1.5b, or qwen2.5-coder-0.5b (faster and less accurate). NAME
    history needs no model: it shows what earlier samples of the same questions gain at the effort levels of two models,
    as measured by Epoch AI.
    """
    from .. import report
    from . import demonstration as demo
    from .progress import progress_bar, step_bar

    settings = filled(DemoSettings, values)
    if settings.name == demo.HISTORY:
        talk(demo.CREDIT)
        with step_bar(quiet=quiet) as progress:
            results = demo.history(settings, progress=progress)
            progress("report", 0, len(results))
            files = []
            for number, file in enumerate(demo.write_history(settings, results), start=1):
                progress("report", number, len(results))
                files.append(file)
        pages = [report.page(each) for each in results]
        emit(as_json, {"results": [page.to_json() for page in pages]}, "\n\n".join(page.text() for page in pages))
        for file in files:
            talk(f"wrote {file}")
        return 0
    prepared = demo.prepare(settings)
    talk(f"held-out profile: {prepared.num_heldout} GSM8K test questions that nothing was trained or tuned on")
    with step_bar(quiet=quiet) as progress:
        heldout = demo.heldout(prepared, progress=progress)
    if not as_json:
        emit(False, None, report.evaluation_page(heldout, mean_tokens=prepared.mean_tokens).text())
    talk(f"\nlive: {prepared.num_live} other test questions, {prepared.mean_tokens:g} reasoning tokens per question")
    bill = prepared.estimate
    with progress_bar("answer", num_total=bill.num_left, tokens_total=int(bill.total), quiet=quiet) as watch:
        run, live = demo.live(prepared, report=watch, progress=watch.step)
        watch.step("report", 0, 1)
        files = demo.write(prepared, heldout, run, live)
    result = {
        "run": str(run.path),
        "mean_tokens": prepared.mean_tokens,
        "heldout": report.page(heldout).to_json(),
        "live": report.page(live).to_json(),
        "files": [str(file) for file in files],
    }
    emit(as_json, result, report.page(live).text())
    for file in files[1:]:
        talk(f"wrote {file}")
    talk(f"run folder: {run.path}   (look inside one question: forethought show {run.path} {prepared.first_id})")
    talk(f"open the report: {files[0]}")
    return 0
