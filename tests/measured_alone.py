"""What one process measures and answers, for workers to be held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from command_line import write_sums
from forethought.commands.pipeline import profile, run, train
from forethought.core.settings import PlanSettings, ProfileSettings, RunSettings, TrainSettings


def measured_alone(folder: Path, num_queries: int) -> Path:
    """Fills a folder with questions, a profile of them by one process, a predictor, and a run by one process."""
    write_sums(folder / "q.jsonl", num_queries)
    profile(profiling(folder, "alone"))
    train(TrainSettings(run=str(folder / "alone"), predictor="text", out=str(folder / "text")))
    run(running(folder, "run-alone"))
    return folder


def profiling(folder: Path, out: str, **more: Any) -> ProfileSettings:
    """Settings of a profile of the folder's questions."""
    return ProfileSettings(model="fake", questions=str(folder / "q.jsonl"), out=str(folder / out), num_traces=2, **more)


def running(folder: Path, out: str, **more: Any) -> RunSettings:
    """Settings of a run of the folder's questions."""
    plan = PlanSettings(run=str(folder / "text"), questions=str(folder / "q.jsonl"), mean_tokens=64)
    return RunSettings(plan=plan, out=str(folder / out), **more)
