"""Spans of the gateway's requests: the names of the conventions, the times that were, and no text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra tracing")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from forethought.errors import InvalidSettingsError, MissingExtraError
from forethought.gateway.seen import Seen
from forethought.gateway.tracing import OTLP, Tracing, open_tracing
from forethought.runs.journal import CLIENT_LEFT, REFUSED, REFUSED_UPSTREAM, UPSTREAM_FAILED, Entry
from timing import least_seconds


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider, system="vllm", address="10.0.0.7", port=8000)


def entry(**more: Any) -> Entry:
    known = {
        "tenant": "team",
        "model": "toy",
        "path": "/v1/chat/completions",
        "kind": "predicted",
        "reason": "predicted",
    }
    given = {"option": "128", "budget": 128, "expected": 0.5, "predicted": 80, "reserved": 200, "settled": 120}
    used = {"prompt_tokens": 20, "reasoning_tokens": 90, "output_tokens": 100, "added_ms": 0.8, "seconds": 2.5}
    return Entry("f" * 32, 1_000.0, **{**known, **given, **used, "price": 0.001, "text": "a private text", **more})


def test_a_request_is_one_span_by_the_conventions(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    seen = Seen(spans=tracing)
    seen.begin()
    seen.end(entry(), {"authorization": "Bearer secret-key", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("chat toy", SpanKind.CLIENT)
    assert (span.start_time, span.end_time) == (1_000 * 10**9, 1_002_500_000_000)
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "toy",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 90,
        "http.response.status_code": 200,
        "server.address": "10.0.0.7",
        "server.port": 8000,
        "forethought.id": "f" * 32,
        "forethought.tenant": "team",
        "forethought.decision.kind": "predicted",
        "forethought.decision.reason": "predicted",
        "forethought.option": "128",
        "forethought.budget": 128,
        "forethought.price": 0.001,
        "forethought.expected_accuracy": 0.5,
        "forethought.predicted_tokens": 80,
        "forethought.reserved_tokens": 200,
        "forethought.settled_tokens": 120,
        "forethought.added_ms": 0.8,
        "forethought.ending": "done",
    }
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "a" * 32
    assert f"{span.parent.span_id:016x}" == "b" * 16
    assert span.status.status_code is StatusCode.UNSET
    said = span.to_json()
    assert "private text" not in said
    assert "secret-key" not in said
    json.loads(said)


ENDINGS = {
    "a client that left": ({"ending": CLIENT_LEFT}, None),
    "a refusal": ({"ending": REFUSED, "status": 429}, "429"),
    "an upstream's error": ({"ending": REFUSED_UPSTREAM, "status": 503}, "503"),
    "no connection": ({"ending": REFUSED_UPSTREAM, "status": 0}, "refused_upstream"),
    "a broken stream": ({"ending": UPSTREAM_FAILED}, "upstream_failed"),
}


@pytest.mark.parametrize(("change", "problem"), ENDINGS.values(), ids=ENDINGS.keys())
def test_what_went_wrong_is_said(tracing: Tracing, spans: Any, change: dict[str, Any], problem: str | None) -> None:
    tracing.record(entry(**change), {})
    (span,) = spans.get_finished_spans()
    assert span.attributes.get("error.type") == problem
    assert (span.status.status_code is StatusCode.ERROR) is (problem is not None)


def test_what_is_not_known_is_not_said(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    bare = Entry("f" * 32, 1_000.0, model="toy", path="/v1/completions", num_thoughts=3, is_shadow=True)
    tracing.record(bare, {"traceparent": "no such thing"})
    (span,) = spans.get_finished_spans()
    assert span.name == "text_completion toy"
    assert span.parent is None
    assert span.attributes is not None
    assert span.attributes["gen_ai.request.choice.count"] == 3
    assert span.attributes["forethought.shadow"] is True
    assert not [name for name in span.attributes if "token" in name or "expected" in name]


def test_tracing_asks_for_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    with pytest.raises(InvalidSettingsError, match="otlp or console, not 'jaeger'"):
        open_tracing(system="vllm")
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setitem(sys.modules, OTLP, None)
    with pytest.raises(MissingExtraError, match="pip install opentelemetry-exporter-otlp-proto-http"):
        open_tracing(system="vllm")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(MissingExtraError, match=r"forethought\[tracing\]"):
        open_tracing(system="vllm")


CONSOLE = """
from forethought.gateway.tracing import open_tracing
from forethought.runs.journal import Entry
opened = open_tracing(system="vllm")
opened.record(Entry("f" * 32, 1000.0, budget=128), {})
opened.close()
"""


def test_spans_go_to_the_console_where_asked() -> None:
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console"}
    done = subprocess.run([sys.executable, "-c", CONSOLE], env=environment, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["resource"]["attributes"]["service.name"] == "forethought"
    assert said["attributes"]["forethought.budget"] == 128


async def test_the_gateway_sends_spans_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")
    from forethought.gateway.hosts.upstream import opening
    from forethought.gateway.scripted import ScriptedServer
    from gateway_upstream import Client, question, saved_predictor, served

    sent = InMemorySpanExporter()

    def opened(**given: Any) -> Tracing:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(sent))
        return Tracing(provider, **given)

    monkeypatch.setattr(opening, "open_tracing", opened)
    predictor = saved_predictor(tmp_path / "predictor")
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, tracing=True) as found,
        Client(found.url) as client,
    ):
        _, headers, _ = await client.chat(question(1))
    (span,) = sent.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["forethought.id"] == headers["x-forethought-id"]
    assert span.attributes["forethought.budget"] == int(headers["x-forethought-budget"])
    assert f"http://{span.attributes['server.address']}:{span.attributes['server.port']}/v1" == server.url
    assert question(1) not in span.to_json()


def test_a_span_costs_less_than_a_millisecond_of_a_core(tracing: Tracing) -> None:
    noted = entry()
    assert least_seconds(lambda: tracing.record(noted, {}), times=100) < 1e-3
