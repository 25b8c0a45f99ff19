"""A hard total: traces start only while the most tokens they may take fit into the rest of it.

RUN/pool.jsonl has a line before each wave of traces, with the most tokens of each, and one after it, with the tokens
used. A wave interrupted by a kill is charged with the tokens of its records, and in full for traces without a record.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.codec import UnfitError, decode, encode
from ..core.data import Cost, Generation, Request
from ..core.menu import Menu
from ..core.options import Option
from ..core.prompts import PromptTemplate
from ..core.protocols import CountingEngine, Engine
from ..core.provenance import UNKNOWN, Provenance
from ..core.records import Record
from ..core.terms import WARNED_AT, HardCap, percent
from ..engines.flight import failed
from ..engines.lengths import upper_bound
from ..errors import InvalidSettingsError
from ..runs.lines import appending, read_lines
from ..runs.store import RunDirectory
from .billing import UNPRICED, Prices
from .keeping import generated

MOST_LOST = 2  # times that a trace is started again after its process died
LENGTHS = ("max_completion_tokens", "max_tokens")  # fields of a request that bound all tokens of an answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wave:
    """One line of pool.jsonl: what each trace of a wave may take, by `_key`, or what all of them took."""

    begin: Mapping[str, float] | None = None
    end: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"end": self.end} if self.begin is None else {"begin": encode(self.begin)}

    @classmethod
    def from_json(cls, value: Any) -> _Wave:
        found = decode(cls, value)
        if (found.begin is None) == (found.end is None):
            raise UnfitError("it must hold 'begin' or 'end'")
        return found


@dataclass(slots=True, kw_only=True)
class Pool:
    """What is left of a hard cap, for one run.

    Attributes:
        file: keeps what was charged.
        cap: what may be generated, thoughts, suffixes and answers; or what that, with the prompts, may cost.
        beside: tokens that an answer and its suffix may take beside a cap.
        menu: the caps there are; of named options, whose caps are not lowered, those that they name.
        is_named: whether options have names.
        name: what the cap is called in messages.
        made: how the run is measured.
        template: the text around a query; None where tokens are counted.
        prices: of tokens by options without a price.
        spent: charged so far, counted as the cap is.
    """

    file: Path
    cap: HardCap
    beside: int
    menu: Menu
    is_named: bool = False
    name: str = "hard cap"
    made: Provenance = UNKNOWN
    template: PromptTemplate | None = None
    prices: Prices = UNPRICED
    spent: float = 0
    _has_warned: bool = False

    @classmethod
    def open(cls, run: RunDirectory, *, cap: HardCap, beside: int, menu: Menu, **more: Any) -> Pool:
        """The pool of a run, as it was left; the run's lock must be held. `more` are further attributes.

        A run that began without a cap, or went on without one, is charged with what its records took.
        """
        file = run.path / "pool.jsonl"
        spent, begun = 0.0, None
        for line in read_lines(file, _Wave.from_json):
            begun, spent = line.begin, spent + (line.end or 0)
        pool = cls(file=file, cap=cap, beside=beside, menu=menu, spent=spent, made=run.header.provenance, **more)
        if begun is not None:
            recorded = {_key(each.query_id, each.sample, each.option): each for each in run.latest()}
            done = {key: record for key, record in recorded.items() if key in begun}
            pool._end(sum(pool._taken(done[key], most) if key in done else most for key, most in begun.items()))
        used = sum(pool._taken(record, 0) for record in run.records() if not record.is_failed)
        if used > pool.spent * (1 + 1e-9):
            pool._end(used - pool.spent)
        return pool

    @property
    def left(self) -> float:
        """What may still be taken."""
        return self.cap.amount - self.spent

    def most(self, request: Request) -> float:
        """What a trace may take at most; raises InvalidSettingsError where it has no price and money is counted."""
        num_answers = 1 + len(request.probe_budgets)
        tokens = request.budget + num_answers * self.beside
        option = request.option
        if option is not None:  # what an option sets stands in the request as it is
            tokens = next((n for name in LENGTHS if type(n := option.set.get(name)) is int), tokens)
        if self.cap.cost is not Cost.USD:
            return tokens
        assert self.template is not None
        prompt = upper_bound(self.template, [request.query], 0)
        if self.made.sends_twice(request.label):
            prompt += num_answers * (prompt + request.budget)
        return self._usd(option, prompt, tokens)

    def _usd(self, option: Option | None, prompt_tokens: int, tokens: int) -> float:
        if option is not None and option.price is not None:
            return float(option.price.usd(prompt_tokens, tokens))
        found = self.prices.usd(prompt_tokens, tokens)
        if found is None:
            raise InvalidSettingsError(
                "--hard-cap in money needs prices: --price-in and --price-out, or a menu whose options have them"
            )
        return found

    async def generate(self, engine: Engine, requests: Sequence[Request]) -> AsyncIterator[Generation]:
        """As `Engine.generate`, within what is left; in waves, and later requests get what earlier ones left.

        Which request gets what depends on their order and on what came back, not on how many run at once. A cap that no
        longer fits is lowered to the largest that does; where none does, the generation says so.
        """
        waiting, lost_of = deque(requests), Counter[str]()
        while waiting:
            wave = self._wave(waiting)
            if not wave:
                request = waiting.popleft()
                least = request if self.is_named else replace(request, budget=self.menu.smallest)
                amount = self.cap.cost.amount
                what = "its answer" if self.is_named else "the smallest cap with its answer"
                reason = (
                    f"the {self.name} of {self.cap} is used up: {amount(max(0, self.left))} are left, and {what} may "
                    f"take {amount(self.most(least))}"
                )
                yield failed(request, reason, is_final=True)
                continue
            most = {_key(request.query.id, request.sample, request.label): self.most(request) for request in wave}
            self._note(_Wave(begin=most))
            counted, taken, tokens, failures = _counted(engine), 0.0, 0, list[Request]()
            request_of = {_key(request.query.id, request.sample, request.label): request for request in wave}
            async for generation in generated(engine, wave):
                key = _key(generation.query_id, generation.sample, generation.option)
                request = request_of[key]
                if generation.is_failed and not generation.is_counted:  # lost with its process, and all that it took
                    taken += most[key]
                    if lost_of[key] < MOST_LOST:
                        lost_of[key] += 1
                        waiting.append(request)
                        continue
                elif generation.is_failed:  # what it took, an engine that counts will say
                    failures.append(request)
                else:
                    taken += self._taken(generation, most[key], request.option)
                    tokens += _tokens(generation, request.budget + self.beside)
                self._warn(self.spent + taken)
                yield generation
            lost = max(0, _counted(engine) - counted - tokens)
            if lost and self.cap.cost is Cost.USD:
                taken += sum(map(self.most, failures)) or self._usd(wave[0].option, 0, lost)
            elif lost:
                taken += lost
            self._end(taken)

    def _wave(self, waiting: deque[Request]) -> list[Request]:
        """Takes the longest beginning of `waiting` that fits; of a first one that does not, as much as does."""
        wave: list[Request] = []
        left = self.left
        while waiting and (most := self.most(waiting[0])) <= left:
            left -= most
            wave.append(waiting.popleft())
        if not wave and not self.is_named:
            fitting = [cap for cap in self.menu.caps if self.most(replace(waiting[0], budget=cap)) <= left]
            if fitting:
                wave.append(replace(waiting.popleft(), budget=fitting[-1]))
        return wave

    def _taken(self, generation: Generation, most: float, option: Option | None = None) -> float:
        """What a generation took; the most that it may have taken where it failed, or was not counted."""
        if self.cap.cost is not Cost.USD:
            return float(_tokens(generation, most))
        if generation.is_failed or not generation.is_counted:
            return most
        record = generation if isinstance(generation, Record) else Record.of(generation)
        option = option or self.made.option(generation.option)
        return self._usd(option, *record.billed(is_two_calls=self.made.sends_twice(generation.option)))

    def _warn(self, taken: float) -> None:
        if taken >= WARNED_AT * self.cap.amount and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "note: %s of the %s of %s are spent (%s)",
                self.cap.cost.amount(taken),
                self.name,
                self.cap,
                percent(taken / self.cap.amount, 0),
            )

    def _end(self, taken: float) -> None:
        self._note(_Wave(end=taken))
        self.spent += taken

    def _note(self, line: _Wave) -> None:
        with appending(self.file) as lines:
            lines.append([line.to_json()])


def _key(query_id: str, sample: int, option: str) -> str:
    """What a trace goes by in a wave: its query alone where it has one trace, by a plain cap."""
    return json.dumps([query_id, sample, option]) if sample or option else query_id


def _tokens(generation: Generation, most: Any) -> Any:
    """Tokens of a generation; the most that it may have taken where it failed, or was not counted."""
    outcome = generation.at(generation.budget)
    if outcome is None or outcome.tokens is None:
        return most
    answers = [probe.answer_tokens for probe in generation.probes]
    beside = sum(generation.suffix_tokens + each for each in answers if each is not None)
    return most if None in answers else outcome.tokens + beside


def _counted(engine: Engine) -> int:
    """Tokens that the engine has seen generated so far, failed traces too; 0 where it does not count."""
    counted: dict[str, Any] = engine.counted() if isinstance(engine, CountingEngine) else {}
    return sum(int(counted.get(name, 0)) for name in ("trace_tokens", "answer_tokens", "discarded_tokens"))
