"""What each command is asked: one frozen dataclass a command, checked as a whole when made.

A field states its flag, default and help once; `commands.options` makes the command line of it. The effective values
are stored with the run. Nothing here loads a library that computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InvalidMenuError, InvalidSettingsError
from .flags import argument, flag, pairs
from .terms import Cost, Sampling

if TYPE_CHECKING:
    from .menu import Menu

_limit = partial(flag, None, "Only the first N questions.", metavar="N")
_seed = partial(flag, 0, "Seed of everything random.")
_grader = partial(flag, "number", "number, exact, choice or math.")
_grader_options = partial(pairs, "--grader-option", "Passed to the grader (repeatable).")
_allocator_options = partial(pairs, "--allocator-option", "Passed to the allocator (repeatable).")
_skip_ungraded = partial(flag, False, "Leave out what has no reference answer that can be read, not refuse it.")
_worker = partial(flag, "", "Take this share of the questions, as one of N processes that fill RUN.", metavar="K/N")
_retry_failed = partial(flag, True, "Try again what failed before, once.")
_num_resamples = partial(flag, 2000, "Bootstrap resamples.", name="--resamples")
_plots = partial(flag, True, "Draw pictures (needs matplotlib).")
_asked_model = partial(flag, "", "Where the measured model is, for a predictor that asks it.")


def _check(problems: Iterable[str | None]) -> None:
    """Raises InvalidSettingsError with every problem at once."""
    found = [problem for problem in problems if problem]
    if found:
        raise InvalidSettingsError("; ".join(found))


def _at_least(name: str, value: float | None, least: float) -> str | None:
    return None if value is None or value >= least else f"{name} must be at least {least:g}, not {value:g}"


def _positive(name: str, values: Iterable[float]) -> list[str]:
    wrong = [each for each in values if not 0 < each < float("inf")]
    return [f"{name} must be a positive number of tokens, not {each:g}" for each in wrong]


def _sampling(temperature: float | None, top_p: float | None) -> tuple[str | None, str | None]:
    """What is wrong with either; None where it is fine or not given."""
    is_fine = top_p is None or 0 < top_p <= 1
    return _at_least("--temperature", temperature, 0), None if is_fine else f"--top-p must lie in (0, 1], not {top_p:g}"


def _refused(make: Callable[[], object]) -> str | None:
    try:
        make()
    except InvalidMenuError as error:
        return str(error)
    return None


def _layers(layers: str, nothing: str | None = None) -> str | None:
    """What is wrong with a choice of layers; `nothing` is what is said of "none" where that leaves nothing to do."""
    if layers == "none" and nothing:
        return f"--layers none leaves nothing to {nothing}"
    if layers in ("all", "none") or all(part.strip().isdecimal() for part in layers.split(",")):
        return None
    return f"--layers must be 'all', 'none' or numbers separated by commas, not {layers!r}"


def _numbered(layers: str) -> tuple[int, ...]:
    return tuple(sorted({int(part) for part in layers.split(",")}))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine runs the model, and how traces are sampled. A predictor's card fixes template and sampling.

    `options` is anything else that the engine's class takes.
    """

    engine: str = flag("auto", "auto, transformers, vllm, openai, replay, fake.")
    context_tokens: int | None = flag(
        None,
        "Longest prompt + thought + answer.",
        metavar="N",
        shown="what the caps need and the model or server takes",
    )
    options: dict[str, Any] = pairs("--engine-option", "Passed to the engine.")
    template: str = flag("", "chat, a shipped name or a .json file.", shown="by the model")
    temperature: float = flag(0.6, "Of the thought.")
    top_p: float = flag(1.0, "Nucleus of the thought.")

    SAMPLED: ClassVar = ("template", "temperature", "top_p")  # what a predictor's card fixes

    def __post_init__(self) -> None:
        _check(
            [*_sampling(self.temperature, self.top_p), _at_least("--context-tokens", self.context_tokens, 64)],
        )

    @property
    def sampling(self) -> Sampling:
        """Temperature and nucleus as the engines take them."""
        return Sampling(temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionColumns:
    """Where questions stand in their file; None for the usual names, "" for none."""

    question_column: str | None = flag(None, "Column of the questions.", metavar="NAME", shown="by usual names")
    answer_column: str | None = flag(None, "Column of the answers; '' for none.", metavar="NAME")
    id_column: str | None = flag(None, "Column of the ids, or NAME,NAME; '' for none.", metavar="NAME")

    @property
    def columns(self) -> dict[str, str | None]:
        """The same as `queries.load_queries` takes them."""
        return {name: getattr(self, name) for name in QuestionColumns.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings(QuestionColumns):
    """`forethought profile`: measure success at every cap."""

    model: str = argument()
    questions: str = argument()
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/MODEL-QUESTIONS")
    num_traces: int = flag(4, "Traces a question.", name="--traces")
    budgets: str = flag("", "The caps.", metavar="CAPS", shown="by the model")
    window: int | None = flag(None, "Evenly spaced caps instead: tokens between two of them.", metavar="N")
    max_tokens: int | None = flag(None, "The largest of evenly spaced caps.", metavar="N")
    layers: str = flag("all", "Hidden states to keep: all, none, or 4,12,16.")
    grader: str = _grader()
    grader_options: dict[str, Any] = _grader_options()
    skip_ungraded: bool = _skip_ungraded()
    engine: EngineSettings = EngineSettings()
    seed: int = _seed()
    limit: int | None = _limit()
    retry_failed: bool = _retry_failed()
    worker: str = _worker()

    def __post_init__(self) -> None:
        _check(
            [
                _at_least("--traces", self.num_traces, 1),
                _at_least("--limit", self.limit, 1),
                _layers(self.layers),
                _refused(lambda: self.menu),
            ]
        )

    @property
    def names_caps(self) -> bool:
        """Whether the caps are asked for, and not left to the model."""
        return bool(self.budgets or self.window or self.max_tokens)

    @property
    def menu(self) -> Menu:
        """The caps to probe; where `engines.opening.settle` has named none, those of the built-in models."""
        from .menu import Menu

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
        layers = _numbered(self.layers)
        if layers[-1] > num_layers:
            raise InvalidSettingsError(f"--layers {self.layers}: the model has layers 0 to {num_layers}")
        return layers


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """`forethought import`: turn outside measurements into a profile.

    `columns` says where each of `MEANINGS` stands in the files ("" for nowhere); the rest is found by usual names.
    """

    files: tuple[str, ...] = argument(metavar="FILE...")
    out: str = flag("", "The profile.", metavar="FILE", shown="runs/NAME.parquet")
    shape: str = flag("auto", "A row a trace and budget, or a row a query.", choices=("auto", "long", "wide"))
    columns: dict[str, str] = field(default_factory=dict)
    tried: int | None = flag(None, "Traces the counts are out of, where no column says.", metavar="N")
    budgets: str = flag("", "Take only these caps over.", metavar="CAPS", shown="all of the files'")
    last_cut: bool = flag(False, "Each trace has cuts of its own: at a cap it counts as at its last cut before it.")
    window: int | None = flag(None, "Only evenly spaced caps: tokens between two.", metavar="N")
    max_tokens: int | None = flag(None, "Largest budget to take over.", metavar="N", shown="all")
    layer: int | None = flag(None, "Decoder layer of the hidden states.", metavar="N")
    where: tuple[str, ...] = flag((), "Only rows whose cell is that text.", metavar="COLUMN=VALUE")
    any_order: bool = flag(False, "The rows of a long table need not ascend by budget.")
    name: str = flag("", "Of the profile.", shown="the first file's")
    model: str = flag("", "What was measured.", shown="unknown")
    template: str = flag("", "Its prompt template.", shown="unknown")
    grader: str = flag("", "What judged the answers.", shown="unknown")
    temperature: float | None = flag(None, "Of the thought.", shown="unknown")
    top_p: float | None = flag(None, "Nucleus of the thought.", shown="unknown")
    simulated: bool = flag(False, "No model was measured: say so wherever the profile is shown.")
    dry_run: bool = flag(False, "Read and check; write nothing.")

    MEANINGS: ClassVar = {
        "id": "Query ids; of several columns: NAME,NAME.",
        "budget": "Budgets in tokens; lists in a wide table.",
        "correct": "Right or wrong, or how many were right; in a wide table lists, or what correct_16, … begins with.",
        "tried": "How many traces the counts are out of.",
        "tokens": "Tokens generated, answer included.",
        "reasoning": "Reasoning tokens alone.",
        "answer": "What was answered, as text: kept for votes.",
        "length": "Tokens of the whole trace: at a cap it used these, at most the cap.",
        "sample": "Which trace of the query a row of a long table is.",
        "question": "The question's text.",
        "hidden": "Lists of a hidden state (wide table; name its --layer).",
    }

    def __post_init__(self) -> None:
        least = {"--tried": self.tried, "--window": self.window, "--max-tokens": self.max_tokens}
        both = (self.temperature is None) == (self.top_p is None)
        known = ", ".join(self.MEANINGS)
        _check(
            [
                None if self.files else "name at least one file to import",
                *(f"--where takes COLUMN=VALUE, not {each!r}" for each in self.where if not each.partition("=")[1]),
                None if self.shape in ("auto", "long", "wide") else f"--shape: auto, long or wide, not {self.shape!r}",
                *(f"there is no column {key!r}; known: {known}" for key in self.columns if key not in self.MEANINGS),
                *(_at_least(name, value, 1) for name, value in least.items()),
                _refused(lambda: self.menu),
                None if self.shape != "wide" or not self.last_cut else "--last-cut: a wide table has no traces",
                None if self.budgets or not self.last_cut else "--last-cut needs the caps: --budgets CAPS",
                _at_least("--layer", self.layer, 0),
                None if both else "give both --temperature and --top-p, or neither: half of a sampling is not known",
                *_sampling(self.temperature, self.top_p),
            ]
        )

    @property
    def menu(self) -> Menu | None:
        """The caps asked for by name, if any."""
        from .menu import Menu

        if not self.budgets:
            return None
        if self.window is not None or self.max_tokens is not None:
            raise InvalidMenuError("give --budgets, or --window and --max-tokens, not both")
        return Menu.parse(self.budgets)

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
    """`forethought train`: fit a predictor on a profile, and on `more` of them measured in the same way."""

    run: str = argument()
    more: tuple[str, ...] = argument(())
    predictor: str = flag("auto", "auto, ridge, mlp, text, stack, lora, prompted, mean or paper-mlp.")
    options: dict[str, Any] = pairs("--predictor-option", "Passed to the predictor.")
    out: str = flag("", "Where to save it.", metavar="FOLDER", shown="RUN/predictor")
    layers: str = flag("all", "Layers to choose from: all, or 4,12,16.")
    num_folds: int = flag(5, "Folds of the cross-validation.", name="--folds")
    model: str = _asked_model()
    engine: EngineSettings = EngineSettings()
    seed: int = _seed()

    def __post_init__(self) -> None:
        _check(
            [_at_least("--folds", self.num_folds, 2), _layers(self.layers, "learn from; try --predictor mean")],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersSettings:
    """`forethought layers`: how well each layer of a model tells the accuracy curves."""

    run: str = argument()
    states: str = flag("", "Hidden states of every layer; what it lacks is read now.", metavar="FOLDER")
    read: bool = flag(True, "Read them, or leave their questions out.")
    pooling: str = flag("both", "last (prompt token), mean (of the question) or both.")
    layers: str = flag("all", "Layers to compare: all, or 4,12,16.")
    mean_tokens: tuple[float, ...] = flag(
        (), "Mean budgets of the plans judged.", metavar="N,…", shown="1/5, 2/5 and 3/5 of the largest cap"
    )
    limit: int | None = _limit()
    out: str = flag("", "Where the report goes.", metavar="FOLDER", shown="RUN/layers")
    model: str = flag("", "Where the measured model is.", shown="its name in the profile")
    template: str = flag("", "Its prompt template.", shown="its name in the profile")
    engine: EngineSettings = EngineSettings()
    num_resamples: int = _num_resamples()
    plots: bool = _plots()
    seed: int = _seed()

    POOLINGS: ClassVar = ("last", "mean")

    def __post_init__(self) -> None:
        known = (*self.POOLINGS, "both")
        _check(
            [
                None if self.pooling in known else f"--pooling: {', '.join(known)}, not {self.pooling!r}",
                _layers(self.layers, "compare"),
                *_positive("--mean-tokens", self.mean_tokens),
                _at_least("--limit", self.limit, 2),
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
        return None if self.layers == "all" else _numbered(self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings(QuestionColumns):
    """`forethought plan`: divide a total over questions. A query's own bounds come before those given here."""

    run: str = argument()
    questions: str = argument()
    mean_tokens: float | None = flag(None, "The total, as tokens a question.", metavar="N")
    total_tokens: float | None = flag(None, "The total in tokens.", metavar="N")
    allocator: str = flag("envelope", "envelope, exact, greedy, blind, uniform.")
    allocator_options: dict[str, Any] = _allocator_options()
    cost: Cost = flag(Cost.GRANTED, "Count the total as the sum of caps, or as tokens expected to be generated.")
    model: str = flag("", "Where the predictor's model is.", shown="the name on its card")
    template: str = flag("", "Its prompt template's file.", shown="the name on its card")
    min_tokens: int | None = flag(None, "Least cap of any question.", metavar="N")
    max_tokens: int | None = flag(None, "Largest cap of any question.", metavar="N")
    engine: EngineSettings = EngineSettings()
    limit: int | None = _limit()

    def __post_init__(self) -> None:
        totals = {"--mean-tokens": self.mean_tokens, "--total-tokens": self.total_tokens}
        given = {name: value for name, value in totals.items() if value is not None}
        least, most = self.min_tokens, self.max_tokens
        _check(
            [
                None if len(given) == 1 else "give either --mean-tokens N or --total-tokens N",
                *(problem for name, value in given.items() for problem in _positive(name, [value])),
                _at_least("--limit", self.limit, 1),
                _at_least("--min-tokens", least, 0),
                _at_least("--max-tokens", most, 0),
                f"--min-tokens {least} is above --max-tokens {most}"
                if least is not None and most is not None and least > most
                else None,
            ]
        )

    def total_for(self, num_queries: int) -> float:
        """The total in tokens for that many queries."""
        return self.total_tokens if self.total_tokens is not None else float(self.mean_tokens or 0) * num_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`forethought run`: plan, reason under the caps, answer."""

    plan: PlanSettings
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/run-QUESTIONS-TOKENS-COST")
    compare: tuple[str, ...] = flag((), "Judge this allocator on the same traces too (repeatable).", metavar="NAME")
    hard_total: bool = flag(False, "With --cost spent: never generate more; later questions get what is left.")
    grader: str = _grader()
    grader_options: dict[str, Any] = _grader_options()
    seed: int = _seed()
    retry_failed: bool = _retry_failed()
    worker: str = _worker()

    def __post_init__(self) -> None:
        is_granted = self.plan.cost is not Cost.SPENT
        _check(
            [
                "--hard-total counts tokens that are generated: add --cost spent"
                if self.hard_total and is_granted
                else None,
                "--hard-total is kept by one process: leave --worker out" if self.hard_total and self.worker else None,
                "--hard-total counts the answers of one allocator: leave --compare out"
                if self.hard_total and self.compare
                else None,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlanSettings:
    """`forethought run --plan`: carry out the plan of a file."""

    plan_file: str
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/run-FILE")
    grader: str = _grader()
    grader_options: dict[str, Any] = _grader_options()
    model: str = flag("", "Where the predictor's model is.", shown="the name on its card")
    template: str = flag("", "Its prompt template's file.", shown="the name on its card")
    engine: EngineSettings = EngineSettings()
    retry_failed: bool = _retry_failed()
    worker: str = _worker()


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeSettings:
    """`forethought grade`: judge answers that stand in a file beside their references."""

    file: str = argument()
    grader: str = _grader()
    grader_options: dict[str, Any] = _grader_options()
    answer_column: str = flag("", "Answers.", metavar="NAME", shown="answer, prediction, …")
    reference_column: str = flag("", "Right answers.", metavar="NAME", shown="reference, target, …")
    id_column: str = flag("", "Ids.", metavar="NAME", shown="id, else the row's place")
    skip_ungraded: bool = _skip_ungraded()
    limit: int | None = _limit()

    def __post_init__(self) -> None:
        _check([_at_least("--limit", self.limit, 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RegradeSettings:
    """`forethought regrade`: judge the kept records of a run anew, without generating."""

    run: str = argument()
    grader: str = flag("", "number, exact, choice or math.", shown="the run's own")
    grader_options: dict[str, Any] = _grader_options()
    answers: str = flag("", "Corrected references, by id or by question.", metavar="FILE")
    answer_column: str = flag("", "Where they stand in it.", metavar="NAME", shown="answer, …")
    skip_ungraded: bool = _skip_ungraded()
    dry_run: bool = flag(False, "Count what would change; write nothing.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """`forethought evaluate`: what prediction and allocation buy on measured curves."""

    run: str = argument()
    on: str = flag("", "Held-out profile: run directory or Parquet file.", metavar="PROFILE")
    out: str = flag("", "Where the report goes.", metavar="FOLDER", shown="RUN/evaluation")
    allocator: str = flag("envelope", "Whose plans are judged.")
    allocator_options: dict[str, Any] = _allocator_options()
    predictor: str = flag("auto", "For cross-fitting a profile run.")
    model: str = _asked_model()
    engine: EngineSettings = EngineSettings()
    num_resamples: int = _num_resamples()
    plots: bool = _plots()
    seed: int = _seed()

    def __post_init__(self) -> None:
        _check([_at_least("--resamples", self.num_resamples, 100)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """`forethought compare`: several predictors on one held-out profile, with what each costs itself."""

    predictors: tuple[str, ...] = argument()
    on: str = flag("", "Held-out profile.", metavar="PROFILE", shown="the shipped one of the first")
    names: tuple[str, ...] = flag((), "What each is called, in their order.", name="--name")
    labels: tuple[str, ...] = flag((), "Another tool's labels: CSV of query_id, label.", metavar="NAME=FILE")
    train: str = flag("", "Where the labels' curves are counted.", metavar="PROFILE")
    out: str = flag("", "Where the report goes.", metavar="FOLDER", shown="runs/compare-PROFILE")
    allocator: str = flag("envelope", "Whose plans are judged.")
    allocator_options: dict[str, Any] = _allocator_options()
    num_resamples: int = _num_resamples()
    plots: bool = _plots()
    model: str = _asked_model()
    engine: EngineSettings = EngineSettings()
    seed: int = _seed()

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
    """`forethought bench paper`: the published measurements of arXiv 2602.01237."""

    folder: str = argument(metavar="DIR")
    split: str = flag("dev", "Judged on: DIR/NAME.parquet.", metavar="NAME")
    out: str = flag("", "Where the report goes.", metavar="FOLDER", shown="runs/bench-paper-SPLIT")
    mean_tokens: tuple[float, ...] = flag((), "Mean budgets to compare at.", metavar="N,…", shown="every budget")
    predictor: str = flag("", "Forethought's.", metavar="NAME", shown="that of train")
    allocator: str = flag("envelope", "Forethought's.")
    allocator_options: dict[str, Any] = _allocator_options()
    compare: tuple[str, ...] = flag(
        ("ridge", "mlp", "text", "paper-mlp"), "Predictors beside it, or none.", metavar="NAME,…"
    )
    num_resamples: int = _num_resamples()
    plots: bool = _plots()
    seed: int = _seed()

    def __post_init__(self) -> None:
        wrong = not self.split or any(part in self.split for part in ("/", "\\", ".."))
        _check(
            [
                f"--split takes the name of a file in DIR, without .parquet, not {self.split!r}" if wrong else None,
                *_positive("--mean-tokens", self.mean_tokens),
                _at_least("--resamples", self.num_resamples, 100),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """`forethought demo`: the main job on what comes with the package."""

    name: str = argument("qwen2.5-coder-1.5b")
    mean_tokens: float | None = flag(None, "Budget a question.", metavar="N", shown="where the curve is steepest")
    limit: int | None = flag(None, "Live questions.", metavar="N", shown="what fits into a few minutes")
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/demo-NAME-DATE")
    seed: int = _seed()

    def __post_init__(self) -> None:
        _check([_at_least("--mean-tokens", self.mean_tokens, 1), _at_least("--limit", self.limit, 2)])


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings(QuestionColumns):
    """`forethought doctor`: what is here, and what a server can do. `options` is what else the openai engine takes."""

    base_url: str = ""
    served_model: str = ""
    enforce: str = "auto"
    template: str = flag("boxed", "Prompt template to try budgets with.")
    temperature: float | None = flag(None, "Of the thought.", shown="0 for caps, 0.6 for effort levels")
    top_p: float = flag(1.0, "Nucleus of the thought.")
    timeout_seconds: float = flag(120.0, "Seconds a request.", name="--timeout")
    questions: str = flag("", "With --enforce effort: questions to measure levels on.", metavar="FILE")
    limit: int | None = _limit()
    levels: tuple[str, ...] = flag((), "Only these effort levels.", metavar="A,B", shown="all that are known")
    out: str = flag("effort-costs.json", "Where their costs are written.", metavar="FILE")
    options: dict[str, Any] = pairs("--engine-option", "Passed to the engine.")
    dry_run: bool = flag(False, "Say what would be done and what it may cost; do nothing.")

    def __post_init__(self) -> None:
        needs = self.enforce != "effort" or not self.base_url
        _check(
            [
                *(
                    f"{name} measures effort levels at a server: add --base-url URL --enforce effort"
                    for name, given in (("--questions", self.questions), ("--levels", self.levels))
                    if given and needs
                ),
                _at_least("--limit", self.limit, 1),
                *_sampling(self.temperature, self.top_p),
            ]
        )

    def drawn(self, temperature: float) -> Sampling:
        """How thoughts are sampled, at `temperature` where none was asked for."""
        return Sampling(temperature if self.temperature is None else self.temperature, self.top_p)
