"""Options: the ways to answer a query on a menu, with the fields of a request and the price of tokens.

They are read from a menu file; caps and nothing else also from a text, such as `16:256:16`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from ..errors import InvalidMenuError
from .codec import UnfitError, decode, encode
from .files import parse_toml

MOST_TOKENS = 1 << 53
KEYS = ("label", "cap", "samples", "of", "set", "usd_per_million", "tokens")
MOST_VOTES = 1024
MAX_OPTIONS = 1 << 16  # of one menu: tables of queries times options are kept in memory
EXAMPLES = "--budgets 16:256:16, --budgets geometric:256:32768 or --budgets 512,1024,4096"


@dataclass(frozen=True, slots=True)
class Price:
    """What tokens cost, in USD per million, as they are billed.

    Attributes:
        input: of the prompt.
        output: of thought and answer.
    """

    input: float = 0.0
    output: float = 0.0

    def usd(self, input_tokens: Any, output_tokens: Any) -> Any:
        """The price of tokens, given as numbers or arrays."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True, slots=True)
class Option:
    """One way to answer a query.

    Attributes:
        label: its name, unique in a menu.
        cap: most reasoning tokens; None where the model decides by itself when it has thought enough.
        samples: answers per query; of more than one the answer is their vote, see `core.votes`.
        of: name of the option by which each of several samples is drawn; "" for `label`.
        set: fields of the request's body, such as {"reasoning_effort": "high"} or {"model": "other"}.
        price: what its tokens cost; None where money does not count.
        tokens: what an answer is known to take, thought included; None: not measured.
    """

    label: str
    cap: int | None = None
    samples: int = 1
    of: str = ""
    set: Mapping[str, Any] = field(default_factory=dict, hash=False)
    price: Price | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        problem = None
        if any(len(name) > 80 or not name.isprintable() for name in (self.label, self.of)) or not self.label.strip():
            problem = "a label is a short text that can be printed"
        elif not 1 <= self.samples <= MOST_VOTES:
            problem = f"samples must be a whole number from 1 to {MOST_VOTES:,}, not {self.samples}"
        elif self.tokens is not None and not 0 <= self.tokens < MOST_TOKENS:
            problem = f"tokens must be a number of tokens, not {self.tokens!r}"
        elif self.cap is not None and not 0 <= self.cap < MOST_TOKENS:
            problem = f"cap must be a number of tokens, not {self.cap!r}"
        elif self.price is not None and not all(0 <= each < math.inf for each in (self.price.input, self.price.output)):
            problem = "usd_per_million must hold numbers of at least 0"
        elif odd := unsendable(self.set):
            problem = f"set holds {odd}, which no request can: text, numbers, true, false, lists and tables"
        if problem:
            raise InvalidMenuError(f"option {self.label!r}: {problem}")

    @property
    def asks(self) -> tuple[dict[str, Any], int | None, int]:
        """All that tells it from another option by what is asked: the fields, the cap, the samples."""
        return dict(self.set), self.cap, self.samples

    @property
    def single(self) -> Option:
        """The option by which each of its samples is drawn; itself where it is one sample."""
        if self.samples == 1 and not self.of:
            return self
        tokens = None if self.tokens is None else self.tokens / self.samples
        return replace(self, label=self.of or self.label, samples=1, of="", tokens=tokens)

    def times(self, samples: int) -> Option:
        """The vote of so many samples by this option."""
        if samples == 1:
            return self
        tokens = None if self.tokens is None else self.tokens * samples
        return replace(self, label=f"{self.label} x{samples}", samples=samples, of=self.label, tokens=tokens)

    def to_json(self) -> dict[str, Any]:
        """One object, without what is at its default; the price as `usd_per_million`."""
        names = {"price": "usd_per_million"}
        said = {name: getattr(self, name) for name in ("label", "cap", "samples", "of", "set", "price", "tokens")}
        bare: dict[str, Any] = {"cap": None, "samples": 1, "of": "", "set": {}, "price": None, "tokens": None}
        return {names.get(name, name): encode(value) for name, value in said.items() if value != bare.get(name)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` wrote, or a table of a menu file; raises UnfitError."""
        if isinstance(value, dict):
            if unknown := [key for key in value if key not in KEYS]:
                raise UnfitError(f"is not known; known are {', '.join(KEYS)}", str(unknown[0]))
            value = {("price" if key == "usd_per_million" else key): each for key, each in value.items()}
        made = decode(cls, value)
        if not isinstance(made.set, dict):
            raise UnfitError("must be a table of fields", "set")
        return made


def unsendable(value: Any) -> str:
    """What of a field's value JSON cannot hold, such as a date of TOML or NaN, in words; "" where it is all right."""
    if isinstance(value, Mapping):
        return next(filter(None, map(unsendable, (*value, *value.values()))), "")
    if isinstance(value, list | tuple):
        return next(filter(None, map(unsendable, value)), "")
    is_one = value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
    return "" if is_one else str(value)[:80]


def read_options(path: str | Path) -> tuple[Option, ...]:
    """The options of a menu file (TOML): one table `[[option]]` each, in any order.

    Raises:
        InvalidMenuError: what cannot be read, by the option and the key; a label that occurs twice.
    """
    path = Path(path)
    try:
        found = parse_toml(path.read_bytes())
    except OSError as error:
        raise InvalidMenuError(f"the menu file {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidMenuError(f"the menu file {path} is not TOML: {error}") from error
    rows = found.get("option")
    if not isinstance(rows, list) or not rows or set(found) != {"option"}:
        others = sorted(set(found) - {"option"})
        unknown = f"; it holds {others[0]!r}, which is not known" if others else ""
        raise InvalidMenuError(f"the menu file {path} needs one table [[option]] for each option{unknown}")
    options = []
    for number, row in enumerate(rows, 1):
        try:
            options.append(Option.from_json(row))
        except (UnfitError, InvalidMenuError) as error:
            raise InvalidMenuError(f"the menu file {path}, option {number}: {error}") from error
    labels = [option.label for option in options]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InvalidMenuError(f"the menu file {path} names the option {twice[0]!r} twice")
    return tuple(options)


def to_toml(options: Iterable[Option]) -> str:
    """A menu file of these options, as `read_options` reads it."""
    tables = ("".join(f"{key} = {_toml(value)}\n" for key, value in each.to_json().items()) for each in options)
    return "\n".join(f"[[option]]\n{table}" for table in tables)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(each)}" for key, each in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def parse_caps(text: str) -> list[int]:
    """The caps that `text` names, see `Menu.parse`; raises InvalidMenuError."""
    caps: list[int] = []
    for part in text.split(","):
        caps += _parse_part(part.strip())
        check_count(len(caps))
    for before, cap in pairwise(caps):
        if cap <= before:
            problem = f"{cap} is named twice" if cap == before else f"caps must ascend, and {cap} comes after {before}"
            raise InvalidMenuError(f"--budgets {text}: {problem}")
    return caps


def _parse_part(part: str) -> list[int]:
    """The caps of one part between commas."""
    words = part.split(":")
    is_geometric = words[0].strip().lower() == "geometric"
    numbers = [_parse_number(word, part) for word in (words[1:] if is_geometric else words)]
    if is_geometric:
        if len(numbers) not in (2, 3) or numbers[0] < 1 or numbers[1] < numbers[0]:
            raise InvalidMenuError(f"--budgets {part}: give geometric:FIRST:LAST or geometric:FIRST:LAST:FACTOR")
        factor = numbers[2] if len(numbers) == 3 else 2
        if factor < 2:
            raise InvalidMenuError(f"--budgets {part}: the factor must be 2 or more")
        caps = [numbers[0]]
        while caps[-1] * factor <= numbers[1]:
            caps.append(caps[-1] * factor)
        return caps if caps[-1] == numbers[1] else [*caps, numbers[1]]
    if len(numbers) == 1:
        return numbers
    if len(numbers) != 3:
        raise InvalidMenuError(f"--budgets {part}: give FIRST:LAST:STEP, as in 16:256:16")
    first, last, step = numbers
    if step < 1 or last < first or (last - first) % step:
        raise InvalidMenuError(f"--budgets {part}: the steps of {step} must lead from {first} to {last}")
    check_count((last - first) // step + 1)
    return list(range(first, last + 1, step))


def _parse_number(word: str, part: str) -> int:
    word = word.strip().replace("_", "")
    if not word.isascii() or not word.isdecimal() or len(word) > 15:
        raise InvalidMenuError(f"--budgets {part!r}: {word!r} is no number of tokens; try {EXAMPLES}")
    return int(word)


def check_count(count: int) -> None:
    """Refuses more options than a menu may have; raises InvalidMenuError."""
    if count > MAX_OPTIONS:
        raise InvalidMenuError(f"a menu has at most {MAX_OPTIONS:,} budgets, not {count:,}; give a larger step")
