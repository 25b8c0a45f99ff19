"""The meaning of each column of a table, by flag or by name; and whether the table is long or wide."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...core.import_settings import ImportSettings
from ...core.problems import Problems
from ...questions import fields
from ...questions.rows import choose_column, has_columns, no_such_column
from .columns import Columns

WEAK_SAMPLES = ("sample_index", "sample_idx", "epoch", "repeat", "repetition", "rollout", "run", "seed")
ALIASES: dict[str, tuple[str, ...]] = {
    "id": (*fields.ID_COLUMNS, "query"),
    "budget": ("budget", "budgets", "cap", "token_budget", "thinking_budget", "max_tokens"),
    "option": ("option", "reasoning_effort", "effort"),
    "correct": (
        *("correct", "num_correct", "num_right", "right", "is_correct", "grade"),
        *("exact_match", "acc", "passed", "score"),
    ),
    "tried": ("tried", "num_tried", "num_trials", "trials", "num_traces", "num_samples"),
    "tokens": ("tokens", "num_tokens", "tokens_used", "output_tokens", "completion_tokens", "total_tokens", "spent"),
    "input": ("input_tokens", "prompt_tokens"),
    "reasoning": ("reasoning_tokens", "thinking_tokens"),
    "length": ("trace_tokens", "thought_tokens"),
    "sample": ("sample", "trial", "trace", "sample_id", "trial_id", "trace_id", "attempt", *WEAK_SAMPLES),
    "answer": ("trial_answer", "predicted_answer", "extracted_answer", "model_answer", "prediction", "pred"),
    "question": ("question", *fields.QUESTION_COLUMNS),
    "hidden": ("hidden_state", "hidden_states", "hidden"),
}
# Columns that tell apart what is no sample of one and the same thing.
GROUPS = (
    *("filter", "filter_name", "metric", "task", "task_name", "subtask", "subset", "subject", "split", "config"),
    *("dataset", "dataset_name", "data_source", "benchmark", "model", "model_name", "model_id", "template", "language"),
    *("effort", "reasoning_effort"),
)
PER_BUDGET = ("correct", "tokens", "reasoning")  # in a wide table: a column of lists, or a column per budget
LONG_ONLY, WIDE_ONLY = ("option", "sample", "length", "answer", "input"), ("hidden",)
OF_CAPS, OF_OPTIONS = ("budget", "length"), ("option", "input")
LONG, WIDE = "long", "wide"


@dataclass(frozen=True, slots=True)
class Naming:
    """The columns of a table by meaning.

    Attributes:
        shape: "long" or "wide".
        columns: what a column means (a key of ALIASES) -> its name.
        spread: the same -> budget -> its name, where a wide table has one column per budget; ascending.
    """

    shape: str
    columns: Mapping[str, str]
    spread: Mapping[str, Mapping[int, str]]

    @property
    def is_named(self) -> bool:
        """Whether the options have names: they are no caps."""
        return "option" in self.columns

    @property
    def told(self) -> dict[str, str]:
        """What a column means -> its name, or the first and the last one's."""
        ends = {meaning: list(names.values()) for meaning, names in self.spread.items()}
        return {**self.columns, **{meaning: f"{names[0]} … {names[-1]}" for meaning, names in ends.items()}}


def name_columns(columns: Columns, settings: ImportSettings, problems: Problems) -> Naming | None:
    """The meaning of the columns; None, with what is missing noted, when they cannot be made sense of."""
    before = len(problems)
    has = has_columns(columns.names)
    found: dict[str, str | None] = {}
    for meaning in ALIASES:
        taken = [name for name in found.values() if name is not None]
        found[meaning] = choose_column(meaning, columns.names, settings.columns.get(meaning), ALIASES[meaning], taken)
    spread = {meaning: _spread(meaning, columns, settings) for meaning in PER_BUDGET}
    for meaning, name in settings.columns.items():
        if name and found[meaning] is None and not spread.get(meaning):
            problems.add("", no_such_column(meaning, name, columns.names))
    if len(problems) > before:
        return None
    _choose_axis(found, spread["correct"], columns, settings, problems)
    shape = settings.shape if settings.shape != "auto" else _shape(columns, found, spread)
    if found["id"] is None:
        problems.add("", f"no column of query ids ({', '.join(ALIASES['id'])}); {has}. Name it with --id-column NAME")
    if found["correct"] is None and not spread["correct"]:
        problems.add(
            "",
            f"no column of right answers ({', '.join(ALIASES['correct'])}, or correct_16, correct_32, …); {has}. "
            "Name it with --correct-column NAME",
        )
    elif shape is None or (shape == LONG and found["budget"] is None and found["option"] is None):
        problems.add(
            "",
            f"no column of budgets ({', '.join(ALIASES['budget'])}), and {found['correct']!r} holds no list of counts; "
            f"{has}. Name it with --budget-column NAME, or effort levels and the like with --option-column NAME",
        )
    odd = [meaning for meaning in (WIDE_ONLY if shape == LONG else LONG_ONLY) if settings.columns.get(meaning)]
    if shape is not None and odd:
        problems.add("", f"--{odd[0]}-column: a {shape} table has none; leave it out, or give another --shape")
    if len(problems) > before or shape is None:
        return None
    naming = _naming(columns, shape, found, spread)
    read = [part for name in naming.columns.values() for part in ([name] if name in columns.names else name.split(","))]
    for path, missing in columns.lacking([*read, *_names(naming)]):
        problems.add("", f"{path} lacks the columns {missing}, which the first file has; import it separately")
    return naming


