"""The plan and the budgets of a run directory: as planned, and as changed during the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.files import read_json
from ..core.votes import Voting
from ..errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError, RunError
from ..questions.queries import save_queries
from ..runs.store import RunDirectory
from .adapting import kept
from .plan import FILE, Plan
from .sources import run_queries


def read_plan(run: RunDirectory) -> Plan:
    """RUN/plan.json, with the run's questions as they are now.

    Raises:
        RunError: the run was stopped before it was planned, or the file is damaged.
    """
    path = run.path / FILE
    if not path.exists():
        raise RunError(f"{run.path} has no plan yet; give the same `forethought run` again to resume")
    try:
        return Plan.from_json(read_json(path), run_queries(run))
    except (InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError) as error:
        raise RunError(
            f"{path} is not the plan of this run: {error}. Copy the folder again; or delete the file, and the same "
            "`forethought run` makes a new plan and keeps the existing answers."
        ) from error


def keep_plan(run: RunDirectory, plan: Plan) -> bool:
    """Keeps a plan and its questions with the run, where it has none yet; whether it had none."""
    with run.turn():
        if (run.path / FILE).exists():
            return False
        save_queries(run.path / "queries.jsonl", plan.queries)
        plan.save(run.path / FILE)
        return True


def keep_voting(run: RunDirectory, voting: Voting) -> None:
    """Has the samples of a run vote in this way: its answers follow from the same records."""
    with run.turn():
        plan = read_plan(run)
        if plan.voting != voting:
            replace(plan, voting=voting).save(run.path / FILE)


def load_budgets(run: RunDirectory, plan: Plan | None = None) -> tuple[str, dict[str, dict[str, int]]]:
    """`(main allocator, allocator -> query id -> budget)`; the answers are given under the main one's budgets.

    Those are as planned, and then as what was decided while the run went on changed them.

    Raises:
        RunError: the run was stopped before it was planned, or its plan is damaged.
    """
    plan = plan or read_plan(run)
    budgets = {
        name: dict(zip(made.query_ids, made.budget_Q.tolist(), strict=True)) for name, made in plan.allocations.items()
    }
    main = plan.allocation.allocator
    for decision in kept(run, plan.menu, budgets[main].keys()).decisions:
        budgets[main].update(decision.budgets)
    return main, budgets


def priorities(plan: Plan, budgets_of: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Query id -> tokens that its answer is expected to take under the largest of its budgets: short ones go first.

    Where the predictor knows nothing of spend, the budget itself.
    """
    tokens_Q_B, priorities = plan.forecast.curves.tokens_Q_B, {}
    for row, query_id in enumerate(plan.allocation.query_ids):
        budget = max(budget_of[query_id] for budget_of in budgets_of.values())
        is_known = tokens_Q_B is not None and budget in plan.menu
        priorities[query_id] = round(float(tokens_Q_B[row, plan.menu.index(budget)])) if is_known else budget  # type: ignore[index]
    return priorities
