"""Reads and writes dataclasses as JSON; each value is checked against its annotated type."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

MOST = 2**53  # counts up to here are exact as floats; no file of ours has a larger number
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    types.NoneType: "null",
}

T = TypeVar("T")
Reader = Callable[[Any], Any]


class UnfitError(ValueError):
    """A value that is not of its type.

    Args:
        problem: what is wrong, without the place.
        place: where in the value, outermost first.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"'{place}' {problem}" if place else problem)
        self.problem, self.place = problem, place

    def within(self, step: str) -> UnfitError:
        """The same, seen from one step further out."""
        joint = "" if not self.place or self.place.startswith("[") else "."
        return UnfitError(self.problem, f"{step}{joint}{self.place}")


def decode(kind: type[T], value: Any, *, place: str = "", lenient: tuple[type, ...] = ()) -> T:
    """`value`, read from JSON, as an instance of the dataclass `kind`.

    Whole numbers lie between 0 and 2^53 (a `seed` may lie below 0). Enums are read by value; a field whose class has
    `from_json` is read by that.

    Args:
        kind: a dataclass; its fields may be dataclasses, tuples, mappings from text, enums, numbers, text, or None.
        value: what JSON held.
        place: names `value` in messages.
        lenient: the dataclasses of which unknown keys are left aside; those of others are refused.

    Raises:
        UnfitError: naming the place within the value.
    """
    try:
        found = _object(typing.cast("Any", kind), lenient)(value)
    except UnfitError as error:
        raise (error.within(place) if place else error) from None
    assert isinstance(found, kind)
    return found


PLAIN = frozenset({str, int, float, bool, type(None)})


def encode(value: Any) -> Any:
    """`value` as JSON holds it: dataclasses are objects, tuples lists, enums values; else by its `to_json`."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | int | float):
        return value
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields_to_json(value)
    if isinstance(value, Mapping):
        return {str(key): encode(each) for key, each in value.items()}
    return [encode(each) for each in value]


def fields_to_json(value: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """A dataclass as an object: one key a field, but for those in `without`."""
    names = (field.name for field in dataclasses.fields(value))
    return {name: encode(getattr(value, name)) for name in names if name not in without}


def shown(value: Any) -> str:
    """A value in a message, not longer than a line; a long or deep one is only named."""
    if isinstance(value, dict | list):
        return f"{WORDS[type(value)]} of {len(value)}"
    if isinstance(value, int) and abs(value) > MOST:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _unlike(kind: type, value: Any) -> UnfitError:
    return UnfitError(f"must be {WORDS[kind]}, not {shown(value)}")


@cache
def _reader(kind: Any, lenient: tuple[type, ...], may_be_negative: bool = False) -> Reader:
    """What reads a value of the annotated type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin in (types.UnionType, typing.Union):
        return _optional(kind, lenient, may_be_negative)
    if hasattr(kind, "from_json"):
        return _own(kind)
    if dataclasses.is_dataclass(kind):
        return _object(typing.cast("Any", kind), lenient)
    if origin is tuple:
        return _list(arguments, lenient)
    if origin in (Mapping, dict):
        return _mapping(_reader(arguments[1], lenient))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    return _plain(kind, may_be_negative)


def _optional(kind: Any, lenient: tuple[type, ...], may_be_negative: bool) -> Reader:
    """`X | None`, or `str | X`: the first that a value is, else the last."""
    kinds = typing.get_args(kind)
    last = kinds[0] if kinds[-1] is types.NoneType else kinds[-1]  # None is written last, text first
    read = _reader(last, lenient, may_be_negative)
    as_is = tuple(each for each in (types.NoneType, str) if each in kinds and each is not last)
    return lambda value: value if isinstance(value, as_is) else read(value)


def _own(kind: Any) -> Reader:
    def read(value: Any) -> Any:
        try:
            return kind.from_json(value)
        except UnfitError:
            raise
        except ValueError as error:
            raise UnfitError(f"cannot be read: {error}") from error

    return read


@cache
def _object(kind: Any, lenient: tuple[type, ...]) -> Reader:
    """What reads the dataclass `kind` field by field, whether or not it could read itself."""
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    readers = {field.name: _reader(hints[field.name], lenient, field.name == "seed") for field in fields}
    missing = dataclasses.MISSING
    optional = {each.name for each in fields if each.default is not missing or each.default_factory is not missing}
    is_lenient = kind in lenient

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _unlike(dict, value)
        found: dict[str, Any] = {}
        if not is_lenient and (unknown := sorted(set(value) - set(readers))):
            raise UnfitError(f"is not known; known are {', '.join(readers)}", unknown[0])
        for name, reader in readers.items():
            if name in value:
                try:
                    found[name] = reader(value[name])
                except UnfitError as error:
                    raise error.within(name) from None
            elif name not in optional:
                raise UnfitError("is missing", name)
        return kind(**found)

    return read


def _list(arguments: tuple[Any, ...], lenient: tuple[type, ...]) -> Reader:
    is_open = arguments[-1] is Ellipsis  # else so many items, each of its own type
    readers = [_reader(each, lenient) for each in (arguments[:1] if is_open else arguments)]

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _unlike(list, value)
        if not is_open and len(value) != len(readers):
            raise UnfitError(f"must hold {len(readers)} items, not {len(value)}")
        found = []
        for index, item in enumerate(value):
            try:
                found.append(readers[0 if is_open else index](item))
            except UnfitError as error:
                raise error.within(f"[{index}]") from None
        return tuple(found)

    return read


def _mapping(read_each: Reader) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _unlike(dict, value)
        found = {}
        for key, each in value.items():
            try:
                found[key] = read_each(each)
            except UnfitError as error:
                raise error.within(key) from None
        return found

    return read


def _enum(kind: type[Enum]) -> Reader:
    known = {member.value: member for member in kind}

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise UnfitError(f"is {shown(value)}, not one of {', '.join(map(str, known))}")
        return known[value]

    return read


def _plain(kind: Any, may_be_negative: bool) -> Reader:
    least = 0 if kind is int and not may_be_negative else -MOST

    def read(value: Any) -> Any:
        if kind is float and type(value) is int and abs(value) <= MOST:
            return float(value)
        if type(value) is not kind:  # exactly: true is no number
            raise _unlike(kind, value)
        if (kind is int or kind is float) and not least <= value <= MOST:
            raise UnfitError(f"must be between {least:,} and {MOST:,}, not {shown(value)}")
        return value

    return read
