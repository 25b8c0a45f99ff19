"""llama.cpp's own server: which native caps it keeps and which it drops, and how it draws."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought.core.prompts import load_template
from forethought.servers.kinds import KINDS
from real_servers import asked, engine_at, llama_server

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]

# The tags of the `boxed` template, for a chat template that knows none: the start is what the prompt ends in.
TAGS = {
    "reasoning_budget_start_tag": "<|im_start|>assistant\n",
    "reasoning_budget_end_tags": [load_template("boxed").answer_suffix, load_template("boxed").reasoning_end],
    "reasoning_budget_message": "",
}
# A chat template that opens a thought. The model's vocabulary has no token for the tag: it is three tokens of text.
THINKING = """
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and message.reasoning_content -%}
{{- 'OPENED' + message.reasoning_content + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\nOPENED' -}}{%- endif -%}
"""


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Opens servers whose chat template opens a thought by the text given."""
    opened: dict[str, Any] = {}

    def url(opening: str) -> str:
        if opening not in opened:
            scratch: Path = tmp_path_factory.mktemp("thinking")
            (scratch / "thinking.jinja").write_text(THINKING.replace("OPENED", opening))
            server = llama_server(scratch, "--chat-template-file", str(scratch / "thinking.jinja"))
            opened[opening] = server, server.__enter__()
        return str(opened[opening][1])

    yield url
    for server, _ in opened.values():
        server.__exit__(None, None, None)


def test_the_servers_own_sampling_is_switched_off(llama_url):
    """Temperature before the nucleus, and nothing else: as the engines in process draw."""
    body = {"prompt": "1, 2, 3,", "n_predict": 1, "temperature": 0.6, "top_p": 0.9, **KINDS["llama.cpp"].sampling}
    asking = urllib.request.Request(
        f"{llama_url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asking, timeout=60) as answer:
        used = json.load(answer)["generation_settings"]
    assert used["samplers"] == ["temperature", "top_p"]
    assert (used["mirostat"], used["dynatemp_range"]) == (0, 0.0)
    assert used["temperature"] == pytest.approx(0.6)


def test_a_native_cap_is_dropped_where_the_chat_template_does_not_think(llama_url):
    found = run(engine_at(llama_url, enforce="native"), asked())
    assert all("ignored the cap" in done.error for done in found.values())


def test_a_native_cap_between_named_tags_is_kept(llama_url):
    engine = engine_at(llama_url, enforce="native", native_fields=TAGS)
    for done in run(engine, asked()).values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer
    assert engine.counters.num_overshoots == 0


def test_a_native_cap_is_kept_where_the_opening_tag_ends_the_prompt(thinking):
    """To the token. What follows is the model's own, and not looked at: it may close its thought once more there."""
    for done in run(engine_at(thinking("<think>"), enforce="native", answer_room=4), asked()).values():
        assert done.error is None
        assert done.reasoning_tokens == done.budget


def test_a_chat_that_thinks_is_continued_as_one_text(thinking):
    """Without being asked for one text, this server takes thoughts out of the chat's content."""
    engine = engine_at(thinking("<think>"), enforce="two-call", ids=False, template=load_template("think"))
    for done in run(engine, asked(probes=(4,))).values():
        assert done.error is None
        assert 0 < done.reasoning_tokens <= done.budget
        assert done.answer


def test_a_native_cap_is_dropped_where_the_opening_tag_runs_into_a_line_break(thinking):
    r"""A trap: `>\n` is one token of this model, so the server does not find the tag `>` that it counts from."""
    found = run(engine_at(thinking("<think>\\n"), enforce="native"), asked())
    assert all("ignored the cap" in done.error for done in found.values())
