"""Plans as files of requests: each provider's form, names, limits, refusals, and the hard cap that they are held to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_job import requests_in
from command_line import Call
from forethought.control.batches import OURS, _parts, short_id
from forethought.core.data import Message, Query, Request, Sampling
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.prompts import load_template, parse_template, shipped_templates, template_to_json
from forethought.core.terms import Cost, HardCap
from forethought.engines.server.batches import BatchCalls, BatchServer, batch_server
from forethought.errors import InvalidSettingsError
from forethought.servers.kinds import KINDS

TEMPLATE = load_template("boxed")
TEXT = f"1 + 1?\n{TEMPLATE.instruction}"
CAPS = Menu.of([1024, 2048])
NAME = "0123456789ab-0-q1"


def asked(server: str, menu: Menu = CAPS, **options: Any) -> BatchServer:
    context = options.pop("context_tokens", None)
    sampling = options.pop("sampling", Sampling(0.6, 0.9))
    return batch_server(
        server, options, model="m", template=TEMPLATE, sampling=sampling, menu=menu, context_tokens=context
    )


def line(made: BatchServer, request: Request) -> Any:
    return json.loads(BatchCalls(made).line(NAME, request))


def request(option: Option | None = None, **values: Any) -> Request:
    return Request(Query("q1", "1 + 1?"), **{"budget": 1024, "seed": 7, "option": option, **values})


def test_vllms_form() -> None:
    assert line(asked("vllm", cap_offset=2, served_model="coder"), request()) == {
        "custom_id": NAME,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "coder",
            "messages": [{"role": "user", "content": TEXT}],
            "temperature": 0.6,
            "top_p": 0.9,
            "seed": 7,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "thinking_token_budget": 1022,
            "max_tokens": 1024 + 64 + TEMPLATE.max_answer_tokens,
            "return_token_ids": True,
        },
    }


def test_openais_form_has_a_level() -> None:
    low = Option("low", set={"reasoning_effort": "low", "max_completion_tokens": 900})
    menu = Menu.named([low, Option("high", set={"reasoning_effort": "high"})])
    assert line(asked("openai", menu, sampling=Sampling(1.0, 1.0)), request(low, budget=32768)) == {
        "custom_id": NAME,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "m",
            "messages": [{"role": "user", "content": TEXT}],
            "seed": 7,
            "max_completion_tokens": 900,
            "reasoning_effort": "low",
        },
    }


def test_anthropics_form() -> None:
    turns = (Message("system", "Be brief."), Message("user", "1 + 1?"))
    chat = Request(Query("q1", turns), 1024, seed=7)
    assert line(asked("anthropic"), chat) == {
        "custom_id": NAME,
        "params": {
            "model": "m",
            "max_tokens": 1024 + 64 + TEMPLATE.max_answer_tokens,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "1 + 1?"}],
        },
    }


def test_what_takes_openais_form_has_its_own_field_for_the_cap() -> None:
    body = line(asked("gemini"), request())["body"]
    assert body["extra_body"]["google"]["thinking_config"] == {"thinking_budget": 1024, "include_thoughts": True}
    assert line(asked("litellm"), request())["body"]["thinking"] == {"budget_tokens": 1024, "type": "enabled"}
    assert line(asked("other", enforce="max-tokens"), request())["body"]["max_tokens"] == 1024


@pytest.mark.parametrize(
    ("server", "options", "words"),
    [
        ("openai", {}, "has no cap on thinking in one request.*--enforce max-tokens"),
        ("other", {}, "has no cap on thinking"),
        ("vllm", {"enforce": "two-call"}, "one call per question"),
        ("openai", {"enforce": "native"}, "no field for a cap"),
        ("vllm", {"enforce": "firmly"}, "native or max-tokens"),
        ("llama.cpp", {}, "takes no requests in a file; these do: vllm,"),
        ("vlm", {}, "vllm"),
        ("vllm", {"answer_room": -1}, "answer_room must be at least 0"),
        ("vllm", {"cap_offset": "two"}, "a whole number, not 'two'"),
        ("vllm", {"native_fields": [1]}, "a JSON object"),
        ("vllm", {"logprobs": "no"}, "true or false, not 'no'"),
    ],
)
def test_what_is_refused_of_a_server(server: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSettingsError, match=words):
        asked(server, **options)


def test_what_is_refused_of_a_request() -> None:
    free = Option("free", set={"model": "other"})
    menu = Menu.named([free, Option("more", set={"model": "more"})])
    assert line(asked("anthropic", menu), request(free, budget=32768))["params"]["max_tokens"] == 32768
    bound = line(asked("anthropic", menu, context_tokens=4096), request(free, budget=4096))["params"]["max_tokens"]
    assert 3900 < bound < 4096
    with pytest.raises(InvalidSettingsError, match="below 1024"):
        line(asked("anthropic", Menu.of([512, 1024])), request(budget=512))
    with pytest.raises(InvalidSettingsError, match="'seed'"):
        line(asked("vllm"), request(Option("seeded", cap=8, set={"seed": 1}), budget=8))


@given(st.lists(st.text(min_size=1, max_size=80), unique=True, max_size=30))
def test_names_are_short_plain_and_all_different(ids: list[str]) -> None:
    """Anthropic's own rule, and a form that is never taken for an id that looks like it."""
    shorts = [short_id(each) for each in ids]
    names = [f"0123456789ab-0-{each}" for each in shorts]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) and OURS.fullmatch(name) for name in names)
    assert len({*names, *(f"0123456789ab-0-{short_id(each)}" for each in shorts if each not in ids)}) >= len(ids)
    assert len(set(names)) == len(ids)
    assert all(short == each or short_id(short) != short for short, each in zip(shorts, ids, strict=True))


