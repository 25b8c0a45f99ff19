"""Settings of `forethought import`: the columns of outside measurements, and what to import of them."""

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

    `columns` maps each of `MEANINGS` to a column ("" for none); columns not given are found by their usual names.
    """

    files: tuple[str, ...] = argument(metavar="FILE...")
    out: str = flag("", "File of the profile.", metavar="FILE", shown="runs/NAME.parquet", is_main=True)
    shape: str = flag(
        "auto", "Layout: one row per trace and budget (long) or per query (wide).", choices=("auto", "long", "wide")
    )
    columns: dict[str, str] = field(default_factory=dict)
    tried: int | None = flag(None, "Number of traces behind each count, if no column holds it.", metavar="N")
    budgets: str = flag("", "Import only these caps.", metavar="CAPS", shown="all in the files", is_main=True)
    last_cut: bool = flag(
        False, "Traces have cuts of their own: the result at a cap is that of the last cut before it."
    )
    window: int | None = flag(None, "Import only evenly spaced caps, N tokens apart.", metavar="N")
    max_tokens: int | None = flag(None, "Largest budget to import.", metavar="N", shown="all")
    layer: int | None = flag(None, "Decoder layer of the hidden states.", metavar="N")
    where: tuple[str, ...] = flag(
        (), "Import only rows with this value; values of one column are alternatives.", metavar="COLUMN=VALUE"
    )
    menu_file: str = flag(
        "", "Menu file (TOML) with prices and request fields of the options, by label.", name="--menu", metavar="FILE"
    )
    any_order: bool = flag(False, "Accept a long table whose rows do not ascend by budget.")
    score: str = flag(
        "", "Scorer or metric of an evaluation log that decides right or wrong.", metavar="NAME", is_main=True
    )
    tokenizer: str = flag(
        "", "Tokenizer that counts the tokens of lm-eval logs, which hold no counts.", metavar="FOLDER"
    )
    name: str = flag("", "Name of the profile.", shown="that of the first file")
    model: str = flag("", "Name of the measured model.", shown="unknown", is_main=True)
    template: str = flag("", "Prompt template of the measurements.", shown="unknown")
    grader: str = flag("", "Grader of the answers.", shown="unknown")
    temperature: float | None = flag(None, "Sampling temperature of the thought.", shown="unknown")
    top_p: float | None = flag(None, "Nucleus sampling (top-p) of the thought.", shown="unknown")
    simulated: bool = flag(False, "Mark the profile as simulated: no model was measured.")
    dry_run: bool = flag(False, "Read and check; write nothing.", is_main=True)

    MEANINGS: ClassVar = {
        "id": "Query ids; or several columns: NAME,NAME.",
        "budget": "Budgets in tokens; in a wide table lists.",
        "option": "Names of options, such as effort levels, instead of budgets; or several columns: NAME,NAME.",
        "correct": "Right or wrong, or the number right; in a wide table lists, or the prefix of correct_16, ….",
        "tried": "Number of traces behind each count.",
        "tokens": "Tokens generated, including the answer.",
        "reasoning": "Reasoning tokens only.",
        "input": "Tokens of the prompt, with --option-column.",
        "answer": "Answer text, kept for majority votes.",
        "length": "Tokens of the whole trace: the usage at a cap is these tokens, at most the cap.",
        "sample": "Number of the trace within the query, in a long table.",
        "question": "Text of the question.",
        "hidden": "Hidden states as lists (wide table; give their --layer).",
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
