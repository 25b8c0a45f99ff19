"""Long work says how far it is: a bar within 80 columns on a terminal, a line now and then elsewhere."""

import io
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import forethought as ft
from forethought.commands import _exit_code, progress
from forethought.core import showing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    show = progress._Lines(clock=lambda: now[0])
    for done in range(100):
        now[0] = 1.0 * done
        show("fold", done, 100, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["fold 30 of 100, 0:30 so far", "fold 60 of 100, 1:00 so far", "fold 90 of 100, 1:30 so far"]


@pytest.mark.parametrize("is_failing", [False, True], ids=["all is well", "some fail"])
def test_a_bar_fits_into_80_columns_and_names_its_times(monkeypatch: pytest.MonkeyPatch, is_failing: bool) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress_bar("profiling", num_total=1200, tokens_total=9_830_400, quiet=False) as advance:
        for number in range(900):
            error = "HTTP 503" if is_failing and number % 3 == 0 else None
            advance({"reasoning_tokens": 8192, "grade": None if error else "right", "error": error})
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", screen.getvalue())]
    last = next(line for line in reversed(lines) if "profiling" in line)
    assert len(last) <= 80
    assert "900/1200" in last
    assert "of 9,830k tokens" in last
    assert "gone" in last
    assert "…" not in last
    if is_failing:
        assert "67% right, 300 failed" in last


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command where a line is due at once; what it says on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    for name, start in (("q", 0), ("held", 60)):
        rows = [
            {"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": f"{2 * i}"}
            for i in range(start, start + 60)
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*args: object) -> str:
        capsys.readouterr()
        assert _exit_code([str(arg) for arg in args]) == 0
        return capsys.readouterr().err

    for name, out in (("q", "p"), ("held", "held")):
        run("profile", "fake", f"{name}.jsonl", "--out", out, "--traces", 1, "--window", 64, "--quiet")
    run("train", "p", "--predictor", "ridge", "--quiet")
    return run


NO_PLOTS = ("--no-plots", "--resamples", 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("evaluate", "p", "--predictor", "text", *NO_PLOTS), ("fold 1 of 5", "plans and intervals")),
        (("compare", "p", "--on", "held", *NO_PLOTS), ("predict: p 0 of 1", "plans and intervals")),
        (("plan", "p", "q.jsonl", "--mean-tokens", 64), ("read 0 of 60", "predict 0 of 60", "divide the total")),
        (("train", "p", "--predictor", "text"), ("calibrate 1 of 5",)),
        (("layers", "p", *NO_PLOTS), ("layer 1 of 5",)),
        (("run", "p", "q.jsonl", "--mean-tokens", 64), ("answering 60 of 60",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_long_command_says_what_it_does(
    call: Callable[..., str], args: tuple[object, ...], words: tuple[str, ...]
) -> None:
    said = call(*args)
    assert all(word in said for word in words), said
    assert "━" not in said


@pytest.mark.slow
def test_quiet_is_quiet(call: Callable[..., str]) -> None:
    assert call("plan", "p", "q.jsonl", "--mean-tokens", 64, "--quiet").count("\n") <= 1


def test_a_model_is_loaded_without_bars(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import transformers

    from forethought.models.gguf import no_progress_bars

    reader = __import__("transformers.modeling_gguf_pytorch_utils", fromlist=["tqdm"])
    before = reader.tqdm
    with no_progress_bars():
        assert list(reader.tqdm(range(3), desc="Converting")) == [0, 1, 2]
        transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    assert reader.tqdm is before
    assert "it/s" not in capfd.readouterr().err


# --- in a notebook ----------------------------------------------------------------------------------------------------


class Cell:
    """What a notebook shows: the contents of its one output, in order."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, content: dict[str, str], **how: object) -> "Cell":
        assert how == {"raw": True, "display_id": True}
        assert self.shown == []
        self.shown.append(content["text/plain"])
        return self

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        self.shown.append(content["text/plain"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    display = pytest.importorskip("IPython.display")
    found = Cell()
    monkeypatch.setattr(display, "display", found.display)
    for module in (showing, progress):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "SECONDS_BEFORE_CELL", 0.05)
    monkeypatch.setattr(progress, "SECONDS_PER_CELL", 0.05)
    return found


def test_a_notebook_shows_one_output_that_changes_and_goes(cell: Cell) -> None:
    with showing.watched(None) as said:
        for done in range(2000):
            said("answer", done, 2000)
            time.sleep(0.0002)
    assert re.match(r"answer \d+ of 2,000, 0:00 so far", cell.shown[0])
    assert 2 <= len(cell.shown) < 40
    assert cell.shown[-1] == ""


def test_what_is_over_at_once_shows_nothing(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    with showing.watched(None) as said:
        said("answer", 1, 1)
    assert cell.shown == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("is_notebook", [True, False], ids=["notebook", "script"])
def test_silence_when_asked_and_in_a_script(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_notebook: bool
) -> None:
    monkeypatch.setattr(showing, "in_notebook", lambda: is_notebook)
    with showing.watched(False if is_notebook else None) as said:
        said("answer", 0, 1)
        time.sleep(0.15)
    assert cell.shown == []
    assert capsys.readouterr() == ("", "")


def test_an_error_ends_a_notebooks_bar(cell: Cell) -> None:
    def work() -> None:
        with showing.watched(True) as said:
            said("answer", 0, 1)
            time.sleep(0.2)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert cell.shown[-1] == ""


def test_progress_that_is_none_is_refused(cell: Cell) -> None:
    with pytest.raises(ft.ForethoughtError, match="progress must be True, False or a function, not 'yes'"):
        showing.watched("yes").__enter__()  # type: ignore[arg-type]


def test_every_verb_tells_how_far_it_is() -> None:
    rows = [{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(12)]
    told: list[tuple[str, int, int]] = []
    said = {"progress": lambda *step: told.append(step)}
    with ft.open_engine("fake") as engine:
        measured = ft.profile(engine, rows, num_traces=2, **said)
        assert told[-1] == ("profile", 24, 24)
        plan = ft.plan(ft.train(measured, "text", **said), rows, mean_tokens=64, **said)
        plan.run(engine, **said)
    assert told[-1] == ("answer", 12, 12)
    ft.evaluate("text", measured, num_resamples=100, **said)
    assert {"read", "profile", "predict", "divide the total", "answer", "plans and intervals"} <= {w for w, *_ in told}
