"""Provenance: the model, engine, template, sampling and grader behind a measurement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from .codec import UnfitError, decode, encode
from .data import EngineInfo, Sampling
from .menu import Menu, with_menu
from .options import Option


@dataclass(frozen=True, slots=True)
class Provenance:
    """How something was measured; None where that is not known.

    Attributes:
        name: of the run or the file.
        engine, server, enforcement, dtype, device: as in `EngineInfo`.
        model, model_hash, template, template_hash: whose answers they are.
        num_layers, hidden_size, context_tokens: of the model and its context.
        simulated: nothing was measured on a model: a simulation or a replay.
        menu: the budgets.
        sampling: how thoughts were drawn.
        seed: of the run.
        grader, grader_options, grader_version: who judged: its registered name, options and version of its rules.
        spend_measured: False for an imported profile without tokens: a cap then stands for what it costs.
        asking: how a model was asked for difficulties, see `predictors.difficulty.Asking`.
        versions: of the packages that took part.
        more: whatever else determines the records, by name: JSON values.
    """

    name: str | None = None
    engine: str | None = None
    model: str | None = None
    model_hash: str | None = None
    template: str | None = None
    template_hash: str | None = None
    server: str | None = None
    enforcement: str | None = None
    dtype: str | None = None
    device: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    context_tokens: int | None = None
    simulated: bool = False
    menu: Menu | None = None
    sampling: Sampling | None = None
    seed: int | None = None
    grader: str | None = None
    grader_options: Mapping[str, Any] | None = None
    grader_version: str | None = None
    spend_measured: bool = True
    asking: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, info: EngineInfo, **values: Any) -> Self:
        """What an engine says of itself, and further values by field."""
        names = [each.name for each in fields(info)]
        return cls(**{name: getattr(info, name) for name in names} | values)

    @property
    def engine_info(self) -> EngineInfo:
        """What it says of the engine, to hold against a predictor's card."""
        known = {each.name: getattr(self, each.name) for each in fields(EngineInfo)}
        return EngineInfo(**{**known, "engine": self.engine or "unknown"})

    def option(self, label: str) -> Option | None:
        """The named option by which a sample was drawn; None for a plain cap ("")."""
        return None if self.menu is None else self.menu.singles.get(label)

    def sends_twice(self, label: str = "") -> bool:
        """Whether every forced answer took a second call; an option without a cap takes one call."""
        option = self.option(label)
        is_forced = self.engine == "openai" and str(self.enforcement).startswith("two-call")
        return is_forced and (option is None or option.cap is not None)

    @property
    def judge(self) -> str | None:
        """The grader as text: name, version and options; None if it is not known."""
        if self.grader is None:
            return None
        options = ", ".join(f"{key}={value}" for key, value in (self.grader_options or {}).items())
        words = f"{self.grader} {self.grader_version}" if self.grader_version else f"{self.grader}, version unknown"
        return f"{words} ({options})" if options else words

    @property
    def known(self) -> tuple[str, ...]:
        """Names of what it says of what determines a record."""
        said = [name for name in DETERMINING if self.value(name) is not None and name != "simulated"]
        return (*dict.fromkeys((*said, *(GRADER if self.grader else ()))), *self.more)

    def differing(self, other: Provenance, names: Collection[str] = ()) -> tuple[str, ...]:
        """Names of what is another in `other`: of `names`, or else of all that determines a record.

        Names in `more` are compared where `other` has them.
        """
        wanted = names or (*DETERMINING, *other.more)
        return tuple(name for name in wanted if self.value(name) != other.value(name))

    def value(self, name: str) -> Any:
        """The value of `name`, in a field or in `more`, as JSON; None if there is none."""
        if name == "more" or name not in FIELDS:
            return encode(self.more.get(name))
        return encode(getattr(self, name) or None) if name == "grader_options" else encode(getattr(self, name))

    def listing(self, other: Provenance, names: Sequence[str]) -> str:
        """`NAME: HERE and THERE`, for what differs."""
        return "; ".join(f"{name}: {self.value(name)!r} and {other.value(name)!r}" for name in names)

    def with_grader(self, other: Provenance) -> Self:
        """The same, judged as `other` says."""
        return replace(self, **{name: getattr(other, name) for name in GRADER})

    def to_json(self) -> dict[str, Any]:
        """One object; what is not known is not in it."""
        bare, names = Provenance(), [name for name in FIELDS if name != "more"]
        said = [name for name in names if name == "simulated" or getattr(self, name) != getattr(bare, name)]
        more: dict[str, Any] = encode(self.more)
        return {name: self.value(name) for name in said} | more

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` wrote, or schema 1; names that are not known go to `more`. Raises UnfitError."""
        if isinstance(value, dict):
            try:
                found = with_menu(value)
            except ValueError as error:
                raise UnfitError(str(error)) from None
            known = {name: each for name, each in found.items() if name in FIELDS and name != "more"}
            value = {**known, "more": {name: each for name, each in found.items() if name not in known}}
        made = decode(cls, value)
        if made.sampling is not None and min(made.sampling.temperature, made.sampling.top_p) < 0.0:
            raise UnfitError(f"must hold numbers of at least 0, not {made.sampling}", "sampling")
        return made


UNKNOWN = Provenance()
FIELDS = tuple(each.name for each in fields(Provenance))
GRADER = ("grader", "grader_options", "grader_version")
FEEDBACK = "feedback"  # the grader of a gateway's journal: its clients said what was right
# What determines a record given its query and its sample: two runs that differ here do not mix.
DETERMINING = (
    *("model", "model_hash", "template", "template_hash", "engine", "server", "enforcement", "dtype", "simulated"),
    *("menu", "sampling", "seed", *GRADER),
)
