"""The demo: what `evaluate` and `run --compare` do, on what comes with the package."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from ..control import evaluating, sources
from ..control.profiling import Report, silent
from ..core.settings import EngineSettings, PlanSettings, RunSettings
from ..core.study_settings import DemoSettings, EvaluateSettings
from ..evaluation import Evaluation, LiveComparison
from ..evaluation.draws import DrawsEvaluation
from ..predictors.card import PredictorCard
from ..questions.queries import load_queries
from ..runs.store import RunDirectory
from . import pipeline, reports
from .estimates import CostEstimate, run_estimate

HISTORY = "history"
CREDIT = 'data: Epoch AI, "Benchmarking data" (epoch.ai/data), CC-BY-4.0; half of GPQA Diamond and OTIS mock AIME'
QUESTIONS = "gsm8k-demo"
# Live questions that two CPU cores answer in about two minutes, so that the whole demo stays below five.
NUM_LIVE = {"qwen2.5-coder-1.5b": 48, "qwen2.5-coder-0.5b": 96}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the demo will do, before any model is loaded."""

    evaluate: EvaluateSettings
    run: RunSettings
    estimate: CostEstimate
    num_heldout: int
    first_id: str

    @property
    def mean_tokens(self) -> float:
        """Reasoning tokens a question."""
        return float(self.run.plan.mean_tokens or 0)

    @property
    def num_live(self) -> int:
        """Questions to be answered live."""
        return self.estimate.num_queries


def history(settings: DemoSettings) -> tuple[DrawsEvaluation, ...]:
    """What earlier draws buy at the effort levels of two models, by what was measured of them; no model is run."""
    asked = None if settings.mean_tokens is None else [settings.mean_tokens]
    return tuple(
        evaluating.by_draws(profile, num_draws=(1, 2, 3), mean_tokens=asked, seed=settings.seed)
        for profile in sources.shipped_efforts()
    )


def prepare(settings: DemoSettings) -> Prepared:
    """Chooses the budget and the questions; raises UnknownNameError for a model without a shipped predictor."""
    card = sources.open_predictor(settings.name).card
    mean_tokens = settings.mean_tokens or float(steepest_budget(card))
    folder = settings.out or str(Path("runs") / f"demo-{settings.name}-{datetime.now():%Y%m%d-%H%M%S}")
    plan = PlanSettings(
        run=settings.name,
        questions=QUESTIONS,
        mean_tokens=mean_tokens,
        limit=settings.limit or NUM_LIVE.get(settings.name, 48),
        engine=EngineSettings(engine="transformers"),
    )
    run = RunSettings(plan=plan, out=folder, compare=("uniform", "blind"), seed=settings.seed)
    return Prepared(
        evaluate=EvaluateSettings(run=settings.name, seed=settings.seed),
        run=run,
        estimate=run_estimate(run),
        num_heldout=sources.shipped_heldout(settings.name).num_queries,
        first_id=load_queries(QUESTIONS, limit=1)[0].id,
    )


def steepest_budget(card: PredictorCard) -> int:
    """The budget around which the mean training curve rises fastest a token; of one or two budgets the smallest."""
    has_zero = card.menu.smallest == 0
    cap_B = np.array(card.menu.caps if has_zero else (0, *card.menu.caps), dtype=np.float64)
    p_B = np.array(card.mean_p_B if has_zero else (0.0, *card.mean_p_B))
    slope_B = (p_B[2:] - p_B[:-2]) / (cap_B[2:] - cap_B[:-2])  # from one budget below to one above
    return int(cap_B[1 + int(np.argmax(slope_B))]) if len(slope_B) else card.menu.smallest or card.menu.largest


def heldout(prepared: Prepared) -> Evaluation:
    """The shipped predictor on the shipped profile of questions it never saw."""
    result = reports.evaluation(prepared.evaluate)
    assert isinstance(result, Evaluation)
    return result


def live(prepared: Prepared, *, report: Report = silent) -> tuple[RunDirectory, LiveComparison]:
    """Plans, reasons, answers; every policy is judged on the same traces."""
    run = pipeline.run(prepared.run, report=report)
    return run, reports.live_comparison(run, seed=prepared.run.seed)
