"""A plan: a budget for each query, the curves behind it, and its settings; it can be edited, saved and run.

On disk, and as RUN/plan.json, it is one JSON object with a line per query in `queries`, `predicted` and each plan's
`budgets`, which may be edited by hand.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.allocation import ROUNDING, Allocation
from ..core.arguments import path_of
from ..core.checks import check_plan
from ..core.codec import decode, encode, fields_to_json
from ..core.data import EngineInfo, IntArray, Query, Request
from ..core.files import read_json, write_atomically
from ..core.menu import Menu, with_menu
from ..core.problems import excerpt
from ..core.protocols import Engine, Grader, check_engine, check_menu
from ..core.showing import Progress, Shown, picture, watched
from ..core.terms import percent
from ..core.votes import ONE_VOTE_EACH, Voting
from ..core.waiting import finish
from ..engines.context import CEILING
from ..errors import (
    ForethoughtError,
    InvalidInputError,
    InvalidMenuError,
    InvalidSettingsError,
    InvalidTotalError,
    RunError,
)
from ..predictors.card import PredictorCard
from ..predictors.parts.wave_table import WaveTable
from ..predictors.predictor import refuse_other
from ..questions.queries import load_queries, query_from_json, query_to_json
from .answers import Answer, Answers
from .forecast import Forecast
from .judging import Judge
from .planfile import allocation_from_json, allocation_to_json, budgets_hash, spread
from .profiling import planned_seed
from .terms import Terms

logger = logging.getLogger(__name__)

SCHEMA = 2
FILE = "plan.json"
MAKE = "forethought plan PREDICTOR QUESTIONS --mean-tokens N --out FILE.json"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan(Shown):
    """A budget for each query, with what it rests on. Iterating gives `(id, budget)`.

    Attributes:
        queries: Q of them.
        allocation: their budgets, and what they are expected to give and to use.
        forecast: the predicted curves.
        terms: what was divided, and how.
        card: of the predictor, with model, template and sampling; None where an old plan does not say.
        seed: of every trace's seed.
        others: allocations by other allocators, which a run judges on the same traces.
        versions: of the packages that made it.
        voting: how several samples of a query vote.
        waves: where samples are drawn in waves, how votes move, by the name of the single option; else empty.
    """

    queries: tuple[Query, ...]
    allocation: Allocation
    forecast: Forecast
    terms: Terms
    card: PredictorCard | None
    seed: int = 0
    others: Mapping[str, Allocation] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    voting: Voting = ONE_VOTE_EACH
    waves: Mapping[str, WaveTable] = field(default_factory=dict)

    @property
    def menu(self) -> Menu:
        """What there is to choose from."""
        return self.allocation.menu

    @property
    def budgets(self) -> dict[str, int]:
        """Id -> cap on reasoning tokens."""
        return dict(self)

    @property
    def options(self) -> dict[str, str]:
        """Id -> what its option is called: its name on a menu of named options, else its cap."""
        return {query_id: self.menu.label(budget) for query_id, budget in self}

    @property
    def allocations(self) -> dict[str, Allocation]:
        """Every allocation by its allocator's name, the plan's own first."""
        return {self.allocation.allocator: self.allocation, **self.others}

    @property
    def largest_Q(self) -> IntArray:
        """The largest cap of each query in any of the allocations: what its trace may take; 0 for no cap at all."""
        budgets_A_Q = np.array([made.budget_Q for made in self.allocations.values()])
        if not self.menu.is_named:
            return np.array(budgets_A_Q.max(axis=0))
        caps_B = np.array([self.menu.asked(budget, 0)[0] for budget in self.menu.caps])
        caps_A_Q = caps_B[self.menu.columns(budgets_A_Q)]
        return np.array(np.where((caps_A_Q == 0).any(axis=0), 0, caps_A_Q.max(axis=0)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, in sentences."""
        return self.allocation.notes

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return zip(self.allocation.query_ids, self.allocation.budget_Q.tolist(), strict=True)

    def __repr__(self) -> str:
        made = self.allocation
        return (
            f"Plan({len(self):,} queries, {made.allocator}, {made.cost_words}, "
            f"expected accuracy {percent(made.expected_accuracy)})"
        )

    def plot(self) -> Any:
        """The budgets of the plan, and the predicted accuracy at other totals: a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return picture("plan", self)

    # --- editing -----------------------------------------------------------------------------------------------------

    def with_budgets(self, budgets: Mapping[str, int | str]) -> Plan:
        """The plan with other budgets for some queries; its total grows where they cost more, and a note says so.

        Args:
            budgets: id -> cap, on the menu and within the query's bounds; or the name of an option.

        Raises:
            InvalidInputError: ids that the plan does not have; a plan in waves.
            InvalidMenuError: caps that are not on the menu, or outside of a query's bounds.
        """
        if not isinstance(budgets, Mapping):
            raise InvalidInputError(f"the budgets must be a dictionary of id -> cap, not {excerpt(budgets)}")
        row_of = {query.id: row for row, query in enumerate(self.queries)}
        if unknown := [query_id for query_id in budgets if query_id not in row_of]:
            few = ", ".join(map(repr, list(row_of)[:3]))
            raise InvalidInputError(f"the plan has no query {unknown[0]!r} ({len(unknown)} such); ids such as {few}")
        budget_Q = self.allocation.budget_Q.copy()
        for query_id, budget in budgets.items():
            if isinstance(budget, str) and self.menu.is_named:
                budget = self.menu.caps[self.menu.column_of(budget)]
            if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget not in self.menu:
                raise InvalidMenuError(f"the budget of {query_id!r}, {budget!r}, is not on the menu {self.menu}")
            budget_Q[row_of[query_id]] = budget
        self._check_bounds(budget_Q)
        made, old = self._counted(budget_Q), self.allocation
        if made.total == old.total:
            return replace(self, allocation=made)
        note = f"the total is {old.cost.amount(made.total)} ({old.cost.amount(old.total)} before)"
        terms = self.terms.with_total(made.total)
        return replace(self, allocation=replace(made, notes=(*made.notes, note)), terms=terms)

    def _check_bounds(self, budget_Q: IntArray) -> None:
        """Refuses budgets outside of their queries' bounds, but for queries that the model could not read."""
        least_Q, most_Q = self.terms.bounds(self.queries, self.menu)
        wrong_Q = (budget_Q < least_Q) | (budget_Q > most_Q)
        wrong_Q[self.forecast.unseen_Q] = False
        for row in np.flatnonzero(wrong_Q)[:1].tolist():
            raise InvalidMenuError(
                f"the budget of {self.queries[row].id!r}, {budget_Q[row]}, is outside its bounds, {least_Q[row]} to "
                f"{most_Q[row]}"
            )

    def _counted(self, budget_Q: IntArray) -> Allocation:
        """The allocation with these budgets; raises InvalidInputError where waves decide what they come to."""
        if self.waves:
            raise InvalidInputError("it is drawn in waves: leave its options as planned, or plan without waves")
        weight_Q = np.array([query.weight for query in self.queries])
        return self.allocation.with_budgets(budget_Q, self.forecast.curves, weight_Q)

    # --- on disk -----------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "schema": SCHEMA,
            "kind": "plan",
            "versions": dict(self.versions),
            "main": self.allocation.allocator,
            "seed": self.seed,
            **({"voting": fields_to_json(self.voting)} if self.voting != ONE_VOTE_EACH else {}),
            **({"waves": encode(self.waves)} if self.waves else {}),
            "terms": self.terms.to_json(),
            "predictor": None if self.card is None else self.card.to_json(),
            "plans": {name: allocation_to_json(each) for name, each in self.allocations.items()},
            **self.forecast.to_json(),
            "queries": [json.loads(query_to_json(query)) for query in self.queries],
        }

    def save(self, path: str | Path) -> Path:
        """Writes it as JSON, at once or not at all."""
        write_atomically(path := path_of(path), f"{spread(self.to_json())}\n".encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """What `save` wrote, and may have been edited by hand since; or the plan of a run directory, old ones too.

        Raises:
            RunError: the file is missing, is no JSON, or does not hold a plan: why, with the query.
            InvalidTotalError: budgets were edited that together exceed the total.
        """
        path = path_of(path)
        path = path / FILE if path.is_dir() else path
        if path.suffix.lower() == ".jsonl":
            raise RunError(f"{path} lists budgets, one line per question; a plan that can be run holds more: {MAKE}")
        if not path.exists():
            raise RunError(f"{path} does not exist; make a plan: {MAKE.replace('FILE.json', str(path))}")
        content = read_json(path)
        queries = None
        if isinstance(content, dict) and "queries" not in content and (path.parent / "queries.jsonl").is_file():
            queries = load_queries(path.parent / "queries.jsonl")
        try:
            return cls.from_json(content, queries)
        except InvalidTotalError as error:
            raise InvalidTotalError(f"{path}: {error}") from error
        except (InvalidInputError, InvalidSettingsError, InvalidMenuError) as error:
            raise RunError(f"{path} is not a plan that can be used: {error}") from error

    @classmethod
    def from_json(cls, content: Any, queries: Sequence[Query] | None = None) -> Plan:
        """The plan that `to_json` described; `queries` where it is of a run whose file does not hold them."""
        if isinstance(content, dict) and isinstance(plans := content.get("plans"), dict):
            plans = {name: with_menu(plan) if isinstance(plan, dict) else plan for name, plan in plans.items()}
            content = {**content, "plans": plans}
        if queries is None:
            rows = content.get("queries") if isinstance(content, dict) else None
            if not isinstance(rows, list) or not rows:
                raise InvalidInputError(f"'queries' must be a list of questions; make a plan with: {MAKE}")
            queries = [query_from_json(json.dumps(row)) for row in rows]
        ids = tuple(query.id for query in queries)
        if problem := check_plan(content, ids):
            raise InvalidInputError(problem)
        try:
            made = cls._read(content, tuple(queries))
            stated = content["plans"][content["main"]].get("budgets_hash")
            return made if stated is None else made._as_edited(is_edited=stated != budgets_hash(made))
        except ForethoughtError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise InvalidInputError(f"it has an invalid value: {error or type(error).__name__}") from error

    @classmethod
    def _read(cls, content: Mapping[str, Any], queries: tuple[Query, ...]) -> Plan:
        """What `core.checks.check_plan` has checked."""
        ids, main, card = tuple(query.id for query in queries), content["main"], content.get("predictor")
        allocations = {name: allocation_from_json(plan, name, ids) for name, plan in content["plans"].items()}
        own = allocations.pop(main)
        waves = {str(name): WaveTable.from_json(table) for name, table in (content.get("waves") or {}).items()}
        drawn = {own.menu.option(budget).single.label for budget in own.budget_Q.tolist()}
        if lacking := sorted(drawn - waves.keys()) if waves else []:
            raise InvalidInputError(f"'waves' lacks a table of the option {lacking[0]!r}")
        return cls(
            queries,
            own,
            Forecast.from_json(content, ids, own.menu),
            Terms(**(content.get("terms") or {"total": own.total, "cost": own.cost, "allocator": main})),
            None if card is None else PredictorCard.from_json(card),
            int(content.get("seed") or 0),
            allocations,
            dict(content.get("versions") or {}),
            decode(Voting, content.get("voting") or {}, place="voting"),
            waves,
        )

    def _as_edited(self, *, is_edited: bool) -> Plan:
        """The plan of a file, counted anew where it was edited; the total that the file states must pay for it."""
        own, made, planned = self.allocation, self, self.terms.total_for(len(self))
        if is_edited:
            self._check_bounds(own.budget_Q)
            edited = self._counted(own.budget_Q)
            note = f"its budgets were edited: {edited.compared(own, 'as planned')}"
            made = replace(self, allocation=replace(edited, total=own.total, price=None, notes=(*own.notes, note)))
        costs = made.allocation.taken
        if costs > own.total * (1 + ROUNDING):
            raise InvalidTotalError(
                f"its budgets take {own.cost.amount(costs)} ({own.cost} cost), and its total is "
                f"{own.cost.amount(own.total)}; lower them, or raise 'total'"
            )
        if abs(own.total - planned) > ROUNDING * planned:
            note = f"its total was edited: {own.cost.amount(own.total)} ({own.cost.amount(planned)} as planned)"
            made = replace(made, allocation=replace(made.allocation, notes=(*made.notes, note)))
        return made

    # --- running -----------------------------------------------------------------------------------------------------

    def check(self, info: EngineInfo) -> None:
        """Refuses an engine of another model or template than the plan was made for; raises MismatchError."""
        if self.card is None:
            return
        refuse_other(self.card, info)
        if None not in (self.card.sampling, info.sampling) and self.card.sampling != info.sampling:
            logger.warning(
                "note: the engine samples thoughts with %s, and the predictor was trained on %s; "
                "open the engine with open_engine(plan)",
                *(info.sampling, self.card.sampling),
            )

    def request(
        self, query: Query, budget: int, sample: int, ceiling: int | None = None, *, priority: int = 0
    ) -> Request:
        """The request for a query's sample under a budget; `ceiling` as in `requests`, None for `CEILING`."""
        cap, option = self.menu.asked(budget, ceiling or CEILING)
        seed = planned_seed(self.seed, query.id, sample, option)
        return Request(query, cap, sample, seed, priority=priority, option=option)

    def requests(self, ceiling: int = CEILING) -> Iterator[Request]:
        """The samples of each query under its option; short answers come first where an engine schedules by priority.

        Args:
            ceiling: most tokens of a thought by an option without a cap; see `engines.context.ceiling_of`.
        """
        tokens_Q_B = self.forecast.curves.tokens_Q_B
        for row, query in enumerate(self.queries):
            budget = int(self.allocation.budget_Q[row])
            tokens = budget if tokens_Q_B is None else round(float(tokens_Q_B[row, self.menu.index(budget)]))
            for sample in range(self.menu.option(budget).samples):
                yield self.request(query, budget, sample, ceiling, priority=tokens)

    async def stream(
        self,
        engine: Engine,
        *,
        grader: str | Grader | None = None,
        out: str | Path | None = None,
        progress: Progress | bool | None = None,
    ) -> AsyncIterator[Answer]:
        """Answers as they come, in any order, each under its budget. What fails is an answer with an error.

        Args:
            engine: of the plan's model and template.
            grader: judges answers to queries with a reference: a registered name or a grader; None for "number".
            out: a run directory, which keeps them as they come; stopped, it goes on where it was.
            progress: called with what is being done, answers that came (of waves: tokens first) and how many in all;
                True for a bar, False for none, None for one in a notebook.

        Raises:
            MismatchError: an engine of another model or template.
            InvalidInputError: references that the grader cannot read.
        """
        from .running import answering, kept_answers  # which keep plans

        judge = Judge.of("number" if grader is None else grader)
        judge.check(self.queries)
        check_engine(engine)
        self.check(engine.info)
        check_menu(engine, self.menu)
        with watched(progress) as said:
            answers = answering if out is None else partial(kept_answers, folder=path_of(out))
            done = 0
            async for answer in answers(self, engine, judge, progress=said):
                said("answer", done := done + 1, len(self))
                yield answer

    async def run_async(
        self,
        engine: Engine,
        *,
        grader: str | Grader | None = None,
        out: str | Path | None = None,
        progress: Progress | bool | None = None,
    ) -> Answers:
        """Every answer, in the order of the queries; see `stream`."""
        found = {each.id: each async for each in self.stream(engine, grader=grader, out=out, progress=progress)}
        return Answers(tuple(found[query.id] for query in self.queries if query.id in found))

    def run(
        self,
        engine: Engine,
        *,
        grader: str | Grader | None = None,
        out: str | Path | None = None,
        progress: Progress | bool | None = None,
    ) -> Answers:
        """The same for code that is not a coroutine, also where an event loop is running (a notebook)."""
        return finish(self.run_async(engine, grader=grader, out=out, progress=progress))
