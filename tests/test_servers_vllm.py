"""vLLM's own server: its native cap, and that it thinks what the engine in process thinks."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought import doctor
from forethought.settings import DoctorSettings
from real_servers import SERVED, asked, engine_at

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


def test_the_native_cap_overshoots_by_the_length_of_its_start_tag(vllm_url):
    """A trap of vLLM 0.32: the cap counts from the first token of a start tag of three. We count, and correct."""
    plain = engine_at(vllm_url, enforce="native")
    assert all("ignored the cap" in done.error for done in run(plain, asked()).values())
    assert plain.counters.largest_overshoot == 2
    corrected = run(engine_at(vllm_url, enforce="native", cap_offset=2), asked())
    for done in corrected.values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer


def test_the_doctor_corrects_the_native_cap(vllm_url):
    found = doctor.examine(DoctorSettings(base_url=vllm_url, enforce="native"))
    assert found.is_kept
    assert f"--served-model {SERVED} --enforce native --engine-option cap_offset=2" in found.flags
