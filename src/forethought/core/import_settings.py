"""What `forethought import` is asked: where outside measurements stand, and what to take over of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import InvalidMenuError
from .flags import argument, at_least, check_all, flag, refused, sampling_problems
from .terms import Sampling

if TYPE_CHECKING:
    from .menu import Menu


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """`forethought import`: turn outside measurements into a profile.

    `columns` says where each of `MEANINGS` stands in the files ("" for nowhere); the rest is found by usual names.
    """

    files: tuple[str, ...] = argument(metavar="FILE...")
    out: str = flag("", "The profile.", metavar="FILE", shown="runs/NAME.parquet", is_main=True)
    shape: str = flag("auto", "A row a trace and budget, or a row a query.", choices=("auto", "long", "wide"))
    columns: dict[str, str] = field(default_factory=dict)
    tried: int | None = flag(None, "Traces the counts are out of, where no column says.", metavar="N")
    budgets: str = flag("", "Take only these caps over.", metavar="CAPS", shown="all of the files'", is_main=True)
    last_cut: bool = flag(False, "Each trace has cuts of its own: at a cap it counts as at its last cut before it.")
    window: int | None = flag(None, "Only evenly spaced caps: tokens between two.", metavar="N")
    max_tokens: int | None = flag(None, "Largest budget to take over.", metavar="N", shown="all")
    layer: int | None = flag(None, "Decoder layer of the hidden states.", metavar="N")
    where: tuple[str, ...] = flag(
        (), "Only rows whose cell is that text; of one column twice: either.", metavar="COLUMN=VALUE"
    )
    menu_file: str = flag("", "Options by label: prices, what a request sets (TOML).", name="--menu", metavar="FILE")
    any_order: bool = flag(False, "The rows of a long table need not ascend by budget.")
    score: str = flag("", "Which scorer or metric of an evaluation log judges.", metavar="NAME", is_main=True)
    tokenizer: str = flag("", "What counts tokens of lm-eval's logs, which keep no counts.", metavar="FOLDER")
    name: str = flag("", "Of the profile.", shown="the first file's")
    model: str = flag("", "What was measured.", shown="unknown", is_main=True)
    template: str = flag("", "Its prompt template.", shown="unknown")
    grader: str = flag("", "What judged the answers.", shown="unknown")
    temperature: float | None = flag(None, "Of the thought.", shown="unknown")
    top_p: float | None = flag(None, "Nucleus of the thought.", shown="unknown")
    simulated: bool = flag(False, "No model was measured: say so wherever the profile is shown.")
    dry_run: bool = flag(False, "Read and check; write nothing.", is_main=True)

    MEANINGS: ClassVar = {
        "id": "Query ids; of several columns: NAME,NAME.",
        "budget": "Budgets in tokens; lists in a wide table.",
        "option": "Effort levels or other options by name, in place of budgets; of several columns: NAME,NAME.",
        "correct": "Right or wrong, or how many were right; in a wide table lists, or what correct_16, … begins with.",
        "tried": "How many traces the counts are out of.",
        "tokens": "Tokens generated, answer included.",
        "reasoning": "Reasoning tokens alone.",
        "input": "Tokens of the prompt, with --option-column.",
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
        check_all(
            [
                None if self.files else "name at least one file to import",
                *(f"--where takes COLUMN=VALUE, not {each!r}" for each in self.where if not each.partition("=")[1]),
                None if self.shape in ("auto", "long", "wide") else f"--shape: auto, long or wide, not {self.shape!r}",
                *(f"there is no column {key!r}; known: {known}" for key in self.columns if key not in self.MEANINGS),
                *(at_least(name, value, 1) for name, value in least.items()),
                refused(lambda: self.menu),
                *(f"--option-column: named options have no caps; leave out {name}" for name in self._caps_beside()),
                None if self.shape != "wide" or not self.last_cut else "--last-cut: a wide table has no traces",
                None if self.budgets or not self.last_cut else "--last-cut needs the caps: --budgets CAPS",
                at_least("--layer", self.layer, 0),
                None if both else "give both --temperature and --top-p, or neither: half of a sampling is not known",
                *sampling_problems(self.temperature, self.top_p),
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
    def asks_for_caps(self) -> bool:
        """Whether a flag says that options are caps."""
        return bool(self.budgets or self.last_cut or self.window is not None or self.max_tokens is not None)

    def _caps_beside(self) -> list[str]:
        """Flags that make no sense beside --option-column."""
        if not self.columns.get("option"):
            return []
        meant = [f"--{meaning}-column" for meaning in ("budget", "length", "hidden") if self.columns.get(meaning)]
        flags = {"--budgets": self.budgets, "--last-cut": self.last_cut, "--shape wide": self.shape == "wide"}
        flags |= {"--window": self.window is not None, "--max-tokens": self.max_tokens is not None}
        return [*meant, *(name for name, is_given in flags.items() if is_given)]

    @property
    def conditions(self) -> dict[str, tuple[str, ...]]:
        """Column -> the texts one of which its cell must hold."""
        pairs = [each.partition("=")[::2] for each in self.where]
        return {name: tuple(value for other, value in pairs if other == name) for name, _ in pairs}

    @property
    def sampling(self) -> Sampling | None:
        """Temperature and nucleus, or None when they are not known."""
        if self.temperature is None or self.top_p is None:
            return None
        return Sampling(temperature=self.temperature, top_p=self.top_p)
