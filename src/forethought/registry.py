"""Names to objects: built-ins and third-party entry points through one door; nothing heavy loads until used."""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from .errors import MissingExtraError, UnknownNameError

BUILTIN: dict[str, dict[str, str]] = {
    "engines": {
        "fake": "forethought.engines.fake:FakeEngine",
        "openai": "forethought.engines.openai.engine:OpenAIEngine",
        "replay": "forethought.engines.replay:ReplayEngine",
        "transformers": "forethought.engines.transformers:TransformersEngine",
        "vllm": "forethought.engines.vllm:VllmEngine",
    },
    "predictors": {
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

# The optional dependency ("extra") a top-level module comes with, for the hint in MissingExtraError.
EXTRAS = {
    "aiohttp": "openai",
    "matplotlib": "plots",
    "peft": "lora",
    "sympy": "math",
    "torch": "transformers",
    "transformers": "transformers",
    "vllm": "vllm",
}


@cache
def available(kind: str) -> dict[str, str]:
    """Name -> "module:object" of every registered object of `kind`; entry points cannot shadow a built-in."""
    third_party = {entry.name: entry.value for entry in entry_points(group=f"forethought.{kind}")}
    return dict(sorted({**third_party, **BUILTIN[kind]}.items()))


def resolve(kind: str, name: str) -> Any:
    """The object registered under `name`; raises UnknownNameError with a suggestion, MissingExtraError with a hint."""
    names = available(kind)
    if name not in names:
        raise UnknownNameError(unknown_name_message(kind.removesuffix("s"), name, names))
    module_name, _, attribute = names[name].partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "forethought" or not missing:
            raise
        extra = EXTRAS.get(missing, missing)
        raise MissingExtraError(
            f"{kind.removesuffix('s')} {name!r} needs the package {missing!r}, which is not installed. "
            f"Install it with: pip install 'forethought[{extra}]'"
        ) from error


def unknown_name_message(noun: str, name: str, names: Any) -> str:
    """Says that there is no such `noun`, which name is nearest, and which there are."""
    close = difflib.get_close_matches(name, list(names), n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    return f"no {noun} is called {name!r}.{suggestion} Known: {', '.join(names)}."
