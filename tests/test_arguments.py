"""Arguments of public functions of a wrong type or value: an error of ours in one sentence, and nothing computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought as ft
from forethought.allocators import allocate
from forethought.core.menu import Menu
from forethought.errors import ForethoughtError, InvalidTotalError


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with ft.open_engine("fake") as opened:
        yield opened


@pytest.fixture(scope="module")
def profile(engine: Any) -> ft.Profile:
    known = [{"question": f"How much is {n} plus 7?", "answer": n + 7} for n in range(12)]
    return ft.profile(engine, known, num_traces=2, menu="16,64", layers="none")


@pytest.fixture(scope="module")
def predictor(profile: ft.Profile) -> ft.Predictor:
    return ft.train(profile, "text", num_folds=2)


def allocated(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return allocate(given.pop("allocator", "envelope"), given.pop("curves", profile.curves), **{"total": 960, **given})


def planned(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return ft.plan(given.pop("predictor", predictor), ["a"], **{"mean_tokens": 64, **given})


def trained(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return ft.train(given.pop("profile", profile), "text", **given)


def evaluated(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return ft.evaluate("mean", profile, **{"num_resamples": 100, **given})


def measured(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return ft.profile(given.pop("engine", engine), ["a"], **given)


def opened(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return ft.open_engine("fake", **given)


def read(profile: ft.Profile, predictor: ft.Predictor, engine: Any, /, **given: Any) -> Any:
    return ft.read_questions(["a"], **given)


REFUSED: dict[Callable[..., Any], list[dict[str, Any]]] = {
    allocated: [
        *({"cost": value} for value in ("euro", None, 3)),
        *({"total": value} for value in ("64", None, True, 10**400, [1], float("nan"))),
        *({"allocator": value} for value in (None, 3, object(), Menu)),
        *({"curves": value} for value in (None, "x")),
        *({"weight_Q": value} for value in ("x", ["a"] * 12)),
    ],
    planned: [
        *({"mean_tokens": value} for value in ("64", True, 10**400, [1], float("nan"))),
        *({name: value} for name in ("cost", "vote_weights") for value in ("euro", 3)),
        *({"allocator": value} for value in (None, 3, object())),
        *({"engine": value} for value in ("fake", 3)),
        *({"min_agreement": value} for value in ("x", 2, float("nan"))),
        {"predictor": None},
    ],
    trained: [
        *({"profile": value} for value in (None, 3, "run")),
        *({"samples": value} for value in ("x", 2, [1.5], ["a"], [0])),
        *({"seed": value} for value in ("x", -1, 1.5, None)),
        *({"num_folds": value} for value in ("x", 1)),
        {"options": 3},
    ],
    evaluated: [
        *({"mean_tokens": value} for value in (64, "x", ["x"], [-1], [float("nan")], [True])),
        *({"num_resamples": value} for value in ("x", 0, 10.5, 10**9)),
        *({"seed": value} for value in ("x", -1)),
        *({"samples": value} for value in ("x", 2)),
        *({"allocator": value} for value in (None, 3)),
    ],
    measured: [
        *({"engine": value} for value in (None, "fake", ft.open_engine)),
        *({"menu": value} for value in ("x", [0], [1.5], ["a"], [])),
        *({"out": value} for value in (3, b"x")),
        {"num_traces": 1.5},
    ],
    opened: [
        *({name: "x"} for name in ("temperature", "context_tokens")),
        {"template": 3},
        {"top_p": 5},
        {"top_p": "x"},
    ],
    read: [*({"limit": value} for value in (0, -1, "x", 1.5))],
}
CASES = [(call, given) for call, cases in REFUSED.items() for given in cases]


@pytest.mark.parametrize(
    ("call", "given"),
    CASES,
    ids=[re.sub(" at 0x[0-9a-f]+", "", f"{call.__name__} {given}")[:60] for call, given in CASES],
)
def test_a_wrong_argument_is_refused_in_one_sentence(
    call: Callable[..., Any], given: dict[str, Any], profile: ft.Profile, predictor: ft.Predictor, engine: Any
) -> None:
    with pytest.raises(ForethoughtError) as refusal:
        call(profile, predictor, engine, **given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [None, 3, b"x"], ids=str)
def test_what_names_no_file_is_refused(name: Any, profile: ft.Profile, predictor: ft.Predictor) -> None:
    plan = ft.plan(predictor, ["a"], mean_tokens=64)
    for call in (profile.save, predictor.save, plan.save, ft.Answers(()).save):
        with pytest.raises(ForethoughtError, match="named by text or a Path"):
            call(name)
    for kind in (ft.Profile, ft.Predictor, ft.Plan, ft.Answers):
        with pytest.raises(ForethoughtError, match="named by text or a Path"):
            kind.load(name)


def test_answers_are_read_from_json_lines_alone(tmp_path: Path) -> None:
    ft.Answers(()).save(tmp_path / "answers.csv")
    with pytest.raises(ForethoughtError, match=r"ends in \.jsonl"):
        ft.Answers.load(tmp_path / "answers.csv")


@pytest.mark.parametrize("caps", [(1.5,), (float("nan"),), (True,), ("16",), [16], 16, (16, None)], ids=str)
def test_a_menu_holds_whole_numbers(caps: Any) -> None:
    with pytest.raises(ForethoughtError, match="tuple of whole numbers"):
        Menu(caps)
    with pytest.raises(ForethoughtError, match="of the class Option"):
        Menu.named(caps)


@pytest.mark.parametrize("rows", [None, "x", 3, [99], np.array([0.5]), [[0]], [True]], ids=str)
def test_queries_are_selected_by_their_rows(rows: Any, profile: ft.Profile) -> None:
    with pytest.raises(ForethoughtError):
        profile.select(rows)
    assert profile.select(np.array([], dtype=np.int64)).num_queries == 0
    assert profile.select(np.array([-1, 0])).query_ids == (profile.query_ids[-1], profile.query_ids[0])


def test_an_error_of_a_total_is_of_its_own_class(profile: ft.Profile) -> None:
    with pytest.raises(InvalidTotalError, match="the total is '64'; give a number of tokens"):
        allocate("envelope", profile.curves, total="64")  # type: ignore[arg-type]
