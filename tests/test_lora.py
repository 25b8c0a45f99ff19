"""The LoRA predictor on a tiny random model: it learns, resumes exactly, and says the same after loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("peft")

from forethought.commands import pipeline
from forethought.core.features import Counts, Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.core.settings import TrainSettings
from forethought.errors import InvalidFeaturesError, InvalidSettingsError, MismatchError
from forethought.predictors.lora import LoraPredictor
from forethought.predictors.parts import adapter
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import train
from forethought.runs.profiles import write_parquet
from tiny_model import save_tiny_model

pytestmark = pytest.mark.slow

BUDGETS = np.array([16, 32, 48, 64])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("base") / "tiny"))


def make_profile(num_queries: int = 60) -> Profile:
    """Questions that say 'a' are easy, those that say 'h' hard."""
    random = np.random.default_rng(0)
    is_easy_Q = random.random(num_queries) < 0.5
    p_Q_B = np.where(is_easy_Q[:, None], 0.9, 0.1) * BUDGETS / 64
    tokens_Q_B = np.where(is_easy_Q[:, None], np.minimum(BUDGETS, 20), BUDGETS) + 9.0
    texts = tuple(f"{'a' * 6 if easy else 'h' * 6} {row}+{row}" for row, easy in enumerate(is_easy_Q))
    return Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=Menu.evenly(16, 64),
        num_right_Q_B=random.binomial(4, p_Q_B),
        num_tried_Q=np.full(num_queries, 4),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B - 9,
        texts=texts,
        provenance=Provenance.from_json({"model": "tiny", "name": "made-up"}),
    )


def options(tiny: str, **changes: object) -> dict[str, object]:
    return {"base": tiny, "epochs": 3, "batch_size": 8, "learning_rate": 2e-2, "patience": 3, **changes}


def fit(tiny: str, **changes: object) -> LoraPredictor:
    profile = make_profile()
    return LoraPredictor(**options(tiny, **changes)).fit(
        Features(profile.num_queries, texts=profile.texts),
        Counts.of(profile),
    )


@pytest.mark.parametrize("head", ["curve", "classes"])
def test_it_tells_easy_questions_from_hard_ones(tiny: str, head: str) -> None:
    predictor = fit(tiny, head=head)
    p_Q_B, tokens_Q_B = predictor.predict(Features(2, texts=("aaaaaa 3+4", "hhhhhh 3+4")))
    assert tokens_Q_B is not None
    assert p_Q_B[0, -1] > p_Q_B[1, -1] + 0.2
    assert tokens_Q_B[0, -1] < tokens_Q_B[1, -1]
    assert (np.diff(tokens_Q_B, axis=1) >= 0).all()
    assert ((p_Q_B >= 0) & (p_Q_B <= 1)).all()
    assert len(predictor.losses_) <= 3
    assert predictor.losses_[-1][0] < predictor.losses_[0][0]


def test_training_goes_on_where_it_was_stopped(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tiny)

    class StoppedError(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if done == 10:
            raise StoppedError

    monkeypatch.setattr(adapter, "CHECKPOINT_STEPS", 3)
    with pytest.raises(StoppedError):
        fit(tiny, checkpoint=str(tmp_path), progress=stop)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    steps: list[int] = []
    resumed = fit(tiny, checkpoint=str(tmp_path), progress=lambda what, done, total: steps.append(done))
    assert steps[0] == 10
    texts = Features(2, texts=("aaaaaa 1", "hhhhhh 1"))
    np.testing.assert_allclose(resumed.predict(texts)[0], whole.predict(texts)[0], atol=1e-5)


def test_another_training_does_not_take_over_a_checkpoint(tiny: str, tmp_path: Path) -> None:
    fit(tiny, checkpoint=str(tmp_path))
    fit(tiny, checkpoint=str(tmp_path), seed=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_saved_adapter_says_the_same(tiny: str, tmp_path: Path) -> None:
    trained = train(make_profile(), predictor="lora", options=options(tiny))
    card = trained.card
    assert (card.features.kind, card.features.layer) == ("text", None)
    assert card.calibration is not None
    assert card.calibration.num_folds == 1
    assert "held out to stop early" in card.to_markdown()
    trained.save(tmp_path / "predictor")
    loaded = Predictor.load(tmp_path / "predictor")
    texts = Features(2, texts=("aaaaaa 1", "hhhhhh 1"))
    before, after = (each.predict(["a", "h"], texts) for each in (trained, loaded))
    np.testing.assert_allclose(before.p_Q_B, after.p_Q_B, atol=1e-6)
    assert {path.name for path in (tmp_path / "predictor").iterdir()} == {
        "predictor.json",
        "weights.safetensors",
        "card.md",
    }


def test_another_base_model_under_the_name_is_refused(tiny: str, tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base")
    trained = train(make_profile(), predictor="lora", options=options(str(base), epochs=1))
    trained.save(tmp_path / "predictor")
    save_tiny_model(base, seed=1)
    loaded = Predictor.load(tmp_path / "predictor")
    with pytest.raises(MismatchError, match="train again"):
        loaded.predict(["a"], Features(1, texts=("aaa",)))


def test_without_texts_it_says_so(tiny: str) -> None:
    with pytest.raises(InvalidFeaturesError, match="text"):
        LoraPredictor(**options(tiny)).fit(
            Features(3), Counts(Menu.evenly(16, 64), np.ones((3, 4), dtype=int), np.full(3, 4))
        )


@pytest.mark.parametrize(
    "wrong",
    [{"head": "regression"}, {"rank": 0}, {"dropout": 1.0}, {"learning_rate": 0.0}, {"validation_share": 1.0}],
    ids=str,
)
def test_settings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSettingsError, match=next(iter(wrong))):
        LoraPredictor(**wrong)


def test_a_stack_keeps_the_state_of_its_members_trainings(tiny, tmp_path):
    write_parquet(tmp_path / "run.parquet", make_profile())
    members = {"members": "text,lora", "num_folds": 2, "options": {"lora": options(tiny, epochs=1)}}
    trained, folder = pipeline.train(
        TrainSettings(
            run=str(tmp_path / "run.parquet"), predictor="stack", options=members, out=str(tmp_path / "stack")
        )
    )
    assert len(list((tmp_path / "stack-training").glob("*.safetensors"))) == 3  # two folds and the whole
    asked = Features(2, texts=("aaaaaa 1+1", "hhhhhh 1+1"))
    before, after = trained.estimator.predict(asked)[0], Predictor.load(folder).estimator.predict(asked)[0]
    assert before == pytest.approx(after, abs=1e-6)
