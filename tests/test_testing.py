"""The contract tests that come with the package: our own classes, classes of strangers, and classes that break them."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strangers
from command_line import Call, write_questions
from forethought.allocators import Solution
from forethought.core import registry
from forethought.core.data import Grade, Logprobs
from forethought.core.menu import Menu
from forethought.engines.fake import FakeEngine
from forethought.predictors.parts.making import make_estimator
from forethought.testing import check_allocator, check_engine, check_estimator, check_grader
from forethought.testing.subjects import BUDGET

RIGHT = {"number": ("72.0", "72"), "exact": ("a b", "a b"), "choice": ("(B)", "B"), "math": ("1/2", "0.5")}
WRONG = {"number": ("71", "72"), "exact": ("a", "a b"), "choice": ("C", "B"), "math": ("1/3", "0.5")}


def fake(**given: Any) -> FakeEngine:
    return FakeEngine(**given, menu=Menu.evenly(8, BUDGET))


def test_it_needs_no_test_framework() -> None:
    code = "import forethought.testing, sys; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("make", [fake, lambda **given: strangers.Parrot("p", **given)], ids=["fake", "a stranger's"])
def test_engines(make: Any) -> None:
    check_engine(make, layers=(0, 2, 4) if make is fake else ())


@pytest.mark.parametrize("name", [*registry.BUILTIN["allocators"], "a stranger's"])
def test_allocators(name: str) -> None:
    check_allocator(strangers.Least() if name == "a stranger's" else name, consults=name != "uniform")


@pytest.mark.parametrize("name", ["mean", "ridge", "text", "a stranger's"])
def test_estimators(name: str) -> None:
    check_estimator(strangers.Longer if name == "a stranger's" else lambda: make_estimator(name))


@pytest.mark.parametrize("name", [*registry.BUILTIN["graders"], "a stranger's"])
def test_graders(name: str) -> None:
    if name == "math":
        pytest.importorskip("sympy")
    grader = strangers.Ends() if name == "a stranger's" else registry.make("graders", name, {})
    check_grader(grader, right=[RIGHT.get(name, ("it is 4", "4"))], wrong=[WRONG.get(name, ("it is 5", "4"))])


# --- what breaks a promise is told which --------------------------------------------------------------------------


class Generous(strangers.Parrot):
    """Thinks longer than it may."""

    def _run(self, request: Any) -> Any:
        done = super()._run(request)
        return replace(done, reasoning_tokens=done.reasoning_tokens + 5)


class Talkative(strangers.Parrot):
    """Answers in more tokens than it says that an answer takes."""

    answer_room = 3

    def _run(self, request: Any) -> Any:
        return replace(super()._run(request), answer_tokens=40)


class Forgetful(strangers.Parrot):
    """Raises instead of giving an error back."""

    def _run(self, request: Any) -> Any:
        done = super()._run(request)
        if done.error:
            raise RuntimeError(done.error)
        return done


class Partial(strangers.Parrot):
    """Grades its own answers, is too sure of them, takes no chats, and tells an error without its option."""

    def _run(self, request: Any) -> Any:
        if not isinstance(request.query.prompt, str):
            raise TypeError("no chats")
        done = super()._run(request)
        if done.error:
            return replace(done, option="")
        return replace(done, grade=Grade.RIGHT, logprobs=Logprobs(0.5, -0.5), suffix_tokens=1 + done.budget % 3)


class Sorted(FakeEngine):
    """Gives hidden states of layers in an order of its own."""

    def hidden_states(self, queries: Any, layers: Any) -> Any:
        return super().hidden_states(queries, sorted(layers))


class Spender:
    def solve(self, problem: Any) -> Solution:
        return Solution(problem.last_Q)


class First(strangers.Least):
    """Gives all that is left to whoever stands first."""

    def solve(self, problem: Any) -> Solution:
        column_Q = np.array(problem.first_Q)
        while column_Q[0] < problem.last_Q[0]:
            column_Q[0] += 1
            if problem.left_after(column_Q) < 0:
                column_Q[0] -= 1
                break
        return Solution(column_Q)


class Writer:
    """Has a price below nothing, and writes into what it was handed."""

    def solve(self, problem: Any) -> Solution:
        problem.value_Q_B[:] = 0.5
        return Solution(problem.ends()[0], price=-1.0)


class Unbound:
    """Knows no least that a query must have."""

    def solve(self, problem: Any) -> Solution:
        return Solution(np.zeros_like(problem.first_Q) if problem.is_ordered else problem.ends()[0])


class Together(strangers.Longer):
    """Tokens by the company that a query is in, of rows that were never tried too; without end for no text."""

    def fit(self, features: Any, counts: Any) -> Any:
        super().fit(features, counts)
        if counts.tokens_Q_B is not None:
            self.tokens_B_ = np.maximum.accumulate(np.nan_to_num(counts.tokens_Q_B).mean(axis=0))
        return self

    def predict(self, features: Any) -> tuple[Any, Any]:
        p_Q_B, tokens_Q_B = super().predict(features)
        if tokens_Q_B is not None:
            tokens_Q_B = tokens_Q_B * len(tokens_Q_B)
            tokens_Q_B[[not text for text in features.texts], -1] = np.inf
        return p_Q_B, tokens_Q_B


class Boastful(strangers.Longer):
    def predict(self, features: Any) -> tuple[Any, Any]:
        p_Q_B, tokens_Q_B = super().predict(features)
        return p_Q_B + 1.0, tokens_Q_B


class Certain(strangers.Ends):
    """Takes every reference for a number."""

    def grade(self, *, answer: str, reference: str) -> Grade:
        if not answer.isdigit():
            return Grade.UNREADABLE
        return Grade.RIGHT if answer == reference or int(answer) == int(reference) else Grade.WRONG


class Raises(strangers.Ends):
    def grade(self, *, answer: str, reference: str) -> Grade:
        return Grade.RIGHT if int(answer) == int(reference) else Grade.WRONG


class Placed(strangers.Longer):
    """Predicts by the place in the batch, by how often it was asked, by an earlier fit and by what it does not name."""

    def fit(self, features: Any, counts: Any) -> Any:
        self.num_fits_ = getattr(self, "num_fits_", 0) + 1
        return super().fit(features, counts)

    def predict(self, features: Any) -> tuple[Any, Any]:
        self.num_asked_ = getattr(self, "num_asked_", 0) + 1
        p_Q_B, tokens_Q_B = super().predict(features)
        p_Q_B = p_Q_B / self.num_fits_ * (1 - 1e-9 * self.num_asked_)
        p_Q_B[10:] /= 2
        return p_Q_B + (1e-6 if features.ids is not None else 0), tokens_Q_B


class Rewriter(strangers.Least):
    """Writes into curves that it was handed, and expects more than all to be right."""

    def solve(self, problem: Any) -> Solution:
        for array in (problem.curves.tokens_Q_B, problem.curves.input_Q_B, problem.weight_Q):
            if array is not None:
                array += 1e-6
        return replace(super().solve(problem), expected_accuracy=2.0)


class Lopsided(strangers.Ends):
    """Compares in one direction where a text is odd, raises beside long ones, and has another version each time."""

    @property
    def version(self) -> Any:
        self.__dict__["asked"] = self.__dict__.get("asked", 0) + 1
        return str(self.__dict__["asked"])

    def read(self, answer: str) -> Any:
        return answer.split() or None

    def same(self, a: str, b: str) -> bool:
        if len(a) > 100 > len(b):
            raise ValueError("too long to compare")
        return self.read(a) is not None and (a == b or (a, b) == ("4", "NaN"))


class Stubborn(FakeEngine):
    """Has one template whatever it is asked with, and counts what JSON has no names for."""

    def with_template(self, template: Any) -> Any:
        return self

    def counted(self) -> Any:
        return {"retries": {1: 2}}


class Once(strangers.Parrot):
    """Can be closed once."""

    is_closed = False

    def close(self) -> None:
        if self.is_closed:
            raise RuntimeError("it was closed before")
        self.is_closed = True


BROKEN = {
    "by place, time, past and what is not named": (
        lambda: check_estimator(Placed),
        [
            "in another order the queries are predicted otherwise",
            "predicted otherwise the second time",
            "an earlier fit shows",
            "it reads more than it says: text",
        ],
    ),
    "curves that are rewritten": (
        lambda: check_allocator(Rewriter()),
        ["it leaves the curves as they are: it changed tokens_Q_B", "expected_accuracy is 2.0"],
    ),
    "comparisons of odd texts": (
        lambda: check_grader(Lopsided(), right=[("4", "4")]),
        ["version is another one each time", "cannot be hashed", "judged alike: ValueError: too long to compare"],
    ),
    "one template": (
        lambda: check_engine(lambda **given: Stubborn(**given, menu=Menu.evenly(8, BUDGET))),
        ["another template is another engine: info of another template", "counted() as JSON"],
    ),
    "closed once": (
        lambda: check_engine(lambda **given: Once("p", **given)),
        ["closing twice does no harm: RuntimeError: it was closed before"],
    ),
    "too many tokens": (
        lambda: check_engine(lambda **given: Generous("p", **given), draws=False),
        ["reasoning stays within the budget", "a smaller cap cuts the same trace"],
    ),
    "long answers": (
        lambda: check_engine(lambda **given: Talkative("p", **given), draws=False),
        ["an answer stays within its room", "and its room is 3"],
    ),
    "errors that are raised": (
        lambda: check_engine(lambda **given: Forgetful("p", **given)),
        ["what goes wrong with one is data: RuntimeError: it does not fit"],
    ),
    "half an engine": (
        lambda: check_engine(lambda **given: Partial("p", **given)),
        [
            "sum-1 is graded by the engine",
            "a query of several turns is answered: TypeError: no chats",
            "option of too-long: '' is not 'short'",
            "suffix_tokens under another cap",
        ],
    ),
    "layers in another order": (
        lambda: check_engine(lambda **given: Sorted(**given, menu=Menu.evenly(8, BUDGET)), layers=(0, 2, 4)),
        ["hidden states do not depend on the batch or on the other layers"],
    ),
    "what it was handed": (
        lambda: check_allocator(Writer()),
        ["a token buys -1.0 right answers", "it leaves the curves as they are: it changed p_Q_B"],
    ),
    "no least": (lambda: check_allocator(Unbound()), ["it stays within total and bounds: InvalidMenuError"]),
    "tokens of a batch": (
        lambda: check_estimator(Together),
        [
            "one by one as together: a query alone is predicted otherwise",
            "rows without a trace teach nothing: queries without",
            "a query that says nothing is predicted: tokens_Q_B must be finite",
        ],
    ),
    "odd references": (
        lambda: check_grader(Certain(), right=[("4", "4")]),
        ["odd texts get a verdict: ValueError"],
    ),
    "more than the total": (lambda: check_allocator(Spender()), ["it stays within total", "past the total"]),
    "by the order of the file": (lambda: check_allocator(First()), ["the order of the queries does not matter"]),
    "chances above one": (lambda: check_estimator(Boastful), ["p_Q_B must lie in [0, 1]"]),
    "no solve": (lambda: check_allocator(object()), ["it lacks solve"]),  # type: ignore[arg-type]
    "odd texts": (lambda: check_grader(Raises(), right=[("4", "4")]), ["odd texts get a verdict: ValueError"]),
}


@pytest.mark.parametrize(("check", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_promise_is_named(check: Any, words: list[str]) -> None:
    with pytest.raises(AssertionError) as caught:
        check()
    for word in words:
        assert word in str(caught.value)


# --- strangers' classes by their entry points, from the command line ----------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package that registers a class of each kind."""
    named = {"engines": "Parrot", "predictors": "Longer", "allocators": "Least", "graders": "Ends"}

    def entry_points(*, group: str) -> list[EntryPoint]:
        kind = group.removeprefix("forethought.")
        return [EntryPoint("theirs", f"strangers:{named[kind]}", group)] if kind in named else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry.available.cache_clear()
    yield
    registry.available.cache_clear()


