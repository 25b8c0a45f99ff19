"""The extension points: protocols with a contract test each, which also runs on third-party classes.

A class registered under an entry-point group (`forethought.engines`, `.predictors`, `.allocators`, `.graders`) is found
by name; built-in classes are registered in the same way (`registry.py`). The fourth, `Allocator`, is beside the
problem that it solves (`allocators/problem.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from ..errors import InvalidInputError, InvalidSettingsError
from .data import EngineInfo, FloatArray, Generation, Grade, Query, Request
from .features import HIDDEN, Counts, Features, HeldOut
from .menu import Menu
from .options import Option
from .problems import excerpt

if TYPE_CHECKING:
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
class OptionEngine(Engine, Protocol):
    """An engine whose requests can set more than a cap: an effort level, a model, any field; see `check_option`.

    An engine without this takes options that name a cap and nothing else, as if they were that cap.
    """

    def check_option(self, option: Option) -> None:
        """Raises InvalidSettingsError for an option that the engine cannot use."""
        ...


def check_engine(engine: object) -> None:
    """Raises InvalidInputError on what is no open engine."""
    if not isinstance(engine, Engine):
        raise InvalidInputError(
            f"the engine must be an open engine, not {excerpt(engine)}; open one: open_engine(MODEL)"
        )


def check_option(engine: Engine, option: Option) -> None:
    """Refuses, before a token is paid, an option that `engine` cannot be asked by; raises InvalidSettingsError."""
    if isinstance(engine, OptionEngine):
        engine.check_option(option)
        return
    try:
        refuse_fields(option)
    except InvalidSettingsError as error:
        raise InvalidSettingsError(f"{error} (engine {engine.info.engine!r})") from error


def check_menu(engine: Engine, menu: Menu) -> None:
    """The same for every named option of a menu; also refuses two options that ask for the same.

    Raises:
        InvalidSettingsError: naming the option.
    """
    for number, option in enumerate(menu.options):
        check_option(engine, option)
        for other in menu.options[:number]:
            if option.asks == other.asks:
                what = "set nothing" if not option.set and option.cap is None else "ask for the same"
                raise InvalidSettingsError(
                    f"the options {other.label!r} and {option.label!r} {what}: define each by set = {{ … }} or "
                    "cap = N in a menu file (--menu FILE)"
                )


def refuse_fields(option: Option) -> None:
    """Refuses an option that names more than a cap, or none; raises InvalidSettingsError."""
    if option.set:
        raise InvalidSettingsError(
            f"option {option.label!r} sets {', '.join(option.set)}, and an in-process model accepts only "
            "a cap; request fields need a server: --base-url URL"
        )
    if option.cap is None:
        raise InvalidSettingsError(f"option {option.label!r} has no cap, and an in-process model needs one")


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


def gives(factory: Any, protocol: type) -> bool | None:
    """Whether engines of a class have what one of these protocols adds to `Engine`; None where a function makes them.

    For what is decided before there is an engine; an engine itself is asked by `isinstance`.
    """
    if not isinstance(factory, type):
        return None
    return {name for name in vars(protocol) if not name.startswith("_")} <= set(dir(factory))


@runtime_checkable
class CountingEngine(Engine, Protocol):
    """An engine with counters for the summary of a run."""

    def counted(self) -> dict[str, Any]:
        """Counts since it was opened, JSON-able: numbers by name, or one level of objects of such."""
        ...


@runtime_checkable
class RoomEngine(Engine, Protocol):
    """An engine whose answers may take more than a template's forced one: a server writes them by itself.

    An engine without this takes at most the answer suffix and `max_answer_tokens` of its template beside a thought.
    """

    @property
    def answer_room(self) -> int:
        """Most tokens of an answer in addition to the cap; 0 if answers are forced."""
        ...


@runtime_checkable
class Estimator(Protocol):
    """Features of a query -> accuracy curve and expected usage, before any generation.

    A class needs `fit`, `predict`, `state` and `from_state`. All else has defaults in `EstimatorBase`, which is mixed
    in where a registered class does not have it.
    """

    takes: ClassVar[tuple[str, ...]]
    """Keywords among "seed", "progress" and "checkpoint" that the class is made with, besides the user's options."""

    @property
    def reads(self) -> tuple[str, ...]:
        """What is read of a query, among "hidden", "text", "difficulty" and "id"."""
        ...

    @property
    def is_costly(self) -> bool:
        """Whether it runs a language model itself: then nothing is predicted merely to check or to measure."""
        ...

    @property
    def num_examples(self) -> int:
        """Worked examples a level that the model is shown where its stated difficulty is read."""
        ...

    @property
    def is_shrunk(self) -> bool:
        """Whether it shrinks its curves to the mean curve by itself, as far as left-out queries ask for."""
        ...

    @property
    def held_out_(self) -> HeldOut | None:
        """What it said of rows that it held out by itself while it was fitted; None where it keeps none."""
        ...

    def fit(self, features: Features, counts: Counts) -> Self:
        """Learns from counts and, where they hold tokens, usage; returns self. Learned attributes end in `_`.

        An error at one option weighs by the tokens it stands for (`Counts.width_B`), so that a menu's uneven steps do
        not decide what is learned.
        """
        ...

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """`(p_Q_B, tokens_Q_B)`: p in [0, 1]; tokens non-decreasing in B, None when fitted without."""
        ...

    def model_pass(self, features: Features) -> tuple[int, float] | None:
        """`(parameters, mean tokens per query)` of a language model that it runs itself; None without one."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Everything learned: JSON-able settings and named arrays. `from_state` of the same class takes them back."""
        ...

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """The fitted estimator that `state` described."""
        ...


