"""Predicts how much reasoning each query needs, and divides a fixed token budget so that accuracy is highest.

    import forethought as ft

    predictor = ft.Predictor.load("qwen2.5-coder-1.5b")
    plan = ft.plan(predictor, ["How many …?", …], mean_tokens=64)
    with ft.open_engine(plan) as engine:
        answers = plan.run(engine)

Everything below is imported on first use, so importing the package takes milliseconds. Every function works in a script
and in a notebook. For coroutines there are `plan_async` and similar functions, `Plan.stream` and `Plan.run_async`.
"""

from __future__ import annotations

from importlib import import_module

from ._version import __version__ as __version__

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all that is here
if TYPE_CHECKING:
    from typing import Any

    from .control.answers import Answers
    from .control.evaluating import evaluate, evaluate_async
    from .control.judging import grade
    from .control.opening import open_engine
    from .control.plan import Plan
    from .control.planning import plan, plan_async
    from .control.profiling import profile, profile_async
    from .control.training import train, train_async
    from .core.data import Query
    from .core.menu import Menu
    from .core.profile import Profile
    from .errors import ForethoughtError
    from .predictors.predictor import Predictor
    from .questions.queries import read_questions

_HOME = {
    "Answers": "control.answers",
    "ForethoughtError": "errors",
    "Menu": "core.menu",
    "Plan": "control.plan",
    "Predictor": "predictors.predictor",
    "Profile": "core.profile",
    "Query": "core.data",
    "evaluate": "control.evaluating",
    "evaluate_async": "control.evaluating",
    "grade": "control.judging",
    "open_engine": "control.opening",
    "plan": "control.planning",
    "plan_async": "control.planning",
    "profile": "control.profiling",
    "profile_async": "control.profiling",
    "read_questions": "questions.queries",
    "train": "control.training",
    "train_async": "control.training",
}

__all__ = [
    "Answers",
    "ForethoughtError",
    "Menu",
    "Plan",
    "Predictor",
    "Profile",
    "Query",
    "evaluate",
    "evaluate_async",
    "grade",
    "open_engine",
    "plan",
    "plan_async",
    "profile",
    "profile_async",
    "read_questions",
    "train",
    "train_async",
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
