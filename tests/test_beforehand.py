"""What can be known is refused before an engine is opened, in dry runs too, and leaves nothing behind."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command_line import Call, write_questions
from forethought.commands.pipeline import profile
from forethought.core import registry
from forethought.core.data import Generation, Request, StopReason
from forethought.core.records import Record
from forethought.core.settings import EngineSettings, ProfileSettings
from forethought.engines.fake import FakeEngine
from forethought.engines.opening import check
from forethought.errors import InvalidInputError, InvalidSettingsError, UnknownNameError
from forethought.runs.store import RunDirectory


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, opening an engine is a failure."""

    @functools.wraps(FakeEngine.__init__)
    def opened(*args: object, **kwargs: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(FakeEngine, "__init__", opened)


PROFILE = ["profile", "fake", "q.jsonl"]
RUN = ["run", "{run}", "q.jsonl", "--mean-tokens", "64"]
PLAN = ["plan", "{run}", "q.jsonl", "--mean-tokens", "64"]
LAYERS = ["layers", "{run}", "--states", "states"]
DRY = {
    "profile: no references": (["profile", "fake", "none.jsonl"], ["3 of 3", "row 1", "--skip-ungraded"]),
    "profile: one missing": (["profile", "fake", "one.jsonl"], ["1 of 60", "row 4 ('q3')"]),
    "profile: an empty text": (["profile", "fake", "empty.jsonl"], ["1 of 2", "row 2"]),
    "profile: nested": (["profile", "fake", "verl.jsonl"], ["row 1"]),
    "profile: unreadable": (["profile", "fake", "x.jsonl"], ["'x+1'", "NumberGrader", "row 1"]),
    "profile: grader": ([*PROFILE, "--grader", "numbr"], ["'number'"]),
    "profile: grader's option": (
        [*PROFILE, "--grader", "choice", "--grader-option", "lettrs=AB"],
        ["'lettrs'", "Did you mean 'letters'"],
    ),
    "profile: type of a grader's option": (
        [*PROFILE, "--grader", "choice", "--grader-option", "first_index=one"],
        ["'first_index'", "a whole number", "'one'"],
    ),
    "profile: value of a grader's option": (
        [*PROFILE, "--grader", "choice", "--grader-option", "letters=ab"],
        ["'ab'"],
    ),
    "profile: half an option": ([*PROFILE, "--grader-option", "letters"], ["--grader-option", "KEY=VALUE"]),
    "profile: engine's option": ([*PROFILE, "--engine-option", "nope=1"], ["'nope'", "failure_rate"]),
    "profile: type of an engine's option": ([*PROFILE, "--engine-option", "failure_rate=abc"], ["a number", "'abc'"]),
    "profile: a flag of servers": ([*PROFILE, "--concurrency", "0"], ["--concurrency", "'fake' uses no server"]),
    "profile: engine": ([*PROFILE, "--engine", "vlm"], ["'vllm'"]),
    "profile: layers": ([*PROFILE, "--layers", "99"], ["--layers 99", "layers 0 to 4"]),
    "profile: template": ([*PROFILE, "--template", "worked"], ["'worked-5'"]),
    "profile: out is a file": ([*PROFILE, "--out", "q.jsonl"], ["q.jsonl is a file"]),
    "profile: out in a file": ([*PROFILE, "--out", "q.jsonl/deep/x"], ["q.jsonl", "is a file"]),
    "profile: out is another's": ([*PROFILE, "--out", "thesis"], ["thesis exists and is not a run"]),
    "profile: out of other settings": (["profile", "fake", "train.jsonl", "--seed", "9"], ["seed: 0 there, 9 now"]),
    "profile: replay of nothing": ([*PROFILE, "--engine", "replay", "--engine-option", "rn=1"], ["'run'"]),
    "run: allocator": ([*RUN, "--allocator", "exat"], ["'exact'"]),
    "run: allocator's option": ([*RUN, "--allocator", "exact", "--allocator-option", "unt=1"], ["'unit'"]),
    "run: value of an option": ([*RUN, "--allocator", "exact", "--allocator-option", "unit=-1"], ["-1", "unit=1"]),
    "run: option of none": ([*RUN, "--allocator-option", "unit=1"], ["'envelope' takes no options", "'unit'"]),
    "run: compared with itself": ([*RUN, "--compare", "envelope"], ["--compare envelope", "the run's own allocator"]),
    "run: compared": ([*RUN, "--compare", "unifrm"], ["'uniform'"]),
    "run: grader's option": ([*RUN, "--grader-option", "a=1"], ["'number' takes no options"]),
    "run: unreadable": ([*RUN[:2], "x.jsonl", *RUN[3:]], ["'x+1'", "row 1"]),
    "run: total": ([*RUN[:3], "--mean-tokens", "4"], ["--mean-tokens 4 ", "--mean-tokens 16"]),
    "run: total in all": ([*RUN[:3], "--total-tokens", "10"], ["a total of 10", "Give at least 960"]),
    "run: least": ([*RUN, "--min-tokens", "300"], ["--min-tokens 300", "16 to 256"]),
    "run: largest": ([*RUN, "--max-tokens", "8"], ["--max-tokens 8", "16 to 256"]),
    "run: least above largest": ([*RUN, "--min-tokens", "64", "--max-tokens", "32"], ["--min-tokens 64 is above"]),
    "run: template": ([*RUN, "--template", "boxed"], ["template", "made for"]),
    "run: engine's option": ([*RUN, "--engine-option", "nope=1"], ["'nope'"]),
    "run: engine without hidden states": (
        [*RUN, "--engine", "openai", "--base-url", "http://127.0.0.1:1"],
        ["hidden states", "'openai'"],
    ),
    "run: out is a file": ([*RUN, "--out", "q.jsonl"], ["q.jsonl is a file"]),
    "plan: total": ([*PLAN[:3], "--mean-tokens", "4"], ["--mean-tokens 16"]),
    "plan: allocator's option": ([*PLAN, "--allocator-option", "unit=1"], ["'envelope' takes no options"]),
    "plan: out in no folder": ([*PLAN, "--out", "no/such/x.jsonl"], ["no/such"]),
    "plan: out as a table": ([*PLAN, "--out", "x.xlsx"], ["--out x.xlsx", ".csv"]),
    "plan: out is a folder": ([*PLAN, "--out", "thesis"], ["thesis is a folder"]),
    "plan: engine's option": ([*PLAN, "--engine-option", "nope=1"], ["'nope'"]),
    "layers: out is a file": (["layers", "{run}", "--out", "q.jsonl"], ["q.jsonl is a file"]),
    "layers: level": (["layers", "{run}", "--mean-tokens", "5000"], ["5000", "16 and 256"]),
    "layers: not recorded": (["layers", "{run}", "--layers", "1,99"], ["--layers 99"]),
    "layers: not in the model": ([*LAYERS, "--layers", "1,99"], ["--layers 99"]),
    "layers: engine's option": ([*LAYERS, "--engine-option", "nope=1"], ["'nope'"]),
}
OTHERS = {
    "train: predictor": (["train", "{run}", "--predictor", "rigde"], ["'ridge'"]),
    "train: option": (["train", "{run}", "--predictor", "prompted", "--predictor-option", "nm=1"], ["'nm'"]),
    "train: out is another's": (["train", "{run}", "--predictor", "prompted", "--out", "thesis"], ["not a predictor"]),
    "train: out in a file": (["train", "{run}", "--predictor", "prompted", "--out", "q.jsonl/x"], ["is a file"]),
    "train: engine's option": (
        ["train", "{run}", "--predictor", "prompted", "--engine", "fake", "--engine-option", "nope=1"],
        ["'nope'"],
    ),
    "train: an engine that cannot be asked": (
        ["train", "{run}", "--predictor", "prompted", "--base-url", "http://127.0.0.1:1"],
        ["'openai' cannot be asked"],
    ),
    "evaluate: allocator": (["evaluate", "{run}", "--on", "{run}", "--allocator", "exat"], ["'exact'"]),
    "evaluate: option": (["evaluate", "{run}", "--allocator-option", "unit=1"], ["takes no options"]),
    "evaluate: predictor": (["evaluate", "{run}", "--predictor", "rigde"], ["'ridge'"]),
    "evaluate: out is a file": (["evaluate", "{run}", "--out", "q.jsonl"], ["q.jsonl is a file"]),
    "compare: allocator": (["compare", "{run}", "--on", "{run}", "--allocator", "exat"], ["'exact'"]),
    "compare: option": (["compare", "{run}", "--on", "{run}", "--allocator-option", "unit=1"], ["takes no options"]),
    "compare: out is a file": (["compare", "{run}", "--on", "{run}", "--out", "q.jsonl"], ["q.jsonl is a file"]),
    "compare: labels": (
        ["compare", "{run}", "--on", "held", "--labels", "a=none.csv", "--train", "{run}"],
        ["none.csv"],
    ),
    "doctor: template": (["doctor", "--base-url", "http://127.0.0.1:1", "--template", "boxd"], ["'boxed'"]),
    "doctor: option": (["doctor", "--base-url", "http://127.0.0.1:1", "--engine-option", "nope=1"], ["'nope'"]),
    "doctor: a level twice": (
        ["doctor", "--base-url", "http://127.0.0.1:1", "--questions", "q.jsonl", "--levels", "low,high,low"],
        ["--levels names a level twice"],
    ),
    "doctor: out is the questions": (
        ["doctor", "--base-url", "http://127.0.0.1:1", "--questions", "q.jsonl", "--out", "q.jsonl"],
        ["q.jsonl", "would be replaced"],
    ),
    "doctor: questions": (
        ["doctor", "--base-url", "http://127.0.0.1:1", "--questions", "no.jsonl"],
        ["no.jsonl"],
    ),
    "doctor: out is a folder": (
        ["doctor", "--base-url", "http://127.0.0.1:1", "--questions", "q.jsonl", "--out", "thesis"],
        ["thesis is a folder"],
    ),
    "import: out is a folder": (["import", "counts.csv", "--out", "thesis"], ["thesis"]),
}


def write_inputs(folder: Path) -> None:
    write_questions(folder / "q.jsonl", 60)
    write_questions(folder / "none.jsonl", 3, references=False)
    rows = [json.loads(line) for line in (folder / "q.jsonl").read_text("utf-8").splitlines()]
    del rows[3]["answer"]
    (folder / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "empty.jsonl").write_text('{"question": "1?", "answer": "1"}\n{"question": "2?", "answer": ""}\n')
    (folder / "x.jsonl").write_text('{"question": "a", "answer": "x+1"}\n')
    verl = {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"style": "rule", "ground_truth": "many"}}
    (folder / "verl.jsonl").write_text(json.dumps(verl) + "\n")
    (folder / "counts.csv").write_text("id,budget,correct\na,16,1\na,32,1\n")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("years of work")


