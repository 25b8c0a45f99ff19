"""Questions that were trained on are not taken for held-out ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.commands import _exit_code
from forethought.control.sources import open_predictor, open_profile
from forethought.core.profile import Profile
from forethought.predictors.overlap import Seen, held_out
from forethought.predictors.predictor import Predictor
from forethought.runs.profiles import write_parquet

Call = Callable[..., tuple[int, Any, str]]


def write(name: str, numbers: range, *, prefix: str = "q") -> None:
    rows = [{"id": f"{prefix}{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in numbers]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Trained on questions 0 to 59."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = _exit_code([str(arg) for arg in (*args, "--json", "--quiet")])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    write("train.jsonl", range(60))
    assert run("profile", "fake", "train.jsonl", "--out", "run", "--traces", 2)[0] == 0
    assert run("train", "run", "--predictor", "ridge")[0] == 0
    return run


EVALUATE = ("evaluate", "run", "--no-plots", "--resamples", 100, "--on")
COMPARE = ("compare", "run", "--no-plots", "--resamples", 100, "--on")


@pytest.mark.slow
@pytest.mark.parametrize("command", [EVALUATE, COMPARE], ids=["evaluate", "compare"])
@pytest.mark.parametrize(
    ("numbers", "prefix", "left"),
    [
        (range(60), "q", 0),
        (range(60), "other", 0),
        (range(40), "q", 0),
        (range(45, 90), "q", 30),
        (range(45, 90), "other", 30),
        (range(100, 140), "q", 40),
    ],
    ids=["the same", "under other ids", "a part of it", "some", "some under other ids", "none"],
)
def test_what_was_trained_on_is_left_out(
    call: Call, command: tuple[Any, ...], numbers: range, prefix: str, left: int
) -> None:
    write("on.jsonl", numbers, prefix=prefix)
    assert call("profile", "fake", "on.jsonl", "--out", "on", "--traces", 2)[0] == 0
    code, found, err = call(*command, "on")
    if not left:
        assert code == 1
        assert f"was trained on all {len(numbers)} questions of 'on'" in err
        assert "leave --on out" in err
        assert err.count("\n") == 1
        return
    assert code == 0
    assert found["num_queries"] == left
    words = f"{len(numbers) - left} of {len(numbers)} questions were used for training and are left out; "
    words += "evaluated on the other"
    assert (words in err) == (left < len(numbers))
    assert any(words in note for note in found["notes"]) == (left < len(numbers))


@pytest.mark.slow
def test_a_predictor_of_before_knows_a_profile_as_a_whole(call: Call) -> None:
    trained, profile = replace(open_predictor("run"), seen=None), open_profile("run")
    trained.save("old")
    assert Predictor.load("old").seen is None
    code, _, err = call("evaluate", "old", "--no-plots", "--resamples", 100, "--on", "run")
    assert code == 1
    assert "was trained on all 60 questions" in err
    half = Path("half.parquet")
    write_parquet(half, profile.select(np.arange(30)))
    code, found, err = call("evaluate", "old", "--no-plots", "--resamples", 100, "--on", half)
    assert code == 0
    assert "is not known: it was saved without their hashes" in err
    assert any("is not known" in note for note in found["notes"])


@pytest.mark.slow
def test_what_is_kept_is_small_and_holds_no_text(call: Call) -> None:
    trained, profile = open_predictor("run"), open_profile("run")
    assert trained.seen is not None
    assert (len(trained.seen.ids_N), len(trained.seen.contents_M)) == (60, 60)
    assert trained.seen.ids_N.dtype == np.uint64
    assert trained.rows_trained_on(profile) is not None
    for file in Path("run/predictor").iterdir():
        content = file.read_bytes()
        assert not any(text.encode() in content for text in profile.texts)


def profile_of(ids: list[str], texts: list[str]) -> Profile:
    counts = np.ones((len(ids), 1), dtype=np.int64)
    from forethought.core.menu import Menu

    return Profile(
        tuple(ids), Menu.evenly(16, 16), counts, counts[:, 0], counts * 16.0, counts * 16.0, texts=tuple(texts)
    )


@pytest.mark.parametrize(
    ("ids", "texts", "rows"),
    [
        (["a", "b", "c"], ["one?", "two?", "three?"], [0, 1, 2]),
        (["x", "y"], ["two?", "four?"], [0]),
        (["a", "b"], ["another?", "one?"], [1]),
        (["x", "y"], ["  one?\n", "t w o ?"], [0]),
        (["a", "x"], [], [0]),
        (["a", "x"], ["", "one?"], [0, 1]),
    ],
    ids=["the same", "by text", "an id with another text", "spaces", "no texts: by id", "one without a text"],
)
def test_which_questions_were_seen(ids: list[str], texts: list[str], rows: list[int]) -> None:
    seen = Seen.of(profile_of(["a", "b", "c"], ["one?", "two?", "three?"]))
    assert seen.rows_trained_on(profile_of(ids, texts)).tolist() == rows
    again = Seen.from_arrays(seen.arrays())
    assert again is not None
    assert again.rows_trained_on(profile_of(ids, texts)).tolist() == rows
    without = Seen.of(profile_of(["a", "b", "c"], []))
    assert without.rows_trained_on(profile_of(ids, texts)).tolist() == [
        row for row, name in enumerate(ids) if name in "abc"
    ]


def test_hashes_of_another_kind_are_refused() -> None:
    assert Seen.from_arrays({}) is None
    good = Seen.of(profile_of(["a"], ["one?"])).arrays()
    for name in good:
        with pytest.raises(ValueError, match="8-byte numbers"):
            Seen.from_arrays({**good, name: np.zeros(3, dtype=np.float32)})
        with pytest.raises(ValueError, match="8-byte numbers"):
            Seen.from_arrays({other: array for other, array in good.items() if other != name})


def test_several_predictors_leave_out_what_any_of_them_saw() -> None:
    judged = profile_of(["a", "b", "c"], ["one?", "two?", "three?"])
    first, second = (Seen.of(profile_of([name], [text])) for name, text in (("a", "one?"), ("b", "two?")))
    left, notes = held_out(judged, {"first": first, "second": second})
    assert left.query_ids == ("c",)
    assert "2 of 3 questions" in notes[0]
