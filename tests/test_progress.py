"""Long work says how far it is: a bar within 80 columns on a terminal, a line now and then elsewhere."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forethought.commands import _exit_code, progress


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
