"""Settings of the commands that judge and study: grade, regrade, layers, evaluate, compare, bench, demo, doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .flags import (
    allocator_options_flag,
    argument,
    asked_model_flag,
    at_least,
    check_all,
    flag,
    grader_flag,
    grader_options_flag,
    layers_problem,
    limit_flag,
    num_resamples_flag,
    numbered,
    pairs,
    plots_flag,
    positive,
    resampling_problems,
    samples_flag,
    sampling_problems,
    seed_flag,
    skip_ungraded_flag,
    vote_weights_flag,
    weights_problem,
)
from .settings import EngineSettings, QuestionColumns
from .terms import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeSettings:
    """`forethought grade`: grade answers in a file that also holds their reference answers."""

    file: str = argument()
    grader: str = grader_flag(is_main=True)
    grader_options: dict[str, Any] = grader_options_flag()
    answer_column: str = flag("", "Column of the answers.", metavar="NAME", shown="answer, prediction, …", is_main=True)
    reference_column: str = flag(
        "", "Column of the reference answers.", metavar="NAME", shown="reference, target, …", is_main=True
    )
    id_column: str = flag("", "Column of the ids.", metavar="NAME", shown="id, else the row number")
    skip_ungraded: bool = skip_ungraded_flag()
    limit: int | None = limit_flag()

    def __post_init__(self) -> None:
        check_all([at_least("--limit", self.limit, 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RegradeSettings:
    """`forethought regrade`: grade the stored answers of a run again, without generating."""

    run: str = argument()
    grader: str = flag("", "Grader: number, exact, choice or math.", shown="that of the run", is_main=True)
    grader_options: dict[str, Any] = grader_options_flag()
    answers: str = flag("", "File of corrected reference answers, by id or by question.", metavar="FILE", is_main=True)
    answer_column: str = flag(
        "", "Column of the answers in that file.", metavar="NAME", shown="answer, …", is_main=True
    )
    skip_ungraded: bool = skip_ungraded_flag()
    dry_run: bool = flag(False, "Count what would change; write nothing.", is_main=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersSettings:
    """`forethought layers`: how well each layer of a model predicts the accuracy curves."""

    run: str = argument()
    states: str = flag(
        "", "Folder of the hidden states of every layer; missing ones are read now.", metavar="FOLDER", is_main=True
    )
    read: bool = flag(True, "Read missing hidden states, or leave out their questions.")
    pooling: str = flag("both", "Hidden state of the last prompt token (last), mean over the question (mean), or both.")
    layers: str = flag("all", "Layers to compare: all, or 4,12,16.", is_main=True)
    mean_tokens: tuple[float, ...] = flag(
        (),
        "Mean budgets of the plans that are compared.",
        metavar="N,…",
        shown="levels near 1/5, 2/5 and 3/5 of the largest cap",
        is_main=True,
    )
    limit: int | None = limit_flag()
    out: str = flag("", "Folder of the report.", metavar="FOLDER", shown="RUN/layers", is_main=True)
    model: str = flag("", "Name or folder of the measured model.", shown="its name in the profile")
    template: str = flag("", "Prompt template.", shown="its name in the profile")
    engine: EngineSettings = EngineSettings()
    num_resamples: int = num_resamples_flag()
    plots: bool = plots_flag()
    seed: int = seed_flag()

    POOLINGS: ClassVar = ("last", "mean")

    def __post_init__(self) -> None:
        known = (*self.POOLINGS, "both")
        check_all(
            [
                None if self.pooling in known else f"--pooling: {', '.join(known)}, not {self.pooling!r}",
                layers_problem(self.layers, "compare"),
                *positive("--mean-tokens", self.mean_tokens),
                at_least("--limit", self.limit, 2),
                *resampling_problems(self.num_resamples, self.seed),
            ]
        )

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings asked for."""
        return self.POOLINGS if self.pooling == "both" else (self.pooling,)

    @property
    def layer_numbers(self) -> tuple[int, ...] | None:
        """The layers asked for, ascending; None for all."""
        return None if self.layers == "all" else numbered(self.layers)


