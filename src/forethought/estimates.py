"""Know the bill first: what a command would do, at most, and what is already done. No model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .beforehand import check_planned_engine, plan_inputs, profile_inputs, run_inputs
from .folders import profile_folder, run_folder
from .planning import model_of, recorded_features, refuse_without_texts, template_of
from .prompts import PromptTemplate, load_template
from .settings import PlanSettings, ProfileSettings, RunSettings
from .store import RunDirectory
from .types import Query


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a command would do.

    Attributes:
        model: what would run.
        folder: the run directory, or "" where nothing is kept.
        num_queries: questions.
        num_total: traces in all.
        num_done: traces that have a record already.
        num_answers: forced answers of the traces left, at most.
        reasoning_tokens: reasoning tokens of the traces left, at most.
        total: tokens that the plan divides; 0 where there is no plan.
        answer_tokens: tokens of answers and their suffixes, at most (a suffix has at most one token a character).
    """

    model: str
    folder: str
    num_queries: int
    num_total: int
    num_done: int
    num_answers: int
    reasoning_tokens: int
    answer_tokens: int
    total: float = 0.0

    @property
    def num_left(self) -> int:
        """Traces still to generate."""
        return self.num_total - self.num_done

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {**asdict(self), "num_left": self.num_left}

    def to_text(self) -> str:
        """The same for a person."""
        lines = [
            f"model            {self.model}",
            f"run directory    {self.folder or 'none'}",
            f"questions        {self.num_queries:,}",
            f"traces           {self.num_left:,} to generate, {self.num_done:,} of {self.num_total:,} already done",
            f"forced answers   {self.num_answers:,} at most",
            f"tokens, at most  {self.reasoning_tokens:,} reasoning + {self.answer_tokens:,} answers",
        ]
        return "\n".join(lines)


def profile_estimate(settings: ProfileSettings) -> Estimate:
    """The bill of `forethought profile`: every trace may run to the largest cap."""
    queries, _, _ = profile_inputs(settings)
    folder = profile_folder(settings)
    num_total = len(queries) * settings.num_traces
    num_done = _num_done(folder, queries, settings.num_traces, retry_failed=settings.retry_failed)
    num_left = num_total - num_done
    num_answers = num_left * settings.grid.num_budgets
    return Estimate(
        model=settings.model,
        folder=str(folder),
        num_queries=len(queries),
        num_total=num_total,
        num_done=num_done,
        num_answers=num_answers,
        reasoning_tokens=num_left * settings.grid.maximum,
        answer_tokens=num_answers * _answer_tokens(load_template(settings.engine.template)),
    )


def plan_estimate(settings: PlanSettings) -> Estimate:
    """The bill of `forethought plan`: one prompt pass a question, no generation."""
    predictor, queries = plan_inputs(settings)
    if recorded_features(settings.questions, queries, predictor) is None:
        refuse_without_texts(queries, settings.questions)
        check_planned_engine(settings, predictor)
    return Estimate(model_of(settings, predictor), "", len(queries), 0, 0, 0, 0, 0)


def run_estimate(settings: RunSettings) -> Estimate:
    """The bill of `forethought run`: under granted cost at most the total, under spent cost at most every cap."""
    predictor, queries, _ = run_inputs(settings)
    folder = run_folder(settings)
    num_done = _num_done(folder, queries, 1, retry_failed=settings.retry_failed)
    num_left = len(queries) - num_done
    num_answers = num_left * (1 + len(settings.compare))
    most = num_left * predictor.card.grid.maximum
    granted = settings.plan.cost.value == "granted" and not settings.compare
    total = settings.plan.total_for(len(queries))
    return Estimate(
        model=model_of(settings.plan, predictor),
        folder=str(folder),
        num_queries=len(queries),
        num_total=len(queries),
        num_done=num_done,
        num_answers=num_answers,
        reasoning_tokens=min(most, int(total)) if granted else most,
        answer_tokens=num_answers * _answer_tokens(load_template(template_of(settings.plan, predictor))),
        total=total,
    )


def _answer_tokens(template: PromptTemplate) -> int:
    return template.max_answer_tokens + len(template.answer_suffix)


def _num_done(folder: Path, queries: Sequence[Query], num_traces: int, *, retry_failed: bool) -> int:
    """Traces of these queries that have a record; those that failed do not count where they are tried again."""
    if not (folder / "run.json").is_file():
        return 0
    asked = {query.id for query in queries}
    return sum(
        query_id in asked and sample < num_traces and not (retry_failed and record["error"])
        for (query_id, sample), record in RunDirectory.open(folder).latest_records().items()
    )
