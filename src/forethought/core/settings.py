"""Settings of the commands: one frozen dataclass per command, validated as a whole when it is made.

A field states its flag, default and help once; `commands.options` builds the command line from it. The effective
values are stored with the run. Nothing here imports a numerical library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InvalidMenuError, InvalidSettingsError
from .flags import (
    MOST_TRACES,
    allocator_options_flag,
    argument,
    asked_model_flag,
    at_least,
    check_all,
    flag,
    grader_flag,
    grader_options_flag,
    hard_cap_flag,
    hard_cap_problems,
    history_flag,
    layers_problem,
    limit_flag,
    numbered,
    pairs,
    positive,
    refused,
    retry_failed_flag,
    samples_flag,
    sampling_problems,
    seed_flag,
    skip_ungraded_flag,
    vote_weights_flag,
    weights_problem,
    worker_flag,
)
from .terms import Cost, Sampling

if TYPE_CHECKING:
    from .menu import Menu


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The engine that runs the model, and how traces are sampled. A predictor's card sets template and sampling.

    `options` holds further keyword arguments of the engine's class.
    """

    engine: str = flag("auto", "Engine: auto, transformers, vllm, openai, replay, fake.")
    context_tokens: int | None = flag(
        None,
        "Context length: tokens of prompt, thought and answer together.",
        metavar="N",
        shown="as the caps need, within the limit of the model or server",
    )
    options: dict[str, Any] = pairs("--engine-option", "Option of the engine (repeatable).")
    template: str = flag("", "Prompt template: chat, a shipped name or a .json file.", shown="chosen by model")
    temperature: float = flag(0.6, "Sampling temperature of the thought.")
    top_p: float = flag(1.0, "Nucleus sampling (top-p) of the thought.")

    SAMPLED: ClassVar = ("template", "temperature", "top_p")  # what a predictor's card fixes

    def __post_init__(self) -> None:
        check_all(
            [*sampling_problems(self.temperature, self.top_p), at_least("--context-tokens", self.context_tokens, 64)],
        )

    @property
    def sampling(self) -> Sampling:
        """Temperature and nucleus as the engines take them."""
        return Sampling(temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where workers run that fill a run together; none without `ray`. Not part of what a run is."""

    ray: str = flag(
        "",
        "Run on Ray: local starts one on this machine, auto uses the one that runs here, or the address of a cluster.",
        metavar="[local|auto|HOST:PORT]",
        bare="local",
    )
    workers: int | None = flag(None, "Workers on Ray, each with an engine of its own.", metavar="N")
    gpus_per_worker: float = flag(0.0, "GPUs of each worker on Ray.", metavar="G")

    def __post_init__(self) -> None:
        is_address = self.ray in ("", "local", "auto") or re.fullmatch(r".+:\d+", self.ray)
        check_all(
            [
                None
                if is_address
                else f"--ray {self.ray}: give local, auto or HOST:PORT; a flag without any comes behind the questions",
                "--ray needs --workers N" if self.ray and self.workers is None else None,
                "--workers and --gpus-per-worker need --ray"
                if not self.ray and (self.workers is not None or self.gpus_per_worker)
                else None,
                at_least("--workers", self.workers, 1),
                at_least("--gpus-per-worker", self.gpus_per_worker, 0),
            ]
        )

    def beside(self, worker: str) -> str | None:
        """What is wrong with `--worker` beside it."""
        problem = "--worker is for processes that you start yourself: leave it out with --ray"
        return problem if self.ray and worker else None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionColumns:
    """Columns of a question file; None for the usual names, "" for no such column."""

    question_column: str | None = flag(None, "Column of the questions.", metavar="NAME", shown="the usual names")
    answer_column: str | None = flag(None, "Column of the reference answers; '' for none.", metavar="NAME")
    id_column: str | None = flag(None, "Column of the ids, or several: NAME,NAME; '' for none.", metavar="NAME")

    @property
    def columns(self) -> dict[str, str | None]:
        """The same as `queries.load_queries` takes them."""
        return {name: getattr(self, name) for name in QuestionColumns.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings(QuestionColumns):
    """`forethought profile`: measure success at every cap, or under every option of a menu."""

    model: str = argument()
    questions: str = argument()
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/MODEL-QUESTIONS", is_main=True)
    num_traces: int = flag(4, "Traces per question.", name="--traces", is_main=True)
    history: str = history_flag()
    budgets: str = flag("", "The caps to measure.", metavar="CAPS", shown="chosen by model", is_main=True)
    menu_file: str = flag(
        "",
        "Menu file: named options, such as effort levels, instead of caps.",
        name="--menu",
        metavar="FILE",
        is_main=True,
    )
    window: int | None = flag(None, "Use evenly spaced caps, N tokens apart.", metavar="N")
    max_tokens: int | None = flag(None, "Largest of the evenly spaced caps.", metavar="N")
    layers: str = flag("all", "Layers whose hidden states are stored: all, none, or 4,12,16.")
    grader: str = grader_flag()
    grader_options: dict[str, Any] = grader_options_flag()
    skip_ungraded: bool = skip_ungraded_flag()
    engine: EngineSettings = EngineSettings()
    seed: int = seed_flag()
    limit: int | None = limit_flag(is_main=True)
    retry_failed: bool = retry_failed_flag()
    worker: str = worker_flag()
    cluster: ClusterSettings = ClusterSettings()

    def __post_init__(self) -> None:
        check_all(
            [
                self.cluster.beside(self.worker),
                at_least("--traces", self.num_traces, 1, MOST_TRACES),
                at_least("--limit", self.limit, 1),
                layers_problem(self.layers),
                refused(lambda: self.menu),
            ]
        )

    @property
    def names_caps(self) -> bool:
        """Whether the caps, or options, are asked for, and not left to the model."""
        return bool(self.budgets or self.menu_file or self.window or self.max_tokens)

    @property
    def menu(self) -> Menu:
        """What to measure; where `engines.opening.settle` has named no caps, those of the built-in models."""
        from .menu import Menu

        if self.menu_file:
            if self.budgets or self.window is not None or self.max_tokens is not None:
                raise InvalidMenuError("give --menu FILE, or caps (--budgets, --window, --max-tokens), not both")
            found = Menu.read(self.menu_file)
            found.check_singles()
            return found
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
        layers = numbered(self.layers)
        if layers[-1] > num_layers:
            raise InvalidSettingsError(f"--layers {self.layers}: the model has layers 0 to {num_layers}")
        return layers


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """`forethought train`: fit a predictor on a profile, and on `more` profiles measured in the same way."""

    run: str = argument()
    more: tuple[str, ...] = argument(())
    predictor: str = flag(
        "auto", "Predictor: auto, ridge, mlp, text, stack, lora, prompted, mean, history or paper-mlp.", is_main=True
    )
    options: dict[str, Any] = pairs("--predictor-option", "Option of the predictor (repeatable).", is_main=True)
    out: str = flag("", "Folder of the predictor.", metavar="FOLDER", shown="RUN/predictor", is_main=True)
    layers: str = flag("all", "Layers to choose from: all, or 4,12,16.", is_main=True)
    samples: tuple[int, ...] = samples_flag()
    vote_weights: str = vote_weights_flag(metavar="answer|thought")
    num_folds: int = flag(5, "Folds of the cross-validation.", name="--folds")
    model: str = asked_model_flag()
    engine: EngineSettings = EngineSettings()
    seed: int = seed_flag()

    def __post_init__(self) -> None:
        check_all(
            [
                at_least("--folds", self.num_folds, 2),
                at_least("--seed", self.seed, 0),
                layers_problem(self.layers, "learn from; try --predictor mean"),
                *(at_least("--samples", each, 1) for each in self.samples),
                weights_problem(self.vote_weights),
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings(QuestionColumns):
    """`forethought plan`: divide a total over questions. Bounds on a query override those given here."""

    run: str = argument()
    questions: str = argument("")
    mean_tokens: float | None = flag(
        None, "The total budget, given as mean tokens per question.", metavar="N", is_main=True
    )
    total_tokens: float | None = flag(None, "The total budget in tokens.", metavar="N")
    mean_usd: float | None = flag(
        None, "The total budget in mean USD per question (needs a menu with prices).", metavar="N", is_main=True
    )
    total_usd: float | None = flag(None, "The total budget in USD.", metavar="N")
    allocator: str = flag("envelope", "Allocator: envelope, exact, greedy, blind, uniform.")
    allocator_options: dict[str, Any] = allocator_options_flag()
    cost: Cost = flag(
        None,
        "What counts against the total: caps (granted), tokens expected to be generated (spent), or their price.",
        shown="granted; usd for a total in USD",
        is_main=True,
    )
    model: str = flag("", "Name or folder of the predictor's model.", shown="the name on its card")
    template: str = flag("", "Prompt template: a name or a .json file.", shown="the name on its card")
    min_tokens: int | None = flag(None, "Smallest cap of a question.", metavar="N")
    max_tokens: int | None = flag(None, "Largest cap of a question.", metavar="N")
    waves: bool = flag(
        False,
        "With --cost spent: draw samples in waves, a further one only where it is worth its tokens.",
    )
    min_agreement: float = flag(
        0.0, "Share of the votes below which an answer is marked as abstained (0 to 1).", metavar="S"
    )
    vote_weights: str = vote_weights_flag(metavar="answer|thought|equal", shown="as the predictor's")
    engine: EngineSettings = EngineSettings()
    limit: int | None = limit_flag()

    def __post_init__(self) -> None:
        tokens = {"--mean-tokens": self.mean_tokens, "--total-tokens": self.total_tokens}
        usd = {"--mean-usd": self.mean_usd, "--total-usd": self.total_usd}
        given = {name: value for name, value in (tokens | usd).items() if value is not None}
        is_usd = any(name in usd for name in given)
        cost: Cost | None = self.cost
        least, most = self.min_tokens, self.max_tokens
        check_all(
            [
                None
                if len(given) == 1
                else "give either --mean-tokens N or --total-tokens N, or in money --mean-usd N or --total-usd N",
                f"--cost {cost} counts tokens: leave it out with a total in USD, or give --mean-tokens N"
                if is_usd and cost in (Cost.GRANTED, Cost.SPENT)
                else None,
                "--cost usd needs a total in money: --mean-usd N or --total-usd N"
                if given and not is_usd and cost is Cost.USD
                else None,
                *(each for name in given if name in tokens for each in positive(name, [given[name]])),
                *(each for name in given if name in usd for each in positive(name, [given[name]], "USD")),
                at_least("--limit", self.limit, 1),
                at_least("--min-tokens", least, 0),
                at_least("--max-tokens", most, 0),
                "--waves spends tokens: add --cost spent, with a total in tokens"
                if self.waves and cost is not Cost.SPENT
                else None,
                f"--min-agreement must be from 0 to 1, not {self.min_agreement:g}"
                if not 0.0 <= self.min_agreement <= 1.0
                else None,
                weights_problem(self.vote_weights, ("answer", "thought", "equal")),
                f"--min-tokens {least} is above --max-tokens {most}"
                if least is not None and most is not None and least > most
                else None,
            ]
        )
        if cost is None:
            object.__setattr__(self, "cost", Cost.USD if is_usd else Cost.GRANTED)

    def total_for(self, num_queries: int) -> float:
        """The total for that many queries, in tokens or, under cost "usd", in USD."""
        total = self.total_usd if self.cost is Cost.USD else self.total_tokens
        mean = self.mean_usd if self.cost is Cost.USD else self.mean_tokens
        return total if total is not None else float(mean or 0) * num_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`forethought run`: plan, reason under the caps, answer."""

    plan: PlanSettings
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/run-QUESTIONS-TOTAL-COST", is_main=True)
    compare: tuple[str, ...] = flag(
        (), "Also evaluate this allocator on the same traces (repeatable).", metavar="NAME", is_main=True
    )
    hard_total: bool = flag(
        False, "With --cost spent: never exceed the total; later questions get smaller caps if needed."
    )
    hard_cap: str = hard_cap_flag()
    history: str = history_flag(shown="RUN, where it is one")
    grader: str = grader_flag()
    grader_options: dict[str, Any] = grader_options_flag()
    seed: int = seed_flag()
    retry_failed: bool = retry_failed_flag()
    worker: str = worker_flag()
    cluster: ClusterSettings = ClusterSettings()

    def __post_init__(self) -> None:
        check_all(
            [
                self.cluster.beside(self.worker),
                "--hard-total counts tokens that are generated: give a total in tokens and add --cost spent"
                if self.hard_total and self.plan.cost is not Cost.SPENT
                else None,
                "--hard-total is --hard-cap at the plan's total: give one of them"
                if self.hard_total and self.hard_cap
                else None,
                *hard_cap_problems(self.hard_cap or self.hard_total, self.worker, self.compare),
                "--waves decides for all questions together: leave --worker and --compare out"
                if self.plan.waves and (self.worker or self.compare)
                else None,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlanSettings:
    """`forethought run --plan`: carry out the plan of a file."""

    plan_file: str
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/run-FILE")
    hard_cap: str = hard_cap_flag()
    history: str = history_flag()
    grader: str = grader_flag()
    grader_options: dict[str, Any] = grader_options_flag()
    model: str = flag("", "Name or folder of the predictor's model.", shown="the name on its card")
    template: str = flag("", "Prompt template: a name or a .json file.", shown="the name on its card")
    engine: EngineSettings = EngineSettings()
    retry_failed: bool = retry_failed_flag()
    worker: str = worker_flag()
    cluster: ClusterSettings = ClusterSettings()

    def __post_init__(self) -> None:
        check_all([self.cluster.beside(self.worker), *hard_cap_problems(self.hard_cap, self.worker)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSettings:
    """`forethought collect`: the results of the requests of `plan --batch-out`."""

    results: tuple[str, ...] = argument(metavar="RESULTS...")
    batch: str = flag(
        "",
        "Record of the requests, REQUESTS.batch.json.",
        metavar="FILE",
        shown="the one of the results, in their folder or the current one",
    )
    out: str = flag("", "Run directory.", metavar="RUN", shown="runs/batch-REQUESTS")
    ended: bool = flag(False, "The batch has ended: requests without a result are lost, and are sent again.")
    hard_cap: str = flag("", "Use another hard cap for the rest of the job.", metavar="N", shown="that of the requests")
    tokenizer: str = flag(
        "", "Model whose tokenizer counts thoughts.", metavar="NAME", shown="that of the plan, if it is on this machine"
    )
    history: str = history_flag()
    grader: str = grader_flag()
    grader_options: dict[str, Any] = grader_options_flag()
