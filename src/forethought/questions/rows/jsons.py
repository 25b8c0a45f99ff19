"""JSON lines, and the items of a JSON list, one at a time."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from ...core.files import RepeatedKeyError, one_of_each
from ...core.problems import Problems, excerpt
from .batch import BATCH_BYTES, BATCH_ROWS, MAX_COLUMNS, Batch, Wanted, too_many_columns
from .lines import CHUNK, MAX_LINE, not_utf8, read_lines, too_long, utf8

MAX_DEPTH = 4  # of objects within objects whose keys are columns, such as "reward_model.ground_truth"
MAX_PROBLEMS = 10_000  # after which nobody counts on
_SPACE = re.compile(r"[ \t\r\n]*")


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError with a reason on anything else, hostile input included.

    NaN and infinity are taken, as Python and pandas write them: who reads such a cell says what is wrong with it. A key
    that occurs twice in one object is refused, because nobody knows which of its values was meant.
    """
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(_reason(error)) from error
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=one_of_each)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    if isinstance(error, RepeatedKeyError):
        return str(error)
    if isinstance(error, RecursionError):
        return "not usable JSON: nested too deeply"
    return f"not usable JSON: {str(error).partition(';')[0]}"  # an integer of thousands of digits


class _Objects:
    """Gathers rows that are objects into batches."""

    def __init__(self, kind: str, wanted: Wanted, problems: Problems, batch_rows: int) -> None:
        self._kind, self._wanted, self._problems = kind, wanted, problems
        self._batch_rows = min(batch_rows, BATCH_ROWS)
        self._names: dict[str, bool] = {}  # every column met -> whether it is wanted
        self._num_top = 0
        self._numbers: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def take(self, number: int, value: Any, size: int) -> bool:
        """Takes a row of `size` characters; whether the batch is full."""
        if not isinstance(value, dict):
            place = f"{self._kind} {number}"
            self._problems.add(place, f'expected an object such as {{"question": "…"}}, got {excerpt(value)}')
            return self.is_over
        self._numbers.append(number)
        self._rows.append(value)
        self._size += size
        return len(self._rows) >= self._batch_rows or self._size >= BATCH_BYTES

    def rest(self) -> Iterator[Batch]:
        """What has been taken and not given yet."""
        rows, numbers = self._rows, self._numbers
        self._rows, self._numbers, self._size = [], [], 0
        if not rows or self.is_over:
            return
        names = dict.fromkeys(itertools.chain.from_iterable(rows))
        self._num_top += sum(name not in self._names for name in names)
        if self._num_top > MAX_COLUMNS:
            self._problems.add("", too_many_columns(self._num_top))
            return
        columns: dict[str, list[Any]] = {}
        for name in names:
            self._find(name, [row.get(name) for row in rows], columns, 1)
        yield Batch(self._kind, numbers, tuple(self._names), columns)

    @property
    def is_over(self) -> bool:
        """Whether there are too many columns or problems to continue."""
        return self._num_top > MAX_COLUMNS or len(self._problems) > MAX_PROBLEMS

    def _find(self, name: str, cells: list[Any], columns: dict[str, list[Any]], depth: int) -> None:
        if name not in self._names:
            if depth > 1 and len(self._names) > MAX_COLUMNS:
                return  # objects with keys of their own in every row: no columns
            self._names[name] = self._wanted(name)
        if self._names[name]:
            columns[name] = cells
        if depth == MAX_DEPTH or dict not in set(map(type, cells)):
            return
        objects = [cell for cell in cells if type(cell) is dict]
        for key in dict.fromkeys(itertools.islice(itertools.chain.from_iterable(objects), MAX_COLUMNS)):
            within = [cell.get(key) if type(cell) is dict else None for cell in cells]
            self._find(f"{name}.{key}", within, columns, depth + 1)


def read_jsonl(stream: IO[bytes], wanted: Wanted, problems: Problems, batch_rows: int) -> Iterator[Batch]:
    """An object per line."""
    return read_json_lines(read_lines(stream, problems), wanted, problems, batch_rows)


