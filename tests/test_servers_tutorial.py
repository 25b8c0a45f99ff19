"""The tutorial, typed against vLLM's own server on a CPU. `make test-servers`."""

from __future__ import annotations

from pathlib import Path

import pytest

import tutorial

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial.md"

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


def test_the_tutorial_does_what_it_shows() -> None:
    outputs = tutorial.run(PAGE)
    pairs = zip(tutorial.steps(PAGE.read_text("utf-8")), outputs, strict=True)
    assert "\n".join(each for step, output in pairs for each in tutorial.differences(step, output)) == ""
