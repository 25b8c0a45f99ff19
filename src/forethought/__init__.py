"""Predicts how much reasoning each query needs, and spends a fixed token budget where it buys the most accuracy.

    from forethought import PlanSettings, plan

    planned = plan(PlanSettings(run="qwen2.5-coder-1.5b", questions="questions.jsonl", mean_tokens=48))
    budgets = dict(zip(planned.plan.query_ids, planned.plan.budget_Q))

Everything below loads when it is first used: importing the package alone costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .commands.grading import grade, grade_file, regrade
    from .commands.listing import list_results
    from .commands.pipeline import compare, evaluate, import_profile, plan, profile, run, study_layers, train
    from .commands.tables import show
    from .control.sources import open_predictor, open_profile
    from .core.data import Curves, Plan, Profile, Query
    from .core.menu import Menu
    from .core.settings import (
        CompareSettings,
        DoctorSettings,
        EngineSettings,
        EvaluateSettings,
        GradeSettings,
        ImportSettings,
        LayersSettings,
        PlanSettings,
        ProfileSettings,
        RegradeSettings,
        RunSettings,
        TrainSettings,
    )
    from .errors import ForethoughtError
    from .questions.queries import load_queries
    from .studies.doctor import examine

_HOME = {
    "Menu": "core.menu",
    "CompareSettings": "core.settings",
    "Curves": "core.data",
    "DoctorSettings": "core.settings",
    "EngineSettings": "core.settings",
    "EvaluateSettings": "core.settings",
    "ForethoughtError": "errors",
    "GradeSettings": "core.settings",
    "ImportSettings": "core.settings",
    "LayersSettings": "core.settings",
    "Plan": "core.data",
    "PlanSettings": "core.settings",
    "Profile": "core.data",
    "ProfileSettings": "core.settings",
    "Query": "core.data",
    "RegradeSettings": "core.settings",
    "RunSettings": "core.settings",
    "TrainSettings": "core.settings",
    "compare": "commands.pipeline",
    "evaluate": "commands.pipeline",
    "examine": "studies.doctor",
    "grade": "commands.grading",
    "grade_file": "commands.grading",
    "import_profile": "commands.pipeline",
    "list_results": "commands.listing",
    "load_queries": "questions.queries",
    "open_predictor": "control.sources",
    "open_profile": "control.sources",
    "plan": "commands.pipeline",
    "profile": "commands.pipeline",
    "regrade": "commands.grading",
    "run": "commands.pipeline",
    "show": "commands.tables",
    "study_layers": "commands.pipeline",
    "train": "commands.pipeline",
}

__all__ = [
    "CompareSettings",
    "Curves",
    "DoctorSettings",
    "EngineSettings",
    "EvaluateSettings",
    "ForethoughtError",
    "GradeSettings",
    "ImportSettings",
    "LayersSettings",
    "Menu",
    "Plan",
    "PlanSettings",
    "Profile",
    "ProfileSettings",
    "Query",
    "RegradeSettings",
    "RunSettings",
    "TrainSettings",
    "compare",
    "evaluate",
    "examine",
    "grade",
    "grade_file",
    "import_profile",
    "list_results",
    "load_queries",
    "open_predictor",
    "open_profile",
    "plan",
    "profile",
    "regrade",
    "run",
    "show",
    "study_layers",
    "train",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'forethought' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
