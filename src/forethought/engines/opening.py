"""From settings to a running engine: settings left open are chosen here by the model, with the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

from ..core import registry
from ..core.menu import Menu
from ..core.prompts import BUILT_IN, CHAT, PromptTemplate, load_template
from ..core.protocols import Engine, HiddenStateEngine, PooledStateEngine, TemplateEngine, gives
from ..core.provenance import Provenance
from ..core.settings import EngineSettings, ProfileSettings
from ..core.showing import Progress, silent
from ..errors import ForethoughtError, InvalidFeaturesError, InvalidMenuError, InvalidSettingsError, RunError
from ..models import ALIASES, fetch_words, look
from ..models.config import known_layers, longest_context
from ..models.locating import check_name
from ..models.thinking import STEPS, own_template
from ..runs.folders import profile_folder
from ..runs.store import RunDirectory

logger = logging.getLogger(__name__)

LOCAL = ("transformers", "vllm")  # engines that read a model's files
SERVER_FLAGS = ("base_url", "served_model", "enforce", "concurrency")
USUAL = Menu.evenly(16, 256)  # caps for the built-in models, which do not think aloud for long
FIRST_CAP, LONGEST_CAP = 256, 32768  # caps for models that were taught to think double from one to the other
ROOM = 1024  # tokens of a context that are left to the prompt and the answer where caps are chosen by it
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


@dataclass(frozen=True, slots=True)
class Prompting:
    """The prompt template that a model is asked with.

    Attributes:
        template: the template.
        reason: why this one.
        is_settled: it is the one; else the model is not known here, and may be found to think in another way.
        context_tokens: what the model or its server takes; None where that is not known.
    """

    template: PromptTemplate
    reason: str
    is_settled: bool = True
    context_tokens: int | None = None


def prompting(model: str, settings: EngineSettings, *, asks: bool = False) -> Prompting:
    """The template named in `settings`; without a name, that which suits the model.

    Nothing is fetched; a server is asked only where `asks`, and then for nothing that costs.

    Raises:
        UnknownNameError: no such template.
        InvalidSettingsError: a file that is no template.
    """
    name, (engine, _) = settings.template, choose(model, settings.engine)
    if not name and engine == "replay":
        name = _recorded(settings).template or ""
    if name and name != CHAT:
        return Prompting(load_template(name), "asked for" if settings.template else "as recorded")
    if not name and (model in ALIASES or engine == "fake"):
        return Prompting(load_template(BUILT_IN), "the template of the built-in models")
    here = look(str(settings.options.get("tokenizer") or model))
    if (tokenizer := here.tokenizer()) is not None:
        context = longest_context(here.folder) if here.folder is not None else None
        return Prompting(*own_template(tokenizer), context_tokens=context)
    if asks and engine == "openai":
        server = _made(engine, model, settings, None)
        server.close()
        return Prompting(server.template, server.template_reason, context_tokens=server.info.context_tokens)
    why = "the model is not downloaded yet"
    if engine not in LOCAL:
        why = (
            "the model of the server is not known; name its tokenizer (--engine-option tokenizer=NAME) or, for "
            "one that thinks in <think> tags, --template think"
        )
    return Prompting(STEPS, f"asks to think step by step: {why}", is_settled=False)


def caps(model: str, settings: EngineSettings, found: Prompting) -> tuple[Menu, str]:
    """`(caps, reason)` to measure a model at where none are asked for: by how it thinks and what its context holds."""
    engine, _ = choose(model, settings.engine)
    if engine == "replay" and (menu := _recorded(settings).menu) and not menu.is_named:
        return menu, "as recorded"
    if model in ALIASES or engine == "fake":
        return USUAL, "the caps of the built-in models"
    if not found.template.has_tags:
        return USUAL, "the model does not think between tags" if found.is_settled else "the model is not known here"
    context = settings.context_tokens or found.context_tokens
    if context is None:
        return Menu.parse(f"geometric:{FIRST_CAP}:{LONGEST_CAP}"), "the model thinks; its context length is not known"
    largest = min(FIRST_CAP, context // 2)
    while largest * 2 <= min(LONGEST_CAP, context - ROOM):
        largest *= 2
    return (
        Menu.parse(f"geometric:{min(FIRST_CAP, max(1, largest // 16))}:{largest}"),
        f"the model thinks, and its context is {context:,} tokens",
    )


def settle(settings: ProfileSettings, *, asks: bool = False) -> tuple[ProfileSettings, tuple[str, ...]]:
    """Settings with template and caps named that were left to the model, and what was chosen and why, a line each.

    Where it `asks`, a hub model's tokenizer and config are fetched, and a server is asked for what costs nothing.
    """
    begun, why = _as_begun(settings)
    if asks and not begun.engine.template and choose(settings.model, settings.engine.engine)[0] in LOCAL:
        fetch_words(settings.model)
    found = prompting(settings.model, begun.engine, asks=asks)
    if begun.engine.template != settings.engine.template:
        found = replace(found, reason=why)
    lines = [f"template {found.template.name}: {found.reason}"]
    name = settings.engine.template or (found.template.name if found.is_settled else "")
    settings = replace(settings, engine=replace(settings.engine, template=name))
    if not settings.names_caps:
        menu, reason = (begun.menu, why) if begun.names_caps else caps(settings.model, settings.engine, found)
        if found.is_settled or begun.names_caps:
            settings = replace(settings, budgets=",".join(map(str, menu.caps)))
        lines.append(f"budgets {menu}: {reason}")
    elif settings.menu_file:
        lines.append(f"options {settings.menu}: of {settings.menu_file}")
    elif choose(settings.model, settings.engine.engine)[0] == "replay":
        recorded = _recorded(settings.engine).menu or settings.menu
        if missing := [cap for cap in settings.menu.caps if cap not in recorded]:
            raise InvalidMenuError(
                f"--budgets {missing[0]}: the recording has {recorded} only; its traces that ended "
                "before another cap are not a representative sample"
            )
    return settings, tuple(lines)


def _as_begun(settings: ProfileSettings) -> tuple[ProfileSettings, str]:
    """Settings with what was left open as the run directory was begun with it, and why: the same command goes on there.

    What a model is asked with where nothing is said may change from one version to the next.
    """
    folder = profile_folder(settings)
    try:
        run = RunDirectory.open(folder)
        known = run.header.provenance if run.holds_results() else Provenance()
        template = load_template(known.template).name if known.template and known.template != CHAT else ""
        if template and load_template(template).hash != known.template_hash:
            template = ""
    except ForethoughtError:  # no run, or one that is refused later
        return settings, ""
    if template and not settings.engine.template:
        settings = replace(settings, engine=replace(settings.engine, template=template))
    if known.menu and not known.menu.is_named and not settings.names_caps:
        settings = replace(settings, budgets=",".join(map(str, known.menu.caps)))
    return settings, f"as {folder} was begun"


def _recorded(settings: EngineSettings) -> Provenance:
    """What the recording of a replay says of itself; nothing where none is named, which its opening refuses."""
    try:
        return RunDirectory.open(Path(str(settings.options.get("run") or ""))).header.provenance
    except RunError:
        return Provenance()


def choose_reader(model: str, engine: str) -> tuple[str, str]:
    """The same for reading hidden states of prompts and their means.

    Raises:
        InvalidSettingsError: the engine asked for gives no means.
    """
    if engine == "auto" and model != "fake":
        return (
            "transformers",
            "it computes every token of a prompt; vLLM's prefix cache skips tokens that it has cached",
        )
    name, reason = choose(model, engine)
    if not gives(registry.resolve("engines", name), PooledStateEngine):
        raise InvalidSettingsError(
            f"engine {name!r} gives no means over a question's tokens; read hidden states with --engine transformers"
        )
    return name, reason


def check(model: str, settings: EngineSettings, *, asks: bool = False) -> None:
    """Refuses what `opened` would refuse, as far as it is known without loading the model or asking a server.

    Where it `asks`, a hub model's tokenizer and config are fetched.

    Raises:
        UnknownNameError: no such engine, template or model.
        MissingExtraError: the engine needs a package that is not installed.
        InvalidSettingsError: an option that the engine does not take.
        ModelFileError: a model's folder that is none.
    """
    name, _ = choose(model, settings.engine)
    if name in LOCAL and not any(key in settings.options for key in SERVER_FLAGS):  # which are refused below
        check_name(model)  # before torch is imported, which takes seconds
        if asks:
            fetch_words(model)
    factory = registry.resolve("engines", name)
    known = signature(factory).parameters
    foreign = [key for key in SERVER_FLAGS if key in settings.options and key not in known and "options" not in known]
    if foreign:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in foreign)
        raise InvalidSettingsError(f"{flags}: engine {name!r} uses no server; leave it out, or give --engine openai")
    registry.check_options("engines", name, settings.options, reserved=OWN_ARGUMENTS)
    prompting(model, settings)


def check_can_ask(model: str, settings: EngineSettings) -> None:
    """Refuses what `check` does, and an engine that has one prompt template only: it cannot be asked how hard it is."""
    check(model, settings)
    name, _ = choose(model, settings.engine)
    if gives(registry.resolve("engines", name), TemplateEngine) is False:
        raise InvalidFeaturesError(
            f"engine {name!r} cannot be asked how hard a question is: it has one prompt template only; use another "
            "engine, or a predictor that reads the text: forethought train RUN --predictor text"
        )


def num_layers(model: str, settings: EngineSettings) -> int | None:
    """Decoder layers of the model whose hidden states the engine will show; 0 where it shows none, None if unknown."""
    name, _ = choose(model, settings.engine)
    factory = registry.resolve("engines", name)
    if not (shows := gives(factory, HiddenStateEngine)):
        return 0 if shows is False else None
    default = signature(factory).parameters.get("num_layers")
    if default is not None:  # an engine that makes its layers up
        return int(settings.options.get("num_layers", default.default))
    return known_layers(model) if name in LOCAL else None


@contextmanager
def opened(
    engine: Engine | None,
    model: str,
    settings: EngineSettings,
    *,
    needed_tokens: int | None = None,
    progress: Progress = silent,
) -> Iterator[Engine]:
    """`engine` itself when there is one; else a new one, closed at the end.

    Args:
        engine: open already, or None.
        model: what to run otherwise.
        settings: with what.
        needed_tokens: longest prompt + thought + answer that it will be asked for, where that is known: for an engine
            that reserves memory by it.
        progress: called with what is being done.
    """
    if engine is not None:
        yield engine
        return
    progress(f"open {Path(model).name}", 0, 0)
    running = open_engine(model, settings, needed_tokens=needed_tokens)
    try:
        yield running
    finally:
        running.close()


def open_engine(model: str, settings: EngineSettings, *, needed_tokens: int | None = None) -> Engine:
    """A running engine, which the caller closes; arguments as for `opened`."""
    check(model, settings)
    name, _ = choose(model, settings.engine)
    if name in LOCAL:
        fetch_words(model)  # the template depends on them
    found = prompting(model, settings)
    template = None if name == "openai" and not found.is_settled else found.template
    running = _made(name, model, settings, template, needed_tokens)
    if template is None:
        logger.info("%s", running.said)
        logger.info("template %s: %s", running.info.template, running.template_reason)
    made: Engine = running
    return made


def _made(
    name: str, model: str, settings: EngineSettings, template: PromptTemplate | None, needed_tokens: int | None = None
) -> Any:
    """The engine `name` for `model`."""
    factory = registry.resolve("engines", name)
    context = {} if settings.context_tokens is None else {"context_tokens": settings.context_tokens}
    if needed_tokens is not None and "needed_tokens" in signature(factory).parameters:
        context["needed_tokens"] = needed_tokens
    return factory(model, template=template, sampling=settings.sampling, **context, **settings.options)