DRAWS = (1, 2, 3, 5)  # numbers of samples that choose, unless others are named


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """`forethought evaluate`: what prediction and allocation buy on measured curves."""

    run: str = argument()
    on: str = flag("", "Held-out profile: run directory or Parquet file.", metavar="PROFILE", is_main=True)
    out: str = flag("", "Folder of the report.", metavar="FOLDER", shown="RUN/evaluation", is_main=True)
    allocator: str = flag("envelope", "Allocator whose plans are evaluated.")
    allocator_options: dict[str, Any] = allocator_options_flag()
    predictor: str = flag("auto", "Predictor for cross-fitting a profile run.")
    samples: tuple[int, ...] = samples_flag()
    vote_weights: str = vote_weights_flag(metavar="answer|thought")
    mean_tokens: tuple[float, ...] = flag(
        (),
        "Budget levels to compare, in mean tokens per question.",
        metavar="N,…",
        shown="spread over the range of costs",
        is_main=True,
    )
    mean_usd: tuple[float, ...] = flag(
        (),
        "Levels in mean USD per question, for options with prices.",
        metavar="USD,…",
        shown="spread over the range of costs",
        is_main=True,
    )
    by_draws: bool = flag(
        False,
        "Evaluate a history: half of each question's samples choose its option, the other half evaluate it.",
        is_main=True,
    )
    num_draws: tuple[int, ...] = flag(
        DRAWS,
        "With --by-draws: numbers of samples that choose, for a separate table.",
        name="--draws",
        metavar="N,…",
    )
    num_halvings: int = flag(
        0,
        "With --by-draws: number of random splits into halves.",
        name="--halvings",
        metavar="N",
        shown="one split, even and odd samples",
    )
    model: str = asked_model_flag()
    engine: EngineSettings = EngineSettings()
    num_resamples: int = num_resamples_flag()
    plots: bool = plots_flag()
    seed: int = seed_flag()

    def __post_init__(self) -> None:
        check_all(
            [
                *positive("--mean-tokens", self.mean_tokens),
                *positive("--mean-usd", self.mean_usd, "USD"),
                *(at_least("--draws", each, 1) for each in self.num_draws),
                *(at_least("--samples", each, 1) for each in self.samples),
                weights_problem(self.vote_weights),
                "--by-draws evaluates single samples: leave --samples out" if self.by_draws and self.samples else None,
                at_least("--halvings", self.num_halvings, 0, 1000),
                "--draws and --halvings need --by-draws"
                if not self.by_draws and (self.num_halvings or self.num_draws != DRAWS)
                else None,
                f"--by-draws plans by price: leave --allocator {self.allocator} out"
                if self.by_draws and self.allocator != "envelope"
                else None,
                "--by-draws trains on some draws and judges on others: leave --on out"
                if self.by_draws and self.on
                else None,
                *resampling_problems(self.num_resamples, self.seed),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """`forethought compare`: several predictors on one held-out profile, with the cost of each prediction."""

    predictors: tuple[str, ...] = argument()
    on: str = flag(
        "", "Held-out profile.", metavar="PROFILE", shown="that shipped with the first predictor", is_main=True
    )
    names: tuple[str, ...] = flag((), "Name of each predictor, in the order given.", name="--name", is_main=True)
    labels: tuple[str, ...] = flag(
        (), "Labels from another tool: CSV with query_id, label.", metavar="NAME=FILE", is_main=True
    )
    train: str = flag("", "Training profile that gives each label its curve.", metavar="PROFILE", is_main=True)
    out: str = flag("", "Folder of the report.", metavar="FOLDER", shown="runs/compare-PROFILE", is_main=True)
    allocator: str = flag("envelope", "Allocator whose plans are evaluated.")
    allocator_options: dict[str, Any] = allocator_options_flag()
    num_resamples: int = num_resamples_flag()
    plots: bool = plots_flag()
    model: str = asked_model_flag()
    engine: EngineSettings = EngineSettings()
    seed: int = seed_flag()

    def __post_init__(self) -> None:
        wrong = [pair for pair in self.labels if not all(pair.partition("=")[::2])]
        check_all(
            [
                None if self.predictors else "give at least one predictor",
                None
                if len(self.names) in (0, len(self.predictors))
                else f"--name must be given once for each of {len(self.predictors)} predictors, or never",
                f"--labels takes NAME=FILE, not {wrong[0]!r}" if wrong else None,
                "--labels needs --train PROFILE, on which their curves are counted"
                if self.labels and not self.train
                else None,
                *resampling_problems(self.num_resamples, self.seed),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSettings:
    """`forethought bench paper`: the published measurements of arXiv 2602.01237."""

    folder: str = argument(metavar="DIR")
    split: str = flag("dev", "Split to evaluate on: DIR/NAME.parquet.", metavar="NAME", is_main=True)
    out: str = flag("", "Folder of the report.", metavar="FOLDER", shown="runs/bench-paper-SPLIT", is_main=True)
    mean_tokens: tuple[float, ...] = flag(
        (), "Mean budgets to compare.", metavar="N,…", shown="every budget", is_main=True
    )
    predictor: str = flag("", "Predictor of forethought.", metavar="NAME", shown="as `train` chooses")
    allocator: str = flag("envelope", "Allocator of forethought.")
    allocator_options: dict[str, Any] = allocator_options_flag()
    compare: tuple[str, ...] = flag(
        ("ridge", "mlp", "text", "paper-mlp"), "Other predictors to compare, or none.", metavar="NAME,…", is_main=True
    )
    num_resamples: int = num_resamples_flag()
    plots: bool = plots_flag()
    seed: int = seed_flag()

    def __post_init__(self) -> None:
        wrong = not self.split or any(part in self.split for part in ("/", "\\", ".."))
        check_all(
            [
                f"--split takes the name of a file in DIR, without .parquet, not {self.split!r}" if wrong else None,
                *positive("--mean-tokens", self.mean_tokens),
                *resampling_problems(self.num_resamples, self.seed),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """`forethought demo`: plan and run with the models and profiles of the package."""

    name: str = argument("qwen2.5-coder-1.5b")
    mean_tokens: float | None = flag(
        None, "Mean tokens per question.", metavar="N", shown="where the curve is steepest"
    )
    limit: int | None = flag(None, "Number of live questions.", metavar="N", shown="as many as fit into a few minutes")
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/demo-NAME-DATE")
    seed: int = seed_flag()

    def __post_init__(self) -> None:
        check_all(
            [
                at_least("--mean-tokens", self.mean_tokens, 1),
                at_least("--limit", self.limit, 2),
                at_least("--seed", self.seed, 0),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings(QuestionColumns):
    """`forethought doctor`: this machine, and what a server supports. `options` holds further options of the engine."""

    base_url: str = ""
    served_model: str = ""
    enforce: str = "auto"
    template: str = flag("boxed", "Prompt template for the test questions.", is_main=True)
    temperature: float | None = flag(None, "Sampling temperature of the thought.", shown="0 for caps, 0.6 for levels")
    top_p: float = flag(1.0, "Nucleus sampling (top-p) of the thought.")
    timeout_seconds: float = flag(120.0, "Seconds per request.", name="--timeout")
    questions: str = flag(
        "", "Measure effort levels on these questions, and write a menu file.", metavar="FILE", is_main=True
    )
    limit: int | None = limit_flag()
    levels: tuple[str, ...] = flag(
        (), "Effort levels to measure; a number is a cap.", metavar="A,B", shown="all known levels", is_main=True
    )
    out: str = flag("menu.toml", "The menu file.", metavar="FILE", is_main=True)
    options: dict[str, Any] = pairs("--engine-option", "Option of the engine (repeatable).")
    dry_run: bool = flag(False, "Show what would be done and what it may cost, without doing it.")

    def __post_init__(self) -> None:
        check_all(
            [
                "--questions measures effort levels at a server: add --base-url URL"
                if self.questions and not self.base_url
                else None,
                "--levels are measured on questions of yours: add --questions FILE"
                if self.levels and not self.questions
                else None,
                "--out needs the name of a file" if self.questions and not self.out else None,
                "--levels names a level twice" if len(set(self.levels)) < len(self.levels) else None,
                *positive("--timeout", [self.timeout_seconds], "seconds"),
                at_least("--limit", self.limit, 1),
                *sampling_problems(self.temperature, self.top_p),
            ]
        )

    def drawn(self, temperature: float) -> Sampling:
        """How thoughts are sampled, at `temperature` where none was asked for."""
        return Sampling(temperature if self.temperature is None else self.temperature, self.top_p)
