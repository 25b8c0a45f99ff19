"""What each command was asked: one frozen dataclass a command, checked as a whole when made.

The command line fills them from flag > environment > file > default; the effective values are stored with the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import InvalidMenuError, InvalidSettingsError
from .data import Cost, Sampling
from .menu import Menu


def _check(problems: Iterable[str | None]) -> None:
    """Raises InvalidSettingsError with every problem at once."""
    found = [problem for problem in problems if problem]
    if found:
        raise InvalidSettingsError("; ".join(found))


def _at_least(flag: str, value: float, least: float) -> str | None:
    return None if value >= least else f"{flag} must be at least {least:g}, not {value:g}"


def _drawing(temperature: float | None, top_p: float | None) -> tuple[str | None, str | None]:
    """What is wrong with either; None where it is fine or not given."""
    return (
        None if temperature is None else _at_least("--temperature", temperature, 0),
        None if top_p is None or 0 < top_p <= 1 else f"--top-p must lie in (0, 1], not {top_p:g}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine runs the model, and how traces are drawn.

    Attributes:
        engine: a registered name, or "auto": vLLM where it is installed, else transformers.
        template: a shipped template's name or a JSON file.
        temperature: sampling temperature of the thought, at least 0.
        top_p: nucleus of the thought, in (0, 1].
        context_tokens: longest prompt + thought + answer; None for what the model or server takes.
        options: anything else the engine's class takes.
    """

    engine: str = "auto"
    template: str = "worked-5"
    temperature: float = 0.6
    top_p: float = 1.0
    context_tokens: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(
            [
                *_drawing(self.temperature, self.top_p),
                None if self.context_tokens is None else _at_least("--context-tokens", self.context_tokens, 64),
            ]
        )

    @property
    def sampling(self) -> Sampling:
        """Temperature and nucleus as the engines take them."""
        return Sampling(temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionColumns:
    """Where questions stand in their file; None for the usual names, "" for none.

    Attributes:
        question_column: the question, as text or chat messages.
        answer_column: the reference answer.
        id_column: the ids; several names with commas between them make one id together.
    """

    question_column: str | None = None
    answer_column: str | None = None
    id_column: str | None = None

    @property
    def columns(self) -> dict[str, str | None]:
        """The same as `queries.load_queries` takes them."""
        return {
            "question_column": self.question_column,
            "answer_column": self.answer_column,
            "id_column": self.id_column,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings(QuestionColumns):
    """`forethought profile`: measure success at every cap.

    Attributes:
        model: alias, folder or hub id.
        questions: file, "-" or dataset name.
        out: run directory; "" for `runs/MODEL-QUESTIONS`.
        num_traces: traces a question.
        budgets: the caps: "512,1024,4096", "16:256:16" or "geometric:256:32768", see `Menu.parse`.
        window, max_tokens: evenly spaced caps instead, up to the largest; short for "W:M:W".
        layers: "all", "none", or layer numbers separated by commas.
        grader: registered name.
        grader_options: what the grader's class takes.
        skip_ungraded: leave questions out whose reference is missing or cannot be read, instead of refusing them.
        seed: seed of every trace's seed.
        limit: only the first questions.
        retry_failed: try failed traces again, once a call.
        engine: engine and sampling.
    """

    model: str
    questions: str
    out: str = ""
    num_traces: int = 4
    budgets: str = ""
    window: int | None = None
    max_tokens: int | None = None
    layers: str = "all"
    grader: str = "number"
    grader_options: dict[str, Any] = field(default_factory=dict)
    skip_ungraded: bool = False
    seed: int = 0
    limit: int | None = None
    retry_failed: bool = True
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        _check(
            [
                _at_least("--traces", self.num_traces, 1),
                None if self.limit is None else _at_least("--limit", self.limit, 1),
                _layers_problem(self.layers),
                _menu_problem(self),
            ]
        )

    @property
    def menu(self) -> Menu:
        """The caps to probe."""
        if not self.budgets:
            return Menu.evenly(self.window or 16, self.max_tokens or 256)
        if self.window is not None or self.max_tokens is not None:
            raise InvalidMenuError("give --budgets, or --window and --max-tokens, not both")
        return Menu.parse(self.budgets)

    def layer_numbers(self, num_layers: int | None) -> tuple[int, ...]:
        """The layers asked for, of a model with `num_layers` decoder layers (None: it shows none)."""
        if num_layers is None and self.layers not in ("all", "none"):
            raise InvalidSettingsError(f"--layers {self.layers}: this engine shows no hidden states; use --layers none")
        if self.layers == "none" or num_layers is None:
            return ()
        if self.layers == "all":
            return tuple(range(num_layers + 1))
        layers = tuple(sorted({int(part) for part in self.layers.split(",")}))
        if layers[-1] > num_layers:
            raise InvalidSettingsError(f"--layers {self.layers}: the model has layers 0 to {num_layers}")
        return layers


def _layers_problem(layers: str) -> str | None:
    if layers in ("all", "none") or all(part.strip().isdecimal() for part in layers.split(",")):
        return None
    return f"--layers must be 'all', 'none' or numbers separated by commas, not {layers!r}"


def _menu_problem(settings: ProfileSettings) -> str | None:
    try:
        settings.menu  # noqa: B018  (made to be refused)
    except InvalidMenuError as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """`forethought import`: turn outside measurements into a profile.

    Attributes:
        files: CSV, Parquet or JSONL files with the same columns.
        out: the profile's Parquet file; "" for `runs/NAME.parquet`.
        shape: "long" (a row a trace and budget), "wide" (a row a query), or "auto": by the columns.
        columns: what a column means (id, budget, correct, tried, tokens, reasoning, sample, question, hidden) -> its
            name in the files, "" for none; what is not named is found by its usual names.
        tried: traces that each count is out of, where no column says so.
        window: tokens between two budgets; needed where counts stand in a list without budgets.
        max_tokens: largest budget to take over.
        layer: which decoder layer the hidden states come from.
        where: COLUMN=VALUE; only rows whose cell is that text are read.
        any_order: the rows of a long table need not ascend by budget.
        name: of the profile; "" for the first file's.
        model, template, grader: what made the measurements; "" where it is not known.
        temperature, top_p: how the traces were drawn; None where it is not known.
        simulated: the measurements come from a simulation.
        dry_run: read and check, and write nothing.
    """

    files: tuple[str, ...]
    out: str = ""
    shape: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    tried: int | None = None
    window: int | None = None
    max_tokens: int | None = None
    layer: int | None = None
    where: tuple[str, ...] = ()
    any_order: bool = False
    name: str = ""
    model: str = ""
    template: str = ""
    grader: str = ""
    temperature: float | None = None
    top_p: float | None = None
    simulated: bool = False
    dry_run: bool = False

    MEANINGS: ClassVar = ("id", "budget", "correct", "tried", "tokens", "reasoning", "sample", "question", "hidden")

    def __post_init__(self) -> None:
        least = {"--tried": self.tried, "--window": self.window, "--max-tokens": self.max_tokens}
        both = (self.temperature is None) == (self.top_p is None)
        _check(
            [
                None if self.files else "name at least one file to import",
                *(f"--where takes COLUMN=VALUE, not {each!r}" for each in self.where if not each.partition("=")[1]),
                None if self.shape in ("auto", "long", "wide") else f"--shape: auto, long or wide, not {self.shape!r}",
                *(
                    f"there is no column {key!r}; known: {', '.join(self.MEANINGS)}"
                    for key in self.columns
                    if key not in self.MEANINGS
                ),
                *(_at_least(flag, value, 1) for flag, value in least.items() if value is not None),
                None if self.layer is None else _at_least("--layer", self.layer, 0),
                None if both else "give both --temperature and --top-p, or neither: half of a sampling is not known",
                *_drawing(self.temperature, self.top_p),
            ]
        )

    @property
    def conditions(self) -> dict[str, str]:
        """Column -> the text that its cell must hold."""
        return {name: value for name, _, value in (each.partition("=") for each in self.where)}

    @property
    def sampling(self) -> Sampling | None:
        """Temperature and nucleus, or None when they are not known."""
        if self.temperature is None or self.top_p is None:
            return None
        return Sampling(temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """`forethought train`: fit a predictor on a profile.

    Attributes:
        run: profile run directory or profile Parquet file.
        more: further ones, measured in the same way, to train on as well.
        predictor: registered name, or "auto": the default for what the profile holds.
        out: folder to save to; "" for `RUN/predictor` (beside a Parquet file: its name without the ending).
        layers: "all" recorded layers to choose from, or numbers separated by commas.
        num_folds: folds of the cross-validation.
        seed: seed of the folds and of the fit.
        options: anything else the predictor's class takes.
        model: where the profile's model is found here, for a predictor that asks it; "" for the name in the profile.
        engine: engine and context of that model.
    """

    run: str
    more: tuple[str, ...] = ()
    predictor: str = "auto"
    out: str = ""
    layers: str = "all"
    num_folds: int = 5
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        nothing = "--layers none leaves nothing to learn from; try --predictor mean" if self.layers == "none" else None
        _check([_at_least("--folds", self.num_folds, 2), nothing or _layers_problem(self.layers)])


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersSettings:
    """`forethought layers`: how well each layer of a model tells the success curves.

    Attributes:
        run: profile run directory or profile Parquet file.
        states: folder with hidden states of every layer; "" for the profile's own.
        read: read states that the folder lacks with the model now; else their questions are left out.
        pooling: "last" prompt token, "mean" over the question's tokens, or "both".
        layers: "all", or numbers separated by commas.
        mean_tokens: mean budgets of the plans that are judged; () for 1/5, 2/5 and 3/5 of the menu's maximum.
        limit: only the first questions.
        out: folder for the report; "" for `RUN/layers`.
        num_resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        plots: draw a picture (needs matplotlib).
        model: where the profile's model is found here; "" for the name in the profile.
        template: the same for its prompt template, when that is a file.
        engine: engine and context of that model.
    """

    run: str
    states: str = ""
    read: bool = True
    pooling: str = "both"
    layers: str = "all"
    mean_tokens: tuple[float, ...] = ()
    limit: int | None = None
    out: str = ""
    num_resamples: int = 2000
    seed: int = 0
    plots: bool = True
    model: str = ""
    template: str = ""
    engine: EngineSettings = EngineSettings()

    POOLINGS: ClassVar = ("last", "mean")

    def __post_init__(self) -> None:
        known = (*self.POOLINGS, "both")
        nothing = "--layers none leaves nothing to compare" if self.layers == "none" else None
        _check(
            [
                None if self.pooling in known else f"--pooling: {', '.join(known)}, not {self.pooling!r}",
                nothing or _layers_problem(self.layers),
                *(
                    None if 0 < each < float("inf") else f"--mean-tokens must be positive, not {each:g}"
                    for each in self.mean_tokens
                ),
                None if self.limit is None else _at_least("--limit", self.limit, 2),
                _at_least("--resamples", self.num_resamples, 100),
            ]
        )

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings asked for."""
        return self.POOLINGS if self.pooling == "both" else (self.pooling,)

    @property
    def layer_numbers(self) -> tuple[int, ...] | None:
        """The layers asked for, ascending; None for all."""
        return None if self.layers == "all" else tuple(sorted({int(part) for part in self.layers.split(",")}))

    def levels(self, menu: Menu) -> tuple[float, ...]:
        """The mean budgets to judge plans at, ascending; raises InvalidSettingsError for one outside the menu."""
        usual = (max(menu.smallest, round(part * menu.num_options / 5) * menu.smallest) for part in (1, 2, 3))
        levels = tuple(sorted(set(self.mean_tokens or map(float, usual))))
        if outside := [f"{level:g}" for level in levels if not menu.smallest <= level <= menu.largest]:
            raise InvalidSettingsError(
                f"--mean-tokens must lie between {menu.smallest} and {menu.largest}, the profile's grid; "
                f"got {', '.join(outside)}"
            )
        return levels


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings(QuestionColumns):
    """`forethought plan`: divide a total over questions.

    Attributes:
        run: what holds the predictor: run directory, predictor folder or shipped name.
        questions: file, "-", dataset name, or a profile whose hidden states are recorded.
        mean_tokens: the total as tokens a question; exclusive with `total_tokens`.
        total_tokens: the total in tokens.
        allocator: registered name.
        allocator_options: what the allocator's class takes.
        cost: what the total is counted in.
        min_tokens, max_tokens: bounds for every query's cap; a query's own bounds come first.
        limit: only the first questions.
        model: where the predictor's model is found here; "" for the name on its card.
        template: the same for its prompt template, when that is a file.
        engine: engine and context; its sampling comes from the predictor's card.
    """

    run: str
    questions: str
    mean_tokens: float | None = None
    total_tokens: float | None = None
    allocator: str = "envelope"
    allocator_options: dict[str, Any] = field(default_factory=dict)
    cost: Cost = Cost.GRANTED
    min_tokens: int | None = None
    max_tokens: int | None = None
    limit: int | None = None
    model: str = ""
    template: str = ""
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        totals = {"--mean-tokens": self.mean_tokens, "--total-tokens": self.total_tokens}
        given = {flag: value for flag, value in totals.items() if value is not None}
        _check(
            [
                None if len(given) == 1 else "give either --mean-tokens N or --total-tokens N",
                *(
                    None if 0 < value < float("inf") else f"{flag} must be a positive number of tokens, not {value:g}"
                    for flag, value in given.items()
                ),
                None if self.limit is None else _at_least("--limit", self.limit, 1),
                None if self.min_tokens is None else _at_least("--min-tokens", self.min_tokens, 1),
                None if self.max_tokens is None else _at_least("--max-tokens", self.max_tokens, 1),
                f"--min-tokens {self.min_tokens} is above --max-tokens {self.max_tokens}"
                if None not in (self.min_tokens, self.max_tokens) and self.min_tokens > self.max_tokens  # type: ignore[operator]
                else None,
            ]
        )

    def total_for(self, num_queries: int) -> float:
        """The total in tokens for that many queries."""
        return self.total_tokens if self.total_tokens is not None else float(self.mean_tokens or 0) * num_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`forethought run`: plan, reason under the caps, answer.

    Attributes:
        plan: what to divide and how.
        out: run directory; "" for `runs/run-QUESTIONS-TOKENS`.
        compare: further allocators judged on the same traces ("uniform", "blind").
        grader: registered name; used where a question has a reference answer.
        grader_options: what the grader's class takes.
        seed: seed of every trace's seed.
        retry_failed: try failed questions again, once a call.
        hard_total: under spent cost, generate never more than the total: later questions get what is left.
    """

    plan: PlanSettings
    out: str = ""
    compare: tuple[str, ...] = ()
    grader: str = "number"
    grader_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    retry_failed: bool = True
    hard_total: bool = False

    def __post_init__(self) -> None:
        spent = self.plan.cost is Cost.SPENT
        _check(
            [
                "--hard-total counts tokens that are generated: add --cost spent"
                if self.hard_total and not spent
                else None,
                "--hard-total counts the answers of one allocator: leave --compare out"
                if self.hard_total and self.compare
                else None,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeSettings:
    """`forethought grade`: judge answers that stand in a file beside their references.

    Attributes:
        file: JSONL, JSON, CSV, TSV or Parquet.
        answer_column: where the answers stand; "" for the first usual name that the file has.
        reference_column: the same for the references.
        id_column: the same for the ids; a row without one goes by its place.
        grader: registered name.
        grader_options: what the grader's class takes.
        skip_ungraded: leave rows out whose reference is missing or cannot be read, instead of refusing them.
        limit: only the first rows.
    """

    file: str
    answer_column: str = ""
    reference_column: str = ""
    id_column: str = ""
    grader: str = "number"
    grader_options: dict[str, Any] = field(default_factory=dict)
    skip_ungraded: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        _check([None if self.limit is None else _at_least("--limit", self.limit, 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RegradeSettings:
    """`forethought regrade`: judge the kept records of a run anew, without generating.

    Attributes:
        run: a profile's or a run's directory.
        answers: file with corrected references for some of its questions; "" to keep those that it has.
        answer_column: where they stand in it; "" for the first usual name that the file has.
        grader: registered name; "" for the run's own.
        grader_options: what the grader's class takes; None for the run's own, or none where another grader is named.
        skip_ungraded: leave traces ungraded whose reference is missing or cannot be read, instead of refusing them.
        dry_run: count what would change, and write nothing.
    """

    run: str
    answers: str = ""
    answer_column: str = ""
    grader: str = ""
    grader_options: dict[str, Any] | None = None
    skip_ungraded: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """`forethought evaluate`: what prediction and allocation buy on measured curves.

    Attributes:
        run: what holds the predictor, or a profile run to be cross-fitted, or a finished `run --compare`.
        on: held-out profile: run directory or Parquet file; "" for the shipped one of a shipped predictor, else
            cross-fitting on `run` itself.
        out: folder for the report; "" for `RUN/evaluation`.
        allocator: registered name.
        allocator_options: what the allocator's class takes.
        predictor: registered name, for cross-fitting; "auto" for the default of `train`.
        num_resamples: bootstrap resamples.
        seed: seed of bootstrap and folds.
        plots: draw pictures (needs matplotlib).
        model: where the profile's model is found here, for a predictor that asks it; "" for the name in the profile.
        engine: engine and context of that model.
    """

    run: str
    on: str = ""
    out: str = ""
    allocator: str = "envelope"
    allocator_options: dict[str, Any] = field(default_factory=dict)
    predictor: str = "auto"
    num_resamples: int = 2000
    seed: int = 0
    plots: bool = True
    model: str = ""
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        _check([_at_least("--resamples", self.num_resamples, 100)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """`forethought compare`: several predictors on one held-out profile, with what each costs itself.

    Attributes:
        predictors: trained runs, predictor folders or shipped names; the first is the one that leads count from.
        on: held-out profile: run directory or Parquet file; "" for the shipped one of a shipped first predictor.
        names: what they are called in the report, in their order; empty for the names of their folders.
        labels: outside labels as NAME=FILE, a CSV of query_id and label for the queries of `train` and `on`.
        train: the profile on which the labels' curves are counted.
        out: folder for the report; "" for `runs/compare-PROFILE`.
        allocator: registered name.
        allocator_options: what the allocator's class takes.
        num_resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        plots: draw a picture (needs matplotlib).
        model: where the profile's model is found here, for a predictor that asks it; "" for the name in the profile.
        engine: engine and context of that model.
    """

    predictors: tuple[str, ...]
    on: str = ""
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    train: str = ""
    out: str = ""
    allocator: str = "envelope"
    allocator_options: dict[str, Any] = field(default_factory=dict)
    num_resamples: int = 2000
    seed: int = 0
    plots: bool = True
    model: str = ""
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        wrong = [pair for pair in self.labels if not all(pair.partition("=")[::2])]
        _check(
            [
                None if self.predictors else "give at least one predictor",
                None
                if len(self.names) in (0, len(self.predictors))
                else f"--name must be given once for each of {len(self.predictors)} predictors, or never",
                f"--labels takes NAME=FILE, not {wrong[0]!r}" if wrong else None,
                "--labels needs --train PROFILE, on which their curves are counted"
                if self.labels and not self.train
                else None,
                _at_least("--resamples", self.num_resamples, 100),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSettings:
    """`forethought bench paper`: the published measurements of arXiv 2602.01237.

    Attributes:
        folder: holds train.parquet and the split judged on.
        split: which one, by the name of its file.
        out: folder for the report; "" for `runs/bench-paper-SPLIT`.
        mean_tokens: mean tokens a question to compare at; () for every budget of the menu.
        predictor: forethought's, by registered name; "" for the default of `train`.
        allocator: forethought's, by registered name.
        allocator_options: what its class takes.
        compare: predictors beside it, each with the envelope, greedy and the paper's greedy.
        num_resamples: bootstrap resamples.
        seed: seed of bootstrap, folds and training.
        plots: draw pictures (needs matplotlib).
    """

    folder: str
    split: str = "dev"
    out: str = ""
    mean_tokens: tuple[float, ...] = ()
    predictor: str = ""
    allocator: str = "envelope"
    allocator_options: dict[str, Any] = field(default_factory=dict)
    compare: tuple[str, ...] = ("ridge", "mlp", "text", "paper-mlp")
    num_resamples: int = 2000
    seed: int = 0
    plots: bool = True

    def __post_init__(self) -> None:
        wrong = not self.split or any(part in self.split for part in ("/", "\\", ".."))
        _check(
            [
                f"--split takes the name of a file in DIR, without .parquet, not {self.split!r}" if wrong else None,
                *(
                    None if 0 < each < float("inf") else f"--mean-tokens must be positive, not {each:g}"
                    for each in self.mean_tokens
                ),
                _at_least("--resamples", self.num_resamples, 100),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """`forethought demo`: the main job on what comes with the package.

    Attributes:
        name: a model with a shipped predictor.
        mean_tokens: reasoning tokens a question; None for where the mean curve is steepest.
        limit: live questions; None for what fits into a few minutes.
        out: run directory; "" for `runs/demo-NAME-DATE`.
        seed: seed of every trace's seed and of the bootstrap.
    """

    name: str = "qwen2.5-coder-1.5b"
    mean_tokens: float | None = None
    limit: int | None = None
    out: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        _check(
            [
                None if self.mean_tokens is None else _at_least("--mean-tokens", self.mean_tokens, 1),
                None if self.limit is None else _at_least("--limit", self.limit, 2),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings(QuestionColumns):
    """`forethought doctor`: what is here, and what a server can do.

    Attributes:
        base_url: the server to look at; "" for none.
        served_model: which of its models; "" for the first.
        enforce: the way to keep budgets that must work, or "auto": any.
        template: prompt template to try budgets with.
        temperature: of the thoughts; None for the likeliest ones at caps, and for as a run draws them at effort levels.
        top_p: nucleus of the thoughts.
        timeout_seconds: longest wait for one answer.
        questions: a file or dataset whose questions effort levels are measured on; "" for two of the doctor's own.
        limit: only so many of them; None for all.
        levels: effort levels to measure; none for all that are known.
        out: file for what the levels cost on `questions`.
        dry_run: ask only what costs nothing, and say what the rest would cost.
        options: anything else the openai engine takes.
    """

    base_url: str = ""
    served_model: str = ""
    enforce: str = "auto"
    template: str = "boxed"
    temperature: float | None = None
    top_p: float = 1.0
    timeout_seconds: float = 120.0
    questions: str = ""
    limit: int | None = None
    levels: tuple[str, ...] = ()
    out: str = "effort-costs.json"
    dry_run: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needs = self.enforce != "effort" or not self.base_url
        _check(
            [
                *(
                    f"{flag} measures effort levels at a server: add --base-url URL --enforce effort"
                    for flag, given in (("--questions", self.questions), ("--levels", self.levels))
                    if given and needs
                ),
                None if self.limit is None else _at_least("--limit", self.limit, 1),
                *_drawing(self.temperature, self.top_p),
            ]
        )

    def drawn(self, temperature: float) -> Sampling:
        """How thoughts are drawn, at `temperature` where none was asked for."""
        return Sampling(temperature if self.temperature is None else self.temperature, self.top_p)
