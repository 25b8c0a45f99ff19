"""Server-sent events (WHATWG HTML, "server-sent events"), cut anywhere on their way."""

from __future__ import annotations

from typing import Any

from .reading import object_in

BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"  # what ends a stream of OpenAI's API


class EventReader:
    """Gives the objects in the data of a stream's events, and data that is none as it stands.

    A line ends with LF, CR or CR LF, an event with an empty line, and its lines of data are joined. Some servers leave
    out empty lines, so a line that is an object by itself is taken at once, and so is what is left at the end.
    """

    def __init__(self) -> None:
        self._kept = bytearray()  # of a line
        self._data: list[bytes] = []  # of an event
        self._num_data = 0
        self._is_first = True
        self._is_after_cr = False

    @property
    def num_kept(self) -> int:
        """Bytes of what is not whole yet."""
        return len(self._kept) + self._num_data

    def feed(self, piece: bytes) -> list[dict[str, Any] | bytes]:
        """Takes what has come; returns what is whole now."""
        if self._is_after_cr and piece:
            self._is_after_cr = False
            piece = piece.removeprefix(b"\n")
        end = max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
        if not end:
            self._kept += piece
            return []
        lines = (bytes(self._kept) + piece[:end]).splitlines()
        self._kept[:] = piece[end:]
        self._is_after_cr = piece.endswith(b"\r")
        if self._is_first:
            self._is_first, lines[0] = False, lines[0].removeprefix(BOM)
        found: list[dict[str, Any] | bytes] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b" ", 5) else line[5:], found)
            elif not line:
                self._end(found)
        return found

    def rest(self) -> list[dict[str, Any] | bytes]:
        """What is left, once nothing more comes."""
        return self.feed(b"\n\n")

    def _add(self, line: bytes, found: list[dict[str, Any] | bytes]) -> None:
        event = None if self._data else DONE if line.strip() == DONE else object_in(line)
        if event is not None:
            found.append(event)
        else:
            self._data.append(line)
            self._num_data += len(line) + 1

    def _end(self, found: list[dict[str, Any] | bytes]) -> None:
        if len(self._data) > 1 and (event := object_in(b"\n".join(self._data))) is not None:
            found.append(event)
        else:
            for line in self._data:
                event = object_in(line)
                found += [line if event is None else event] if line.strip() else []
        self._data.clear()
        self._num_data = 0
