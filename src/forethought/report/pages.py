"""Renders all results: a decision, tables and plots become JSON, Markdown, HTML, and text for a terminal.

Every page states what was measured and the sample size, marks gains that are not significantly above 0, and labels
simulations.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import make_folder, write_atomically
from ..core.showing import Progress, silent
from ..core.versions import versions
from ..core.visible import code, markdown, one_line, to_json, visible
from ..evaluation.results import Result, plain
from .wording import LEGEND, SIMULATED

SCHEMA = 2


class Said(str):
    """Text that others chose (a name, a path, a message): shown as it is, never as Markdown of its own."""

    __slots__ = ()


class Bullets(tuple[str, ...]):
    """Sentences, one per line."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Cells in rows and columns; numbers are right-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in its place on the HTML page.

    Attributes:
        name: among what `Page.inline` draws.
        title: what it shows was found.
    """

    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A long text of others: a question, a thought, an answer.

    Attributes:
        title: what it is.
        text: as it was, cut where it is long.
        num_left_out: characters that were cut off.
    """

    title: str
    text: str
    num_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a table of questions.

    Attributes:
        id: of the question.
        cells: what is shown and what it is sorted by, one per column.
        detail: what opens below the row.
    """

    id: str
    cells: Sequence[tuple[str, float | str]]
    detail: Sequence[str | Table | Thought]


@dataclass(frozen=True, slots=True)
class Questions:
    """A table of questions on the HTML page, which is sorted by its columns and opens in place.

    Attributes:
        head: names of the columns.
        rows: at most some hundred of them, so that a page can be opened.
        words: how many there are, and what was left out.
    """

    head: Sequence[str]
    rows: Sequence[Question]
    words: str


Block = str | Bullets | Table | Picture | Questions


@dataclass(frozen=True, slots=True)
class Part:
    """Some blocks under a title.

    Attributes:
        title: "" for none.
        blocks: in order; pictures and questions are on the HTML page alone.
        on: "page" (Markdown and HTML), "html", "terminal", or "both" (all of them).
        level: of the heading on the page; 0 folds the part away under its title.
    """

    title: str
    blocks: Sequence[Block]
    on: str = "both"
    level: int = 2


@dataclass(frozen=True, slots=True)
class Page:
    """What a result says.

    Attributes:
        name: of its files, and its kind in JSON.
        title: of the page.
        result: what JSON holds.
        sample: what was measured, on how much.
        decision: what it means for who has to choose, the first sentence most of all; said before everything else.
        parts: in order.
        num_resamples: of the bootstrap behind every interval.
        simulated: whether a simulation or a replay was measured.
        notes: what the reader must know to read the numbers.
        facts: what is needed to make the numbers again; None where unknown.
        draw: draws the pictures into a folder, name -> file; imports matplotlib when called.
        inline: draws those of the HTML page, name -> SVG; likewise.
    """

    name: str
    title: str
    result: Result
    sample: str
    parts: Sequence[Part]
    num_resamples: int
    decision: Sequence[str] = ()
    simulated: bool = False
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    draw: Callable[[Path], dict[str, Path]] | None = None
    inline: Callable[[], dict[str, str]] | None = None

    def to_json(self) -> dict[str, Any]:
        """One object of plain values; None where a number does not apply, never NaN or infinity."""
        found: dict[str, Any] = plain(self.result)
        return {"schema": SCHEMA, "kind": self.name, **found, "versions": versions()}

    def text(self) -> str:
        """The result as text for a terminal."""
        lines = [SIMULATED] if self.simulated else []
        lines += [f"{one_line(self.sample)}. {self.intervals}".rstrip()]
        lines += ["", *map(one_line, self.decision)] if self.decision else []
        for part in self.parts:
            if part.on in ("terminal", "both"):
                lines += ["", *([part.title] if part.title else [])]
                lines += [line for block in part.blocks for line in _terminal(block)]
        return "\n".join(lines)

    def markdown(self, pictures: Mapping[str, Path] | None = None) -> str:
        """The page, with links to its pictures; None: there are none because matplotlib is missing."""
        lines = [f"# {self.title}", "", *([f"> **{SIMULATED}**", ""] if self.simulated else [])]
        lines += [*(f"- {markdown(said)}" for said in self.decision), ""] if self.decision else []
        lines += [f"{markdown(self.sample)}. {self.intervals}".rstrip(), ""]
        for part in self.parts:
            if part.on in ("page", "both"):
                lines += _markdown_part(part)
        lines += ["## How to read it", "", *(f"- {markdown(note)}" for note in self.notes), ""] if self.notes else []
        lines += ["## How it was made", "", *_facts(self.facts)] if self.facts else []
        if pictures is None:
            lines += ["No pictures: matplotlib is not installed; get it with `pip install 'forethought[plots]'`."]
        elif pictures:
            lines += ["## Pictures", "", *(f"![{name}]({file.name})" for name, file in pictures.items())]
        return visible("\n".join(lines)).rstrip() + "\n"

    def write(self, folder: Path, *, plots: bool = True, progress: Progress = silent) -> dict[str, Path]:
        """Writes HTML, JSON, Markdown and plots into `folder`; without matplotlib the pages say why there are none.

        Args:
            folder: created if needed.
            plots: whether to draw plots.
            progress: called with "report", parts written and parts in all.

        Returns:
            Kind -> file: "html", "json", "markdown", and one entry per picture.
        """
        make_folder(folder)
        files = {"json": folder / f"{self.name}.json", "markdown": folder / f"{self.name}.md"}
        pictures: dict[str, Path] | None = {}
        progress("report", 0, 3)
        if plots and self.draw is not None:
            pictures = self.draw(folder) if has_matplotlib() else None
        progress("report", 1, 3)
        write_atomically(files["json"], f"{to_json(self.to_json(), indent=1)}\n".encode())
        write_atomically(files["markdown"], self.markdown(pictures).encode())
        progress("report", 2, 3)
        return {"html": self.write_html(folder, plots=plots)} | files | (pictures or {})

    def write_html(self, folder: Path, *, plots: bool = True) -> Path:
        """Writes the page as one HTML file, `report.html`, that loads nothing from elsewhere."""
        from .html import render

        inline: Mapping[str, str] | None = {}
        if plots and self.inline is not None:
            inline = self.inline() if has_matplotlib() else None
        file = folder / "report.html"
        write_atomically(file, render(self, inline).encode())
        return file

    @property
    def intervals(self) -> str:
        """What brackets and marks mean; nothing where no interval was made."""
        if not self.num_resamples:
            return ""
        return f"Brackets: 95% paired bootstrap intervals ({self.num_resamples:,} resamples of questions). {LEGEND}"


def facts_of(result: Any, more: Mapping[str, Any] | None = None, **own: Any) -> dict[str, Any]:
    """What is needed to make a result's numbers again: its seed and data, its provenance, and what a command adds."""
    return {"bootstrap seed": result.seed, **own, "data hash": result.data_hash, **result.provenance, **(more or {})}


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def aligned(rows: Sequence[Sequence[str]], *, num_left: int = 1) -> list[str]:
    """Columns of equal width: the first `num_left` to the left, the others to the right."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _terminal(block: Block) -> list[str]:
    if isinstance(block, Picture | Questions):
        return []
    if isinstance(block, Table):
        return aligned([block.head, *block.rows])
    return [one_line(line) for line in (block if isinstance(block, Bullets) else [block])]


def _markdown_part(part: Part) -> Iterator[str]:
    if part.title and not part.level:
        yield from (f"<details><summary>{_escaped(part.title)}</summary>", "")
    elif part.title:
        yield from (f"{'#' * part.level} {_escaped(part.title[0].upper() + part.title[1:])}", "")
    for block in part.blocks:
        if isinstance(block, Picture | Questions):
            continue
        if isinstance(block, Table):
            rule = ["---", *["---:" if len(block.head) > 2 else "---"] * (len(block.head) - 1)]
            for row in (block.head, rule, *block.rows):
                yield f"| {' | '.join(one_line(_escaped(cell)).replace('|', chr(92) + '|') for cell in row)} |"
        elif isinstance(block, Bullets):
            yield from (f"- {_escaped(line)}" for line in block)
        else:
            yield _escaped(block)
        yield ""
    if part.title and not part.level:
        yield from ("</details>", "")


def _escaped(text: str) -> str:
    return markdown(text) if isinstance(text, Said) else text


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    command = one_line(facts.get("command") or "").replace("`" * 3, "'" * 3)
    if command:
        yield from ("```", command, "```", "")
    yield from ("|  |  |", "| --- | --- |")
    for key, value in facts.items():
        if key != "command" and value not in (None, "", {}, ()):
            yield f"| {markdown(key.replace('_', ' '))} | {code(fact_words(value))} |"
    yield ""


def fact_words(value: Any) -> str:
    """What is known of how a result was made, in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact_words(each)}" for key, each in value.items() if each is not None)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(fact_words, value))
    return str(value)
