"""Predictors compared: what each buys, what it costs itself, another tool's labels; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.commands import main
from forethought.commands.reports import names_of
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.core.terms import TOKEN_COSTS
from forethought.errors import InvalidInputError
from forethought.evaluation.comparison import Candidate, PredictorCost, compare_predictors
from forethought.models.config import KNOWN, count, num_parameters
from forethought.report import page

pytestmark = pytest.mark.slow

MENU = Menu.evenly(16, 64)


def measured(num_queries: int = 200, seed: int = 0) -> Profile:
    jump_Q_1 = np.random.default_rng(0).integers(0, 4, (num_queries, 1))
    random = np.random.default_rng(seed)
    p_Q_B = np.where(np.arange(4) >= jump_Q_1, 0.9, 0.05)
    tokens_Q_B = np.tile(MENU.budgets_B + 5.0, (num_queries, 1))
    return Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=MENU,
        num_right_Q_B=random.binomial(8, p_Q_B),
        num_tried_Q=np.full(num_queries, 8),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B - 5,
        provenance=Provenance.from_json({"model": "tiny", "name": "made-up"}),
    )


def comparison(own_tokens: float | None = 0.0) -> Any:
    profile = measured()
    known = profile.curves
    mean = Curves(("mean",), MENU, known.p_Q_B.mean(axis=0)[None], known.tokens_Q_B.mean(axis=0)[None])
    cost = PredictorCost(parameters=10, seconds=1e-6, tokens=own_tokens, threads="one")
    blind = Curves(known.query_ids, MENU, np.tile(mean.p_Q_B, (200, 1)), np.tile(mean.tokens_Q_B, (200, 1)))
    candidates = [Candidate("knows", "truth", known, cost), Candidate("blindly", "mean", blind, None)]
    return compare_predictors(profile, candidates, mean, num_resamples=200)


def test_who_knows_leads_and_who_does_not_gains_nothing_over_blind() -> None:
    result = comparison()
    for cost in TOKEN_COSTS:
        knows, blindly = result.score("knows", cost), result.score("blindly", cost)
        assert knows.gain_over_blind.low > 0.05
        assert abs(blindly.gain_over_blind.value) < 0.02
        assert knows.lead is None
        assert blindly.lead.high < 0
        assert knows.gap_closed.value > 0.98
    assert result.log_losses["knows"].high < result.log_losses["mean curve"].low


def test_the_fair_oracle_stands_beside_the_oracle_where_there_are_halves() -> None:
    one, other = (measured(seed=seed) for seed in (1, 2))
    whole = replace(one, num_right_Q_B=one.num_right_Q_B + other.num_right_Q_B, num_tried_Q=np.full(200, 16))
    candidates = [Candidate("knows", "truth", whole.curves, None)]
    result = compare_predictors(whole, candidates, whole.curves, halves=(one, other), num_resamples=200)
    accuracy = {(each.policy, each.cost, each.budget): each.accuracy.value for each in result.rows}
    for cost in TOKEN_COSTS:
        for level in result.levels[cost]:
            assert accuracy["fair-oracle", cost, level] <= accuracy["oracle", cost, level] + 1e-9
    assert "| exact oracle | fair oracle |" in page(result).markdown()
    assert any("The fair oracle chooses by one half" in note for note in result.notes)
    assert "| exact oracle |\n" in page(comparison()).markdown()


def test_own_tokens_are_charged_under_spent_cost_alone() -> None:
    free, charged, unknown = comparison(0.0), comparison(8.0), comparison(None)
    assert free.score("knows", Cost.GRANTED).net_gain is None
    for result in (free, charged):
        assert result.score("knows", Cost.SPENT).gain == free.score("knows", Cost.SPENT).gain
    assert free.score("knows", Cost.SPENT).net_gain == free.score("knows", Cost.SPENT).gain
    assert charged.score("knows", Cost.SPENT).net_gain.value < free.score("knows", Cost.SPENT).gain.value - 0.02
    assert unknown.score("knows", Cost.SPENT).net_gain is None


@pytest.mark.parametrize("names", [[], ["a", "a"], ["uniform"], ["mean curve"]], ids=str)
def test_names_must_be_their_own(names: list[str]) -> None:
    profile = measured()
    candidates = [Candidate(name, "truth", profile.curves, None) for name in names]
    with pytest.raises(InvalidInputError, match="names of their own"):
        compare_predictors(profile, candidates, profile.curves, num_resamples=200)


def test_sizes_of_models(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
    }
    assert count(config) == KNOWN["qwen2.5-coder-1.5b"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert num_parameters(str(tmp_path)) == KNOWN["qwen2.5-coder-1.5b"]
    assert num_parameters("some/where") is None
    for odd in ({**config, "num_attention_heads": 0}, {**config, "hidden_size": float("inf")}):
        (tmp_path / "config.json").write_text(json.dumps(odd))
        assert num_parameters(str(tmp_path)) is None
    (tmp_path / "config.json").write_text("[" * 99_999)
    assert num_parameters(str(tmp_path)) is None
    assert num_parameters(None) is None


class TestCommand:
    def call(self, capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(list(args))
        found = capsys.readouterr()
        assert stopped.value.code == code, found.err
        return found.out, found.err

    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
        monkeypatch.chdir(tmp_path)
        for name in ("train", "test"):
            rows = [
                {"id": f"{name}{row}", "question": f"{name} {row} + 1?", "answer": f"{row + 1}"} for row in range(60)
            ]
            Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            self.call(capsys, "profile", "fake", f"{name}.jsonl", "--out", name, "--quiet")
        self.call(capsys, "train", "train", "--predictor", "ridge", "--out", "ridge", "--quiet")
        self.call(capsys, "train", "train", "--predictor", "mean", "--out", "mean", "--quiet")
        lines = [f"{name}{row},{'odd' if row % 2 else 'even'}" for name in ("train", "test") for row in range(60)]
        Path("labels.csv").write_text("query_id,label\n" + "\n".join(lines) + "\n")
        return tmp_path

    def test_compares_and_writes(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        labels = ("--labels", "parity=labels.csv", "--train", "train")
        out, _ = self.call(capsys, "compare", "ridge", "mean", "--on", "test", *labels, "--resamples", "200", "--json")
        found = json.loads(out)
        assert [each["name"] for each in found["candidates"]] == ["ridge", "mean", "parity"]
        assert {each["cost"] for each in found["scores"]} == {"granted", "spent"}
        assert found["candidates"][0]["own_cost"]["parameters"] > 100
        assert found["candidates"][2]["own_cost"] is None
        assert {Path(file).name for file in found["files"]} >= {"comparison.json", "comparison.md"}
        out, _ = self.call(
            capsys, "compare", "ridge", "--on", "test", "--name", "ours", "--resamples", "200", "--no-plots"
        )
        assert "ours" in out
        assert "SIMULATED" in out.upper()

    def test_runs_are_called_by_what_tells_them_apart(self) -> None:
        assert names_of(("runs/a/predictor", "runs/b/predictor")) == ("a", "b")
        assert names_of(("x/ridge", "y/ridge", "predictor")) == ("x/ridge", "y/ridge", "predictor")
        assert names_of(("a", "a/predictor")) == ("a", "a")  # the same one: refused

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (("ridge", "ridge"), "names of their own (--name)"),
            (("ridge", "--labels", "x"), "NAME=FILE"),
            (("ridge", "--labels", "x=labels.csv"), "--train"),
            (("ridge", "mean", "--name", "a"), "--name"),
            (("rigde",), "neither a run directory"),
            (("ridge", "--labels", "x=no.csv", "--train", "train"), "no such file"),
            (("ridge", "--labels", "x=train.jsonl", "--train", "train"), "query_id and label"),
        ],
        ids=["twice", "no-file", "no-train", "names", "unknown", "missing", "no-columns"],
    )
    def test_what_is_typed_wrong(
        self, here: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
    ) -> None:
        _, err = self.call(capsys, "compare", *args, "--on", "test", code=1)
        assert words in err
