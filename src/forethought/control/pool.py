"""A hard total: traces start only while the most tokens they may take fit into the rest of it.

RUN/pool.jsonl has a line before each wave of traces, with the most tokens of each, and one after it, with the tokens
used. A wave interrupted by a kill is charged with the tokens of its records, and in full for traces without a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.codec import UnfitError, decode, encode
from ..core.data import Generation, Request
from ..core.menu import Menu
from ..core.protocols import CountingEngine, Engine
from ..engines.flight import failed
from ..runs.lines import appending, read_lines
from ..runs.store import RunDirectory


@dataclass(frozen=True, slots=True)
class _Wave:
    """One line of pool.jsonl: what each trace of a wave may take, by query, or what all of them took."""

    begin: Mapping[str, int] | None = None
    end: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"end": self.end} if self.begin is None else {"begin": encode(self.begin)}

    @classmethod
    def from_json(cls, value: Any) -> _Wave:
        found = decode(cls, value)
        if (found.begin is None) == (found.end is None):
            raise UnfitError("it must hold 'begin' or 'end'")
        return found


@dataclass(slots=True)
class Pool:
    """What is left of a total, for one run.

    Attributes:
        file: keeps what was charged.
        total: tokens that may be generated: thoughts, suffixes and answers.
        beside: tokens that an answer and its suffix may take beside a cap.
        menu: the caps there are.
        spent: tokens charged so far.
    """

    file: Path
    total: int
    beside: int
    menu: Menu
    spent: int = 0

    @classmethod
    def open(cls, run: RunDirectory, *, total: float, beside: int, menu: Menu) -> Pool:
        """The pool of a run, as it was left; the run's lock must be held."""
        file = run.path / "pool.jsonl"
        spent, begun = 0, None
        for line in read_lines(file, _Wave.from_json):
            begun, spent = line.begin, spent + (line.end or 0)
        pool = cls(file, int(total), beside, menu, spent)
        if begun is not None:
            done = {record.query_id: record for record in run.latest() if record.query_id in begun}
            pool._end(sum(_taken(done[key], most) if key in done else most for key, most in begun.items()))
        return pool

    @property
    def left(self) -> int:
        """Tokens that may still be generated."""
        return self.total - self.spent

    async def generate(self, engine: Engine, requests: Sequence[Request]) -> AsyncIterator[Generation]:
        """As `Engine.generate`, within what is left; in waves, and later requests get what earlier ones left.

        Which request gets what depends on their order and on what came back, not on how many run at once. A cap that no
        longer fits is lowered to the largest that does; where none does, the generation says so.
        """
        waiting = deque(requests)
        while waiting:
            wave = self._wave(waiting)
            if not wave:
                request = waiting.popleft()
                reason = (
                    f"the total of {self.total:,} tokens is used up: {max(0, self.left):,} are left, and the smallest "
                    f"cap with its answer may take {self.menu.smallest + self.beside:,}"
                )
                yield failed(request, reason, is_final=True)
                continue
            most = {request.query.id: request.budget + self.beside for request in wave}
            self._note(_Wave(begin=most))
            counted, taken = _counted(engine), 0
            async for generation in engine.generate(wave):
                # What a failed one took, an engine that counts will say.
                taken += 0 if generation.is_failed else _taken(generation, most[generation.query_id])
                yield generation
            self._end(max(taken, _counted(engine) - counted))

    def _wave(self, waiting: deque[Request]) -> list[Request]:
        """Takes the longest beginning of `waiting` that fits; of a first one that does not, as much as does."""
        wave: list[Request] = []
        left = self.left
        while waiting and (most := waiting[0].budget + self.beside) <= left:
            left -= most
            wave.append(waiting.popleft())
        if not wave and (fitting := self.menu.floor(left - self.beside)) is not None:
            wave.append(replace(waiting.popleft(), budget=fitting))
        return wave

    def _end(self, taken: int) -> None:
        self._note(_Wave(end=taken))
        self.spent += taken

    def _note(self, line: _Wave) -> None:
        with appending(self.file) as lines:
            lines.append([line.to_json()])


def _taken(generation: Generation, most: int) -> int:
    """Tokens of a generation; the most that it may have taken where it failed, or was not counted."""
    outcome = generation.at(generation.budget)
    return most if outcome is None or outcome.tokens is None else outcome.tokens


def _counted(engine: Engine) -> int:
    """Tokens that the engine has seen generated so far, failed traces too; 0 where it does not count."""
    counted: dict[str, Any] = engine.counted() if isinstance(engine, CountingEngine) else {}
    return int(counted.get("trace_tokens", 0)) + int(counted.get("answer_tokens", 0))
