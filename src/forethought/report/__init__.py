"""What was found, as JSON, as Markdown with pictures, and as a few lines for the terminal.

Every table has uniform, blind and the oracle beside forethought, both costs, and intervals; gains that are not clearly
above 0 are marked where they stand.
"""

from __future__ import annotations

import importlib.util
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..core.files import make_folder, write_atomically
from ..core.visible import to_json, visible
from ..evaluation import Evaluation, LiveComparison
from .markdown import evaluation_markdown, live_markdown
from .terminal import evaluation_text, policies_text
from .wording import usual_level

__all__ = ["evaluation_json", "evaluation_text", "plain", "policies_text", "write_pages", "write_report"]

SCHEMA = 1


def write_report(folder: Path, result: Evaluation | LiveComparison, *, plots: bool = True) -> dict[str, Path]:
    """Writes JSON, Markdown and, for an evaluation, pictures into `folder`.

    Without matplotlib there are no pictures, and the Markdown says so.

    Returns:
        What it is -> the file: "json", "markdown", and one entry a picture.
    """
    make_folder(folder)
    stem = "live" if isinstance(result, LiveComparison) else "evaluation"
    files = {"json": folder / f"{stem}.json", "markdown": folder / f"{stem}.md"}
    pictures: dict[str, Path] = {}
    if isinstance(result, LiveComparison):
        lines = live_markdown(result)
    else:
        lines = evaluation_markdown(result)
        if plots and importlib.util.find_spec("matplotlib") is not None:
            from .plots import draw

            pictures = draw(result, folder, mean_tokens=usual_level(result))
            lines += ["## Pictures", "", *(f"![{name}]({file.name})" for name, file in pictures.items()), ""]
        elif plots:
            lines += ["No pictures: matplotlib is not installed; get it with `pip install 'forethought[plots]'`.", ""]
    write_pages(files, evaluation_json(result), lines)
    return files | pictures


def write_pages(files: Mapping[str, Path], value: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Writes a report's two pages: `value` as the "json" file, `lines` as the "markdown" one."""
    write_atomically(files["json"], f"{to_json(value, indent=1)}\n".encode())
    page = visible("\n".join(lines)).rstrip()
    write_atomically(files["markdown"], f"{page}\n".encode())


def evaluation_json(result: Evaluation | LiveComparison) -> dict[str, Any]:
    """One object of plain values; None where a number does not apply, never NaN or infinity."""
    versions = {"forethought": __version__, "numpy": np.__version__, "python": platform.python_version()}
    kind = "live" if isinstance(result, LiveComparison) else "evaluation"
    found: dict[str, Any] = plain({"schema": SCHEMA, "kind": kind, **result.to_json(), "versions": versions})
    return found


def plain(value: Any) -> Any:
    """`value` in JSON's own types: numbers of numpy as Python's, what is not finite as None, other objects as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