def commands(name: dict[str, str]) -> list[tuple[Any, ...]]:
    """Each command once, with everything of the strangers'."""
    engine, grader, allocator = (("--" + kind, name[kind]) for kind in ("engine", "grader", "allocator"))
    return [
        ("profile", "some-model", "train.jsonl", *engine, *grader, "--traces", 2, "--out", "p", "--quiet"),
        ("train", "p", "--predictor", name["predictor"]),
        ("plan", "p", "new.jsonl", "--mean-tokens", 48, *allocator, "--out", "p.json", "--quiet"),
        ("run", "--plan", "p.json", *engine, *grader, "--out", "r", "--quiet"),
        ("run", "p", "new.jsonl", "--mean-tokens", 48, *allocator, *engine, "--out", "r2", "--quiet"),
        ("evaluate", "p", "--predictor", name["predictor"], *allocator, "--resamples", 100, "--no-plots"),
        ("regrade", "p", *grader),
    ]


def run_all(call: Call, name: dict[str, str]) -> None:
    write_questions(Path("train.jsonl"), 40)
    write_questions(Path("new.jsonl"), 6, start=100)
    for command in commands(name):
        said = call(*command)
        assert said.code == 0, (command, said.err)
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text().splitlines()]
    assert {row["budget"] for row in rows} == {16}