def wanted_columns(settings: ImportSettings) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """`(whether a column of that name may mean something, whether its cells may be lists)`."""
    asked = {meaning: name for meaning, name in settings.columns.items() if name}
    usual = {meaning: (*names, asked.get(meaning, "")) for meaning, names in ALIASES.items()}
    known = {name.lower() for names in usual.values() for name in names} | set(GROUPS)
    known |= {part.lower() for meaning in ("id", "option", "sample") for part in asked.get(meaning, "").split(",")}
    listed = {name.lower() for meaning in (*PER_BUDGET, "budget", "hidden") for name in usual[meaning]}
    starts = tuple(name.lower() for meaning in PER_BUDGET for name in usual[meaning] if name)

    def is_wanted(name: str) -> bool:
        low = name.lower()
        return low in known or (low.startswith(starts) and low[-1:].isdigit())

    return is_wanted, lambda name: name.lower() in listed


def _choose_axis(
    found: dict[str, str | None],
    spread: Mapping[int, str],
    columns: Columns,
    settings: ImportSettings,
    problems: Problems,
) -> None:
    """Caps, or named options where these are asked for or nothing else is there: `found` loses what is of the other."""
    is_asked = bool(settings.columns.get("option"))
    is_long = found["correct"] is not None and not columns.holds_lists(found["correct"]) and settings.shape != WIDE
    is_only = found["budget"] is None and not spread and is_long and not settings.asks_for_caps
    is_named = found["option"] is not None and (is_asked or is_only)
    for meaning in OF_CAPS if is_named else OF_OPTIONS:
        if settings.columns.get(meaning):
            beside = "leave it out" if is_named else "name them with --option-column NAME"
            problems.add("", f"--{meaning}-column: only of {'caps' if is_named else 'named options'}; {beside}")
        found[meaning] = None


def _spread(meaning: str, columns: Columns, settings: ImportSettings) -> dict[int, str]:
    """Budget -> column, for columns such as correct_16; all with the same beginning."""
    asked = settings.columns.get(meaning)
    for start in ALIASES[meaning] if asked is None else (asked,):
        matches = [(re.fullmatch(rf"{re.escape(start)}[_@]?0*(\d{{1,9}})", name, re.I), name) for name in columns.names]
        found = {int(match[1]): name for match, name in matches if match}
        if start and found:
            return dict(sorted(found.items()))
    return {}


def _shape(columns: Columns, found: Mapping[str, str | None], spread: Mapping[str, Mapping[int, str]]) -> str | None:
    if found["correct"] is not None and columns.holds_lists(found["correct"]):
        return WIDE
    if found["correct"] is not None and (found["budget"] is not None or found["option"] is not None):
        return LONG
    return WIDE if spread["correct"] else None


def _naming(
    columns: Columns, shape: str, found: Mapping[str, str | None], spread: Mapping[str, dict[int, str]]
) -> Naming:
    is_wide = shape == WIDE
    left_out = LONG_ONLY if is_wide else WIDE_ONLY
    # A wide table's values are spread over columns where there is no column of lists.
    spread_out = {
        meaning: names
        for meaning, names in spread.items()
        if is_wide and names and not ((name := found[meaning]) is not None and columns.holds_lists(name))
    }
    kept = {
        meaning: name
        for meaning, name in found.items()
        if name is not None and meaning not in left_out and meaning not in spread_out
    }
    if is_wide:  # one number per query is no usage curve; a budget per query is no menu
        for meaning in ("tokens", "reasoning", "budget"):
            if meaning in kept and not columns.holds_lists(kept[meaning]):
                del kept[meaning]
    return Naming(shape, kept, spread_out)


def _names(naming: Naming) -> list[str]:
    return [name for names in naming.spread.values() for name in names.values()]
