"""SGLang's own server: its native cap with and without strict thinking, and thoughts continued under a parser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought.core.prompts import load_template
from real_servers import asked, engine_at, sglang_server

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


@pytest.fixture(scope="module")
def strict_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that takes every turn for one that begins in a thought, and bounds it."""
    flags = ("--reasoning-parser=qwen3", "--enable-strict-thinking")
    with sglang_server(tmp_path_factory.mktemp("strict"), *flags) as url:
        yield url


def test_a_native_cap_is_dropped_without_strict_thinking(sglang_url):
    found = run(engine_at(sglang_url, enforce="native"), asked())
    assert all("ignored the cap" in done.error for done in found.values())


def test_a_native_cap_is_kept_under_strict_thinking(strict_url):
    """By several tokens of a closing tag. What follows is not looked at: it may close its thought once more there."""
    engine = engine_at(strict_url, enforce="native", template=load_template("think"), answer_room=4)
    for done in run(engine, asked()).values():
        assert done.error is None
        assert 0 < done.reasoning_tokens <= done.budget
    assert engine.counters.num_overshoots == 0


@pytest.mark.parametrize("options", [{}, {"ids": False}], ids=["token-ids", "chat"])
def test_a_thought_is_continued_where_the_server_parses_thoughts(strict_url, options):
    engine = engine_at(strict_url, enforce="two-call", template=load_template("think"), **options)
    for done in run(engine, asked(probes=(4,))).values():
        assert done.error is None
        assert 0 < done.reasoning_tokens <= done.budget
        assert done.answer
