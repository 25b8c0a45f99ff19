"""The layer study: its numbers against plain formulas, what it concludes, what it reads and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.commands import pipeline, reports
from forethought.control.sources import open_profile
from forethought.core.data import Query
from forethought.core.features import Counts, Features
from forethought.core.profile import Profile
from forethought.core.prompts import load_template
from forethought.core.provenance import Provenance
from forethought.core.settings import EngineSettings, ProfileSettings
from forethought.core.study_settings import LayersSettings
from forethought.engines.fake import FakeEngine
from forethought.engines.opening import choose_reader
from forethought.errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError, MismatchError, RunError
from forethought.evaluation.metrics import binomial_log_loss, brier_score, correlation_B
from forethought.predictors.ridge import RidgePredictor
from forethought.runs.profiles import write_parquet
from forethought.runs.store import RunDirectory
from forethought.studies import layers
from forethought.studies.layers.states import CHUNK, States, layers_words
from forethought.studies.layers.verdicts import judge

pytestmark = pytest.mark.slow

NUM_QUERIES = 240
MIDDLE = 2  # of the fake engine's four layers: the clearest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile run of the fake model, every layer recorded."""
    folder = tmp_path_factory.mktemp("layers")
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i * 7 % 11}?", "answer": "1"} for i in range(NUM_QUERIES)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    settings = ProfileSettings(model="fake", questions=str(folder / "q.jsonl"), out=str(folder / "run"))
    return pipeline.profile(settings).path


@pytest.fixture(scope="module")
def parquet(run: Path) -> Path:
    """The same profile as a file of one layer, as they are shipped."""
    profile = open_profile(str(run))
    assert profile.hidden_Q_L_D is not None
    path = run.parent / "one-layer.parquet"
    write_parquet(path, replace(profile, hidden_Q_L_D=profile.hidden_Q_L_D[:, 1:2], layers=profile.layers[1:2]))
    return path


@pytest.fixture(scope="module")
def held(parquet: Path) -> tuple[Path, layers.LayerStudy]:
    """A folder that the study filled, and the study."""
    folder = parquet.parent / "states"
    return folder, reports.study_layers(settings(parquet, states=str(folder)))


def settings(source: Path, **changes: Any) -> LayersSettings:
    return LayersSettings(run=str(source), **{"num_resamples": 200, "plots": False, **changes})


def fake(**options: Any) -> FakeEngine:
    return FakeEngine(template=load_template("worked-5"), **options)


def test_the_clearest_layer_is_found_by_the_last_token_and_is_among_the_best_by_the_mean(
    held: tuple[Path, layers.LayerStudy],
) -> None:
    _, result = held
    assert result.poolings == ("last", "mean")
    assert [(row.pooling, row.layer) for row in result.rows] == [
        (pooling, layer) for pooling in ("last", "mean") for layer in range(5)
    ]
    last, mean = result.verdicts
    assert (last.best, last.verdict) == (MIDDLE, "holds")
    assert mean.verdict in ("holds", "holds in part")  # a neighbour may come first by chance, but not surely
    for verdict in result.verdicts:
        assert MIDDLE in verdict.may_be_best
        assert set(verdict.equal) <= set(verdict.may_be_best)
        assert not {0, 4} & set(verdict.may_be_best)
        assert verdict.paper_layers == (MIDDLE,)
    assert sum(row.wins for row in result.select("last")) == pytest.approx(1.0)
    assert result.mean_less_last is not None
    assert result.simulated
    assert result.depth == 4


def test_a_recorded_run_and_a_folder_that_was_read_give_the_same(
    run: Path, held: tuple[Path, layers.LayerStudy]
) -> None:
    recorded = reports.study_layers(settings(run))
    assert recorded.select("last") == held[1].select("last")
    assert recorded.poolings == ("last",)
    assert any("--states" in note for note in recorded.notes)


