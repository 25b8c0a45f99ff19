"""A predictor is saved in one step, and what else stands in its folder stays."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from forethought.control.sources import shipped_heldout
from forethought.core.features import Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.errors import ModelFileError, UnknownNameError
from forethought.predictors import bundle as saving
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import train


def made(share: float) -> Predictor:
    """A mean predictor whose every curve is at `share`."""
    right_Q_B = np.full((20, 4), round(share * 10), dtype=np.int64)
    tokens_Q_B = np.tile(np.arange(16.0, 80.0, 16.0), (20, 1))
    ids = tuple(f"q{row}" for row in range(20))
    tried_Q = np.full(20, 10, dtype=np.int64)
    return train(Profile(ids, Menu.evenly(16, 64), right_Q_B, tried_Q, tokens_Q_B, tokens_Q_B), predictor="mean")


OLD, NEW = made(0.2), made(0.7)


def share(folder: Path) -> float:
    return round(Predictor.load(folder).card.mean_p_B[0], 1)


def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    """A folder of links to another predictor's files gets its own; the other one is as it was."""
    other, folder = OLD.save(tmp_path / "other"), tmp_path / "p"
    folder.mkdir()
    for path in other.iterdir():
        (folder / path.name).symlink_to(path)
    NEW.save(folder)
    assert (share(other), share(folder)) == (0.2, 0.7)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())


def test_what_it_did_not_make_stays(tmp_path: Path) -> None:
    folder = OLD.save(tmp_path / "p")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").write_text("{}")
    (folder / "NOTES.txt").write_text("mine")
    NEW.save(folder)
    assert share(folder) == 0.7
    assert (folder / "NOTES.txt").read_text() == "mine"
    assert (folder / "evaluation" / "evaluation.json").read_text() == "{}"
    assert {path.name for path in folder.iterdir()} == {
        "predictor.json",
        "weights.safetensors",
        "card.md",
        "evaluation",
        "NOTES.txt",
    }
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "NOTES.txt").write_text("mine")
    with pytest.raises(ModelFileError, match="is not a predictor; nothing was written"):
        OLD.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["NOTES.txt"]


class Killed(BaseException):
    """Stands for kill -9: nothing of the code behind it runs."""


@pytest.mark.parametrize("num_steps", range(7))
def test_a_kill_at_any_step_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    folder, done = OLD.save(tmp_path / "p"), [0]
    write, rename = saving.write_atomically, Path.replace

    def step() -> None:
        if done[0] == num_steps:
            raise Killed
        done[0] += 1

    def stopping_write(path: Path, content: bytes) -> None:
        step()
        write(path, content)

    def stopping_rename(path: Path, target: Path) -> Path:
        if path.name in saving.NEXT.values():
            step()
        return rename(path, target)

    monkeypatch.setattr(saving, "write_atomically", stopping_write)
    monkeypatch.setattr(Path, "replace", stopping_rename)
    try:
        NEW.save(folder)
    except Killed:
        assert num_steps < 6
    else:
        assert num_steps == 6  # three files and their names
    monkeypatch.undo()
    assert share(folder) == (0.2 if num_steps < 4 else 0.7)
    assert OLD.save(folder) == folder
    assert share(folder) == 0.2
    assert not (folder / saving.NEXT[saving.WEIGHTS_FILE]).exists()


def test_weights_of_another_predictor_are_refused(tmp_path: Path) -> None:
    folder = OLD.save(tmp_path / "p")
    other = NEW.save(tmp_path / "other")
    for name in (saving.WEIGHTS_FILE, saving.NEXT[saving.WEIGHTS_FILE]):
        (folder / name).write_bytes((other / saving.WEIGHTS_FILE).read_bytes())
    with pytest.raises(ModelFileError, match="was changed"):
        Predictor.load(folder)


# What the shipped predictors say of some held-out questions: accuracy and tokens at three budgets, as first shipped.
SHIPPED = {
    "qwen2.5-coder-0.5b": (
        [[0.009067, 0.009067, 0.050094], [0.009903, 0.26897, 0.323245], [0.011025, 0.154685, 0.198775]],
        [[26.7594, 106.4269, 185.632], [26.448, 75.1236, 76.7938], [27.5469, 89.6783, 125.023]],
        [0.502488, 0.338308, 0.631841],
    ),
    "qwen2.5-coder-1.5b": (
        [[0.004917, 0.223139, 0.309742], [0.042431, 0.672711, 0.751795], [0.05436, 0.32073, 0.427509]],
        [[26.3175, 88.3229, 97.9694], [26.1446, 64.9952, 64.9952], [26.7576, 92.5073, 120.6024]],
        [0.903654, 0.983389, 0.906977],
    ),
}


def schema_1(source: Path, folder: Path) -> Path:
    """The predictor as versions before this one saved it: the step and the largest budget, and other names."""
    folder.mkdir()
    content = json.loads((source / saving.SETTINGS_FILE).read_text())
    card = content["card"]
    caps = card.pop("menu")
    card |= {"window": caps[1] - caps[0], "maximum": caps[-1], "familiarity": card.pop("novelty")}
    shares = card["shrinkage"]
    names = {"accuracy": "success", "accuracy_z": "success_z", "usage": "spend", "usage_z": "spend_z"}
    card["shrinkage"] = {names[name]: share for name, share in shares.items()}
    arrays = load_file(source / saving.WEIGHTS_FILE)
    weights = save({name.replace("novelty_", "familiarity_"): array for name, array in arrays.items()})
    content |= {"schema": 1, "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}}
    (folder / saving.SETTINGS_FILE).write_text(json.dumps(content))
    (folder / saving.WEIGHTS_FILE).write_bytes(weights)
    return folder


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("schema", [1, 2])
def test_shipped_predictors_say_what_they_always_said(name: str, schema: int, tmp_path: Path) -> None:
    with saving.locate(name) as source:
        loaded = Predictor.load(source if schema == 2 else schema_1(source, tmp_path / "old"))
    heldout = shipped_heldout(name).select(np.array([0, 7, 100]))
    features = Features.of(heldout, loaded.card.features.layer)
    curves = loaded.predict(heldout.query_ids, features)
    p_3_3, tokens_3_3, novelty_3 = SHIPPED[name]
    assert loaded.card.menu == Menu.evenly(16, 256)
    np.testing.assert_allclose(curves.p_Q_B[:, [0, 5, 15]], p_3_3, atol=1e-5)
    assert curves.tokens_Q_B is not None
    np.testing.assert_allclose(curves.tokens_Q_B[:, [0, 5, 15]], tokens_3_3, atol=1e-2)
    judged = loaded.judge(features)
    assert judged is not None
    np.testing.assert_allclose(judged.p_Q, novelty_3, atol=1e-5)


def test_a_name_that_is_not_shipped_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'qwen2\.5-coder-1\.5b'\?.*Shipped: qwen2\.5-coder-0\.5b"):
        Predictor.load("qwen2.5-coder-1.5")