class EstimatorBase:
    """What an estimator is taken for where it says nothing else: it reads hidden states and holds nothing out."""

    takes: ClassVar[tuple[str, ...]] = ()
    reads: tuple[str, ...] = (HIDDEN,)
    is_costly: bool = False
    num_examples: int = 0
    is_shrunk: bool = False
    held_out_: HeldOut | None = None

    def model_pass(self, features: Features) -> tuple[int, float] | None:
        """It runs no language model."""
        return None


def with_defaults(kind: type[Any]) -> type[Estimator]:
    """A class with the defaults of `EstimatorBase` for what it does not say."""
    found: type[Estimator] = _mixed(kind, EstimatorBase)
    return found


def _mixed(kind: type[Any], base: type) -> type[Any]:
    """`kind` with what `base` has and it lacks; objects of `kind` can become objects of it."""
    if issubclass(kind, base):
        return kind
    return type(kind.__name__, (kind, base), {"__module__": kind.__module__, "__slots__": ()})


@runtime_checkable
class Grader(Protocol):
    """Answer + reference -> right, wrong or unreadable; two answers -> the same or not.

    An attribute `version` (a short text) names its rules; it changes whenever a verdict can change, so that records
    say by which rules they were judged. A class needs `version` and `grade`. All else has defaults in `GraderBase`,
    which is mixed in where a class lacks it.
    """

    version: str

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Judges one answer; never raises on odd text."""
        ...

    def same(self, a: str, b: str) -> bool:
        """Whether two answers state the same, so that they count as one in a vote; False where one cannot be read.

        The order of the two does not matter, and the same answers are never right and wrong for one reference. An
        answer is the same as itself exactly where it can be read.
        """
        ...

    def read(self, answer: str) -> Hashable | None:
        """What an answer states, in one form; None where it cannot be read.

        Answers with equal readings are the same. `same` may hold for others too: 1/3 and 0.333333.
        """
        ...


class GraderBase:
    """What a grader is taken for where it says nothing else: answers are the same if each is right for the other."""

    __slots__ = ()

    def same(self: Grader, a: str, b: str) -> bool:
        """Whether each is right where the other is the reference."""
        return self.grade(answer=a, reference=b) is Grade.RIGHT and self.grade(answer=b, reference=a) is Grade.RIGHT

    def read(self: Grader, answer: str) -> Hashable | None:
        """The answer itself, if it is right where it is itself the reference."""
        return answer if self.same(answer, answer) else None


def completed(grader: Any, name: str) -> Grader:
    """The grader, which from here on has the defaults of `GraderBase` for what its class does not say.

    Raises:
        InvalidSettingsError: it lacks `grade` or `version`.
    """
    if not (hasattr(grader, "grade") and hasattr(grader, "version")):
        raise InvalidSettingsError(
            f"grader {name!r} lacks `grade`, or `version`: a short text that names its rules, such as 1"
        )
    if not isinstance(grader, Grader):
        object.__setattr__(grader, "__class__", _mixed(type(grader), GraderBase))
    whole: Grader = grader
    return whole