def test_errors_are_those_of_the_usual_formulas(run: Path) -> None:
    profile = open_profile(str(run))
    counts = Counts.of(profile)
    result = reports.study_layers(settings(run))
    for row in result.rows:
        p_Q_B = RidgePredictor().fit(Features.of(profile, row.layer), counts).left_out_p_Q_B_
        assert p_Q_B is not None
        scores = row
        assert scores.log_loss.value == pytest.approx(binomial_log_loss(p_Q_B, counts))
        assert scores.brier.value == pytest.approx(brier_score(p_Q_B, counts))
        assert scores.squared_error.value == pytest.approx(((p_Q_B - profile.curves.p_Q_B) ** 2).mean())
        pearson_B = [each.value for each in scores.pearson]
        assert pearson_B == pytest.approx(correlation_B(p_Q_B, counts.rate_Q_B).tolist())
        assert scores.mean_pearson.value == pytest.approx(np.mean(pearson_B))
        for found in (scores.log_loss, scores.squared_error, scores.brier, scores.mean_pearson, *scores.pearson):
            assert found.low <= found.value <= found.high


def test_plans_keep_to_their_levels_and_beat_blind_where_a_layer_is_clear(
    held: tuple[Path, layers.LayerStudy],
) -> None:
    _, result = held
    assert result.levels == (48.0, 96.0, 160.0)
    for row in result.rows:
        assert all(granted <= level for granted, level in zip(row.granted, result.levels, strict=True))
    best = result.best(result.verdicts[0])
    assert best.gain_over_blind[0].low > 0.0
    for ours, blind, uniform, oracle in zip(
        best.accuracy, result.mean_curve.accuracy, result.uniform, result.oracle, strict=True
    ):
        assert max(blind.value, uniform.value) - 0.02 <= ours.value <= oracle.value
    gains = [ours.value - blind.value for ours, blind in zip(best.accuracy, result.mean_curve.accuracy, strict=True)]
    assert [gain.value for gain in best.gain_over_blind] == pytest.approx(gains)


def made_up(num_queries: int = 40, **changes: Any) -> Profile:
    engine = fake()
    queries = [Query(f"q{row}", f"question {row}") for row in range(num_queries)]
    p_Q_B = engine.true_curves(queries).p_Q_B
    random = np.random.default_rng(0)
    return Profile(
        query_ids=tuple(query.id for query in queries),
        menu=engine.menu,
        num_right_Q_B=random.binomial(4, p_Q_B),
        num_tried_Q=np.full(num_queries, 4),
        tokens_Q_B=np.tile(engine.menu.budgets_B.astype(float), (num_queries, 1)),
        reasoning_Q_B=np.tile(engine.menu.budgets_B.astype(float), (num_queries, 1)),
        **changes,
    )


def held_by(profile: Profile, hidden_Q_L_D: Any) -> States:
    return States(tuple(range(hidden_Q_L_D.shape[1])), dict(zip(profile.query_ids, hidden_Q_L_D, strict=True)))


def test_a_layer_that_is_the_same_for_all_says_nothing() -> None:
    """As the embedding of the last prompt token: without care its correlation would be -1."""
    profile = made_up()
    hidden_Q_L_D = np.random.default_rng(1).normal(size=(40, 2, 6)).astype(np.float16)
    hidden_Q_L_D[:, 0] = 1.5
    result = layers.study(profile, {"last": held_by(profile, hidden_Q_L_D)}, layers=(0, 1), levels=(48.0,))
    constant = result.rows[0]
    assert [each.value for each in constant.pearson] == [0.0] * 16
    assert constant.log_loss.value == pytest.approx(result.mean_curve.log_loss.value, abs=5e-3)
    assert constant.mean_pearson.high == 0.0
    assert [each.value for each in result.mean_curve.pearson] == [0.0] * 16


def test_questions_without_states_or_with_nan_are_left_out_of_every_row() -> None:
    profile = made_up()
    hidden_Q_L_D = np.random.default_rng(1).normal(size=(40, 3, 6)).astype(np.float16)
    last, mean = held_by(profile, hidden_Q_L_D), held_by(profile, hidden_Q_L_D.copy())
    mean.of_query["q3"][1] = np.nan
    some = States(last.layers, {key: value for key, value in last.of_query.items() if key != "q7"})
    result = layers.study(profile, {"last": some, "mean": mean}, layers=(0, 1, 2), levels=(48.0,), num_resamples=100)
    assert result.num_queries == 38
    assert any("2 of 40 questions are left out" in note for note in result.notes)
    without = layers.study(profile, {"mean": mean}, layers=(0, 2), levels=(48.0,), num_resamples=100)
    assert without.num_queries == 40  # the layer that holds NaN is not asked for


