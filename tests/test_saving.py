"""A predictor is saved in one step, and what else stands in its folder stays."""

from pathlib import Path

import numpy as np
import pytest

from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.errors import ModelFileError
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


@pytest.mark.parametrize("num_steps", range(5))
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
        if path.name == saving.NEXT_WEIGHTS_FILE:
            step()
        return rename(path, target)

    monkeypatch.setattr(saving, "write_atomically", stopping_write)
    monkeypatch.setattr(Path, "replace", stopping_rename)
    try:
        NEW.save(folder)
    except Killed:
        assert num_steps < 4
    else:
        assert num_steps == 4  # three files and the weights' name
    monkeypatch.undo()
    assert share(folder) == (0.2 if num_steps < 2 else 0.7)
    assert OLD.save(folder) == folder
    assert share(folder) == 0.2
    assert not (folder / saving.NEXT_WEIGHTS_FILE).exists()


def test_weights_of_another_predictor_are_refused(tmp_path: Path) -> None:
    folder = OLD.save(tmp_path / "p")
    other = NEW.save(tmp_path / "other")
    for name in (saving.WEIGHTS_FILE, saving.NEXT_WEIGHTS_FILE):
        (folder / name).write_bytes((other / saving.WEIGHTS_FILE).read_bytes())
    with pytest.raises(ModelFileError, match="was changed"):
        Predictor.load(folder)
