"""From settings to a running engine: picks one where asked to, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature

from ..core import registry
from ..core.prompts import load_template
from ..core.protocols import Engine
from ..core.settings import EngineSettings
from ..errors import InvalidFeaturesError, InvalidSettingsError
from ..models.locating import check_name
from ..models.size import known_layers

LOCAL = ("transformers", "vllm")  # engines that read a model's files
SERVER_FLAGS = ("base_url", "served_model", "enforce", "concurrency")
OWN_ARGUMENTS = ("model", "template", "sampling", "context_tokens", "needed_tokens")


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


def check(model: str, settings: EngineSettings) -> None:
    """Refuses what `opened` would refuse, as far as it is known without loading the model or asking a server.

    Raises:
        UnknownNameError: no such engine, template or model.
        MissingExtraError: the engine needs a package that is not installed.
        InvalidSettingsError: an option that the engine does not take.
        ModelFileError: a model's folder that is none.
    """
    name, _ = choose(model, settings.engine)
    factory = registry.resolve("engines", name)
    known = signature(factory).parameters
    foreign = [key for key in SERVER_FLAGS if key in settings.options and key not in known and "options" not in known]
    if foreign:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in foreign)
        raise InvalidSettingsError(f"{flags}: engine {name!r} asks no server; leave it out, or give --engine openai")
    registry.check_options("engines", name, settings.options, reserved=OWN_ARGUMENTS)
    load_template(settings.template)
    if name in LOCAL:
        check_name(model)


def check_can_ask(model: str, settings: EngineSettings) -> None:
    """Refuses what `check` does, and an engine that has one prompt template only: it cannot be asked how hard it is."""
    check(model, settings)
    name, _ = choose(model, settings.engine)
    factory = registry.resolve("engines", name)
    if isinstance(factory, type) and not hasattr(factory, "with_template"):
        raise InvalidFeaturesError(
            f"engine {name!r} cannot be asked how hard a question is: it has one prompt template only; use another "
            "engine, or a predictor that reads the text: forethought train RUN --predictor text"
        )


def num_layers(model: str, settings: EngineSettings) -> int | None:
    """Decoder layers of the model whose hidden states the engine will show; 0 where it shows none, None if unknown."""
    name, _ = choose(model, settings.engine)
    factory = registry.resolve("engines", name)
    if not hasattr(factory, "hidden_states"):
        return 0 if isinstance(factory, type) else None
    default = signature(factory).parameters.get("num_layers")
    if default is not None:  # an engine that makes its layers up
        return int(settings.options.get("num_layers", default.default))
    return known_layers(model) if name in LOCAL else None


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
    running = open_engine(model, settings, needed_tokens=needed_tokens)
    try:
        yield running
    finally:
        running.close()


def open_engine(model: str, settings: EngineSettings, *, needed_tokens: int | None = None) -> Engine:
    """A running engine, which the caller closes; arguments as for `opened`."""
    check(model, settings)
    name, _ = choose(model, settings.engine)
    factory = registry.resolve("engines", name)
    context = {} if settings.context_tokens is None else {"context_tokens": settings.context_tokens}
    if needed_tokens is not None and "needed_tokens" in signature(factory).parameters:
        context["needed_tokens"] = needed_tokens
    running: Engine = factory(
        model, template=load_template(settings.template), sampling=settings.sampling, **context, **settings.options
    )
    return running
