"""Flags as part of a settings' field: name, default and help of each stand in one place, and click is told by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from ..errors import InvalidMenuError, InvalidSettingsError

KEY = "flag"


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is given on the command line; its type and default are the field's own.

    Attributes:
        help: what it is, one sentence; "" for an argument.
        name: "--traces"; "" for the field's own name.
        metavar: what stands for the value in the help.
        shown: what happens where it is not given, in words, where the default's value does not say it.
        choices: the values that it takes; empty for any.
        is_main: among the few that `--help` shows; `--help-all` shows every one.
        is_argument: given by place, not by name.
        is_pairs: KEY=VALUE, repeatable, collected into one mapping.
    """

    help: str = ""
    name: str = ""
    metavar: str | None = None
    shown: str = ""
    choices: tuple[str, ...] = ()
    is_main: bool = False
    is_argument: bool = False
    is_pairs: bool = False


def flag(default: Any, help: str, **how: Any) -> Any:  # noqa: A002  (click's own word)
    """A field that is a flag; `how` as in `Flag`."""
    metadata: Mapping[str, Any] = MappingProxyType({KEY: Flag(help, **how)})
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def argument(default: Any = MISSING, *, metavar: str | None = None) -> Any:
    """A field that is given by place."""
    metadata = {KEY: Flag(metavar=metavar, is_argument=True)}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def pairs(name: str, help: str, **how: Any) -> Any:  # noqa: A002
    """A field of KEY=VALUE pairs."""
    return flag({}, help, name=name, metavar="KEY=VALUE", is_pairs=True, **how)


limit_flag = partial(flag, None, "Only the first N questions.", metavar="N")
seed_flag = partial(flag, 0, "Seed of everything random.")
grader_flag = partial(flag, "number", "number, exact, choice or math.")
grader_options_flag = partial(pairs, "--grader-option", "Passed to the grader (repeatable).")
allocator_options_flag = partial(pairs, "--allocator-option", "Passed to the allocator (repeatable).")
skip_ungraded_flag = partial(flag, False, "Leave out what has no reference answer that can be read, not refuse it.")
worker_flag = partial(flag, "", "Take this share of the questions, as one of N processes that fill RUN.", metavar="K/N")
retry_failed_flag = partial(flag, True, "Try again what failed before, once.")
num_resamples_flag = partial(flag, 2000, "Bootstrap resamples.", name="--resamples")
history_flag = partial(flag, "", "Feed what was drawn to this history (a predictor's folder).", metavar="FOLDER")
plots_flag = partial(flag, True, "Draw pictures (needs matplotlib).")
asked_model_flag = partial(flag, "", "Where the measured model is, for a predictor that asks it.")


def check_all(problems: Iterable[str | None]) -> None:
    """Raises InvalidSettingsError with every problem at once."""
    found = [problem for problem in problems if problem]
    if found:
        raise InvalidSettingsError("; ".join(found))


def at_least(name: str, value: float | None, least: float) -> str | None:
    """What is wrong with a flag below its least value; None where it is fine or not given."""
    return None if value is None or value >= least else f"{name} must be at least {least:g}, not {value:g}"


def positive(name: str, values: Iterable[float], unit: str = "tokens") -> list[str]:
    """What is wrong with numbers of tokens, or of another unit."""
    wrong = [each for each in values if not 0 < each < float("inf")]
    return [f"{name} must be a positive number of {unit}, not {each:g}" for each in wrong]


def sampling_problems(temperature: float | None, top_p: float | None) -> tuple[str | None, str | None]:
    """What is wrong with either; None where it is fine or not given."""
    is_fine = top_p is None or 0 < top_p <= 1
    return at_least("--temperature", temperature, 0), None if is_fine else f"--top-p must lie in (0, 1], not {top_p:g}"


def refused(make: Callable[[], object]) -> str | None:
    """Why a menu cannot be made; None where it can."""
    try:
        make()
    except InvalidMenuError as error:
        return str(error)
    return None


def layers_problem(layers: str, nothing: str | None = None) -> str | None:
    """What is wrong with a choice of layers; `nothing` is what is said of "none" where that leaves nothing to do."""
    if layers == "none" and nothing:
        return f"--layers none leaves nothing to {nothing}"
    if layers in ("all", "none") or all(part.strip().isdecimal() for part in layers.split(",")):
        return None
    return f"--layers must be 'all', 'none' or numbers separated by commas, not {layers!r}"


def numbered(layers: str) -> tuple[int, ...]:
    """The layers of "4,12,16", ascending."""
    return tuple(sorted({int(part) for part in layers.split(",")}))
