"""Every registered engine, predictor, allocator and grader runs from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Call, write_questions
from forethought.core import registry
from loopback import serving
from toy_server import ToyServer

BUDGETS = ("--budgets", "8,16,40")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "q.jsonl", 12)


@pytest.fixture
def recorded(call: Call, questions: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "recorded"
    assert call("profile", "fake", questions, "--engine", "fake", *BUDGETS, "--out", folder).code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.available("engines")))
def test_engine(name: str, call: Call, questions: Path, recorded: Path, tmp_path: Path, request: pytest.FixtureRequest):
    profile = ("profile", "--out", tmp_path / "p", "--traces", 1, "--layers", "none", "--engine", name, *BUDGETS)
    if name == "openai":
        with serving(ToyServer()) as url:
            said = call(*profile, "toy", questions, "--base-url", url, "--template", "boxed")
    elif name == "replay":
        said = call(*profile, "fake", questions, "--engine-option", f"run={recorded}")
    elif name in ("transformers", "vllm"):
        pytest.importorskip("torch")
        pytest.importorskip(name)
        model = request.getfixturevalue("tiny_model")
        said = call(*profile, model, questions, "--template", "boxed")
    else:
        said = call(*profile, "fake", questions)
    assert said.code == 0, said.err


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.available("predictors")))
def test_predictor(name: str, call: Call, questions: Path, recorded: Path, tmp_path: Path):
    if name in ("lora",):
        pytest.skip("reads a real model's files: tests/test_lora.py runs it")
    folder = tmp_path / "trained"
    asked = ("--engine", "fake") if name == "prompted" else ()
    trained = call("train", recorded, "--predictor", name, "--out", folder, *asked)
    assert trained.code == 0, trained.err
    planned = call("plan", folder, questions, "--mean-tokens", 20, "--engine", "fake")
    assert planned.code == 0, planned.err


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.available("allocators")))
def test_allocator(name: str, call: Call, questions: Path, recorded: Path, tmp_path: Path):
    folder = tmp_path / "trained"
    assert call("train", recorded, "--predictor", "text", "--out", folder).code == 0
    said = call("plan", folder, questions, "--mean-tokens", 20, "--allocator", name)
    assert said.code == 0, said.err
    again = call("evaluate", folder, "--on", recorded, "--allocator", name, "--resamples", 100, "--no-plots")
    assert (again.code, "trained on" in again.err) == (1, True)  # it was trained on every question of that profile


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.available("graders")))
def test_grader(name: str, call: Call, tmp_path: Path):
    if name == "math":
        pytest.importorskip("sympy")
    file = tmp_path / "answers.csv"
    file.write_text("id,answer,reference\na,B,B\n" if name == "choice" else "id,answer,reference\na,12,12\n")
    said = call("grade", file, "--grader", name)
    assert said.code == 0, said.err
    assert "1" in said.out
