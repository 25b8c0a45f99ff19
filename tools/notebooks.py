"""Runs the notebooks of examples/ anew and writes their outputs: `python tools/notebooks.py [FILE …]`.

The tests run them the same way. What changes by itself from run to run (times, numbers of messages) is not kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS_A_CELL = 120


def notebooks() -> list[Path]:
    """Every example."""
    return sorted(EXAMPLES.glob("*.ipynb"))


def executed(path: Path) -> Any:
    """A notebook with the outputs of a run of its own; raises where a cell does."""
    made = nbformat.read(path, as_version=4)
    how = {"timeout": SECONDS_A_CELL, "kernel_name": "python3", "record_timing": False, "coalesce_streams": True}
    NotebookClient(made, **how).execute(cwd=str(EXAMPLES))
    made.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("data", {}).get("text/plain") != ""]
    return made


def texts(made: Any) -> Iterator[str]:
    """What the outputs of a notebook say."""
    for cell in made.cells:
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            yield from (text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


if __name__ == "__main__":
    for name in map(Path, sys.argv[1:] or notebooks()):
        nbformat.write(executed(name), name)
        print(name)
