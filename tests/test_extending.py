"""The examples of docs/extending.md: short, held to the contracts, and run by the commands of the page."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from command_line import Call, write_questions
from forethought.core import registry
from forethought.core.prompts import load_template

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "extending"
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The page's blocks of one language, in order."""
    return [part.partition("```")[0] for part in PAGE.split(f"```{language}\n")[1:]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example package as `pip install -e` leaves it: on the path, with what its metadata registers."""
    project = tomllib.loads((EXAMPLES / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = tmp_path / "site" / "forethought_extras-1.dist-info"
    metadata.mkdir(parents=True)
    metadata.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1\n")
    groups = project["entry-points"].items()
    lines = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups)
    metadata.joinpath("entry_points.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(EXAMPLES)
    registry.available.cache_clear()
    yield
    monkeypatch.undo()
    registry.available.cache_clear()


def test_each_is_short_and_shown_as_it_is() -> None:
    files = [*EXAMPLES.glob("forethought_extras/[a-z]*.py"), *EXAMPLES.glob("*.json")]
    assert len(files) == 5
    for file in files:
        text = file.read_text("utf-8")
        assert len(text.splitlines()) < 40, file
        assert text.rstrip() in PAGE, file


def test_each_keeps_its_contract_as_the_page_says(installed: None) -> None:
    (checks,) = (block for block in blocks("python") if "check_engine(" in block)
    exec(compile(checks, "docs/extending.md", "exec"), {})


def test_the_commands_of_the_page_run(
    installed: None, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_questions(Path("train.jsonl"), 40)
    write_questions(Path("new.jsonl"), 6, start=100)
    install, *commands = blocks("bash")[0].splitlines()
    assert install.startswith("pip install")
    for command in commands:
        said = call(*command.split()[1:])
        assert said.code == 0, (command, said.err)
    said = call("profile", "m", "train.jsonl", "--engine", "words", "--engine-option", "longest=five")
    assert "option 'longest' of engine 'words' takes a whole number, not 'five'" in said.err


def test_the_template_of_the_page_asks(call: Call, tmp_path: Path) -> None:
    file = EXAMPLES / "template.json"
    assert load_template(str(file)).name == json.loads(file.read_text("utf-8"))["name"]
    questions = write_questions(tmp_path / "q.jsonl", 4)
    assert call("profile", "m", questions, "--engine", "fake", "--template", file, "--quiet").code == 0
