"""Requests on their way through an engine: which comes next; then its trace, and an answer for each cut of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappushpop
from itertools import count, islice

from ..core.data import Generation, Probe, Request, StopReason
from .forcing import Forcing
from .refusing import failed

AHEAD = 256  # requests that are read before their turn, where they are put into an order


def ordered(requests: Iterable[Request], key: Callable[[Request], int], ahead: int = AHEAD) -> Iterator[Request]:
    """The requests, of the next `ahead` always the one with the smallest key first; no more are read than that."""
    numbered = ((key(request), number, request) for number, request in zip(count(), requests, strict=False))
    held = list(islice(numbered, ahead))
    heapify(held)
    for entry in numbered:
        yield heappushpop(held, entry)[2]
    while held:
        yield heappop(held)[2]


@dataclass(slots=True, eq=False)
class Flight:
    """A request under way.

    Attributes:
        request: what was asked for.
        prompt_ids: token ids of its whole prompt.
        thought_ids: token ids of its thought, once that has ended.
        natural: whether the model ended the thought by itself.
        cuts: numbers of thought tokens after which an answer is forced, ascending; the last is the whole thought.
        answers: cut -> text of the answer, its tokens.
        begun: cut -> token ids of an answer that is not complete yet.
    """

    request: Request
    prompt_ids: list[int]
    thought_ids: list[int] = field(default_factory=list)
    natural: bool = False
    cuts: tuple[int, ...] = ()
    answers: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    begun: dict[int, list[int]] = field(default_factory=dict)

    def end_thought(self, thought_ids: Sequence[int], *, natural: bool) -> None:
        """Fixes the thought and with it the cuts: the probes below its end, and its end."""
        self.thought_ids, self.natural = list(thought_ids), natural
        length = len(self.thought_ids)
        self.cuts = (*sorted({cut for cut in self.request.probe_budgets if 0 <= cut < length}), length)

    @property
    def is_answered(self) -> bool:
        """Whether every cut has its answer."""
        return bool(self.cuts) and len(self.answers) == len(self.cuts)

    def finished(self, forcing: Forcing) -> Generation:
        """What came of the request, when every cut has its answer."""
        length = len(self.thought_ids)
        answer, answer_tokens = self.answers[length]
        return Generation(
            query_id=self.request.query.id,
            sample=self.request.sample,
            budget=self.request.budget,
            reasoning=forcing.decode(self.thought_ids),
            reasoning_tokens=length,
            answer=answer,
            answer_tokens=answer_tokens,
            suffix_tokens=len(forcing.suffix_ids),
            prompt_tokens=len(self.prompt_ids),
            stop_reason=StopReason.NATURAL if self.natural else StopReason.BUDGET,
            probes=tuple(Probe(cut, *self.answers[cut]) for cut in self.cuts[:-1]),
        )

    def failed(self, error: str, *, is_final: bool = False) -> Generation:
        """The request came to nothing, because of `error`; see `refusing.failed`."""
        return failed(self.request, error, prompt_tokens=len(self.prompt_ids), is_final=is_final)
