"""The extension story on one screen: four protocols, each with a contract test that runs on third-party classes too.

Register a class under an entry-point group (`forethought.engines`, `.predictors`, `.allocators`, `.graders`) and it is
found by name; the built-ins come in by the same door (`registry.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from .data import EngineInfo, FloatArray, Generation, Grade, IntArray, Query, Request

if TYPE_CHECKING:
    from ..allocators.problem import Problem, Solution
    from .prompts import PromptTemplate


@runtime_checkable
class Engine(Protocol):
    """Runs a model: samples traces under a cap, forces answers."""

    @property
    def info(self) -> EngineInfo:
        """What this engine runs; cheap, no generation."""
        ...

    def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """One `Generation` for each request, as they finish, in any order.

        Requests are taken as there is room for them: an iterator is read a bounded number ahead of what was given back.
        Never more reasoning tokens than `request.budget`. What goes wrong with one request comes back as a
        `Generation` with `stop_reason` ERROR; only the death of the whole engine raises (EngineError).
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds; safe to call twice."""
        ...


@runtime_checkable
class HiddenStateEngine(Engine, Protocol):
    """An engine that can show what the model thinks of a prompt before it answers."""

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """Residual stream at the last prompt token, shape (Q, L, D), float32.

        Layer k is the stream after k decoder layers (0: embeddings; the last one is before the final norm).
        A query whose prompt cannot be run (too long) has a row of NaN.
        """
        ...


@runtime_checkable
class PooledStateEngine(HiddenStateEngine, Protocol):
    """An engine that also shows the mean over a query's tokens, for the study of layers."""

    def pooled_states(self, queries: Sequence[Query], layers: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """`(last, mean)`, shape (Q, L, D) each: `hidden_states`, and the mean over the query's own tokens.

        Own are the prompt's tokens behind what every prompt of the template begins with (its worked examples).
        """
        ...


@runtime_checkable
class TemplateEngine(Engine, Protocol):
    """An engine that can ask its model with another prompt template."""

    def with_template(self, template: PromptTemplate) -> Engine:
        """The same loaded model behind another template. It shares what is loaded; closing either frees it."""
        ...


@runtime_checkable
class CountingEngine(Engine, Protocol):
    """An engine that counts what it meets on the way, for the summary of a run."""

    def counted(self) -> dict[str, Any]:
        """Counts since it was opened, JSON-able: numbers by name, or one level of objects of such."""
        ...


@runtime_checkable
class Estimator(Protocol):
    """Features of a query -> success curve and spend curve, before any generation.

    A class attribute `reads` names what it reads, among "hidden", "text" and "difficulty"; without it, hidden states.
    One that reads hidden states alone (or nothing) is given their matrix; one that reads anything else is given a
    `forethought.core.features.Features` in its place.
    """

    def fit(
        self,
        features_Q_D: FloatArray,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """Learns from counts (and, when given, mean tokens used). Returns self; learned attributes end in `_`."""
        ...

    def predict(self, features_Q_D: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """`(p_Q_B, tokens_Q_B)`: p in [0, 1]; tokens non-decreasing in B, None when fitted without."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Everything learned: JSON-able settings and named arrays. `from_state` of the same class takes them back."""
        ...

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """The fitted predictor that `state` described."""
        ...


@runtime_checkable
class Allocator(Protocol):
    """Curves + a total -> one option per query. `forethought.allocators.allocate` does what is around it."""

    def solve(self, problem: Problem) -> Solution:
        """One column a query between `first_Q` and `last_Q`, of `cost_Q_B` within `units` in all.

        Deterministic; the order of the queries does not matter (ties go by `problem.tie_order`); a larger total never
        expects less. The smallest columns always fit.
        """
        ...


@runtime_checkable
class Grader(Protocol):
    """Answer + reference -> right, wrong or unreadable.

    An attribute `version` (a short text) names its rules; it changes whenever a verdict can change, so that records
    say by which rules they were judged.
    """

    version: str

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Judges one answer; never raises on odd text."""
        ...
