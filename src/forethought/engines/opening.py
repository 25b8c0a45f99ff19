"""From settings to a running engine: picks one where asked to, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature

from .. import registry
from ..errors import InvalidSettingsError
from ..prompts import load_template
from ..protocols import Engine
from ..settings import EngineSettings


def choose(model: str, engine: str) -> tuple[str, str]:
    """`(name, reason)` of the engine to use for `model` when `engine` was asked for."""
    if engine != "auto":
        return engine, "asked for"
    if model == "fake":
        return "fake", "the model is 'fake'"
    if find_spec("vllm") is not None:
        return "vllm", "vLLM is installed"
    return "transformers", "vLLM is not installed"


def choose_reader(model: str, engine: str) -> tuple[str, str]:
    """The same for reading hidden states of prompts and their means.

    Raises:
        InvalidSettingsError: the engine asked for gives no means.
    """
    if engine == "auto" and model != "fake":
        return (
            "transformers",
            "it sees every token of a prompt; vLLM's prefix cache hides those that it has seen before",
        )
    name, reason = choose(model, engine)
    if not hasattr(registry.resolve("engines", name), "pooled_states"):
        raise InvalidSettingsError(
            f"engine {name!r} gives no means over a question's tokens; read hidden states with --engine transformers"
        )
    return name, reason


@contextmanager
def opened(
    engine: Engine | None, model: str, settings: EngineSettings, *, needed_tokens: int | None = None
) -> Iterator[Engine]:
    """`engine` itself when there is one; else a new one, closed at the end.

    Args:
        engine: open already, or None.
        model: what to run otherwise.
        settings: with what.
        needed_tokens: longest prompt + thought + answer that it will be asked for, where that is known: for an engine
            that reserves memory by it.
    """
    if engine is not None:
        yield engine
        return
    name, _ = choose(model, settings.engine)
    factory = registry.resolve("engines", name)
    known = set(signature(factory).parameters)
    unknown = [key for key in settings.options if key not in known and "options" not in known]
    if unknown:
        raise InvalidSettingsError(f"engine {name!r} has no option {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    context = {} if settings.context_tokens is None else {"context_tokens": settings.context_tokens}
    if needed_tokens is not None and "needed_tokens" in known:
        context["needed_tokens"] = needed_tokens
    running: Engine = factory(
        model, template=load_template(settings.template), sampling=settings.sampling, **context, **settings.options
    )
    try:
        yield running
    finally:
        running.close()
