"""Reads what a server sends without trusting its size, depth or compression: limited by the bytes read."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol

MOST_BYTES = 64 << 20  # of one answer, inflated
ERROR_BYTES = 64 << 10  # of an error's body: the rest is not read
LINE_BYTES = 1 << 20  # longest server-sent event
PIECE_BYTES = 64 << 10
MOST_DEPTH = 64  # of JSON
PAGE = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}>\s*)?<(?:!doctype\s+html|html|head|body|title|meta|script)\b", re.IGNORECASE
)
TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,200})", re.IGNORECASE)


class UnreadableError(ValueError):
    """An answer that is too large, or packed in a way that was not asked for: trying again brings the same."""


class Content(Protocol):
    """What aiohttp calls a response's content."""

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        """Pieces of at most `n` bytes, as they come."""
        ...


async def pieces(content: Content, encoding: str) -> AsyncIterator[bytes]:
    """The bytes of an answer in pieces of bounded size, inflated; raises UnreadableError or ValueError."""
    inflate, num_bytes = inflater(encoding), 0
    async for piece in content.iter_chunked(PIECE_BYTES):
        for part in inflate(piece):
            num_bytes += len(part)
            if num_bytes > MOST_BYTES:
                raise UnreadableError(f"the answer is longer than {MOST_BYTES >> 20} MiB")
            yield part


async def body(content: Content, encoding: str, *, most: int | None = None, is_cut: bool = False) -> bytes:
    """All bytes of an answer; where they are more than `most`, the first of them (`is_cut`) or UnreadableError."""
    most = MOST_BYTES if most is None else most
    found = bytearray()
    async for piece in pieces(content, encoding):
        found += piece
        if len(found) > most:
            if is_cut:
                break
            raise UnreadableError(f"the answer is longer than {most >> 20} MiB")
    return bytes(found[:most])


def parsed(content: bytes) -> Any:
    """The JSON in `content`; raises ValueError where it is none, or nested too deeply to be looked at.

    What is no UTF-8 in a text is replaced, as tokenizers do where a token ends within a character: the answer was paid
    for, and would come again as it is.
    """
    try:
        try:
            return json.loads(content)
        except UnicodeDecodeError:
            return json.loads(content.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def object_in(content: bytes) -> dict[str, Any] | None:
    """The JSON object in `content`; None where it is none."""
    try:
        found = parsed(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def cleaned(value: Any, hide: Callable[[str], str], depth: int = 0) -> Any:
    """`value` with every text in it fit to be kept: `hide` applied, and no half of a character (a lone surrogate).

    Raises:
        ValueError: it is nested more than `MOST_DEPTH` deep.
    """
    if isinstance(value, str):
        return fit_text(value, hide)
    if depth > MOST_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list):
        if value and type(value[0]) is int and all(type(each) is int for each in value):  # token ids
            return value
        return [cleaned(each, hide, depth + 1) for each in value]
    if isinstance(value, Mapping):
        return {fit_text(name, hide): cleaned(each, hide, depth + 1) for name, each in value.items()}
    return value


def fit_text(text: str, hide: Callable[[str], str]) -> str:
    """One text, fit to be kept."""
    try:
        text.encode()
    except UnicodeEncodeError:  # halves that belong together are put together, others replaced
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return hide(text)


def page_in(content: bytes, kind: str = "") -> str | None:
    """What to say of a web page that came back instead of an answer; None where `content` is none."""
    if kind != "text/html" and not PAGE.match(content[:2000]):
        return None
    title = TITLE.search(content[:ERROR_BYTES].decode("utf-8", "replace"))
    named = " ".join(title[1].split()) if title else ""
    return f"a web page came back{f', titled {named!r}' if named else ''}"


def inflater(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    """What turns pieces of an answer that is packed so into plain ones; raises UnreadableError, and it ValueError."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return lambda piece: iter((piece,))
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnreadableError(f"the answer is packed as {encoding[:40]!r}, which was not asked for")
    return _Inflater().feed


class _Inflater:
    """Inflates gzip and deflate a bounded piece at a time: 4 MB can hold 4 GB."""

    def __init__(self) -> None:
        self._unpack: Any = zlib.decompressobj(47)
        self._is_fresh = True

    def feed(self, packed: bytes) -> Iterator[bytes]:
        while packed:
            try:
                piece = self._unpack.decompress(packed, PIECE_BYTES)
            except zlib.error:
                if not self._is_fresh:
                    raise ValueError("its compression is broken") from None
                self._unpack, self._is_fresh = zlib.decompressobj(-15), False  # deflate without its frame
                continue
            self._is_fresh = False
            yield piece
            while len(piece) == PIECE_BYTES and not self._unpack.unconsumed_tail and not self._unpack.eof:
                piece = self._unpack.decompress(b"", PIECE_BYTES)
                yield piece
            packed = self._unpack.unconsumed_tail
            if self._unpack.eof:
                packed = self._unpack.unused_data
                self._unpack, self._is_fresh = zlib.decompressobj(47), True
                if packed and not packed.startswith(b"\x1f\x8b"):
                    return
