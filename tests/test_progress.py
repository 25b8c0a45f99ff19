"""Long work says how far it is: a bar within 80 columns on a terminal, a line at its start and end elsewhere."""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import forethought as ft
from forethought.commands import _exit_code, progress
from forethought.control.reading import batches
from forethought.core import showing
from forethought.core.data import EngineInfo
from forethought.core.features import Counts, Features
from forethought.core.menu import Menu
from forethought.predictors.parts.making import make_estimator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "lines"), [(0.25, 0), (1.0, 2), (100.0, 2)], ids=["short", "long", "longer"])
def test_without_a_terminal_a_line_at_the_start_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], seconds: float, lines: int
) -> None:
    show = progress._Lines(clock := Clock())
    for what in ("fold", "plans"):
        for done in range(51):
            show(what, done, 50, "")
            clock.now += seconds
    show.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    if seconds == 1.0:
        assert said == ["fold 30 of 50, 0:30 so far, 0:20 left", "done in 1:42"]


def test_what_was_done_before_takes_no_time_of_the_rest() -> None:
    pace = progress._Pace(clock := Clock())
    pace.see("open", 0, 0)
    clock.now = 60.0
    pace.see("train", 900, 1000)  # by an earlier run
    assert pace.left is None
    clock.now = 70.0
    pace.see("train", 910, 1000)
    assert pace.left == 90.0
    clock.now = 75.0
    assert (pace.left, pace.gone) == (85.0, 75.0)
    pace.see("calibrate", 0, 5)
    assert pace.left is None