def test_options_with_other_numbers_of_traces_are_judged_by_their_own() -> None:
    profile = made_up()
    right_Q_B, tried_Q_B = profile.num_right_Q_B.copy(), np.full(profile.num_right_Q_B.shape, 4)
    tried_Q_B[5, 3:] = right_Q_B[5, 3:] = 0
    right_Q_B[:, 0] *= 3
    tried_Q_B[:, 0] = 12
    profile = replace(profile, num_right_Q_B=right_Q_B, tried_Q_B=tried_Q_B, num_tried_Q=tried_Q_B.max(axis=1))
    hidden_Q_L_D = np.random.default_rng(1).normal(size=(40, 2, 6)).astype(np.float16)
    states = {"last": held_by(profile, hidden_Q_L_D)}
    result = layers.study(profile, states, layers=(0, 1), levels=(48.0,), num_resamples=100)
    assert result.num_queries == 39
    assert all(0.0 < row.log_loss.value < 1.0 and row.squared_error.value < 0.5 for row in result.rows)
    assert 0.0 < result.uniform[0].value < 1.0


def test_too_few_questions_are_refused() -> None:
    profile = made_up(9)
    states = held_by(profile, np.ones((9, 2, 4), dtype=np.float16))
    with pytest.raises(InvalidFeaturesError, match="9 of 9 questions"):
        layers.study(profile, {"last": states}, layers=(0, 1), levels=(48.0,))


LOSSES: dict[str, tuple[Callable[[int], float], float, str]] = {
    "lowest in the middle": (lambda layer: abs(layer - 15), 0.1, "holds"),
    "falling to the end": (lambda layer: -layer, 0.1, "does not hold"),
    "lowest just above the range, unsurely": (lambda layer: abs(layer - 18), 0.8, "holds in part"),
    "lowest just above the range, surely": (lambda layer: abs(layer - 20), 0.1, "does not hold"),
    "no difference": (lambda layer: 0.0, 5.0, "not decided"),
}


@pytest.mark.parametrize(("loss", "noise", "verdict"), LOSSES.values(), ids=LOSSES.keys())
def test_verdicts(loss: Callable[[int], float], noise: float, verdict: str) -> None:
    random = np.random.default_rng(0)
    numbers = range(29)
    loss_R_L = np.array([loss(layer) for layer in numbers]) + noise * random.standard_normal((500, 29))
    loss_R_L[0] = [loss(layer) for layer in numbers]
    found = judge("last", numbers, loss_R_L, -loss_R_L, 28)
    assert found.paper_layers == (12, 13, 14, 15, 16, 17)
    assert found.verdict == verdict
    assert [each.name for each in found.contrasts] == ["middle third", "middle third", "the paper's range"]
    assert found.contrasts[0].layers == tuple(range(10, 19))
    assert found.contrasts[0].other_layers == tuple(range(19, 29))


def test_the_set_that_may_be_best_covers_the_best_although_it_was_picked() -> None:
    """All layers are alike here, so that any one of them is left out in 5% of the trials or less."""
    random = np.random.default_rng(0)
    num_trials, missed, missed_by_pairs = 200, 0, 0
    for _ in range(num_trials):
        sample_L = random.standard_normal(20)
        loss_R_L = np.concatenate([sample_L[None], sample_L + random.standard_normal((400, 20))])
        found = judge("last", range(20), loss_R_L, loss_R_L, None)
        missed += 0 not in found.may_be_best
        missed_by_pairs += 0 not in found.equal
    assert missed <= 0.09 * num_trials
    assert missed_by_pairs > 0.09 * num_trials


def test_without_the_layers_or_the_depth_the_paper_is_not_tested() -> None:
    loss_R_L = np.random.default_rng(0).random((50, 3))
    assert judge("last", [1, 2, 3], loss_R_L, loss_R_L, 28).verdict == "not tested"
    assert judge("last", [4, 12, 20], loss_R_L, loss_R_L, None).verdict == "not tested"
    assert judge("last", [4, 12, 20], loss_R_L, loss_R_L, 28).verdict != "not tested"


