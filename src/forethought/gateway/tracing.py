"""Spans of OpenTelemetry, one a request, by its conventions for generative AI; none unless asked for, and no texts.

The names are those of https://github.com/open-telemetry/semantic-conventions-genai (span "inference"); what they have
no name for goes by `forethought.…`. A span is made when its request has ended, with the times that it had.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import InvalidSettingsError, MissingExtraError
from ..runs.journal import CLIENT_LEFT, DONE, Entry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

OPERATIONS = {"/v1/completions": "text_completion"}  # everything else that is priced is a chat
CONTEXT = ("traceparent", "tracestate")  # headers by which a client says what its request belongs to
OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
EXPORTERS = {
    "otlp": (OTLP, "OTLPSpanExporter"),
    "console": ("opentelemetry.sdk.trace.export", "ConsoleSpanExporter"),
}
OWN = {
    "id": "id",
    "tenant": "tenant",
    "kind": "decision.kind",
    "reason": "decision.reason",
    "option": "option",
    "budget": "budget",
    "price": "price",
    "expected": "expected_accuracy",
    "predicted": "predicted_tokens",
    "reserved": "reserved_tokens",
    "settled": "settled_tokens",
    "added_ms": "added_ms",
    "ending": "ending",
}


class Tracing:
    """Makes a span of each request.

    Args:
        provider: of tracers, as the SDK has them.
        system: what answers, for `gen_ai.provider.name`: a kind of server, or a provider.
        address, port: of the upstream; "" and None where they are not to be said.
    """

    def __init__(self, provider: Any, *, system: str, address: str = "", port: int | None = None) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._trace = provider, trace
        self._tracer = provider.get_tracer("forethought.gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._common = {"gen_ai.provider.name": system}
        if address:
            self._common["server.address"] = address
        self._port = port

    def record(self, entry: Entry, parent: Mapping[str, str]) -> None:
        """One request that has ended.

        Args:
            entry: what is known of it; its text is not looked at.
            parent: its headers by name in lower case.
        """
        trace = self._trace
        carrier = {name: parent[name] for name in CONTEXT if name in parent}
        operation = OPERATIONS.get(entry.path, "chat")
        span = self._tracer.start_span(
            f"{operation} {entry.model}".rstrip(),
            context=self._propagator.extract(carrier) if carrier else None,
            kind=trace.SpanKind.CLIENT,
            start_time=_nanoseconds(entry.time),
            attributes={**self._common, "gen_ai.operation.name": operation, **dict(self._said(entry))},
        )
        if problem := _problem(entry):
            span.set_attribute("error.type", problem)
            span.set_status(trace.Status(trace.StatusCode.ERROR, entry.ending))
        span.end(_nanoseconds(entry.time + entry.seconds))

    def _said(self, entry: Entry) -> Iterator[tuple[str, str | int | float | bool]]:
        """Attributes of a request; nothing of what is not known."""
        known = {
            "gen_ai.request.model": entry.model or None,
            "gen_ai.request.choice.count": entry.num_thoughts if entry.num_thoughts != 1 else None,
            "gen_ai.usage.input_tokens": entry.prompt_tokens,
            "gen_ai.usage.output_tokens": entry.output_tokens,
            "gen_ai.usage.reasoning.output_tokens": entry.reasoning_tokens,
            "http.response.status_code": entry.status or None,
            "server.port": self._port,
            "forethought.shadow": True if entry.is_shadow else None,
            **{f"forethought.{name}": getattr(entry, field) for field, name in OWN.items()},
        }
        for name, value in known.items():
            if value is not None and value != "":
                yield name, value

    def close(self) -> None:
        """Sends what waits."""
        if (shutdown := getattr(self._provider, "shutdown", None)) is not None:
            shutdown()


def open_tracing(*, system: str, address: str = "", port: int | None = None) -> Tracing:
    """Spans to where OpenTelemetry's own environment variables say (OTEL_EXPORTER_OTLP_ENDPOINT and its like).

    Args:
        system: what answers; see `Tracing`.
        address: of the upstream.
        port: of the upstream.

    Raises:
        MissingExtraError: the SDK or the exporter is not installed.
        InvalidSettingsError: OTEL_TRACES_EXPORTER names one that is not known.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError("tracing needs OpenTelemetry: pip install 'forethought[tracing]'") from error
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if name not in EXPORTERS:
        raise InvalidSettingsError(f"OTEL_TRACES_EXPORTER must be {' or '.join(EXPORTERS)}, not {name!r}")
    module, kind = EXPORTERS[name]
    try:
        exporter = getattr(import_module(module), kind)()
    except ImportError as error:
        raise MissingExtraError(
            "spans are sent by OTLP, for which there is a package of its own: "
            "pip install opentelemetry-exporter-otlp-proto-http; or OTEL_TRACES_EXPORTER=console"
        ) from error
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "forethought"}
    provider: TracerProvider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, system=system, address=address, port=port)


def _problem(entry: Entry) -> str:
    """What went wrong, in few words that are always the same; "" for nothing."""
    if entry.status >= 400:
        return str(entry.status)
    return "" if entry.ending in (DONE, CLIENT_LEFT) else entry.ending.replace(" ", "_")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