@pytest.mark.parametrize("is_failing", [False, True], ids=["all is well", "some fail"])
def test_a_bar_fits_into_80_columns_and_names_its_times(monkeypatch: pytest.MonkeyPatch, is_failing: bool) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress_bar("profile", num_total=1200, tokens_total=9_830_400, quiet=False) as advance:
        for number in range(900):
            error = "HTTP 503" if is_failing and number % 3 == 0 else None
            advance({"reasoning_tokens": 8192, "grade": None if error else "right", "error": error})
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", screen.getvalue())]
    last = next(line for line in reversed(lines) if "profile" in line)
    assert len(last) <= 80
    assert "900/1200" in last
    assert "of 9,830k tokens" in last
    assert "gone" in last
    assert "…" not in last
    if is_failing:
        assert "67% right, 300 failed" in last


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs a command; the steps that it shows, each with how much of it is done."""
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []

    @contextmanager
    def recorded(quiet: bool) -> Iterator[progress.Show]:
        yield lambda what, done, total, detail: None if quiet else shown.append(f"{what} {done} of {total}")

    monkeypatch.setattr(progress, "_shown", recorded)
    for name, start in (("q", 0), ("held", 60)):
        rows = [
            {"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": f"{2 * i}"}
            for i in range(start, start + 60)
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("counts.csv").write_text("id,budget,correct,tried\n" + "".join(f"q{i},16,{i % 2},1\n" for i in range(60)))

    def run(*args: object) -> list[str]:
        shown.clear()
        assert _exit_code([str(arg) for arg in args]) == 0
        return list(dict.fromkeys(shown))

    for name, out in (("q", "p"), ("held", "held")):
        run("profile", "fake", f"{name}.jsonl", "--out", out, "--traces", 1, "--window", 64, "--quiet")
    run("train", "p", "--predictor", "ridge", "--quiet")
    return run


NO_PLOTS = ("--no-plots", "--resamples", 100)
PLANNED = ("open fake 0 of 0", "read 0 of 60", "predict 0 of 60", "divide the total 0 of 1")
JUDGED = ("plans, granted cost 0 of 13", "resample 0 of 100", "intervals 0 of 1", "report 0 of 3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("profile", "fake", "held.jsonl", "--out", "new", "--traces", 2), ("open fake 0 of 0", "read 0 of 60")),
        (("import", "counts.csv", "--out", "i.parquet"), ("read 0 of 1", "check and count 0 of 1", "write 0 of 1")),
        (("evaluate", "p", "--predictor", "text", *NO_PLOTS), ("fold 1 of 5", *JUDGED)),
        (("compare", "p", "--on", "held", *NO_PLOTS), ("predict: p 0 of 1", *JUDGED)),
        (("plan", "p", "q.jsonl", "--mean-tokens", 64), PLANNED),
        (("train", "p", "--predictor", "text"), ("calibrate 1 of 5",)),
        (("layers", "p", *NO_PLOTS), ("layer 1 of 5", "report 0 of 3")),
        (("run", "p", "q.jsonl", "--mean-tokens", 64), (*PLANNED, "answer 0 of 60", "answer 60 of 60")),
        (("doctor",), ("look at this machine 0 of 1",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_long_command_says_what_it_does(
    call: Callable[..., list[str]], args: tuple[object, ...], words: tuple[str, ...]
) -> None:
    said = call(*args)
    assert [word for word in said if word in words] == list(words), said
    assert call(*args, "--quiet") == []


@pytest.mark.parametrize(
    ("predictor", "what"), [("mlp", "train networks"), ("paper-mlp", "train the network")], ids=["mlp", "paper-mlp"]
)
def test_training_counts_its_steps(predictor: str, what: str) -> None:
    shown: list[tuple[str, int, int]] = []
    fit(predictor, lambda *step: shown.append(step))
    steps = [(done, total) for name, done, total in shown if name == what]
    assert len(steps) >= 16
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    assert len({total for _, total in steps}) == 1


def fit(predictor: str, show: Callable[[str, int, int], None]) -> None:
    random = np.random.default_rng(0)
    features = Features(
        40, random.standard_normal((40, 8)).astype(np.float32), tuple(f"What is {n}?" for n in range(40))
    )
    right_Q_B = random.integers(0, 3, (40, 4)).cumsum(axis=1)
    counts = Counts(Menu.evenly(16, 64), right_Q_B, np.full(40, 8))
    make_estimator(predictor, progress=show).fit(features, counts)


def test_parts_of_a_stage_say_which_one_they_belong_to() -> None:
    shown: list[str] = []

    def show(what: str, done: int, total: int) -> None:
        shown.append(f"{what} {done}/{total}")

    within = showing.part(show, "fold", 1, 5)
    within("train networks", 10, 80)
    showing.part(within, "fit mlp", 2, 4)("train networks", 3, 9)
    assert shown == [
        "fold 1/5",
        "fold 2 of 5: train networks 10/80",
        "fold 2 of 5: fit mlp 2/4",
        "fold 2 of 5: fit mlp 3 of 4: train networks 3/9",
    ]


@pytest.mark.parametrize(
    ("device", "counts"), [("cpu", [4, 12, 20]), ("cuda", [4]), (None, [4])], ids=["CPU", "GPU", "not known"]
)
def test_reading_moves_every_few_prompts_on_a_cpu(device: str | None, counts: list[int]) -> None:
    queries = [ft.Query(f"q{n}", "?") for n in range(20)]
    shown: list[tuple[str, int, int]] = []
    info = EngineInfo(engine="fake", model="m", device=device)
    read = batches(queries, info, num_before=4, total=24, progress=lambda *step: shown.append(step))
    assert [query for batch in read for query in batch] == queries
    assert shown == [("read", done, 24) for done in counts]


@pytest.mark.slow
def test_a_terminal_shows_the_stages_of_training_and_a_pipe_stays_quiet(call: Callable[..., list[str]]) -> None:
    command = [sys.executable, "-m", "forethought", "train", "p", "--predictor", "mlp", "--predictor-option"]
    seen, code = on_a_terminal([*command, "num_members=8", "--out", "a"])
    assert code == 0, seen
    counts = set(re.findall(r"train networks\D*(\d+)/\d+", seen))
    assert len(counts) >= 2, seen
    assert re.search(r"train networks.*\d:\d\d gone, \d:\d\d left", seen)
    done = subprocess.run([*command, "num_members=2", "--out", "b"], capture_output=True, text=True, check=True)
    assert "train networks" not in done.stdout
    assert not re.search(r"[\r\x1b]", done.stderr)
    assert done.stderr.count("train networks") <= 1  # one line, if it takes more than half a minute


def on_a_terminal(command: list[str]) -> tuple[str, int]:
    """What a command shows on a pseudo-terminal of 120 columns, without its escapes, and its exit status."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are not known here")
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    parts: list[bytes] = []
    with suppress(OSError):  # Linux ends a terminal that nobody holds with EIO
        while part := os.read(ours, 65536):
            parts.append(part)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode("utf-8", "replace")), process.wait()


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
    began = time.monotonic()
    with showing.watched(None) as said:
        for done in range(2000):
            said("answer", done, 2000)
            time.sleep(0.0002)
    assert re.match(r"answer \d+ of 2,000, \d:\d\d so far", cell.shown[0])
    assert 2 <= len(cell.shown) <= 2 + (time.monotonic() - began) / 0.05
    assert cell.shown[-1] == ""


def test_what_is_over_at_once_shows_nothing(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BEFORE_CELL", 60.0)  # at once, however busy the machine is
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
            while not cell.shown:
                time.sleep(0.01)
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
    assert {"read", "profile", "predict", "divide the total", "answer", "resample"} <= {w for w, *_ in told}
