"""vLLM's own server: its native cap, and that it thinks what the engine in process thinks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

import forethought
import in_process
from engine_contract import run
from forethought.core.study_settings import DoctorSettings
from forethought.studies import doctor
from real_servers import ENVIRONMENT, SERVED, asked, engine_at, folder, vllm_python

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


def test_the_native_cap_overshoots_by_the_length_of_its_start_tag(vllm_url):
    """A trap of vLLM 0.32: the cap counts from the first token of a start tag of three. We count, and correct."""
    plain = engine_at(vllm_url, enforce="native")
    assert all("ignored the cap" in done.error for done in run(plain, asked()).values())
    assert plain.counters.largest_overshoot == 2
    corrected = run(engine_at(vllm_url, enforce="native", cap_offset=2, logprobs=True), asked())
    for done in corrected.values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer
        assert done.logprobs is not None  # the tokens of the thought are among those shown
        assert done.logprobs.answer <= 0
        assert done.logprobs.thought is not None
        assert done.logprobs.thought <= 0


def test_the_doctor_corrects_the_native_cap(vllm_url):
    found = doctor.examine(DoctorSettings(base_url=vllm_url, enforce="native"))
    assert found.is_kept
    assert f"--served-model {SERVED} --enforce native --engine-option cap_offset=2" in found.flags


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_two_calls_think_what_the_engine_in_process_thinks(vllm_url, name):
    """Greedy and in bfloat16: what is no rounding is the same for all, and rounding parts few thoughts, and late.

    Measured: eight at once, all 8 thoughts and 24 answers of vLLM's own engine are the same; one at a time, 7 and 22.
    """
    folder()
    if name == "transformers":
        pytest.importorskip("transformers", reason="needs torch and transformers")
    python = vllm_python() if name == "vllm" else sys.executable
    script = subprocess.run(
        [python, in_process.__file__, name],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(Path(forethought.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.returncode == 0, script.stderr[-3000:]
    expected = json.loads(script.stdout.splitlines()[-1])
    engine = engine_at(vllm_url, enforce="two-call", sampling=in_process.GREEDY, concurrency=8)
    found = in_process.collected(engine)
    assert found.keys() == expected.keys()
    same_thoughts = same_answers = 0
    for query_id, done in found.items():
        other = expected[query_id]
        assert done["error"] is None
        assert done["lengths"] == other["lengths"]
        assert [cut for cut, _ in done["answers"]] == [cut for cut, _ in other["answers"]]
        assert done["reasoning"][:40] == other["reasoning"][:40]
        same_thoughts += done["reasoning"] == other["reasoning"]
        same_answers += sum(a == b for a, b in zip(done["answers"], other["answers"], strict=True))
    assert same_thoughts >= 6
    assert same_answers >= 20