@given(
    sizes=st.lists(st.integers(1, 50), max_size=40),
    most_lines=st.integers(1, 10),
    most_bytes=st.integers(50, 120),
)
def test_files_keep_to_the_limits(sizes: list[int], most_lines: int, most_bytes: int) -> None:
    lines = [b"x" * size for size in sizes]
    parts = _parts(lines, most_lines, most_bytes)
    assert sum(parts) == len(lines)
    start = 0
    for size in parts:
        assert 1 <= size <= most_lines
        assert sum(map(len, lines[start : start + size])) <= most_bytes
        start += size
    with pytest.raises(InvalidSettingsError, match="larger than a file may be"):
        _parts([*lines, b"x" * (most_bytes + 1)], most_lines, most_bytes)


def test_limits_are_those_of_the_kind() -> None:
    forms = {name: kind.batch for name, kind in KINDS.items() if kind.batch}
    assert {name: form.most_lines for name, form in forms.items()} == {
        **dict.fromkeys(("vllm", "litellm", "gemini", "openai", "other"), 50_000),
        "anthropic": 100_000,
    }
    assert forms["anthropic"].most_bytes == 256_000_000
    assert forms["openai"].most_bytes == 200_000_000


@pytest.mark.parametrize("name", shipped_templates())
def test_a_template_comes_back_from_its_json(name: str) -> None:
    template = load_template(name)
    assert parse_template(json.dumps(template_to_json(template)).encode(), place="here").hash == template.hash


@pytest.mark.parametrize(
    ("text", "cap"),
    [
        ("200_000", HardCap(200000, Cost.SPENT)),
        ("2.50usd", HardCap(2.5, Cost.USD)),
        ("3 USD", HardCap(3, Cost.USD)),
        ("90 tokens", HardCap(90, Cost.SPENT)),
    ],
)
def test_a_hard_cap_is_tokens_or_money(text: str, cap: HardCap) -> None:
    assert HardCap.parse(text) == cap


@pytest.mark.parametrize("text", ["", "0", "-3", "1e9", "nan", "5eur", "inf", "9" * 400])
def test_what_is_no_hard_cap(text: str) -> None:
    with pytest.raises(InvalidSettingsError, match="200000"):
        HardCap.parse(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--server", "vllm"), "--server goes with --batch-out"),
        (("--batch-out", "r.jsonl"), "--server vllm, openai"),
        (("--batch-out", "r.txt", "--server", "vllm"), "name it FILE.jsonl"),
        (("--batch-out", "r.jsonl", "--server", "openai"), "has no cap on thinking"),
        (("--batch-out", "r.jsonl", "--server", "vllm", "--hard-cap", "90"), "holds not one request"),
        (("--batch-out", "r.jsonl", "--server", "vllm", "--hard-cap", "1usd"), "--price-in"),
        (("--batch-out", "r.jsonl", "--server", "vllm", "--model", "other"), "was made for something else"),
    ],
)
def test_what_plan_refuses(job: Call, flags: tuple[str, ...], words: str) -> None:
    said = job("plan", "text", "q.jsonl", "--mean-tokens", "64", *flags)
    assert said.code == 1
    assert words in said.err
    assert not list(Path().glob("r.*"))


def test_requests_are_written_over_by_the_same_ones_alone(job: Call) -> None:
    asked = ("plan", "text", "q.jsonl", "--batch-out", "r.jsonl", "--server", "vllm")
    assert job(*asked, "--mean-tokens", "64", "--batch-lines", "5").code == 0
    parts = {path.name: path.read_bytes() for path in Path().glob("r[.-]*")}
    assert len(parts) == 5 + 2
    other = job(*asked, "--mean-tokens", "32")
    assert other.code == 1
    assert "their results cannot be collected; give another --batch-out, or delete it" in other.err
    assert {path.name: path.read_bytes() for path in Path().glob("r[.-]*")} == parts
    assert job(*asked, "--mean-tokens", "64", "--batch-lines", "12").code == 0
    assert sorted(path.name for path in Path().glob("r-*")) == ["r-0001.jsonl", "r-0002.jsonl"]
    assert job(*asked, "--mean-tokens", "64").code == 0
    assert sorted(path.name for path in Path().glob("r[.-]*")) == ["r.batch.json", "r.jsonl", "r.plan.json"]
    Path("r.batch.json").write_text("{")
    damaged = job(*asked, "--mean-tokens", "32")
    assert damaged.code == 1
    assert "give another --batch-out, or delete r.batch.json" in damaged.err
    assert Path("r.batch.json").read_text() == "{"


def test_a_hard_cap_keeps_requests_back_and_warns(job: Call) -> None:
    out = ("--batch-out", "r.jsonl", "--server", "vllm", "--batch-lines", "5", "--hard-cap", "1500", "--json")
    said = job("plan", "text", "q.jsonl", "--mean-tokens", "64", *out)
    made = said.json["batch"]
    assert [Path(name).name for name in made["files"]] == ["r-0001.jsonl", "r-0002.jsonl"]
    bodies = [json.loads(each)["body"] for each in requests_in(*made["files"])]
    assert len(bodies) == made["requests"] < 24
    assert sum(body["max_tokens"] for body in bodies) == made["at_most"] <= 1500
    assert len(made["kept_back"]) == 24 - made["requests"]
    assert "% of the hard cap" in said.err
    assert "are not asked yet" in said.err
    assert "forethought collect" in said.err
    ids = json.loads(Path("r.batch.json").read_text())["ids"]
    assert set(ids.values()) == {each for each in json.loads(Path("r.batch.json").read_text())["asked"] if "/" in each}
