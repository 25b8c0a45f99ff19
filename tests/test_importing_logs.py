"""Logs that Inspect and lm-eval wrote (benchmarks/evaluation_logs) -> profiles, and what of such logs is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from forethought.commands.pipeline import import_profile
from forethought.core.import_settings import ImportSettings
from forethought.core.profile import Profile
from forethought.errors import ForethoughtError, InvalidInputError, MissingExtraError
from forethought.runs.importing import Imported, inspect_logs

LOGS = Path(__file__).parent / "logs"
LEVELS = [LOGS / "low.eval", LOGS / "high.eval"]
NUM_QUESTIONS = 8


def taken(out: Path, *files: Path, **options: Any) -> Imported:
    return import_profile(ImportSettings(files=tuple(map(str, files)), out=str(out / "out.parquet"), **options))


def refusal(out: Path, *files: Path, **options: Any) -> str:
    with pytest.raises(ForethoughtError) as refused:
        taken(out, *files, **options)
    return str(refused.value)


def samples_of(run: str) -> Path:
    (found,) = (LOGS / run).glob("samples_*.jsonl")
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# --- Inspect -----------------------------------------------------------------------------------------------------


def inspected(path: Path) -> Any:
    log = pytest.importorskip("inspect_ai.log")
    return log.read_eval_log(str(path))


def test_inspect_logs_of_two_levels(tmp_path: Path) -> None:
    logs = {path.stem: inspected(path) for path in LEVELS}
    imported = taken(tmp_path, *LEVELS, score="match")
    profile = Profile.load(imported.path)
    assert profile.menu.labels == ("low", "high")
    assert profile.num_queries == NUM_QUESTIONS
    assert profile.tries_Q_B.tolist() == [[2, 2]] * NUM_QUESTIONS
    assert profile.provenance.model == "openai-api/local/coder"
    assert profile.provenance.sampling is not None
    assert profile.provenance.sampling.temperature == 0.7
    assert profile.is_spend_measured
    assert profile.traces is not None
    assert profile.input_Q_B is not None
    for column, level in enumerate(profile.menu.labels):
        for row, query in enumerate(profile.query_ids):
            own = {sample.epoch: sample for sample in logs[level].samples if sample.id == query}
            usage = [sample.model_usage["openai-api/local/coder"] for sample in own.values()]
            assert profile.num_right_Q_B[row, column] == sum(s.scores["match"].value == "C" for s in own.values())
            np.testing.assert_allclose(profile.tokens_Q_B[row, column], np.mean([each.output_tokens for each in usage]))
            prompts = [each.input_tokens + (each.input_tokens_cache_read or 0) for each in usage]
            np.testing.assert_allclose(profile.input_Q_B[row, column], np.mean(prompts))
            assert profile.texts[row] == next(iter(own.values())).input
            for n in range(profile.traces_of_Q[row].start, profile.traces_of_Q[row].stop):
                sample = own[int(profile.traces.sample_N[n])]
                answer = profile.traces.answers_Q[row][profile.traces.answer_N_B[n, column]]
                assert answer == (sample.scores["match"].answer or "")
                assert profile.traces.tokens_N_B[n, column] == sample.output.usage.output_tokens


def test_a_longer_thought_stands_behind_a_shorter_one_whatever_the_order_of_files(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    one = taken(tmp_path, *LEVELS, score="match").profile
    other = taken(tmp_path, *LEVELS[::-1], score="match").profile
    assert one.menu == other.menu
    assert one.menu.caps[0] < one.menu.caps[1]


def test_inspect_logs_in_json(tmp_path: Path) -> None:
    found = inspected(LOGS / "low.json")
    profile = taken(tmp_path, LOGS / "low.json", score="match").profile
    assert profile.query_ids == tuple(sample.id for sample in found.samples)
    assert profile.menu.labels == ("low",)
    assert profile.num_right_Q_B.sum() == sum(s.scores["match"].value == "C" for s in found.samples)


def test_of_several_scorers_one_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    assert "choose one with --score NAME; there is 'pattern', 'match'" in refusal(tmp_path, *LEVELS)
    assert "--score exact: there is no such score" in refusal(tmp_path, *LEVELS, score="exact")


def test_two_logs_under_one_level_are_told_apart_by_what_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    again = shutil.copy(LEVELS[0], tmp_path / "again.eval")
    message = refusal(tmp_path, LEVELS[0], again, score="match")
    assert "hold the same questions under 'low'" in message
    assert "--sample-column file,sample" in message
    more = taken(tmp_path, LEVELS[0], again, score="match", columns={"sample": "file,sample"}).profile
    assert more.tries_Q_B.tolist() == [[4]] * NUM_QUESTIONS
    apart = taken(tmp_path, LEVELS[0], again, score="match", columns={"option": "file"}).profile
    assert set(apart.menu.labels) == {"low", "again"}


def test_any_setting_of_an_inspect_run_can_name_the_option(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    named = taken(tmp_path, LEVELS[0], score="match", columns={"option": "config.max_tokens"}).profile
    assert named.menu.labels == ("120",)
    message = refusal(tmp_path, LEVELS[0], score="match", columns={"option": "config.reasoning_tokens"})
    assert "'config.reasoning_tokens' is missing" in message


def test_scores_of_every_kind(tmp_path: Path) -> None:
    """Numbers, several values of one scorer, no score at all, and a grader's tokens beside the model's."""
    log_of = pytest.importorskip("inspect_ai.log")
    scorer = pytest.importorskip("inspect_ai.scorer")
    log = inspected(LOGS / "low.json")
    values: list[Any] = [1, {"strict": "C", "loose": 0}, "P"]
    for sample, value in zip(log.samples, values, strict=True):
        sample.scores = {"own": scorer.Score(value=value, answer="x")}
        sample.model_usage["grader"] = sample.model_usage["openai-api/local/coder"].model_copy(
            update={"output_tokens": 10**6}
        )
    log.samples[2].scores = None
    log.status = "error"
    log_of.write_eval_log(log, str(tmp_path / "odd.eval"))
    imported = taken(tmp_path, tmp_path / "odd.eval", score="own")
    assert imported.profile.num_right_Q_B.tolist() == [[1]]
    assert imported.profile.tokens_Q_B.max() < 1000
    assert "2 rows left out: 'correct' is blank (sample 2, sample 3)" in map(str, imported.left_out)
    assert any("the run ended as 'error'" in note for note in imported.notes)
    assert taken(tmp_path, tmp_path / "odd.eval", score="own.strict").profile.num_right_Q_B.tolist() == [[1]]
    log.samples[0].scores = {"own": scorer.Score(value=0.5)}
    log_of.write_eval_log(log, str(tmp_path / "odd.eval"))
    assert "sample 1: 'correct' must be a whole number" in refusal(tmp_path, tmp_path / "odd.eval", score="own")


def test_what_is_no_log_of_inspect(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    (tmp_path / "a.eval").write_bytes(b"PK\x03\x04 and nothing else")
    (tmp_path / "b.json").write_text('{"version": 2, "status": "success", "eval": 3}')
    for path in (tmp_path / "a.eval", tmp_path / "b.json"):
        with pytest.raises(InvalidInputError, match="inspect_ai cannot read it"):
            taken(tmp_path, path)


def test_an_archive_that_unpacks_to_far_more_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("inspect_ai")
    monkeypatch.setattr(inspect_logs, "LEAST_BOUND", 10_000)
    with ZipFile(tmp_path / "a.eval", "w", ZIP_DEFLATED) as archive:
        archive.writestr("header.json", " " * 5_000_000)
    with pytest.raises(InvalidInputError, match=r"unpacks to 5,000,000 bytes"):
        taken(tmp_path, tmp_path / "a.eval")


def test_without_inspect_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    for path in (LEVELS[0], LOGS / "low.json"):
        with pytest.raises(MissingExtraError, match=r"pip install 'forethought\[inspect\]'"):
            taken(tmp_path, path)


# --- lm-eval -----------------------------------------------------------------------------------------------------


def test_lm_eval_samples_with_a_tokenizer(tmp_path: Path, tiny_model: Path) -> None:
    """Two levels of two runs each: the level from the results file, tokens from the tokenizer."""
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tiny_model)
    files = [samples_of(f"{level}-{seed}") for level in ("low", "high") for seed in (1, 2)]
    imported = taken(tmp_path, *files, tokenizer=str(tiny_model), columns={"sample": "file,sample"})
    profile = Profile.load(imported.path)
    assert profile.menu.labels == ("low", "high")
    assert profile.tries_Q_B.tolist() == [[2, 2]] * NUM_QUESTIONS
    assert profile.is_spend_measured
    assert profile.input_Q_B is None
    assert profile.provenance.model == "coder"
    lines = {
        level: [*lines_of(files[2 * at]), *lines_of(files[2 * at + 1])] for at, level in enumerate(("low", "high"))
    }
    for column, level in enumerate(profile.menu.labels):
        for row, query in enumerate(profile.query_ids):
            own = [line for line in lines[level] if str(line["doc_id"]) == query]
            assert profile.num_right_Q_B[row, column] == sum(line["exact_match"] for line in own)
            assert profile.texts[row] == own[0]["doc"]["question"]
            assert profile.traces is not None
            assert {line["filtered_resps"][0] for line in own} <= set(profile.traces.answers_Q[row])
            counts = [len(tokenizer(line["resps"][0][0])["input_ids"]) for line in own]
            np.testing.assert_allclose(profile.tokens_Q_B[row, column], np.mean(counts))
    assert any("lm-eval keeps no token counts" in note for note in imported.notes)


def test_lm_eval_without_counts(tmp_path: Path) -> None:
    files = [samples_of("low-1"), samples_of("high-1")]
    assert "--tokens-column NAME, or --menu FILE" in refusal(tmp_path, *files)
    menu = tmp_path / "menu.toml"
    menu.write_text('[[option]]\nlabel = "low"\ntokens = 20\n[[option]]\nlabel = "high"\ntokens = 120\n')
    imported = taken(tmp_path, *files, menu_file=str(menu))
    assert imported.profile.menu.caps == (20, 120)
    assert not imported.profile.is_spend_measured
    capped = taken(tmp_path, files[0], columns={"budget": "config.max_gen_toks"}).profile
    assert capped.menu.caps == (120,)
    assert not capped.is_spend_measured


def copied(tmp_path: Path, run: str = "low-1") -> Path:
    """A copy of a run's files that may be spoilt; its samples."""
    for path in (LOGS / run).iterdir():
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / samples_of(run).name


