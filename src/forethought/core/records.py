"""Records: one trace as stored on disk, and its outcome under any cap."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

from .codec import UnfitError, decode, fields_to_json
from .data import Generation, Probe, StopReason

MOST_SAMPLES = 1 << 16  # of one query


@dataclass(frozen=True, slots=True)
class Record(Generation):
    """A generation as stored on disk: graded, and if it failed, with the setup under which it was tried.

    Attributes:
        setup: what a failed one was tried under, see `control.profiling.setup_of`; empty for others.
    """

    setup: str = ""

    @classmethod
    def of(cls, generation: Generation, *, setup: str = "") -> Self:
        """The record of a generation that is not graded yet; `setup` is stored if it failed.

        One of more reasoning tokens than its budget has failed, whatever its engine says of it.
        """
        if not generation.is_failed and (length := generation.reasoning_tokens or 0) > generation.budget:
            error = f"the engine ignored the cap: {length} reasoning tokens > {generation.budget}"
            generation = replace(
                generation,
                reasoning="",
                reasoning_tokens=0,
                answer="",
                answer_tokens=0,
                suffix_tokens=0,
                stop_reason=StopReason.ERROR,
                probes=(),
                error=error,
                is_final=True,
            )
        values = {field.name: getattr(generation, field.name) for field in fields(Generation)}
        return cls(**values, setup=setup if generation.is_failed else "")

    def billed(self, *, is_two_calls: bool) -> tuple[int, int]:
        """`(prompt tokens sent, tokens generated)`; 0 where it failed or was not counted.

        Args:
            is_two_calls: whether a server was asked anew for every forced answer, with the thought so far.
        """
        length, answers_N = self.reasoning_tokens, [probe.answer_tokens or 0 for probe in self.probes]
        is_counted = self.is_counted and all(probe.answer_tokens is not None for probe in self.probes)
        if self.is_failed or length is None or not is_counted:
            return 0, 0
        cuts = [*(probe.budget for probe in self.probes), length]
        generated = length + sum(answers_N) + (self.answer_tokens or 0)
        if not is_two_calls:
            return self.prompt_tokens, generated + len(cuts) * self.suffix_tokens
        again = len(cuts) * (self.prompt_tokens + self.suffix_tokens)
        return self.prompt_tokens + sum(cuts) + again, generated

    @property
    def generation(self) -> Generation:
        """What the engine gave, without verdicts."""
        values = {field.name: getattr(self, field.name) for field in fields(Generation)}
        probes = tuple(replace(probe, grade=None) for probe in self.probes)
        return Generation(**{**values, "probes": probes, "grade": None})

    def to_json(self) -> dict[str, Any]:
        """One line of a shard, as an object."""
        rare = [name for name in ("is_final", "setup", "option", "logprobs") if not getattr(self, name)]
        return fields_to_json(self, without=rare)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The record that `to_json` wrote; unknown keys are left aside. Raises UnfitError on what no record can be."""
        made = decode(cls, value, lenient=(cls, Probe))
        if made.sample >= MOST_SAMPLES:
            raise UnfitError(f"must be below {MOST_SAMPLES:,}, not {made.sample:,}", "sample")
        if made.is_failed and not made.error:
            raise UnfitError("it failed, and 'error' does not say why")
        if made.grade is not None and any(probe.grade is None for probe in made.probes):
            raise UnfitError("a probe was not graded, although its trace was")
        return made


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the model said of how hard a question is, as one line of a run of kind "asked".

    Attributes:
        level: "easy", "medium", "hard", or None for anything else.
        text: what it said.
        tokens: that this took, prompt included.
        error: why it could not be asked.
    """

    query_id: str
    sample: int
    level: str | None
    text: str
    tokens: int
    error: str | None

    @property
    def is_failed(self) -> bool:
        """Whether it could not be asked."""
        return self.error is not None

    def to_json(self) -> dict[str, Any]:
        """One line of a shard, as an object."""
        return fields_to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` wrote; raises UnfitError."""
        return decode(cls, value, lenient=(cls,))
