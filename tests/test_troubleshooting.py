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


@pytest.fixture(scope="module")
def said() -> str:
    return "\n".join(text for file in sorted(PACKAGE.rglob("*.py")) for text in texts(file))


def test_there_are_some() -> None:
    assert len(QUOTED) > 30
    assert len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_the_source_says_it(message: str, said: str) -> None:
    assert message in said
