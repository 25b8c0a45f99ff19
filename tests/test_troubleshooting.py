"""Every message that docs/troubleshooting.md quotes is one that the source can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import forethought

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^### `(.+)`$", PAGE.read_text("utf-8"), re.MULTILINE)
PACKAGE = Path(forethought.__file__).parent


def texts(file: Path) -> Iterator[str]:
    """The texts of a file, with … for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%(\.\d)?[dsfr]", "…", node.value)


@pytest.mark.slow
def test_the_source_says_every_message() -> None:
    said = "\n".join(text for file in sorted(PACKAGE.rglob("*.py")) for text in texts(file))
    assert len(QUOTED) > 30
    assert [message for message in QUOTED if message not in said] == []
