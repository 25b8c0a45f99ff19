"""A table's rows by what their columns mean: by a name that was asked for, or by a usual one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from ...core.problems import Problems
from ...errors import InvalidSettingsError
from .batch import Row, choose_column, has_columns, no_such_column, size_of
from .reading import Source, read_batches

MAX_ROWS = 1_000_000
MAX_TEXT = 1 << 29  # characters kept of one table


class Table:
    """A source whose columns are found by what they mean.

    Attributes:
        source: where it comes from.
        problems: everything that is wrong with it.
        names: its columns, as far as they are known yet.
        columns: meaning -> the column's name, or None; known as soon as the first row is.
    """

    def __init__(
        self,
        source: Source,
        usual: Mapping[str, Sequence[str]],
        named: Mapping[str, str | None],
        limit: int | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidSettingsError(f"--limit must be at least 1, got {limit}")
        self.source, self.problems, self._limit = source, Problems(source.name), limit
        self.names: Sequence[str] = ()
        self.columns: dict[str, str | None] = dict.fromkeys(usual)
        self._usual, self._named = usual, named
        asked = [part for name in named.values() if name for part in (name, *name.split(","))]
        self._wanted = {name.lower() for names in (*usual.values(), asked) for name in names}

    def rows(self, needed: str = "") -> Iterator[Row]:
        """Row by row; ends, with the reason noted, where the column `needed` or one asked for is not there."""
        num_rows = size = 0
        for batch in read_batches(self.source, self._is_wanted, self.problems, limit=self._limit):
            self.names = batch.names
            if not self._choose(is_first=num_rows == 0, needed=needed):
                return
            for row in batch.rows():
                num_rows += 1
                size += sum(map(size_of, row.values.values()))
                yield row
            if num_rows > MAX_ROWS or size > MAX_TEXT:
                what = f"{MAX_ROWS:,} rows" if num_rows > MAX_ROWS else f"{MAX_TEXT >> 20} MiB of text"
                self.problems.add("", f"holds more than {what}, the most that is read at once; see --limit")
                return

    def _is_wanted(self, name: str) -> bool:
        return name.lower() in self._wanted

    def _choose(self, *, is_first: bool, needed: str) -> bool:
        for meaning, usual in self._usual.items():
            asked = self._named.get(meaning)
            if self.columns[meaning] is not None or asked == "":
                continue
            taken = [name for name in self.columns.values() if name is not None]
            self.columns[meaning] = choose_column(meaning, self.names, asked, usual, taken)
            if self.columns[meaning] is None and asked and is_first:
                self.problems.add("", no_such_column(meaning, asked, self.names))
                return False
        if needed and self.columns[needed] is None:
            usual, lowered = self._usual[needed], {name.lower(): name for name in self.names}
            matches = [get_close_matches(name, lowered, n=1, cutoff=0.75) for name in usual]
            close = [lowered[match] for some in matches for match in some]
            hint = f"Did you mean --{needed}-column {close[0]!r}?" if close else f"Name it with --{needed}-column NAME."
            self.problems.add("", f"no {needed} column ({', '.join(usual)}); {has_columns(self.names)}. {hint}")
            return False
        return True
