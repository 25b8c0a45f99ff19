"""Asking the model how hard a question is: what counts as an answer, the classes, and the whole way through the CLI."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from forethought.commands import main
from forethought.core.data import Query
from forethought.core.features import Counts, Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.prompts import load_template
from forethought.core.provenance import Provenance
from forethought.engines.fake import FakeEngine
from forethought.errors import InvalidFeaturesError, InvalidSettingsError, RunError
from forethought.predictors.difficulty import LEVELS, Asking, ask, classes, pick_examples, read_level, with_difficulties
from forethought.predictors.prompted import PromptedPredictor

QUERIES = [Query(f"q{row}", f"What is {row} plus {row}?", reference=str(2 * row)) for row in range(40)]


def fake(**options: object) -> FakeEngine:
    return FakeEngine(template=load_template("worked-5"), **options)


def measured(num_queries: int = 40) -> Profile:
    random = np.random.default_rng(0)
    right_Q_B = np.sort(random.integers(0, 5, (num_queries, 4)), axis=1)
    tokens_Q_B = np.tile([20.0, 30.0, 40.0, 50.0], (num_queries, 1))
    return Profile(
        query_ids=tuple(query.id for query in QUERIES[:num_queries]),
        menu=Menu.evenly(16, 64),
        num_right_Q_B=right_Q_B,
        num_tried_Q=np.full(num_queries, 4),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B,
        texts=tuple(query.text for query in QUERIES[:num_queries]),
        provenance=Provenance.from_json({"model": "fake", "name": "made-up"}),
    )


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("easy", "easy"),
        (" Hard.", "hard"),
        ("**medium**", "medium"),
        ("MEDIUM!", "medium"),
        ("easy to medium", None),
        ("not hard", None),
        ("harder", None),
        ("", None),
        ("7", None),
    ],
    ids=repr,
)
def test_only_a_level_alone_is_an_answer(text: str, level: str | None) -> None:
    assert read_level(text) == level


def test_the_fake_model_is_asked_without_thinking() -> None:
    asked = ask(fake(), QUERIES, Asking())
    assert len(asked) == len(QUERIES)
    assert {each.level for each in asked} == set(LEVELS)
    assert all(each.tokens > 10 for each in asked)
    assert asked == ask(fake(), QUERIES, Asking())


def test_what_fails_is_no_level_and_says_why() -> None:
    asked = ask(fake(failure_rate=1.0), QUERIES[:3], Asking())
    assert [each.level for each in asked] == [None] * 3
    assert all("on purpose" in (each.error or "") for each in asked)


def test_an_engine_of_one_template_is_refused() -> None:
    class Fixed:
        info = fake().info

    with pytest.raises(InvalidFeaturesError, match="--predictor text"):
        ask(Fixed(), QUERIES, Asking())  # type: ignore[arg-type]


def test_classes_are_fifths_by_rank_even_where_rates_tie() -> None:
    rate_Q_B = np.zeros((10, 2))
    rate_Q_B[5:, 1] = 1.0
    rate_Q_B[9, 0] = rate_Q_B[8, 0] = 1.0  # right sooner: easier
    level_Q = classes(rate_Q_B, np.ones(2))
    assert np.bincount(level_Q).tolist() == [2, 6, 2]
    assert level_Q[[8, 9]].tolist() == [0, 0]
    assert (rate_Q_B[level_Q == 2, 1] == 0).all()


def test_examples_are_the_clearest_of_every_level_in_turns() -> None:
    profile = measured()
    shots = pick_examples(profile, num_each=2, order=np.arange(40))
    assert [level for _, level in shots] == [*LEVELS, *LEVELS]
    rate_Q = profile.curves.p_Q_B.mean(axis=1)
    by_text = dict(zip(profile.texts, rate_Q, strict=True))
    assert by_text[shots[0][0]] == rate_Q.max()
    assert by_text[shots[2][0]] <= sorted(rate_Q)[1]
    assert pick_examples(profile, num_each=0, order=np.arange(40)) == ()


def test_what_was_said_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    shots = pick_examples(measured(), num_each=1, order=np.arange(40))
    asking = Asking(shots)
    engine = fake()
    told = with_difficulties(measured(), engine, asking, tmp_path / "asked", progress=lambda *_: None)
    assert told.num_queries == 37  # the examples are left out
    assert told.provenance.asking["tokens"] > 10
    engine.generate = None  # type: ignore[assignment]
    again = with_difficulties(measured(), engine, asking, tmp_path / "asked", progress=lambda *_: None)
    assert again.difficulties == told.difficulties
    with pytest.raises(RunError, match="template_hash"):
        with_difficulties(measured(), fake(), Asking(), tmp_path / "asked", progress=lambda *_: None)


def test_every_level_gets_the_mean_curve_of_those_of_whom_it_was_said() -> None:
    right_Q_B = np.repeat([[4, 4], [2, 2], [0, 0]], 200, axis=0)
    levels = ("easy",) * 200 + ("hard",) * 200 + (None,) * 200
    predictor = PromptedPredictor().fit(
        Features(600, difficulties=levels), Counts(Menu((16, 64)), right_Q_B, np.full(600, 4))
    )
    p_Q_B, tokens = predictor.predict(Features(4, difficulties=("easy", "hard", None, "medium")))
    np.testing.assert_allclose(p_Q_B[:, 0], [1.0, 0.5, 0.0, 0.5], atol=0.02)
    assert tokens is None
    assert (predictor.levels_, predictor.num_said_) == (["easy", "hard"], [200, 200, 200])


def test_number_of_examples() -> None:
    with pytest.raises(InvalidSettingsError, match="num_examples"):
        PromptedPredictor(num_examples=9)


@pytest.mark.slow
def test_profile_train_plan_and_evaluate_with_a_prompted_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": query.id, "question": query.text, "answer": query.reference} for query in QUERIES]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(*args: str) -> dict[str, object]:
        with pytest.raises(SystemExit) as stopped:
            main([*args, "--json"])
        assert stopped.value.code == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    call("profile", "fake", "q.jsonl", "--out", "run", "--quiet")
    made = call(
        "train", "run", "--predictor", "prompted", "--predictor-option", "num_examples=1", "--engine", "fake", "--quiet"
    )
    assert made["card"]["features"]["kind"] == "difficulty"  # type: ignore[index]
    assert len(made["card"]["asking"]["shots"]) == 3  # type: ignore[index]
    planned = call("plan", "run", "q.jsonl", "--mean-tokens", "64", "--engine", "fake")
    assert len({row["budget"] for row in planned["budgets"]}) > 1  # type: ignore[attr-defined]
    others = [{**row, "id": f"other-{row['id']}", "question": f"{row['question']} Say why."} for row in rows]
    Path("others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    call("profile", "fake", "others.jsonl", "--out", "others", "--quiet")
    call("evaluate", "run", "--on", "others", "--engine", "fake", "--no-plots", "--resamples", "200")
