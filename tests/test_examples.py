"""The notebooks of examples/ run, in a kernel of their own, and what they state is what they show."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")
notebooks = pytest.importorskip("notebooks")  # tools/notebooks.py

STATED = re.compile(r"\*\*([-+]?\d[\d,.]*%?)\*\*")


def lacking(made: Any) -> list[str]:
    """Figures that the text of a notebook states, in bold, and no output shows."""
    said = "\n".join(unescape(text) for text in notebooks.texts(made))
    stated = [figure for cell in made.cells if cell.cell_type == "markdown" for figure in STATED.findall(cell.source)]
    assert stated
    return [figure for figure in stated if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d%]|[.,]\d)", said)]


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.notebooks(), ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_states(path: Path) -> None:
    assert lacking(notebooks.executed(path)) == []


@pytest.mark.parametrize("path", notebooks.notebooks(), ids=lambda path: path.stem)
def test_an_example_is_kept_with_its_outputs_and_small(path: Path) -> None:
    made = nbformat.read(path, as_version=4)
    assert lacking(made) == []
    assert all(cell.outputs or "=" in cell.source or "close" in cell.source for cell in made.cells if "outputs" in cell)
    assert {output.output_type for cell in made.cells for output in cell.get("outputs", ())} <= {
        *("execute_result", "stream", "display_data"),
    }
    assert path.stat().st_size < 200_000
    assert "/home/" not in path.read_text("utf-8")
    assert "Traceback" not in path.read_text("utf-8")


def test_a_figure_that_no_longer_holds_is_found() -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("**12.5%** and **+3.1** and **1,234**")])
    made.cells.append(
        nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text="112.5% +3.1 11,234\n")])
    )
    assert lacking(made) == ["12.5%", "1,234"]


def test_a_cell_that_fails_fails(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])))
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.executed(path)
