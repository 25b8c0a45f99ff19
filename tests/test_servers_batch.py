"""vLLM's own run_batch: budgets of its requests are kept, and a batch that was killed is collected and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from batch_job import requests_in
from command_line import Call
from forethought.control.answers import Answers
from real_servers import ENVIRONMENT, MODEL, SERVED, VLLM_FLAGS, folder, vllm_python

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]

QUESTIONS = (
    "A farmer has 17 sheep, sells 5 of them, and buys twice as many as are left. How many sheep has she now?",
    "A shelf holds 6 boxes of 14 books each, and 9 more books. How many books is that?",
    "A train goes 60 km in 45 minutes. How many km does it go in 3 hours?",
    "Tom is 4 years older than Ann, and together they are 30. How old is Ann?",
    "A shirt of 40 dollars is 15% cheaper, and then 10% cheaper still. What does it cost?",
    "How many minutes are there in a week without its Sunday?",
)
REFERENCES = ("36", "93", "240", "13", "30.6", "8640")


def run_batch(requests: str, results: str) -> subprocess.Popen[bytes]:
    """Starts vLLM on a file of requests, in a process group of its own."""
    command = [vllm_python(), "-m", "vllm.entrypoints.openai.run_batch", "-i", requests, "-o", results]
    with Path(f"{results}.log").open("w") as output:
        return subprocess.Popen(
            [*command, f"--model={folder()}", f"--served-model-name={SERVED}", *VLLM_FLAGS],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finished(requests: str, results: str) -> str:
    """Runs it to its end; the results."""
    process = run_batch(requests, results)
    try:
        assert process.wait(400) == 0, Path(f"{results}.log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return results


def write_measured(path: Path) -> None:
    """A profile in which longer questions need longer caps."""
    rows = [
        {"id": f"q {n}", "question": text, "budget": cap, "correct": int(cap > 24 or n % 2), "tokens": cap + 8}
        for n, text in enumerate(QUESTIONS)
        for cap in (24, 48)
    ]
    path.write_text("".join(f"{json.dumps({**row, 'sample': 0})}\n" for row in rows))


def test_a_batch_is_killed_collected_and_goes_on(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs transformers to count thoughts")
    write_measured(tmp_path / "measured.jsonl")
    rows = [{"id": f"q {n}", "question": text, "answer": REFERENCES[n]} for n, text in enumerate(QUESTIONS)]
    Path("q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = ("--model", MODEL, "--template", "boxed", "--temperature", 0.6, "--top-p", 1)
    assert call("import", "measured.jsonl", *made, "--out", "p.parquet").code == 0
    assert call("train", "p.parquet", "--predictor", "history", "--out", "pred").code == 0
    out = ("--batch-out", "r.jsonl", "--server", "vllm", "--batch-lines", 3, "--hard-cap", 2500)
    how = ("--served-model", SERVED, "--engine-option", "cap_offset=2")
    assert call("plan", "pred", "q.jsonl", "--mean-tokens", 36, *out, *how).code == 0
    caps = json.loads(Path("r.batch.json").read_text())["asked"]
    assert set(caps.values()) == {24, 48}

    first = finished("r-0001.jsonl", "out1.jsonl")
    killed = run_batch("r-0002.jsonl", "out2.jsonl")
    time.sleep(5)  # it imports still, or loads the model: nothing is written before its end
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not Path("out2.jsonl").exists()
    said = call("collect", first, "--ended", "--json")
    found = said.json["collected"]
    assert said.json["answered"] == 3
    assert len(found["without_answer"]["lost"]) == found["num_next"] == 3
    second = finished(found["next_requests"][0], "out3.jsonl")
    said = call("collect", second, "--json")
    assert said.code == 0
    assert said.json["answered"] == 6
    assert said.json["not_counted"] == 0
    usage = [json.loads(line)["response"]["body"]["usage"] for line in requests_in(first, second)]
    assert said.json["spent_tokens"] == sum(each["completion_tokens"] for each in usage)
    assert said.json["prompt_tokens"] == sum(each["prompt_tokens"] for each in usage)
    answers = Answers.load("runs/batch-r")
    assert all((each.reasoning_tokens or 0) <= each.budget for each in answers)
    assert sum(each.reasoning_tokens == each.budget for each in answers) >= 3
    assert all(each.answer for each in answers)
    assert said.json["collected"]["charged"] <= 2500
    assert call("collect", second, first, "--json").json["spent_tokens"] == said.json["spent_tokens"]