def respelt(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def test_lm_eval_levels_by_hand_and_by_name(tmp_path: Path, tiny_model: Path) -> None:
    path, options = copied(tmp_path), {"tokenizer": str(tiny_model)}
    (results,) = tmp_path.glob("results_*.json")
    summary = json.loads(results.read_text("utf-8"))
    summary["config"]["gen_kwargs"] = "max_gen_toks=120,reasoning_effort=medium"  # as older versions wrote it
    results.write_text(json.dumps(summary))
    assert taken(tmp_path, path, **options).profile.menu.labels == ("medium",)
    summary["config"]["gen_kwargs"] = None
    summary["configs"]["gsm8k_small"]["generation_kwargs"] = {}
    results.write_text(json.dumps(summary))
    assert taken(tmp_path, path, **options).profile.menu.labels == ("coder",)
    results.unlink()
    assert taken(tmp_path, path, **options).profile.menu.labels == (path.stem,)


def test_right_answers_of_lm_eval(tmp_path: Path, tiny_model: Path) -> None:
    path = copied(tmp_path)
    lines = [{**line, "exact_match": float(at % 3 == 0)} for at, line in enumerate(lines_of(path))]
    profile = taken(tmp_path, respelt(path, lines), tokenizer=str(tiny_model)).profile
    assert profile.num_right_Q_B[:, 0].tolist() == [int(at % 3 == 0) for at in range(NUM_QUESTIONS)]


def test_several_filters_of_lm_eval_are_told_apart(tmp_path: Path, tiny_model: Path) -> None:
    path, options = copied(tmp_path), {"tokenizer": str(tiny_model)}
    lines = lines_of(path)
    respelt(path, [{**line, "filter": name} for line in lines for name in ("strict-match", "flexible-extract")])
    message = refusal(tmp_path, path, **options)
    assert "'filter' tells apart" in message
    assert "--where filter=strict-match" in message
    profile = taken(tmp_path, path, where=("filter=strict-match",), **options).profile
    assert profile.num_queries == NUM_QUESTIONS


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "likelihoods": ({"resps": [[[-1.5, True]]]}, "line 3: was scored by likelihoods"),
    "no metric": ({"metrics": []}, "line 3: 'correct' is blank"),
    "half right": ({"exact_match": 0.5}, "line 3: 'correct' must be a whole number"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_samples_of_lm_eval(tmp_path: Path, case: str, tiny_model: Path) -> None:
    change, words = SPOILT[case]
    path = copied(tmp_path)
    lines = lines_of(path)
    lines[2] |= change
    if case == "no metric":
        del lines[2]["exact_match"]
        imported = taken(tmp_path, respelt(path, lines), tokenizer=str(tiny_model))
        assert "1 row left out: 'correct' is blank (line 3)" in map(str, imported.left_out)
    else:
        assert words in refusal(tmp_path, respelt(path, lines), tokenizer=str(tiny_model))


@pytest.mark.parametrize(
    "change",
    [
        {"resps": 1},
        {"resps": None},
        {"filtered_resps": {"a": 1}},
        {"filtered_resps": "text"},
        {"metrics": [["exact_match"]]},
    ],
    ids=str,
)
def test_a_sample_of_another_shape_is_refused_by_its_line(tmp_path: Path, change: dict[str, Any]) -> None:
    path = copied(tmp_path)
    lines = [{**line, **change} for line in lines_of(path)]
    expected = "holds no scores" if "metrics" in change else "line 1: is no sample of lm-eval"
    assert expected in refusal(tmp_path, respelt(path, lines))


@pytest.mark.parametrize(
    "summary",
    [
        {"configs": [1]},
        {"configs": {"gsm8k_small": [1]}},
        {"configs": {"gsm8k_small": {"filter_list": [1]}}},
        {"configs": {"gsm8k_small": {"filter_list": [{"filter": [1]}]}}},
        {"config": [1], "model_name": {"a": 1}},
        {"config": {"gen_kwargs": {"temperature": float("nan"), "top_p": 1.0, "a": float("inf"), "b": "\ud800"}}},
        {"config": {"gen_kwargs": {"temperature": -5, "top_p": 7}}},
    ],
    ids=str,
)
def test_settings_of_another_shape_are_as_unknown(tmp_path: Path, summary: dict[str, Any]) -> None:
    path, menu = copied(tmp_path), tmp_path / "menu.toml"
    (results,) = tmp_path.glob("results_*.json")
    results.write_text(json.dumps(summary))
    menu.write_text('[[option]]\nlabel = "boxed"\ntokens = 20\n')
    imported = taken(tmp_path, path, menu_file=str(menu), columns={"option": "filter"})
    assert Profile.load(imported.path).provenance.sampling is None


def test_logs_may_begin_with_a_byte_order_mark(tmp_path: Path, tiny_model: Path) -> None:
    path, options = copied(tmp_path), {"tokenizer": str(tiny_model)}
    plain = taken(tmp_path, path, **options).profile
    for file in tmp_path.glob("*_*.json*"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    marked = taken(tmp_path, path, **options).profile
    assert marked.menu == plain.menu
    assert marked.tokens_Q_B.tolist() == plain.tokens_Q_B.tolist()
    assert marked.provenance.model == plain.provenance.model


def test_several_responses_of_lm_eval_count_as_far_as_they_were_judged(tmp_path: Path, tiny_model: Path) -> None:
    path = copied(tmp_path)
    lines = [{**line, "resps": [["abc", "de"]]} for line in lines_of(path)]
    (results,) = tmp_path.glob("results_*.json")
    summary = json.loads(results.read_text("utf-8"))
    for function, tokens in (("take_first", 3.0), ("majority_vote", 5.0)):
        steps = [{"function": function}, {"function": "take_first"}]
        summary["configs"]["gsm8k_small"]["filter_list"] = [{"name": "f", "filter": steps}]
        results.write_text(json.dumps(summary))
        profile = taken(tmp_path, respelt(path, lines), tokenizer=str(tiny_model)).profile
        assert profile.tokens_Q_B[0, 0] == tokens


def test_a_dropped_thought_is_not_counted_as_none(tmp_path: Path, tiny_model: Path) -> None:
    path = copied(tmp_path)
    (results,) = tmp_path.glob("results_*.json")
    summary = json.loads(results.read_text("utf-8"))
    summary["config"]["model_args"] |= {"think_end_token": "</think>"}
    results.write_text(json.dumps(summary))
    assert "so its thoughts cannot be counted" in refusal(tmp_path, path, tokenizer=str(tiny_model))


def test_other_files_of_lm_eval(tmp_path: Path) -> None:
    (results,) = (LOGS / "low-1").glob("results_*.json")
    assert "name the samples_*.jsonl beside it" in refusal(tmp_path, results)
    path = copied(tmp_path)
    path.write_text(path.read_text("utf-8") + '{"doc_id": 9}\n{"doc_id"\n')
    message = refusal(tmp_path, path)
    assert f"line {NUM_QUESTIONS + 1}: is no sample of lm-eval" in message
    assert f"line {NUM_QUESTIONS + 2}: not JSON" in message
    assert "no tokenizer can be loaded" in refusal(tmp_path, samples_of("low-1"), tokenizer=str(tmp_path))


def test_no_log_here_says_where_it_was_made() -> None:
    """Text logs alone; `benchmarks/evaluation_logs/scrub.py` looks into archives."""
    for path in LOGS.rglob("*.json*"):
        text = path.read_text("utf-8")
        assert not any(part in text for part in ("/tmp/", "/root", "/home/", "/work", "hostname")), path
