"""An engine under test: its requests and results, for the contract tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from unittest import SkipTest

from ..core.data import FloatArray, Generation, Query, Request
from ..core.prompts import PromptTemplate
from ..core.protocols import Engine, HiddenStateEngine
from .checking import expect

BUDGET = 32
PROBES = (0, 8, 16, 24)
NUM_SAMPLES = 2
MOST_AHEAD = 512  # requests that an engine may read before it has answered those before them
CONTEXT_TOKENS = 256
QUERIES = tuple(Query(id=f"sum-{n}", prompt=f"{n}+{2 * n}={n}+a?", reference=str(3 * n)) for n in (1, 12, 7))
TOO_LONG = Query(id="too-long", prompt="1+1 " * 400, reference="2")
TEMPLATE = PromptTemplate(
    name="contract",
    reasoning_end="##",
    answer_suffix="\n##{",
    answer_stop="}",
    max_answer_tokens=6,
    shots=(("1+1?", "1+1=2\n##{2}"),),
)

Traces = dict[tuple[str, int], Generation]


@dataclass
class Subject:
    """An engine under test, opened with `TEMPLATE` and a context (`CONTEXT_TOKENS`) that `TOO_LONG` does not fit in.

    Attributes:
        engine: the engine.
        name: what its `info` calls it.
        layers: layers whose hidden states it can give; empty for none.
        draws: whether another seed can give another trace.
        num_engines: behind it, each of which may read as far ahead as one.
    """

    engine: Engine
    name: str
    layers: tuple[int, ...] = ()
    draws: bool = True
    num_engines: int = 1

    @cached_property
    def traces(self) -> Traces:
        """One plain run that most tests look at."""
        return run(self.engine, requests())


def requests(
    queries: Sequence[Query] = QUERIES,
    *,
    budget: int = BUDGET,
    probes: tuple[int, ...] = PROBES,
    seed: int = 0,
    samples: Iterable[int] = range(NUM_SAMPLES),
) -> list[Request]:
    """The requests of the tests, every query as often as there are samples."""
    return [
        Request(query, budget, sample, seed + 1000 * number + sample, probes)
        for number, query in enumerate(queries)
        for sample in samples
    ]


async def collect(engine: Engine, asked: Iterable[Request]) -> Traces:
    """Every generation by query and sample; an engine that gives one twice fails here."""
    found: Traces = {}
    async for generation in engine.generate(asked):
        key = (generation.query_id, generation.sample)
        expect(key not in found, f"{key} came back twice")
        found[key] = generation
    return found


def run(engine: Engine, asked: Iterable[Request]) -> Traces:
    """The same, for code that is not a coroutine."""
    return asyncio.run(collect(engine, asked))


def same(found: object, wanted: object, reason: str) -> None:
    """Raises AssertionError with the reason and both unless they are equal."""
    expect(found == wanted, f"{reason}: {found!r:.200} is not {wanted!r:.200}")


def reader(subject: Subject) -> HiddenStateEngine:
    """The subject's engine; skips a test where it gives no hidden states."""
    if not subject.layers or not isinstance(subject.engine, HiddenStateEngine):
        raise SkipTest("this engine gives no hidden states")
    return subject.engine


def hidden(subject: Subject, queries: Sequence[Query]) -> FloatArray:
    """Hidden states of the subject's layers; skips a test where it gives none."""
    return reader(subject).hidden_states(queries, subject.layers)