def test_report_says_everything_three_ways(held: tuple[Path, layers.LayerStudy], tmp_path: Path) -> None:
    _, result = held
    files = layers.page(result).write(tmp_path, plots=False)
    content = json.loads(files["json"].read_text("utf-8"))
    assert content["kind"] == "layers"
    row = content["rows"][MIDDLE]
    assert (row["pooling"], row["layer"]) == ("last", MIDDLE)
    assert row["log_loss_low"] <= row["log_loss"] <= row["log_loss_high"]
    for name, length in (("pearson", 16), ("accuracy", 3), ("gain_over_blind", 3)):
        assert [len(row[key]) for key in (name, f"{name}_low", f"{name}_high")] == [length] * 3
    page, text = files["markdown"].read_text("utf-8"), layers.page(result).text()
    for each in (page, text):
        assert "SIMULATED" in each
        assert f"layer {MIDDLE} of 4 (50%)" in each
        assert "2602.01237) holds here" in each
    for word in ("blind", "uniform", "oracle", "chosen on the predictions that are reported"):
        assert word in page


def test_picture_is_drawn_and_says_what_it_shows(held: tuple[Path, layers.LayerStudy], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from forethought.studies.layers import plots

    _, result = held
    file = layers.page(result).write(tmp_path)["layers"]
    assert file.read_bytes().startswith(b"\x89PNG")
    figure = plots._figure(result)
    texts = [each.get_text() for each in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert "SIMULATED" in texts
    assert any(f"{NUM_QUERIES} questions, 4 traces" in text and "95%" in text for text in texts)
    narrow = replace(result, rows=tuple(result.select("mean")), verdicts=result.verdicts[1:], depth=None)
    plots._figure(narrow)


def test_reading_goes_on_after_an_interrupt(parquet: Path, tmp_path: Path) -> None:
    class Interrupted(FakeEngine):
        num_read = 0
        is_stopped = False

        def pooled_states(self, queries: Sequence[Query], layers: Sequence[int]) -> Any:
            if self.num_read == CHUNK and not self.is_stopped:
                self.is_stopped = True
                raise KeyboardInterrupt
            self.num_read += len(queries)
            return super().pooled_states(queries, layers)

    asked = settings(parquet, states=str(tmp_path / "states"))
    engine = Interrupted(template=load_template("worked-5"))
    with pytest.raises(KeyboardInterrupt):
        reports.study_layers(asked, engine=engine)
    assert len(RunDirectory.open(tmp_path / "states").load_hidden()[1]) == CHUNK
    part = reports.study_layers(replace(asked, read=False))
    assert part.num_queries == CHUNK
    assert reports.study_layers(asked, engine=engine).num_queries == NUM_QUERIES
    assert engine.num_read == NUM_QUERIES  # the first ones were not read again
    assert reports.study_layers(asked, engine=engine).num_queries == NUM_QUERIES
    assert engine.num_read == NUM_QUERIES


KILLED = """
import sys, time
from forethought.commands.reports import study_layers
from forethought.core.study_settings import LayersSettings
from forethought.engines.fake import FakeEngine

read = FakeEngine.pooled_states

def slowly(self, queries, layers):
    print(queries[0].id, flush=True)
    time.sleep(0.05)
    return read(self, queries, layers)

FakeEngine.pooled_states = slowly
study_layers(LayersSettings(run=sys.argv[1], states=sys.argv[2], num_resamples=100))
"""


def test_kill_9_while_reading_costs_a_chunk_at_most(parquet: Path, tmp_path: Path) -> None:
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(parquet), str(tmp_path / "states")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.06)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    result = reports.study_layers(settings(parquet, states=str(tmp_path / "states")))
    assert result.num_queries == NUM_QUERIES
    assert sorted(file.suffix for file in (tmp_path / "states" / "hidden").glob("0*")) == [".safetensors"] * 8


def test_a_prompt_that_does_not_fit_is_left_out(parquet: Path, tmp_path: Path) -> None:
    profile = open_profile(str(parquet))
    path = tmp_path / "long.parquet"
    write_parquet(path, replace(profile, texts=("word " * 9000, *profile.texts[1:])))
    result = reports.study_layers(settings(path, states=str(tmp_path / "states")))
    assert result.num_queries == NUM_QUERIES - 1
    assert any("does not fit" in note for note in result.notes)


def _broken(profile: Profile, tmp_path: Path) -> dict[str, Path]:
    """Profiles that lack something, by name."""
    kinds = {
        "nothing": replace(profile, hidden_Q_L_D=None, layers=()),
        "no-texts": replace(profile, texts=()),
        "no-model": replace(profile, provenance=Provenance.from_json({"name": "x"})),
        "other-model": replace(profile, provenance=replace(profile.provenance, model_hash="0" * 64)),
        "other-template": replace(profile, provenance=replace(profile.provenance, template_hash="0" * 12)),
    }
    for name, each in kinds.items():
        write_parquet(tmp_path / f"{name}.parquet", each)
    return {name: tmp_path / f"{name}.parquet" for name in kinds}


REFUSED: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "one layer and no folder": ("one-layer", {}, InvalidFeaturesError, "layer 1: nothing to compare.*--states"),
    "no states at all": ("nothing", {}, InvalidFeaturesError, "no hidden states.*--states"),
    "mean was not recorded": ("one-layer", {"pooling": "mean"}, InvalidFeaturesError, "mean.*--states"),
    "layer that was not recorded": ("run", {"layers": "2,99"}, InvalidFeaturesError, "99.*layers 0-4"),
    "one layer asked for": ("run", {"layers": "2"}, InvalidFeaturesError, "at least two"),
    "no such layer in the model": ("one-layer", {"states": "new", "layers": "0,5"}, InvalidFeaturesError, "5: fake"),
    "no-read without a folder": ("one-layer", {"states": "new", "read": False}, RunError, "does not exist"),
    "folder of another kind": ("one-layer", {"states": "RUN"}, RunError, "'profile' run"),
    "folder that is no run": ("one-layer", {"states": "FILES"}, RunError, "not a run of forethought"),
    "texts unknown": ("no-texts", {"states": "new"}, InvalidInputError, "does not hold the texts of 240"),
    "model unknown": ("no-model", {"states": "new"}, InvalidSettingsError, "--model"),
    "states of another model": ("other-model", {"states": "HELD"}, MismatchError, "model hash: 0000"),
    "another model reads": ("other-model", {"states": "new"}, MismatchError, "model hash: 0000"),
    "another template reads": ("other-template", {"states": "new"}, MismatchError, "template hash: 0000"),
    "budget below one window": ("run", {"mean_tokens": (8.0,)}, InvalidSettingsError, "between 16 and 256"),
    "budget above the menu": ("run", {"mean_tokens": (48.0, 300.0)}, InvalidSettingsError, "300"),
    "no such run": ("nowhere", {}, RunError, "nowhere"),
}