CASES = {
    **DRY,
    **{f"{name}, dry": ([*args, "--dry-run"], words) for name, (args, words) in DRY.items()},
    **OTHERS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and a profiled and trained run on the fake model."""
    from forethought.commands.pipeline import train
    from forethought.core.settings import TrainSettings

    path = tmp_path_factory.mktemp("beforehand")
    write_inputs(path)
    write_questions(path / "train.jsonl", 60)
    run = path / "runs" / "fake-train"
    profile(ProfileSettings(model="fake", questions=str(path / "train.jsonl"), out=str(run)))
    train(TrainSettings(run=str(run), predictor="ridge"))
    text = (path / "train.jsonl").read_text("utf-8").replace('"id": "q', '"id": "h').replace("What is", "How much is")
    (path / "held.jsonl").write_text(text, "utf-8")
    profile(ProfileSettings(model="fake", questions=str(path / "held.jsonl"), out=str(path / "held"), num_traces=1))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("args", "words"), CASES.values(), ids=CASES.keys())
def test_what_is_known_is_refused_before_an_engine_is_opened(
    call: Call, folder: Path, no_engine: None, monkeypatch: pytest.MonkeyPatch, args: list[str], words: list[str]
) -> None:
    if "openai" in args or "--base-url" in args:
        pytest.importorskip("aiohttp")
    monkeypatch.chdir(folder)
    before = sorted(Path().rglob("*"))
    said = call(*[arg.format(run="runs/fake-train") for arg in args])
    assert said.code == 1, said.out
    assert "Traceback" not in said.err
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for word in words:
        assert word in said.err
    assert sorted(Path().rglob("*")) == before, "something was left behind"


@pytest.mark.slow
def test_ungraded_questions_are_left_out_when_that_is_asked_for(call: Call, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    assert call("profile", "fake", "one.jsonl", "--skip-ungraded", "--dry-run", "--json").json["num_total"] == 59 * 4
    said = call("profile", "fake", "one.jsonl", "--skip-ungraded", "--quiet", "--json")
    assert said.json["queries"] == 59
    assert "1 questions are left out" in said.err
    nothing = call("profile", "fake", "none.jsonl", "--skip-ungraded", "--quiet")
    assert (nothing.code, "none of 3 questions can be graded" in nothing.err) == (1, True)


def ungraded(record: Record) -> Record:
    return replace(record, grade=None, probes=tuple(replace(probe, grade=None) for probe in record.probes))


@pytest.mark.slow
def test_traces_without_a_grade_are_left_out_and_counted(call: Call, trained: str, tmp_path: Path) -> None:
    """As a folder of an earlier version may hold them."""
    run = RunDirectory(Path(trained))
    with run.locked():
        run.rewrite(lambda record: ungraded(record) if record.query_id in ("q0", "q1") else record)
    for command in (
        ["train", trained, "--predictor", "mean", "--out", "t"],
        ["evaluate", trained, "--predictor", "mean", "--no-plots", "--resamples", 100],
        ["show", trained, "q0"],
    ):
        said = call(*command)
        assert said.code == 0, said.err
        assert "8 traces of 2 questions (q0, q1) have no grade and are left out" in said.err
        assert f"forethought regrade {trained} --answers FILE" in said.err
    assert call("regrade", trained, "--json").json["changes"][0]["from"] == "none"
    assert "no grade" not in call("train", trained, "--predictor", "mean", "--out", "t").err


@pytest.mark.slow
def test_a_folder_without_any_grade_names_the_remedy(call: Call, trained: str) -> None:
    run = RunDirectory(Path(trained))
    short = {"grade": None, "probes": (), "reasoning_tokens": 1, "stop_reason": StopReason.NATURAL}
    with run.locked():
        run.rewrite(lambda record: replace(record, **short))
    for command in ("train", "evaluate", "layers"):
        said = call(command, trained)
        assert said.code == 1
        assert "no graded trace" in said.err
        assert "forethought regrade" in said.err


@pytest.mark.parametrize("worker", [(), ("--worker", "1/2")])
def test_a_run_that_another_process_writes_is_refused_before_a_model_is_opened(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: tuple[str, ...]
) -> None:
    write_inputs(tmp_path)
    command = ("profile", "fake", "q.jsonl", "--out", "out", "--limit", 4, "--quiet")
    assert call(*command).code == 0

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("a model was opened")

    monkeypatch.setattr("forethought.commands.pipeline.opened", never)
    with RunDirectory.open(Path("out")).locked():
        said = call(*command, *worker)
    assert (said.code, "being written by another process" in said.err) == (1, True)


def failing(engine: FakeEngine, requests: list[Request]) -> Any:
    async def generate() -> Any:
        for request in requests:
            yield Generation(
                request.query.id, request.sample, request.budget, "", 0, "", 0, 0, 0, StopReason.ERROR, (), "no context"
            )

    return generate()


@pytest.mark.slow
def test_a_failed_start_refuses_no_corrected_settings(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(FakeEngine, "generate", failing)
        assert call(*PROFILE, "--quiet", "--seed", 3).code == 1
    assert call(*PROFILE, "--dry-run").code == 0
    said = call(*PROFILE, "--quiet", "--json", "--traces", 2)
    assert said.code == 0, said.err
    assert (said.json["traces"], said.json["failed"]) == (120, 0)
    assert call(*PROFILE, "--quiet", "--seed", 3).code == 1, "finished traces of other settings are kept"


@pytest.mark.slow
def test_questions_that_were_corrected_after_a_failed_start_are_taken(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(FakeEngine, "generate", failing)
        assert call(*PROFILE, "--quiet").code == 1
    text = (tmp_path / "q.jsonl").read_text("utf-8").replace("What is", "How much is")
    (tmp_path / "q.jsonl").write_text(text, "utf-8")
    assert call(*PROFILE, "--quiet").code == 0


def test_other_references_name_regrade(call: Call, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.jsonl", 5)
    assert call(*PROFILE, "--quiet").code == 0
    text = (tmp_path / "q.jsonl").read_text("utf-8").replace('"answer": "0"', '"answer": "7"')
    (tmp_path / "q.jsonl").write_text(text, "utf-8")
    said = call(*PROFILE, "--quiet")
    assert said.code == 1
    assert "forethought regrade runs/fake-q --answers FILE" in said.err


def test_the_bill_of_many_traces_is_arithmetic(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_questions(tmp_path / "q.jsonl", 60)
    assert call(*PROFILE, "--quiet", "--traces", 2).code == 0
    bill = call(*PROFILE, "--traces", 10**9, "--dry-run", "--json").json
    assert (bill["num_total"], bill["num_done"], bill["num_left"]) == (60 * 10**9, 120, 60 * 10**9 - 120)
    assert bill["reasoning_tokens"] == bill["num_left"] * 256
    assert call(*PROFILE, "--traces", 1, "--dry-run", "--json").json["num_done"] == 60


def test_an_alias_of_another_model_is_refused_before_it_is_fetched(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_questions(tmp_path / "q.jsonl", 3)
    flags = ("--mean-tokens", 64, "--model", "qwen2.5-coder-0.5b", "--engine", "transformers", "--dry-run")
    said = call("run", "qwen2.5-coder-1.5b", "q.jsonl", *flags)
    assert said.code == 1
    assert "model hash: predictor" in said.err
    assert "made for something else" in said.err


STOPPED = {
    "train": (["train", "{run}", "--predictor", "ridge", "--out", "t"], "starts again"),
    "evaluate": (["evaluate", "{run}", "--no-plots"], "starts again"),
    "profile": (["profile", "fake", "train.jsonl"], "the same command resumes"),
    "run": (["run", "{run}", "train.jsonl", "--mean-tokens", "64"], "the same command resumes"),
    "collect": (["collect", "results.jsonl"], "the same command resumes"),
}


@pytest.mark.parametrize(("args", "words"), STOPPED.values(), ids=STOPPED.keys())
def test_an_interrupt_promises_only_what_is_true(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
) -> None:
    from forethought.commands import batching, pipeline, reports

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    monkeypatch.setattr({"evaluate": reports, "collect": batching}.get(args[0], pipeline), args[0], interrupted)
    said = call(*[arg.format(run="runs/fake-train") for arg in args], *(["--quiet"] if "profile" in args else []))
    assert said.code == 130
    assert words in said.err


def test_python_is_refused_in_the_same_way(tmp_path: Path, no_engine: None) -> None:
    write_inputs(tmp_path)
    with pytest.raises(InvalidInputError, match="3 of 3 have no reference"):
        profile(
            ProfileSettings(
                model="fake", questions=str(tmp_path / "none.jsonl"), out=str(tmp_path / "r"), engine=EngineSettings()
            )
        )
    assert not (tmp_path / "r").exists()


def test_a_name_of_no_model_is_refused_before_its_engine_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettingsError, match="uses no server"):
        check("served", EngineSettings(engine="transformers", options={"base_url": "http://127.0.0.1:9"}))
    monkeypatch.setattr(registry, "resolve", lambda *names: pytest.fail(f"imported {names}"))
    with pytest.raises(UnknownNameError, match=r"no model is called 'qwen2.5-coder-0.5'. Did you mean"):
        check("qwen2.5-coder-0.5", EngineSettings(engine="transformers"))
