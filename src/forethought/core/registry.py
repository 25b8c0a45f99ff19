"""Names to objects: built-ins and third-party entry points in one registry; objects are imported on first use."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from ..errors import InvalidSettingsError, MissingExtraError, UnknownNameError

NAMED = 20  # names that are listed in a message
BUILTIN: dict[str, dict[str, str]] = {
    "engines": {
        "fake": "forethought.engines.fake:FakeEngine",
        "openai": "forethought.engines.server.engine:OpenAIEngine",
        "replay": "forethought.engines.replay:replay",
        "transformers": "forethought.engines.transformers:TransformersEngine",
        "vllm": "forethought.engines.vllm:VllmEngine",
    },
    "predictors": {
        "history": "forethought.predictors.history:HistoryPredictor",
        "lora": "forethought.predictors.lora:LoraPredictor",
        "mean": "forethought.predictors.mean:MeanPredictor",
        "mlp": "forethought.predictors.mlp:MlpPredictor",
        "paper-mlp": "forethought.predictors.paper_mlp:PaperMlpPredictor",
        "prompted": "forethought.predictors.prompted:PromptedPredictor",
        "ridge": "forethought.predictors.ridge:RidgePredictor",
        "stack": "forethought.predictors.stack:StackPredictor",
        "text": "forethought.predictors.text:TextPredictor",
    },
    "allocators": {
        "blind": "forethought.allocators.blind:BlindAllocator",
        "envelope": "forethought.allocators.envelope:EnvelopeAllocator",
        "exact": "forethought.allocators.exact:ExactAllocator",
        "greedy": "forethought.allocators.greedy:GreedyAllocator",
        "uniform": "forethought.allocators.uniform:UniformAllocator",
    },
    "graders": {
        "choice": "forethought.graders:ChoiceGrader",
        "exact": "forethought.graders:ExactGrader",
        "math": "forethought.graders:MathGrader",
        "number": "forethought.graders:NumberGrader",
    },
}

# What shows values, in packages above theirs; `showing.py` loads it when something is to be shown.
DISPLAYS = {
    "bar": "forethought.commands.progress:step_bar",
    "comparison": "forethought.report.comparison_plots:comparison_picture",
    "draws": "forethought.report.draws_plots:draws_picture",
    "evaluation": "forethought.report.plots:summary",
    "figure": "forethought.report.figures:drawn",
    "plan": "forethought.report.plots:plan_picture",
    "table": "forethought.report.values:html",
}

# The optional dependency ("extra") a top-level module comes with, for the hint in MissingExtraError.
EXTRAS = {
    "aiohttp": "openai",
    "inspect_ai": "inspect",
    "matplotlib": "plots",
    "peft": "lora",
    "sympy": "math",
    "torch": "transformers",
    "transformers": "transformers",
    "vllm": "vllm",
}


def load(reference: str) -> Any:
    """The object that "module:object" names; the module is imported where it was not yet."""
    module_name, _, attribute = reference.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module_name))


@cache
def available(kind: str) -> dict[str, str]:
    """Name -> "module:object" of every registered object of `kind`; entry points cannot shadow a built-in."""
    third_party = {entry.name: entry.value for entry in entry_points(group=f"forethought.{kind}")}
    return dict(sorted({**third_party, **BUILTIN[kind]}.items()))


def resolve(kind: str, name: str) -> Any:
    """The object registered under `name`.

    Raises:
        UnknownNameError: no such name, with a suggestion.
        MissingExtraError: a built-in one needs a package that is not installed.
        InvalidSettingsError: another package registered what cannot be loaded.
    """
    names, noun = available(kind), kind.removesuffix("s")
    if not isinstance(name, str):
        raise UnknownNameError(f"name the {noun}, as in {next(iter(names))!r}; got {name!r}")
    if name not in names:
        raise UnknownNameError(unknown_name_message(noun, name, names))
    try:
        return load(names[name])
    except Exception as error:
        if name not in BUILTIN[kind]:
            raise InvalidSettingsError(
                f"{noun} {name!r} was registered by another package as {names[name]!r}, which cannot be loaded: "
                f"{type(error).__name__}: {error}. Fix or reinstall that package"
            ) from error
        missing = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
        if missing in ("", "forethought"):
            raise
        wanted = f"'forethought[{EXTRAS[missing]}]'" if missing in EXTRAS else missing
        raise MissingExtraError(
            f"{noun} {name!r} needs the package {missing!r}, which is not installed. "
            f"Install it with: pip install {wanted}"
        ) from error


def name_of(kind: str, made: Any) -> str:
    """The registered name of an object's class, or the class's own where it is not registered; a name is its own."""
    if isinstance(made, str):
        return made
    own = type(made)
    for name, target in available(kind).items():
        module_name, _, attribute = target.partition(":")
        if attribute == own.__qualname__ and module_name.partition(".")[0] == own.__module__.partition(".")[0]:
            return name
    return own.__name__


def make(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """The object registered under `name`, made with `options`; the errors of `resolve` and `check_options`."""
    factory = resolve(kind, name)
    check_options(kind, name, options)
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidSettingsError):
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise InvalidSettingsError(f"{kind.removesuffix('s')} {name!r} cannot take {given}: {error}") from error


def check_options(kind: str, name: str, options: Mapping[str, Any], *, reserved: Sequence[str] = ()) -> None:
    """Refuses options that the object registered under `name` does not take, before it is made.

    Args:
        kind: "engines", "predictors", "allocators" or "graders".
        name: registered name.
        options: keyword -> value, as read from KEY=VALUE.
        reserved: keywords that are not the user's to give.

    Raises:
        InvalidSettingsError: every unknown option, with the nearest one, and every value of a wrong type.
    """
    factory = resolve(kind, name)
    if not isinstance(options, Mapping):
        raise InvalidSettingsError(f"the options of {name!r} must be a dictionary, not {options!r:.60}")
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters
    except NameError:  # a name imported for type checkers alone
        parameters = inspect.signature(factory).parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    starred = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    known = [key for key, each in parameters.items() if key not in reserved and each.kind not in starred]
    what = f"{kind.removesuffix('s')} {name!r}"
    hints = {key: Any if each.annotation is each.empty else each.annotation for key, each in parameters.items()}
    problems = []
    for key, value in options.items():
        if key in known:
            if not _fits(value, hints[key]):
                problems.append(f"option {key!r} of {what} takes {_wanted(hints[key])}, not {value!r}")
        elif not takes_any or key in reserved:
            message = unknown_name_message(f"option of {what}", key, known)
            problems.append(message.removesuffix(".") if known else f"{what} takes no options; got {key!r}")
    if problems:
        raise InvalidSettingsError("; ".join(problems))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of an annotated type; types that JSON has no word for are not judged."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (int, float, bool, str, types.NoneType):
        allowed = (int, float) if origin is float else origin
        is_bool = isinstance(value, bool) and origin is not bool
        is_endless = isinstance(value, float) and not math.isfinite(value)
        return isinstance(value, allowed) and not is_bool and not is_endless
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str)
    return True


def _wanted(hint: Any) -> str:
    """An annotated type in words."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(each) for each in typing.get_args(hint))
    if origin is typing.Literal:
        return " or ".join(repr(each) for each in typing.get_args(hint))
    words = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    words[str] = "text (a number as text: KEY='\"5\"')"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a JSON object"
    return words.get(origin, "a JSON list")


def unknown_name_message(noun: str, name: str, names: Any) -> str:
    """Says that there is no such `noun`, which name is nearest, and which there are; of very many, the first."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(known) if len(known) <= NAMED else f"{', '.join(known[:8])}, … ({len(known):,} in all)"
    return f"no {noun} is called {name!r}.{suggestion} Known: {listed}."
