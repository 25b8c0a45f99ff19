"""The demo: `evaluate` and `run --compare` with the models and profiles of the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from ..control import evaluating, sources
from ..control.billing import CostEstimate
from ..control.profiling import Report, silent
from ..core.files import make_folder
from ..core.settings import EngineSettings, PlanSettings, RunSettings
from ..core.showing import Progress
from ..core.showing import silent as unseen
from ..core.study_settings import DemoSettings, EvaluateSettings
from ..evaluation import Evaluation, LiveComparison
from ..evaluation.draws import DrawsEvaluation
from ..evaluation.levels import half_way
from ..questions.queries import load_queries
from ..report import Bullets, Part, evaluation_page, page
from ..runs.store import RunDirectory
from . import pipeline, reports
from .estimates import run_estimate

HISTORY = "history"
CREDIT = 'data: Epoch AI, "Benchmarking data" (epoch.ai/data), CC-BY-4.0; half of GPQA Diamond and OTIS mock AIME'
QUESTIONS = "gsm8k-demo"
# Live questions that two CPU cores answer in about two minutes, so that the whole demo stays below five.
NUM_LIVE = {"qwen2.5-coder-1.5b": 48, "qwen2.5-coder-0.5b": 96}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the demo will do, before any model is loaded."""

    settings: DemoSettings
    evaluate: EvaluateSettings
    run: RunSettings
    estimate: CostEstimate
    num_heldout: int
    first_id: str

    @property
    def mean_tokens(self) -> float:
        """Reasoning tokens per question."""
        return float(self.run.plan.mean_tokens or 0)

    @property
    def num_live(self) -> int:
        """Questions to be answered live."""
        return self.estimate.num_queries


def history(settings: DemoSettings, *, progress: Progress = unseen) -> tuple[DrawsEvaluation, ...]:
    """The gain from earlier samples at the effort levels of two models, on measured outcomes; no model is run."""
    asked = None if settings.mean_tokens is None else [settings.mean_tokens]
    return tuple(
        evaluating.by_draws(profile, num_draws=(1, 2, 3), mean_tokens=asked, seed=settings.seed, progress=progress)
        for profile in sources.shipped_efforts()
    )


def write_history(settings: DemoSettings, results: Sequence[DrawsEvaluation]) -> Iterator[Path]:
    """Writes one report a model; its file."""
    folder = _folder(settings)
    for result in results:
        facts = {**reports.made_by("forethought demo", settings), "data": CREDIT}
        own = make_folder(folder / str(result.provenance["model"]).replace("/", "-"))
        yield page(result, facts=facts).write_html(own)


def _folder(settings: DemoSettings) -> Path:
    return Path(settings.out or Path("runs") / f"demo-{settings.name}-{datetime.now():%Y%m%d-%H%M%S}")


def prepare(settings: DemoSettings) -> Prepared:
    """Chooses the budget and the questions; raises UnknownNameError for a model without a shipped predictor."""
    card = sources.open_predictor(settings.name).card
    budgets_B = card.menu.budgets_B.astype(np.float64)
    mean_tokens = settings.mean_tokens or half_way(budgets_B.tolist(), budgets_B, np.array(card.mean_p_B))
    folder = str(_folder(settings))
    plan = PlanSettings(
        run=settings.name,
        questions=QUESTIONS,
        mean_tokens=mean_tokens,
        limit=settings.limit or NUM_LIVE.get(settings.name, 48),
        engine=EngineSettings(engine="transformers"),
    )
    run = RunSettings(plan=plan, out=folder, compare=("uniform", "blind"), seed=settings.seed)
    return Prepared(
        settings=settings,
        evaluate=EvaluateSettings(run=settings.name, seed=settings.seed),
        run=run,
        estimate=run_estimate(run),
        num_heldout=sources.shipped_heldout(settings.name).num_queries,
        first_id=load_queries(QUESTIONS, limit=1)[0].id,
    )


def heldout(prepared: Prepared, *, progress: Progress = unseen) -> Evaluation:
    """The shipped predictor on the shipped profile of questions it never saw."""
    result = reports.evaluation(prepared.evaluate, progress=progress)
    assert isinstance(result, Evaluation)
    return result


def live(
    prepared: Prepared, *, report: Report = silent, progress: Progress = unseen
) -> tuple[RunDirectory, LiveComparison]:
    """Plans, reasons, answers; every policy is judged on the same traces."""
    run = pipeline.run(prepared.run, report=report, progress=progress)
    progress("compare", 0, 1)
    return run, reports.live_comparison(run, seed=prepared.run.seed)


def write(prepared: Prepared, heldout: Evaluation, run: RunDirectory, live: LiveComparison) -> list[Path]:
    """One report: the gain from prediction on the held-out profile, then the live questions; its file first.

    Both results are written as JSON and Markdown too.
    """
    facts = reports.made_by("forethought demo", prepared.settings)
    first = evaluation_page(heldout, mean_tokens=prepared.mean_tokens, facts=facts)
    second = reports.run_report(run, compared=live)
    said = Part(f"live: {prepared.num_live} other test questions", [Bullets(second.decision)])
    whole = replace(
        first,
        title="Demo: held-out questions, then live ones",
        parts=[*first.parts, said, *(replace(part, level=max(part.level, 3)) for part in second.parts)],
    )
    files = [
        *first.write(run.path / "heldout", plots=False).values(),
        *page(live, facts=facts).write(run.path, plots=False).values(),
    ]
    return [whole.write_html(run.path), *(file for file in files if file.suffix != ".html")]
