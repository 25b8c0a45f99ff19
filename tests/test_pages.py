"""The pages that readers type from: their commands parse, and those that need no model do what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tutorial
from tutorial import STANDS, Step, differences, steps, unparsed, with_outputs, words

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("name", STANDS)
def test_every_command_parses_and_shows_what_it_printed(name: str) -> None:
    assert list(unparsed(DOCS / name)) == []
    text = (DOCS / name).read_text("utf-8")
    found = steps(text)
    assert len(found) > 5
    assert found[0].output  # what the outputs of the page were made with
    assert with_outputs(text, [step.output or "" for step in found]) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["levels.md", "nightly.md", "votes.md"])
def test_a_page_does_what_it_shows(name: str) -> None:
    for package in ("aiohttp", "matplotlib", *(["inspect_ai"] if name == "nightly.md" else [])):
        pytest.importorskip(package, reason=f"needs {package}")
    outputs = tutorial.run(DOCS / name)
    pairs = zip(steps((DOCS / name).read_text("utf-8")), outputs, strict=True)
    assert [each for step, output in pairs for each in differences(step, output)] == []


PAGE = """# A page

```bash
NAME=reader
```

```text
Here instead NAME=test
```

```bash
echo "hello $NAME"
echo 3 of 4
```

```text
hello 12
3 of 4
```

```bash
true
```
"""


def test_a_command_that_is_no_more_is_told_with_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```bash\nforethought plan x y --mean-tokns 4 | head\nforethought fly\nls\n```\n")
    wrong = list(unparsed(page))
    assert [each.split(":")[0] for each in wrong] == ["page.md, line 3"] * 2
    assert "--mean-tokns" in wrong[0]
    assert "'fly'" in wrong[1]


def test_a_page_is_typed_into_one_bash_and_written_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    page = tmp_path / "page.md"
    page.write_text(PAGE)
    stand = tutorial.Stand("NAME=test", {}, "Here instead NAME=test\n")
    monkeypatch.setitem(STANDS, "page.md", lambda folder: nullcontext(stand))
    outputs = tutorial.run(page)
    assert outputs == ["Here instead NAME=test\n", "hello test\n3 of 4\n", ""]
    assert with_outputs(PAGE, outputs) == PAGE.replace("hello 12", "hello test")
    page.write_text(PAGE.replace("true", "false"))
    with pytest.raises(SystemExit, match="line 21: exit status 1"):
        tutorial.run(page)


def test_numbers_may_change_and_words_may_not() -> None:
    old = Step("x", "accuracy 71.0% of 4\n  ok  reachable   http://a\n", 7)
    assert list(differences(old, "accuracy 3.5% of 90\n  ok  reachable   http://a\n")) == []
    assert list(differences(old, "accuracy 3\n")) == ["line 7: the output now lacks 'ok reachable http'"]
    assert words("machine\n  gpu  none\n\nserver\n") == ["server"]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"\btest_\w+\.py", page.read_text("utf-8")))
    assert {name for name in named if not (DOCS.parent / "tests" / name).is_file()} == set()
