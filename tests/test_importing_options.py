"""Tables of named options (effort levels, models) -> profiles: counts of their own, prices, draws, refusals."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from forethought.commands.pipeline import import_profile
from forethought.commands.tables import import_text
from forethought.core.import_settings import ImportSettings
from forethought.core.menu import Menu
from forethought.core.options import Price
from forethought.core.profile import Profile
from forethought.errors import ForethoughtError, InvalidInputError, InvalidSettingsError
from forethought.runs.importing import Imported
from test_importing import Rows, write

EPOCH = Path(__file__).parents[2] / "shared" / "data" / "epoch-effort" / "dev.parquet"
NAMED = {
    "option": "effort",
    "sample": "sample",
    "answer": "answer",
    "tokens": "output_tokens",
    "input": "input_tokens",
    "id": "question_id",
}
MENU = """
[[option]]
label = "high"
set = { reasoning_effort = "high" }
usd_per_million = { input = 1.0, output = 10.0 }
[[option]]
label = "low"
set = { reasoning_effort = "low" }
usd_per_million = { input = 1.0, output = 10.0 }
"""


def row(query: str, effort: str, sample: Any, correct: Any, tokens: Any, answer: str | None = None) -> dict[str, Any]:
    return {
        "question_id": query,
        "effort": effort,
        "sample": sample,
        "correct": correct,
        "answer": answer,
        "output_tokens": tokens,
        "input_tokens": 50,
    }


def table() -> Rows:
    """Two queries under "high" and "low"; q1 was never tried under "high", q0 three times under "low"."""
    return [
        row("q0", "high", 1, 1, 900, "7"),
        row("q0", "high", 3, 0, 1100, "8"),
        row("q0", "low", 1, 0, 100, None),
        row("q0", "low", 2, 1, 120, "7"),
        row("q0", "low", 3, 1, 140, "7"),
        row("q1", "low", 2, 0, 60),
    ]


def taken(path: Path, columns: dict[str, str] | None = None, **options: Any) -> Imported:
    columns = NAMED if columns is None else columns
    return import_profile(
        ImportSettings(files=(str(path),), out=str(path.parent / "out.parquet"), columns=columns, **options)
    )


def refusal(tmp_path: Path, rows: Rows, **options: Any) -> str:
    with pytest.raises(ForethoughtError) as refused:
        taken(write(tmp_path / "t.jsonl", rows), **options)
    return str(refused.value)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_counts_of_their_own(tmp_path: Path, ending: str, is_reversed: bool) -> None:
    rows = table()[::-1] if is_reversed else table()
    imported = taken(write(tmp_path / f"t.{ending}", rows))
    for profile in (imported.profile, Profile.load(imported.path)):
        at = profile.query_ids.index("q0")
        assert profile.menu.labels == ("low", "high")
        assert profile.menu.caps == (90, 1000)  # the mean over queries of each one's mean
        assert profile.num_right_Q_B[at].tolist() == [2, 1]
        assert profile.tried_Q_B is not None
        assert profile.tried_Q_B[at].tolist() == [3, 2]
        assert profile.tried_Q_B[1 - at].tolist() == [1, 0]
        assert profile.is_complete_Q[at]
        assert not profile.is_complete_Q[1 - at]
        assert profile.tokens_Q_B[at].tolist() == [120.0, 1000.0]
        assert profile.tokens_Q_B[1 - at].tolist() == [60.0, 1000.0]  # not tried: the option's mean stands
        assert profile.input_Q_B is not None
        assert profile.input_Q_B[at].tolist() == [50.0, 50.0]
        assert profile.is_spend_measured
    assert "option  right" in import_text(imported, is_written=True)


def test_draws_by_sample_number(tmp_path: Path) -> None:
    profile = taken(write(tmp_path / "t.jsonl", table())).profile
    traces = profile.traces
    assert traces is not None
    assert traces.sample_N.tolist() == [1, 2, 3, 2]
    assert profile.num_tried_Q.tolist() == [3, 1]
    # right 1, wrong 0, unreadable 2, not tried 3; nothing of q1's answers was kept, so it is wrong
    assert traces.grade_N_B.tolist() == [[2, 1], [1, 3], [1, 0], [0, 3]]
    assert traces.tokens_N_B.tolist() == [[100, 900], [120, 0], [140, 1100], [60, 0]]
    found = [[traces.answers_Q[q][a] for a in traces.answer_N_B[n]] for n, q in enumerate([0, 0, 0, 1])]
    assert found == [["", "7"], ["7", ""], ["7", "8"], ["", ""]]


@pytest.mark.parametrize("sample", ["", "sample"], ids=["no column", "names"])
def test_draws_without_numbers_are_numbered_in_order(tmp_path: Path, sample: str) -> None:
    rows = [{**each, "sample": f"{each['effort']}-{each['sample']}"} for each in table()]
    imported = taken(write(tmp_path / "t.jsonl", rows), {**NAMED, "sample": sample})
    traces = imported.profile.traces
    assert traces is not None
    assert traces.sample_N.tolist() == [0, 1, 2, 0]
    assert traces.grade_N_B.tolist() == [[2, 1], [1, 0], [1, 3], [0, 3]]


def test_levels_are_found_by_their_usual_name(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", table())
    assert taken(path, {}).profile.menu.labels == ("low", "high")


def test_whole_numbers_are_caps_where_asked(tmp_path: Path) -> None:
    rows = [row(q, str(cap), s, int(cap > 50), cap) for q in "ab" for s in (1, 2) for cap in (32, 64)]
    path = write(tmp_path / "t.jsonl", rows)
    profile = taken(path, {"budget": "effort", "id": "question_id"}).profile
    assert profile.menu == Menu.of([32, 64])
    assert profile.input_Q_B is None
    assert taken(path).profile.menu.labels == ("32", "64")


def test_several_columns_name_an_option(tmp_path: Path) -> None:
    rows = [{**each, "model": model} for model in ("m", "n") for each in table()]
    path = write(tmp_path / "t.jsonl", rows)
    with pytest.raises(InvalidInputError, match="'model' tells apart"):
        taken(path)
    profile = taken(path, {**NAMED, "option": "model,effort"}).profile
    assert set(profile.menu.labels) == {"m/low", "n/low", "m/high", "n/high"}
    assert taken(path, where=("model=n",)).profile.menu.labels == ("low", "high")


def test_a_table_of_caps_says_that_levels_tell_rows_apart(tmp_path: Path) -> None:
    rows = [{**each, "budget": 64} for each in table()]
    message = refusal(tmp_path, rows, columns={"id": "question_id"})
    assert "--option-column effort" in message


def test_prices_by_label(tmp_path: Path) -> None:
    menu = tmp_path / "menu.toml"
    menu.write_text(MENU)
    imported = taken(write(tmp_path / "t.jsonl", table()), menu_file=str(menu))
    options = imported.profile.menu.options
    assert [option.price for option in options] == [Price(1.0, 10.0)] * 2
    assert [option.tokens for option in options] == [90.0, 1000.0]
    assert options[1].set == {"reasoning_effort": "high"}
    np.testing.assert_allclose(imported.profile.curves.usd_Q_B[0], [(50 + 1200) / 1e6, (50 + 10000) / 1e6])

    menu.write_text(MENU.replace('label = "low"', 'label = "medium"'))
    message = refusal(tmp_path, table(), menu_file=str(menu))
    assert "'medium', which the files lack; they have high, low" in message

    menu.write_text(MENU.split('[[option]]\nlabel = "low"')[0])
    imported = taken(write(tmp_path / "t.jsonl", table()), menu_file=str(menu))
    assert any("no price for low" in note for note in imported.notes)
    assert not imported.profile.menu.is_priced


def test_without_tokens_a_menu_must_say_what_options_cost(tmp_path: Path) -> None:
    columns = {**NAMED, "tokens": ""}
    message = refusal(tmp_path, table(), columns=columns)
    assert "--tokens-column NAME, or --menu FILE" in message
    menu = tmp_path / "menu.toml"
    menu.write_text('[[option]]\nlabel = "high"\ntokens = 800\n[[option]]\nlabel = "low"\ntokens = 80\n')
    profile = taken(write(tmp_path / "t.jsonl", table()), columns, menu_file=str(menu)).profile
    assert profile.menu.caps == (80, 800)
    assert not profile.is_spend_measured


def test_counts_in_place_of_draws(tmp_path: Path) -> None:
    rows = [
        {"question_id": "q0", "effort": "low", "correct": 3, "tried": 4, "output_tokens": 10},
        {"question_id": "q0", "effort": "high", "correct": 2, "tried": 2, "output_tokens": 30},
        {"question_id": "q1", "effort": "high", "correct": 0, "tried": 1, "output_tokens": 20},
        {"question_id": "q1", "effort": "low", "correct": 0, "tried": 0, "output_tokens": 20},
    ]
    imported = taken(write(tmp_path / "t.jsonl", rows), {"option": "effort"})
    profile = Profile.load(imported.path)
    assert profile.tries_Q_B.tolist() == [[4, 2], [0, 1]]
    assert profile.num_right_Q_B.tolist() == [[3, 2], [0, 0]]
    assert profile.num_tried_Q.tolist() == [4, 1]
    assert profile.traces is None
    assert [str(each) for each in imported.left_out] == ["1 row left out: nothing was tried (line 4)"]


REFUSED: dict[str, tuple[int, dict[str, Any], str]] = {
    "negative tokens": (3, {"output_tokens": -1}, "line 4: 'output_tokens' must be a number of tokens from 0"),
    "no tokens": (3, {"output_tokens": None}, "line 4: 'output_tokens' is missing"),
    "negative input": (0, {"input_tokens": -7}, "line 1: 'input_tokens' must be a number of tokens from 0"),
    "twice": (3, {"sample": 1}, "line 4: query 'q0' sample '1' under 'low' is already in line 3"),
    "no option": (2, {"effort": " "}, "line 3: 'effort' is missing"),
    "no sample": (2, {"sample": None}, "line 3: 'sample' is missing"),
    "half right": (1, {"correct": 0.5}, "line 2: 'correct' must be a whole number"),
    "two right": (1, {"correct": 2}, "line 2: 'correct' counts 2 right of 1 tried"),
    "odd label": (1, {"effort": "x" * 90}, "a label is a short text"),
    "bell in a label": (1, {"effort": "a\x07"}, "line 2: 'effort' holds a control character"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_told_by_row(tmp_path: Path, case: str) -> None:
    at, change, words = REFUSED[case]
    rows = table()
    rows[at] |= change
    assert words in refusal(tmp_path, rows)


def test_a_column_without_any_option(tmp_path: Path) -> None:
    rows = [{**each, "effort": None} for each in table()]
    assert "line 1: 'effort' is missing" in refusal(tmp_path, rows)


def test_unknown_columns_and_flags_of_caps(tmp_path: Path) -> None:
    message = refusal(tmp_path, table(), columns={**NAMED, "option": "efort"})
    assert "--option-column 'efort': no such column" in message
    assert "Did you mean --option-column 'effort'" in message
    for options in ({"budgets": "16,32"}, {"window": 16}, {"shape": "wide"}, {"max_tokens": 9}):
        with pytest.raises(InvalidSettingsError, match="named options have no caps"):
            taken(tmp_path / "t.jsonl", **options)
    with pytest.raises(InvalidSettingsError, match="leave out --budget-column"):
        taken(tmp_path / "t.jsonl", {**NAMED, "budget": "b"})
    caps = [{"id": "a", "budget": 16, "correct": 1, "n": 3}]
    assert "--input-column: only of named options" in refusal(tmp_path, caps, columns={"input": "n"})
    assert "options are caps" in refusal(tmp_path, caps, columns={}, menu_file="menu.toml")


def test_a_blank_grade_leaves_out_that_draw_alone(tmp_path: Path) -> None:
    rows = table()
    rows[0]["correct"] = None
    imported = taken(write(tmp_path / "t.jsonl", rows))
    assert imported.profile.tries_Q_B.tolist() == [[3, 1], [1, 0]]
    assert [str(each) for each in imported.left_out] == ["1 row left out: 'correct' is blank (line 1)"]


DRAWS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["low", "high", "max"]),
        st.integers(0, 6),
        st.booleans(),
        st.integers(0, 500),
        st.sampled_from([None, "1", "2"]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda draw: draw[:3],
)


@given(draws=DRAWS)
@hypothesis_settings(max_examples=60)
def test_any_draws_are_counted_as_a_person_would(tmp_path: Path, draws: list[tuple[Any, ...]]) -> None:
    path = write(tmp_path / "t.jsonl", [row(*draw) for draw in draws])
    profile = Profile.load(taken(path).path)
    cells = defaultdict(list)
    for query, effort, sample, correct, tokens, answer in draws:
        cells[query, effort].append((sample, correct, tokens, answer))
    assert list(profile.menu.caps) == sorted(set(profile.menu.caps))
    traces = profile.traces
    assert traces is not None
    for at, query in enumerate(profile.query_ids):
        own = profile.traces_of_Q[at]
        for column, effort in enumerate(profile.menu.labels):
            found = sorted(cells[query, effort], key=lambda draw: draw[0])
            assert profile.tries_Q_B[at, column] == len(found)
            assert profile.num_right_Q_B[at, column] == sum(draw[1] for draw in found)
            if found:
                np.testing.assert_allclose(profile.tokens_Q_B[at, column], np.mean([draw[2] for draw in found]))
            kept = [n for n in range(own.start, own.stop) if traces.grade_N_B[n, column] != 3]
            assert traces.sample_N[kept].tolist() == [draw[0] for draw in found]
            assert traces.tokens_N_B[kept, column].tolist() == [draw[2] for draw in found]
            answers = [traces.answers_Q[at][traces.answer_N_B[n, column]] for n in kept]
            assert answers == [draw[3] or "" for draw in found]


@pytest.mark.skipif(not EPOCH.exists(), reason="Epoch AI's runs are not here")
def test_real_effort_levels(tmp_path: Path) -> None:
    """Known of these files: 6,400 rows of two reasoning tasks, xhigh with half as many samples on one of them."""
    import pyarrow.parquet as pq

    path = tmp_path / "epoch.parquet"
    found = pq.read_table(
        EPOCH, filters=[("model", "=", "openai/gpt-5.2-2025-12-11"), ("task", "!=", "simpleqa-verified")]
    )
    pq.write_table(found, path)
    profile = taken(path).profile
    assert profile.menu.labels == ("low", "medium", "high", "xhigh")
    assert profile.num_queries == 125
    assert profile.tried_Q_B is not None
    assert profile.tried_Q_B.sum(axis=0).tolist() == [1000, 1000, 1000, 900]
    assert profile.num_right_Q_B.sum() == sum(found["correct"].to_pylist())
    assert profile.is_complete_Q.all()
    high = [each["output_tokens"] for each in found.to_pylist() if each["effort"] == "high"]
    np.testing.assert_allclose(profile.tokens_Q_B[:, 2].mean(), np.mean(high))


def test_where_twice_on_one_column_takes_either_and_on_two_columns_both(tmp_path: Path) -> None:
    rows = [{**each, "task": task} for task in ("gpqa", "aime", "simpleqa") for each in table()]
    rows = [{**each, "question_id": f"{each['task']}-{each['question_id']}"} for each in rows]
    file = str(write(tmp_path / "long.jsonl", rows))
    both = ("task=gpqa", "task=aime")
    made = import_profile(ImportSettings(files=(file,), columns=NAMED, where=both, out=str(tmp_path / "p.parquet")))
    assert {query_id.split("-")[0] for query_id in made.profile.query_ids} == {"gpqa", "aime"}
    one = import_profile(
        ImportSettings(
            files=(file,), columns=NAMED, where=(*both, "question_id=gpqa-q0"), out=str(tmp_path / "o.parquet")
        )
    )
    assert one.profile.query_ids == ("gpqa-q0",)
