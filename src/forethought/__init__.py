"""Predicts how much reasoning each query needs, and spends a fixed token budget where it buys the most accuracy.

    from forethought import PlanSettings, plan

    planned = plan(PlanSettings(run="qwen2.5-coder-1.5b", questions="questions.jsonl", mean_tokens=48))
    budgets = dict(zip(planned.plan.query_ids, planned.plan.budget_Q))

Everything below loads when it is first used: importing the package alone costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .doctor import examine
    from .errors import ForethoughtError
    from .grading import grade, grade_file, regrade
    from .listing import list_results
    from .pipeline import compare, evaluate, import_profile, plan, profile, run, study_layers, train
    from .queries import load_queries
    from .settings import (
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
    from .sources import open_predictor, open_profile
    from .tables import show
    from .types import BudgetGrid, Curves, Plan, Profile, Query

__version__ = "0.1.0"

_HOME = {
    "BudgetGrid": "types",
    "CompareSettings": "settings",
    "Curves": "types",
    "DoctorSettings": "settings",
    "EngineSettings": "settings",
    "EvaluateSettings": "settings",
    "ForethoughtError": "errors",
    "GradeSettings": "settings",
    "ImportSettings": "settings",
    "LayersSettings": "settings",
    "Plan": "types",
    "PlanSettings": "settings",
    "Profile": "types",
    "ProfileSettings": "settings",
    "Query": "types",
    "RegradeSettings": "settings",
    "RunSettings": "settings",
    "TrainSettings": "settings",
    "compare": "pipeline",
    "evaluate": "pipeline",
    "examine": "doctor",
    "grade": "grading",
    "grade_file": "grading",
    "import_profile": "pipeline",
    "list_results": "listing",
    "load_queries": "queries",
    "open_predictor": "sources",
    "open_profile": "sources",
    "plan": "pipeline",
    "profile": "pipeline",
    "regrade": "grading",
    "run": "pipeline",
    "show": "tables",
    "study_layers": "pipeline",
    "train": "pipeline",
}

__all__ = [
    "BudgetGrid",
    "CompareSettings",
    "Curves",
    "DoctorSettings",
    "EngineSettings",
    "EvaluateSettings",
    "ForethoughtError",
    "GradeSettings",
    "ImportSettings",
    "LayersSettings",
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
