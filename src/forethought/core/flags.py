"""Flags as fields of a settings class: name, default and help are defined once, for click's options too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from ..errors import InvalidMenuError, InvalidSettingsError
from .codec import MOST
from .problems import excerpt

KEY = "flag"
MOST_TRACES = 1_000_000_000  # of a question: a bit each is in memory
MOST_RESAMPLES = 100_000  # in memory together


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
        bare: the value where the flag is given without one; "" where it needs one.
    """

    help: str = ""
    name: str = ""
    metavar: str | None = None
    shown: str = ""
    choices: tuple[str, ...] = ()
    is_main: bool = False
    is_argument: bool = False
    is_pairs: bool = False
    bare: str = ""


SECRET = ("key", "token", "secret", "password", "authorization")
_USER = re.compile(r"(?<=://)[^@/\s]+@")  # of an address


def typed(verb: str, settings: Any) -> str:
    """The command that these settings are: the flags that are not as they are by default, what may be secret left out.

    Args:
        verb: of the command, such as "forethought evaluate".
        settings: a dataclass whose fields state flags, or hold other such.
    """
    places, flags = list[str](), list[str]()
    for place, words in _typed(settings):
        (places if place else flags).extend(words)
    return shlex.join([*verb.split(), *places, *flags])


def _typed(settings: Any) -> Iterator[tuple[bool, list[str]]]:
    """Whether it is given by place, and the words, of each field that is not as by default."""
    for each in fields(settings):
        value, known = getattr(settings, each.name), each.metadata.get(KEY)
        if known is None:
            if is_dataclass(value):
                yield from _typed(value)
            continue
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if known.is_argument:
            yield True, list(map(_word, value if isinstance(value, tuple) else [value]))
        elif value == default:
            continue
        elif known.is_pairs:
            for key, one in value.items():
                is_secret = any(word in key.lower() for word in SECRET)
                yield False, [known.name, f"{key}={'…' if is_secret else _USER.sub('', str(one))}"]
        else:
            name = known.name or f"--{each.name.replace('_', '-')}"
            if isinstance(value, bool):
                yield False, [name if value else f"--no-{name[2:]}"]
            elif isinstance(value, tuple):
                yield False, [word for one in value for word in (name, _word(one))]
            else:
                yield False, [name, _word(value)]


def _word(value: Any) -> str:
    """A value as it is typed."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else _USER.sub("", str(value))


def said_settings(settings: Any) -> Iterator[str]:
    """Every flag's value, those by default too; pairs, which may hold secrets, are in the command alone."""
    for each in fields(settings):
        value, known = getattr(settings, each.name), each.metadata.get(KEY)
        if known is None and is_dataclass(value):
            yield from said_settings(value)
        elif known is not None and not known.is_argument and not known.is_pairs and value not in ("", None, ()):
            said = ",".join(map(str, value)) if isinstance(value, tuple) else _USER.sub("", str(value))
            yield f"{known.name.lstrip('-') or each.name.replace('_', '-')} {said}"


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
WEIGHTS = ("answer", "thought")


def weights_problem(given: str, known: tuple[str, ...] = WEIGHTS) -> str | None:
    """What is wrong with --vote-weights; None where nothing is."""
    return None if given in ("", *known) else f"--vote-weights must be {' or '.join(known)}, not {given!r}"


samples_flag = partial(
    flag,
    (),
    "Numbers of samples per question: each option is combined with each of them, and several samples vote.",
    metavar="N,…",
    shown="1",
)
vote_weights_flag = partial(
    flag, "", "Weigh votes by the log-probability of the answer, or of the end of the thought.", shown="one vote each"
)
seed_flag = partial(flag, 0, "Random seed.")
grader_flag = partial(flag, "number", "Grader: number, exact, choice or math.")
grader_options_flag = partial(pairs, "--grader-option", "Option of the grader (repeatable).")
allocator_options_flag = partial(pairs, "--allocator-option", "Option of the allocator (repeatable).")
skip_ungraded_flag = partial(flag, False, "Skip questions without a readable reference answer, instead of stopping.")
worker_flag = partial(flag, "", "Process share K of N of the questions; N processes fill one RUN.", metavar="K/N")
hard_cap_flag = partial(
    flag,
    "",
    "Never generate more tokens than N (200000), or for more money than Nusd (2.50usd), what is under way included.",
    metavar="N",
)
retry_failed_flag = partial(flag, True, "Retry once what failed in an earlier start.")
num_resamples_flag = partial(flag, 2000, "Bootstrap resamples.", name="--resamples")
history_flag = partial(flag, "", "Add the samples to this history (a predictor folder).", metavar="FOLDER")
plots_flag = partial(flag, True, "Draw plots (needs matplotlib).")
asked_model_flag = partial(flag, "", "Name or folder of the measured model, for a predictor that queries it.")


def check_all(problems: Iterable[str | None]) -> None:
    """Raises InvalidSettingsError with every problem at once."""
    found = [problem for problem in problems if problem]
    if found:
        raise InvalidSettingsError("; ".join(found))


def at_least(name: str, value: float | None, least: float, most: float = MOST) -> str | None:
    """What is wrong with a flag below its least value, or above the most; None where it is fine or not given."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} must be a number, not {excerpt(value)}"
    if least <= value <= most:
        return None
    if most < value < float("inf"):
        return f"{name} must be at most {most:,}, not {value:g}"
    return f"{name} must be at least {least:g}, not {value:g}"


def resampling_problems(num_resamples: int, seed: int) -> tuple[str | None, str | None]:
    """What is wrong with a bootstrap's number of resamples, which are in memory together, and its seed."""
    return at_least("--resamples", num_resamples, 100, MOST_RESAMPLES), at_least("--seed", seed, 0)


def positive(name: str, values: Iterable[float], unit: str = "tokens") -> list[str]:
    """What is wrong with numbers of tokens, or of another unit."""
    wrong = [each for each in values if not 0 < each < float("inf")]
    return [f"{name} must be a positive number of {unit}, not {each:g}" for each in wrong]


def hard_cap_problems(hard: str | bool, worker: str, compare: Iterable[str] = ()) -> list[str | None]:
    """What does not go with a hard cap (text), or a hard total (True)."""
    from .terms import HardCap

    name = "--hard-total" if hard is True else "--hard-cap"
    return [
        refused(lambda: HardCap.parse(hard)) if isinstance(hard, str) and hard else None,
        f"{name} is kept by one process: leave --worker out" if hard and worker else None,
        f"{name} counts the answers of one allocator: leave --compare out" if hard and compare else None,
    ]


def sampling_problems(temperature: float | None, top_p: float | None) -> tuple[str | None, str | None]:
    """What is wrong with either; None where it is fine or not given."""
    is_fine = top_p is None or (isinstance(top_p, int | float) and 0 < top_p <= 1)
    return at_least("--temperature", temperature, 0), None if is_fine else f"--top-p must lie in (0, 1], not {top_p}"


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
    if layers in ("all", "none") or re.fullmatch(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*", layers):
        return None
    return f"--layers must be 'all', 'none' or numbers separated by commas, not {layers!r}"


def numbered(layers: str) -> tuple[int, ...]:
    """The layers of "4,12,16", ascending."""
    return tuple(sorted({int(part) for part in layers.split(",")}))
