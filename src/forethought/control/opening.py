"""Opens an engine by a model name, a predictor or a plan; closes it at the end of a `with`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

from ..core.arguments import path_of
from ..core.problems import excerpt
from ..core.protocols import Engine
from ..core.settings import EngineSettings
from ..engines import opening
from ..errors import InvalidSettingsError
from ..predictors.predictor import Predictor
from .plan import Plan
from .planning import engine_for, model_of


class OpenEngine(Engine, Protocol):
    """An engine that is closed at the end of a `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


def open_engine(
    model: str | Predictor | Plan,
    *,
    engine: str = "auto",
    template: str | Path = "",
    temperature: float | None = None,
    top_p: float | None = None,
    context_tokens: int | None = None,
    **options: Any,
) -> OpenEngine:
    """A running engine; `with` closes it, or its own `close`.

    Args:
        model: alias, folder or hub id; or a predictor or a plan: their model, template and sampling.
        engine: a registered name, or "auto": vLLM where it is installed, else transformers.
        template: a shipped prompt template's name or a .json file; "" for the usual one.
        temperature: of the thoughts; None for the usual one.
        top_p: nucleus of the thoughts; None for the usual one.
        context_tokens: longest prompt + thought + answer; None for what the model takes.
        options: anything else that the engine's class takes.

    Raises:
        UnknownNameError, InvalidSettingsError, MissingExtraError, ModelFileError, EngineError: it cannot be opened.
    """
    named = str(path_of(template)) if template else ""
    given: dict[str, Any] = {"template": named or None, "temperature": temperature, "top_p": top_p}
    given = {name: value for name, value in given.items() if value is not None}
    settings = EngineSettings(engine=engine, context_tokens=context_tokens, options=options, **given)
    if isinstance(model, Predictor | Plan):
        if model.card is None:
            raise InvalidSettingsError("the plan does not say which model it is for; give the model's name")
        if temperature is not None or top_p is not None:
            raise InvalidSettingsError("temperature and top_p are the predictor's own; leave them out")
        settings, model = engine_for(model.card, settings, named), model_of(model.card)
    if not isinstance(model, str):
        raise InvalidSettingsError(f"the model must be a name, a predictor or a plan, not {excerpt(model)}")
    running: Any = opening.open_engine(model, settings)
    own = type(running)
    if not hasattr(own, "__enter__"):
        methods = {"__enter__": lambda self: self, "__exit__": lambda self, *raised: self.close(), "__slots__": ()}
        running.__class__ = type(own.__name__, (own,), methods | {"__module__": own.__module__})
    found: OpenEngine = running
    return found
