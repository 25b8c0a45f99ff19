"""The requests of one `generate` call as one continuous batch: when a row ends, the next request takes its slot."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch

from ..core.data import Generation, Request, Sampling
from .attention import Slots, Span
from .decoding import Decoder, common_length
from .drawing import draw, noise
from .flight import Flight, begin, ordered
from .forcing import Forcing

RESERVED_TOKENS = 512  # of a thought, for which memory is taken before it is written


@dataclass(slots=True, eq=False)
class _Flight(Flight):
    """A request in this batch.

    Attributes:
        shared: tokens of its prompt that lie in the shared prefix; the rest are its own.
        pending: cuts not begun, ascending.
        has_failed: it has been given back with an error; what is left of its rows is to be freed.
    """

    shared: int = 0
    pending: list[int] = field(default_factory=list)
    has_failed: bool = False

    @property
    def own_prompt_ids(self) -> list[int]:
        return self.prompt_ids[self.shared :]


@dataclass(slots=True, eq=False)
class _Row:
    """One row of the batch: a trace (`cut` is None) or the answer at a cut. Row i lives in slot i.

    Attributes:
        ids: own tokens, fed or not: prompt, thought, suffix, decoded.
        num_cached: how many of them have keys and values in the row's slot.
        start: where what this row decodes begins.
    """

    flight: _Flight
    cut: int | None
    ids: list[int]
    num_cached: int
    start: int

    @property
    def decoded(self) -> list[int]:
        return self.ids[self.start :]


class Batch:
    """Decodes requests together, each row one token per step; they are taken as rows become free.

    `stop_ids` end the model's turn, `num_sequences` is the most rows at once, `logprobs` whether generations show how
    likely the model found their tokens.
    """

    def __init__(
        self,
        decoder: Decoder,
        forcing: Forcing,
        requests: Iterable[Request],
        *,
        sampling: Sampling,
        stop_ids: Collection[int],
        num_sequences: int,
        context_tokens: int,
        logprobs: bool = False,
    ) -> None:
        self.decoder, self.forcing, self.sampling = decoder, forcing, sampling
        self.stop_ids, self.num_sequences, self.context_tokens = stop_ids, num_sequences, context_tokens
        self.shows_logprobs = logprobs
        # The longest first, so that the batch stays full to the end; samples of one query stay together.
        self.waiting = ordered(requests, lambda request: -request.budget)
        self.is_exhausted = False
        self.rows: list[_Row] = []
        self.slots: Slots | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self.rows) or not self.is_exhausted

    def step(self) -> list[Generation]:
        """Fills free slots, gives every row one more token, and returns what has finished."""
        self._fork()
        finished = self._admit()
        if self.rows:
            assert self.slots is not None
            spans = [
                Span(slot, row.flight.shared, row.num_cached, row.ids[row.num_cached :])
                for slot, row in enumerate(self.rows)
            ]
            logits_R_V = self.decoder.run(self.slots, spans)
            tokens, is_finite = self._choose(logits_R_V)
            if self.shows_logprobs:
                self._note_logprobs(logits_R_V, tokens)
            for slot in reversed(range(len(self.rows))):  # backwards, so that a row moved into a gap is done already
                finished += self._advance(slot, tokens[slot], is_finite[slot])
        return finished

    def _fork(self) -> None:
        """Spreads the cuts of finished traces over free slots, each with its own copy of the trace's keys."""
        for slot, row in enumerate(tuple(self.rows)):
            while row.flight.pending and len(self.rows) < self.num_sequences:
                assert self.slots is not None
                fork = self._answer_row(row)
                self.slots.reserve(len(fork.ids), self._num_slots(len(self.rows) + 1))
                self.slots.copy(slot, len(self.rows), fork.num_cached)
                self.rows.append(fork)

    def _admit(self) -> list[Generation]:
        """Starts traces in the free slots; returns the requests that cannot run."""
        refused: list[Generation] = []
        fresh: list[_Flight] = []
        while len(self.rows) + len(fresh) < self.num_sequences:
            request = next(self.waiting, None)
            if request is None:
                self.is_exhausted = True
                break
            flight = begin(_Flight, request, self.forcing, self.context_tokens)
            if isinstance(flight, Generation):
                refused.append(flight)
            else:
                fresh.append(flight)
        kvs = self.decoder.read([flight.prompt_ids for flight in fresh])
        for flight, kv in zip(fresh, kvs, strict=True):
            flight.shared = self.decoder.num_shared(flight.prompt_ids)
            ids = flight.own_prompt_ids
            # The last prompt token is fed again: what comes after it is then an ordinary decoding step.
            row = _Row(flight, None, ids, num_cached=len(ids) - 1, start=len(ids))
            self._slots_for(row, len(self.rows) + len(fresh)).load(len(self.rows), kv)
            self.rows.append(self._end_trace(row, 0, natural=False) if flight.request.budget == 0 else row)
        return refused

    def _slots_for(self, row: _Row, num_rows: int) -> Slots:
        """The slots, with room for `num_rows` rows and what `row` and its answers become; long thoughts make their own.

        A thought may end long before its cap: what it does not write takes no memory.
        """
        suffix = len(self.forcing.suffix_ids) + self.forcing.template.max_answer_tokens
        capacity = row.start + min(row.flight.request.budget, RESERVED_TOKENS) + suffix
        if self.slots is None:
            self.slots = self.decoder.new_slots(self._num_slots(num_rows), capacity)
        self.slots.reserve(capacity, self._num_slots(num_rows))
        return self.slots

    def _num_slots(self, num_rows: int) -> int:
        """Slots to have for `num_rows` rows: the next power of two, so that they seldom grow."""
        return min(self.num_sequences, 1 << (num_rows - 1).bit_length())

    def _choose(self, logits_R_V: torch.Tensor) -> tuple[list[int], list[bool]]:
        """The next token of every row (drawn for traces, the likeliest for answers), and whether it can be trusted."""
        highest_R, token_R = logits_R_V.max(dim=-1)
        is_finite_R = torch.isfinite(highest_R)  # a NaN anywhere in the row is its maximum
        drawn = [
            slot
            for slot, (row, is_finite) in enumerate(zip(self.rows, is_finite_R.tolist(), strict=True))
            if row.cut is None and is_finite and self.sampling.temperature > 0
        ]
        if drawn:
            uniform = [noise(row.flight.request, len(row.ids) - row.start) for row in map(self.rows.__getitem__, drawn)]
            token_R[drawn] = draw(
                logits_R_V if len(drawn) == len(self.rows) else logits_R_V[drawn],
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                uniform_R=torch.tensor(uniform, device=logits_R_V.device),
            )
        return token_R.tolist(), is_finite_R.tolist()

    def _note_logprobs(self, logits_R_V: torch.Tensor, tokens: list[int]) -> None:
        """Keeps the log-probability of every row's next token, before temperature and top-p."""
        chosen_R_1 = logits_R_V.gather(1, torch.tensor(tokens, device=logits_R_V.device)[:, None])
        logprob_R = (chosen_R_1[:, 0].float() - logits_R_V.float().logsumexp(dim=-1)).tolist()
        for row, logprob in zip(self.rows, logprob_R, strict=True):
            flight = row.flight
            found = flight.thought_logprobs if row.cut is None else flight.answer_logprobs.setdefault(row.cut, [])
            found.append(min(0.0, logprob))

    def _advance(self, slot: int, token: int, is_finite: bool) -> list[Generation]:
        """Gives the row in `slot` its next token, and on its end takes it to the next cut or frees the slot."""
        row = self.rows[slot]
        flight = row.flight
        if flight.has_failed:  # another row of the same request failed, in this step or the last
            self._free(slot)
            return []
        if not is_finite:
            flight.has_failed = True
            flight.pending.clear()
            self._free(slot)
            return [flight.failed("the model gave scores that are not finite numbers; try dtype float32")]
        row.num_cached = len(row.ids)
        row.ids.append(token)
        if row.cut is None:
            end = self._trace_end(row)
            if end is not None:
                self.rows[slot] = self._end_trace(row, *end)
            return []
        if not self._is_answered(row):
            return []
        flight.answers[row.cut] = (self.forcing.clean_answer(self.forcing.decode(row.decoded)), len(row.decoded))
        if flight.pending:
            self.rows[slot] = self._answer_row(row)
        else:
            self._free(slot)
        return [flight.finished(self.forcing)] if flight.is_answered else []

    def _trace_end(self, row: _Row) -> tuple[int, bool] | None:
        """`(tokens of thought, by itself)` when the thought of `row` has ended; None when it goes on."""
        decoded = row.decoded
        if decoded[-1] in self.stop_ids:
            return len(decoded) - 1, True
        length = self.forcing.reasoning_length(decoded) if self.forcing.has_ended(decoded) else None
        if length is not None:
            return length, True
        return (len(decoded), False) if len(decoded) == row.flight.request.budget else None

    def _end_trace(self, row: _Row, length: int, natural: bool) -> _Row:
        """Fixes the thought of `row` and its cuts; the row that answers at the last cut, in the same slot."""
        row.flight.end_thought(row.decoded[:length], natural=natural)
        row.flight.pending = list(row.flight.cuts)
        return self._answer_row(row)

    def _answer_row(self, row: _Row) -> _Row:
        """The row for the largest cut that is still pending; keeps what `row` has cached as far as the tokens agree."""
        flight = row.flight
        cut = flight.pending.pop()
        ids = flight.own_prompt_ids + self.forcing.closed(flight.thought_ids[:cut])
        num_cached = min(row.num_cached, common_length(ids, row.ids), len(ids) - 1)
        return _Row(flight, cut, ids, num_cached, start=len(ids))

    def _is_answered(self, row: _Row) -> bool:
        template = self.forcing.template
        return (
            len(row.decoded) >= template.max_answer_tokens
            or row.decoded[-1] in self.stop_ids
            or self.forcing.has_answered(row.decoded)
        )

    def _free(self, slot: int) -> None:
        """Ends the row in `slot`; the last row moves there, so that the rows stay dense."""
        assert self.slots is not None
        if self.rows[slot].flight.has_failed:
            self.slots.clear(slot)
        last = self.rows.pop()
        if slot < len(self.rows):
            self.slots.copy(len(self.rows), slot, last.num_cached)
            self.rows[slot] = last