@pytest.mark.parametrize(("source", "changes", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_studied_is_refused_by_type_and_leaves_nothing_behind(
    run: Path,
    parquet: Path,
    held: tuple[Path, layers.LayerStudy],
    tmp_path: Path,
    source: str,
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    sources = {"run": run, "one-layer": parquet, **_broken(open_profile(str(parquet)), tmp_path)}
    folders = {"RUN": str(run), "HELD": str(held[0]), "FILES": str(tmp_path), "new": str(tmp_path / "new")}
    if "states" in changes:
        changes = {**changes, "states": folders[changes["states"]]}
    with pytest.raises(error, match=f"(?s){words}"):
        reports.study_layers(settings(sources.get(source, tmp_path / source), **changes))
    assert not (tmp_path / "new").exists()


BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "pooling": ({"pooling": "max"}, "--pooling"),
    "layers": ({"layers": "4-12"}, "--layers"),
    "no layers": ({"layers": "none"}, "nothing to compare"),
    "limit": ({"limit": 1}, "--limit"),
    "resamples": ({"num_resamples": 5}, "--resamples"),
    "negative budget": ({"mean_tokens": (-1.0,)}, "--mean-tokens"),
}


@pytest.mark.parametrize(("changes", "flag"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_bad_settings_name_their_flag(changes: dict[str, Any], flag: str) -> None:
    with pytest.raises(InvalidSettingsError, match=flag):
        LayersSettings(run="x", **changes)


def test_states_read_in_another_precision_are_not_mixed(parquet: Path, tmp_path: Path) -> None:
    asked = settings(parquet, states=str(tmp_path / "states"), limit=20)
    reports.study_layers(asked)
    engine = fake()
    engine.info = replace(engine.info, dtype="bfloat16")
    with pytest.raises(RunError, match=r"dtype: float32 there, bfloat16 now.*--no-read"):
        reports.study_layers(replace(asked, limit=None), engine=engine)
    assert reports.study_layers(asked, engine=engine).num_queries == 20  # nothing to read: the engine does not matter


@pytest.mark.parametrize("vllm", [True, False])
def test_auto_reads_with_transformers_even_where_vllm_is_installed(vllm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.engines.opening.find_spec", lambda name: object() if vllm else None)
    name, reason = choose_reader("qwen2.5-coder-0.5b", "auto")
    assert name == "transformers"
    assert "vLLM's prefix cache" in reason
    assert choose_reader("fake", "auto") == ("fake", "the model is 'fake'")
    with pytest.raises(InvalidSettingsError, match="--engine transformers"):
        choose_reader("any", "vllm")


def test_a_model_run_by_transformers_fills_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    from engine_contract import TEMPLATE
    from forethought.engines.transformers import TransformersEngine

    engine = TransformersEngine(str(tiny_model), template=TEMPLATE, context_tokens=256, dtype="float32")
    info = {key: getattr(engine.info, key) for key in ("model", "model_hash", "template", "template_hash")}
    profile = made_up(20, texts=tuple(f"{n}+{n}=?" for n in range(20)), provenance=Provenance(**info))
    write_parquet(tmp_path / "tiny.parquet", profile)
    asked = settings(tmp_path / "tiny.parquet", states=str(tmp_path / "states"))
    result = reports.study_layers(asked, engine=engine)
    assert [row.layer for row in result.select("mean")] == [0, 1, 2]
    assert not result.simulated
    queries = [Query(f"q{n}", f"{n}+{n}=?") for n in range(20)]
    _, held = RunDirectory.open(tmp_path / "states").load_hidden(pooling="mean")
    np.testing.assert_allclose(held["q7"], engine.pooled_states(queries[7:8], [0, 1, 2])[1][0], rtol=1e-2, atol=1e-2)
    engine.close()


def test_an_engine_without_means_is_refused_before_it_is_opened(parquet: Path, tmp_path: Path) -> None:
    asked = settings(parquet, states=str(tmp_path / "new"), engine=EngineSettings(engine="vllm"))
    with pytest.raises(InvalidSettingsError, match="'vllm' gives no means"):
        reports.study_layers(asked)
    assert not (tmp_path / "new").exists()


def test_means_recorded_with_a_run_are_studied(run: Path, tmp_path: Path) -> None:
    """A run directory may hold means beside its own states, as `save_hidden` takes them."""
    profile = open_profile(str(run))
    copied = RunDirectory.create(
        tmp_path / "run", kind="profile", provenance=RunDirectory.open(run).header.provenance, settings={}
    )
    for name in ("records.jsonl", "queries.jsonl"):
        (copied.path / name).write_bytes((run / name).read_bytes())
    assert profile.hidden_Q_L_D is not None
    copied.save_hidden(profile.query_ids, profile.layers, profile.hidden_Q_L_D, profile.hidden_Q_L_D)
    result = reports.study_layers(settings(copied.path))
    assert result.poolings == ("last", "mean")
    assert result.mean_less_last is not None
    assert result.mean_less_last.value == 0.0


def test_layers_in_words() -> None:
    assert layers_words([]) == "no layer"
    assert layers_words([4]) == "layer 4"
    assert layers_words([9, 0, 1, 2, 7]) == "layers 0-2, 7, 9"
