"""Know the bill first: what a command would do, at most, and what is already done. No model is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import sources
from .folders import profile_folder, run_folder
from .planning import model_of, plan_queries, template_of
from .prompts import PromptTemplate, load_template
from .queries import load_queries
from .settings import PlanSettings, ProfileSettings, RunSettings
from .store import RunDirectory


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
    queries = load_queries(settings.questions, limit=settings.limit, **settings.columns)
    folder = profile_folder(settings)
    keys = {(query.id, sample) for query in queries for sample in range(settings.num_traces)}
    done = _done(folder, retry_failed=settings.retry_failed) & keys
    num_left = len(keys) - len(done)
    num_answers = num_left * settings.grid.num_budgets
    return Estimate(
        model=settings.model,
        folder=str(folder),
        num_queries=len(queries),
        num_total=len(keys),
        num_done=len(done),
        num_answers=num_answers,
        reasoning_tokens=num_left * settings.grid.maximum,
        answer_tokens=num_answers * _answer_tokens(load_template(settings.engine.template)),
    )


def plan_estimate(settings: PlanSettings) -> Estimate:
    """The bill of `forethought plan`: one prompt pass a question, no generation."""
    predictor = sources.open_predictor(settings.run)
    num_queries = len(plan_queries(settings))
    return Estimate(model_of(settings, predictor), "", num_queries, 0, 0, 0, 0, 0)


def run_estimate(settings: RunSettings) -> Estimate:
    """The bill of `forethought run`: under granted cost at most the total, under spent cost at most every cap."""
    predictor = sources.open_predictor(settings.plan.run)
    queries = plan_queries(settings.plan)
    folder = run_folder(settings)
    done = _done(folder, retry_failed=settings.retry_failed) & {(query.id, 0) for query in queries}
    num_left = len(queries) - len(done)
    num_answers = num_left * (1 + len(settings.compare))
    most = num_left * predictor.card.grid.maximum
    granted = settings.plan.cost.value == "granted" and not settings.compare
    total = settings.plan.total_for(len(queries))
    return Estimate(
        model=model_of(settings.plan, predictor),
        folder=str(folder),
        num_queries=len(queries),
        num_total=len(queries),
        num_done=len(done),
        num_answers=num_answers,
        reasoning_tokens=min(most, int(total)) if granted else most,
        answer_tokens=num_answers * _answer_tokens(load_template(template_of(settings.plan, predictor))),
        total=total,
    )


def _answer_tokens(template: PromptTemplate) -> int:
    return template.max_answer_tokens + len(template.answer_suffix)


def _done(folder: Path, *, retry_failed: bool) -> set[tuple[str, int]]:
    if not (folder / "run.json").is_file():
        return set()
    records = RunDirectory.open(folder).latest_records()
    return {key for key, record in records.items() if not (retry_failed and record["error"])}
