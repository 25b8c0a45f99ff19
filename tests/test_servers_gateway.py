"""The gateway in front of real servers: caps enforced natively or by two calls, streams whole, quotas that add up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")

from forethought.core.prompts import load_template
from forethought.predictors.training import train
from gateway_upstream import CAPS, KEY, Client, measured, question, served, tenants_file
from real_servers import SERVED, llama_server, vllm_server

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]
ROOM = 24
OFFSET = 2  # tokens of the start tag but one, by which vLLM exceeds a cap


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    profile = measured(CAPS)
    template = load_template("boxed")
    known = replace(profile.provenance, template=template.name, template_hash=template.hash)
    folder = tmp_path_factory.mktemp("predictor") / "text"
    return str(train(replace(profile, provenance=known), predictor="text").save(folder))


@pytest.fixture(scope="module", params=["vllm", "llama.cpp"])
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    started = vllm_server if request.param == "vllm" else llama_server
    with started(tmp_path_factory.mktemp("server")) as url:
        yield request.param, f"{url}/v1"


@pytest.fixture(params=["auto", "two-call"])
async def gateway(request: Any, upstream: Any, predictor: str, tmp_path: Any) -> AsyncIterator[Any]:
    kind, url = upstream
    tenants = tenants_file(tmp_path / "t.toml", '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 100_000\n')
    how = {"tenants": tenants, "ledger": f"sqlite:{tmp_path / 'ledger.db'}", "log": str(tmp_path / "journal")}
    offset = OFFSET if kind == "vllm" and request.param == "auto" else 0
    settings = {"enforce": request.param, "served_model": SERVED, "answer_room": ROOM, "cap_offset": offset, **how}
    async with served(url, predictor, **settings) as found, Client(found.url, KEY) as client:
        yield kind, request.param, found, client, tmp_path / "journal"


def asked(text: str, **fields: Any) -> dict[str, Any]:
    instruction = load_template("boxed").instruction
    return {
        "model": SERVED,
        "messages": [{"role": "user", "content": f"{text}\n{instruction}" if instruction else text}],
        "temperature": 0.0,
        **fields,
    }


async def test_thoughts_end_at_their_caps_and_every_token_is_settled(gateway):
    kind, way, found, client, journal = gateway
    for number in range(6):
        stream = {"stream": True} if number % 2 else {}
        status, headers, content = await client.ask("/v1/chat/completions", asked(question(number), **stream))
        assert status == 200, content
        budget = int(headers["x-forethought-budget"])
        if stream:
            lines = [line[5:].strip() for line in content.split(b"\n") if line.startswith(b"data:")]
            assert lines[-1] == b"[DONE]"
            events = [json.loads(line) for line in lines[:-1]]
            ends = [each for event in events for each in event["choices"] if each.get("finish_reason")]
            assert len(ends) == 1
        else:
            usage = json.loads(content)["usage"]
            assert usage["completion_tokens"] <= budget + ROOM
    await asyncio.sleep(1.0)  # the last one is settled once its reply has gone out
    found.opened.seen.close()
    kept = "".join(file.read_text() for file in sorted(journal.glob("requests-*.jsonl")))
    lines = [json.loads(line) for line in kept.splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert line["settled"] == line["prompt_tokens"] + line["output_tokens"] > 0
        if way == "two-call" or kind == "llama.cpp":
            assert line["reasoning_tokens"] is not None
        if line.get("reasoning_tokens") is not None:
            assert line["reasoning_tokens"] <= line["budget"]
