"""Requests in progress in an engine: their order, why one cannot run, and the results of those that do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappushpop
from itertools import count, islice
from statistics import fmean
from typing import TypeVar

from ..core.data import LAST_TOKENS, EngineInfo, Generation, Logprobs, Probe, Request, StopReason
from ..core.protocols import refuse_fields
from ..errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError
from .forcing import Forcing

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


def refusal(
    request: Request, *, prompt_tokens: int, suffix_tokens: int, answer_tokens: int, context_tokens: int | None
) -> str | None:
    """Why `request` cannot run, or None.

    Args:
        request: what was asked for.
        prompt_tokens: of its prompt.
        suffix_tokens: of the forced answer suffix.
        answer_tokens: most tokens of the answer.
        context_tokens: most tokens the engine can hold for one request; None where that is not known.
    """
    if request.budget < 0:
        return f"a budget cannot be negative; got {request.budget}"
    needed = prompt_tokens + request.budget + suffix_tokens + answer_tokens
    if context_tokens is not None and needed > context_tokens:
        return (
            f"the prompt has {prompt_tokens} tokens; with {request.budget} of reasoning and the answer it needs "
            f"{needed}, more than the context of {context_tokens}"
        )
    return None


def failed(request: Request, error: str, *, prompt_tokens: int = 0, is_final: bool = False) -> Generation:
    """The generation of a failed request: no text, no tokens generated, and the reason.

    `is_final`: it would fail again in the same way, so long as nothing is set otherwise.
    """
    return Generation(
        query_id=request.query.id,
        sample=request.sample,
        budget=request.budget,
        reasoning="",
        reasoning_tokens=0,
        answer="",
        answer_tokens=0,
        suffix_tokens=0,
        prompt_tokens=prompt_tokens,
        stop_reason=StopReason.ERROR,
        error=error,
        is_final=is_final,
        option=request.label,
    )


def check_layers(layers: Sequence[int], info: EngineInfo) -> tuple[int, int]:
    """`(layers, width)` of the model; raises InvalidFeaturesError for a layer that it does not have."""
    assert info.num_layers is not None
    assert info.hidden_size is not None
    if outside := [layer for layer in layers if not 0 <= layer <= info.num_layers]:
        raise InvalidFeaturesError(f"no layer {outside[0]}; {info.model} has the layers 0 to {info.num_layers}")
    return info.num_layers, info.hidden_size


@dataclass(slots=True, eq=False)
class Flight:
    """A request in progress.

    Attributes:
        request: what was asked for.
        prompt_ids: token ids of its whole prompt.
        thought_ids: token ids of its thought, once that has ended.
        natural: whether the model ended the thought by itself.
        cuts: numbers of thought tokens after which an answer is forced, ascending; the last is the whole thought.
        answers: cut -> text of the answer, its tokens.
        begun: cut -> token ids of an answer that is not complete yet.
        is_capped: the engine's library ends its thought, and answers it in the same go.
        thought_logprobs: log-probability of each token of the thought; empty where the engine does not show them.
        answer_logprobs: cut -> log-probability of each token of its answer.
    """

    request: Request
    prompt_ids: list[int]
    thought_ids: list[int] = field(default_factory=list)
    natural: bool = False
    cuts: tuple[int, ...] = ()
    answers: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    begun: dict[int, list[int]] = field(default_factory=dict)
    is_capped: bool = False
    thought_logprobs: list[float] = field(default_factory=list)
    answer_logprobs: dict[int, list[float]] = field(default_factory=dict)

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
            probes=tuple(Probe(cut, *self.answers[cut], logprobs=self._logprobs(cut)) for cut in self.cuts[:-1]),
            option=self.request.label,
            logprobs=self._logprobs(length),
        )

    def _logprobs(self, cut: int) -> Logprobs | None:
        """How likely the model found its answer at `cut`, and the end of the thought before it."""
        if not (answer := self.answer_logprobs.get(cut)):
            return None
        thought = self.thought_logprobs[max(0, cut - LAST_TOKENS) : cut]
        return Logprobs(mean_logprob(answer), mean_logprob(thought) if thought else None)

    def failed(self, error: str, *, is_final: bool = False) -> Generation:
        """The request failed with `error`; see `failed`."""
        return failed(self.request, error, prompt_tokens=len(self.prompt_ids), is_final=is_final)


def mean_logprob(logprobs: Sequence[float]) -> float:
    """Their mean, as records keep it."""
    return round(fmean(logprobs), 4)


F = TypeVar("F", bound=Flight)


def begin(make: Callable[[Request, list[int]], F], request: Request, forcing: Forcing, context: int) -> F | Generation:
    """The flight of `request`, or the failure of one that does not fit the context."""
    try:
        if request.option is not None:
            refuse_fields(request.option)
        flight = make(request, forcing.prompt_ids(request.query))
    except (InvalidInputError, InvalidSettingsError) as error:
        return failed(request, str(error), is_final=True)
    reason = refusal(
        request,
        prompt_tokens=len(flight.prompt_ids),
        suffix_tokens=len(forcing.suffix_ids),
        answer_tokens=forcing.template.max_answer_tokens,
        context_tokens=context,
    )
    return flight if reason is None else flight.failed(reason, is_final=True)