def test_strangers_run_from_the_command_line(
    call: Call, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_all(call, dict.fromkeys(("engine", "predictor", "allocator", "grader"), "theirs"))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a module on the path as an installed package with entry points, group -> name -> "module:object"."""

    def put(name: str, code: str, groups: dict[str, dict[str, str]]) -> None:
        site = tmp_path / "site"
        (site / f"{name}-1.0.dist-info").mkdir(parents=True)
        (site / f"{name}.py").write_text(code, "utf-8")
        (site / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in groups.items()]
        (site / f"{name}-1.0.dist-info" / "entry_points.txt").write_text("".join(lines))
        monkeypatch.syspath_prepend(site)
        registry.available.cache_clear()

    yield put
    monkeypatch.undo()
    registry.available.cache_clear()


BROKEN_ENTRIES = {
    "no such module": ("nowhere:Least", "ModuleNotFoundError: No module named 'nowhere'"),
    "no such class": ("ours:Most", "AttributeError: module 'ours' has no attribute 'Most'"),
    "written for an earlier version": ("ours_old:Least", "No module named 'forethought.types'"),
    "code that raises": ("ours_raising:Least", "RuntimeError: no licence"),
}


@pytest.mark.parametrize(("target", "words"), BROKEN_ENTRIES.values(), ids=BROKEN_ENTRIES.keys())
def test_an_entry_that_cannot_be_loaded(target: str, words: str, call: Call, install: Any) -> None:
    install("ours", "class Least: ...", {"forethought.allocators": {"theirs": target}})
    install("ours_old", "from forethought.types import Plan", {})
    install("ours_raising", "raise RuntimeError('no licence')", {})
    said = call("plan", "qwen2.5-coder-1.5b", "gsm8k-demo", "--mean-tokens", 64, "--allocator", "theirs")
    assert said.code == 1
    assert f"allocator 'theirs' was registered by another package as '{target}'" in said.err
    assert words in said.err
    assert "Traceback" not in said.err


SLIPS = """
from dataclasses import replace
from strangers import Ends, Least, Longer, Parrot

class Generous(Parrot):
    def _run(self, request):
        done = super()._run(request)
        return replace(done, reasoning_tokens=done.reasoning_tokens + 5) if request.query.id == "q3" else done

class Nameless(Ends):
    version = property()

class Silent:
    def solve(self, problem): ...

class Narrow(Longer):
    def predict(self, features):
        p_Q_B, tokens_Q_B = super().predict(features)
        return p_Q_B[:, :3], tokens_Q_B
"""


def test_slips_of_strangers_are_said(call: Call, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"engines": "Generous", "graders": "Nameless", "allocators": "Silent", "predictors": "Narrow"}
    install("slips", SLIPS, {f"forethought.{kind}": {"slip": f"slips:{name}"} for kind, name in named.items()})
    write_questions(Path("q.jsonl"), 20)
    profile = ("profile", "m", "q.jsonl", "--traces", 1, "--quiet", "--budgets")
    said = call(*profile, "4,8", "--engine", "slip", "--out", "p")
    assert said.code == 3
    assert "1 traces failed (q3)" in said.out
    assert "the engine ignored the cap: 13 reasoning tokens > 8" in Path("p/records.jsonl").read_text()
    said = call(*profile, "4,8,16,32", "--engine", "fake", "--grader", "slip", "--out", "other")
    assert "grader 'slip' lacks `grade`, or `version`" in said.err
    assert call(*profile, "4,8,16,32", "--engine", "fake", "--out", "fake").code == 0
    assert "gives curves of shape (4, 3), not (4, 4)" in call("train", "fake", "--predictor", "slip").err
    assert call("train", "fake", "--predictor", "mean").code == 0
    said = call("plan", "fake", "q.jsonl", "--mean-tokens", 8, "--allocator", "slip")
    assert "allocator 'slip' answered NoneType, not a Solution" in said.err