def read_json_lines(
    lines: Iterable[tuple[int, str]], wanted: Wanted, problems: Problems, batch_rows: int
) -> Iterator[Batch]:
    """The same, of lines that are read already."""
    objects = _Objects("line", wanted, problems, batch_rows)
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            problems.add(f"line {number}", f"{error}: {excerpt(line)}")
            if objects.is_over:
                return
            continue
        if objects.take(number, value, len(line)):
            yield from objects.rest()
            if objects.is_over:
                return
    yield from objects.rest()


def read_json(stream: IO[bytes], wanted: Wanted, problems: Problems, batch_rows: int) -> Iterator[Batch]:
    """The items of one list: objects, or questions as text."""
    objects = _Objects("item", wanted, problems, batch_rows)
    for number, (item, size) in enumerate(_items(_Text(stream, problems), problems), start=1):
        if objects.take(number, {"question": item} if isinstance(item, str) else item, size):
            yield from objects.rest()
            if objects.is_over:
                return
    yield from objects.rest()


def _items(text: _Text, problems: Problems) -> Iterator[tuple[Any, int]]:
    """`(item, its size)`; ends at the first that cannot be read (noted), for nobody knows where the next one starts."""
    number = 0
    place = ""
    try:
        if not (first := text.peek()):
            return
        if first != "[":
            value, _ = text.value()
            if text.peek() and isinstance(value, dict):
                problems.add("", "not JSON: Extra data. It looks like JSON lines: rename it to end in .jsonl")
            else:
                problems.add("", f'expected a list such as [{{"question": "…"}}], got {excerpt(value)}')
            return
        text.skip()
        is_empty = text.peek() == "]"
        while not is_empty:
            number += 1
            place = f"item {number}"
            yield text.value()
            if text.peek() != ",":
                break
            text.skip()
        place = ""
        if text.peek() != "]":
            problems.add(text.place, f"not JSON: Expecting ',' or ']' after item {number}")
            return
        text.skip()
        if text.peek():
            problems.add(text.place, "not JSON: Extra data after the list")
    except _RefusedError as refusal:
        problems.add(place, str(refusal))


class _RefusedError(Exception):
    """Why a JSON text cannot be read on."""


class _Text:
    """A JSON text that is read as far as it is needed."""

    def __init__(self, stream: IO[bytes], problems: Problems) -> None:
        self._stream, self._num_bytes = utf8(stream)  # bytes of the file so far
        self._problems = problems
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._num_lines = 0  # before the text
        self._is_end = False

    @property
    def place(self) -> str:
        """Where it is read now."""
        return f"line {self._num_lines + self._text.count(chr(10), 0, self._at) + 1}"

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Goes on by one character."""
        self._at += 1

    def value(self) -> tuple[Any, int]:
        """`(the value that starts here, its size)`; raises _RefusedError."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                # It may only be cut short; an error is one when there is no more, or too much of it.
                if isinstance(error, json.JSONDecodeError):
                    if len(self._text) - self._at > MAX_LINE:
                        raise _RefusedError(too_long("the item")) from error
                    if self._more():
                        continue
                    line = self._num_lines + error.lineno
                    raise _RefusedError(f"{_reason(error)} of line {line}") from error
                raise _RefusedError(_reason(error)) from error
            if end == len(self._text) and self._more():
                continue  # a number may go on
            size, self._at = end - self._at, end
            return value, size

    def _more(self) -> bool:
        """Reads on; False at the end."""
        if self._is_end:
            return False
        kept = len(self._text) - self._at
        raw = self._stream.read(max(CHUNK, min(kept, MAX_LINE + CHUNK - kept)))
        self._is_end = not raw
        self._num_bytes += len(raw)
        try:
            more = self._utf8.decode(raw, self._is_end)
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode("utf-8", "replace")
            line = self._num_lines + self._text.count("\n") + good.count("\n") + 1
            self._is_end = True
            reason = not_utf8(error.object, error.start, self._num_bytes - len(error.object))
            raise _RefusedError(f"line {line}: {reason}") from error
        self._num_lines += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more) or not self._is_end
