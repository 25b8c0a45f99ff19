"""A server: what it is, what it can do, and whether it keeps a budget. Small real requests, counted."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..engines.openai.engine import OpenAIEngine
from ..errors import EngineError, ForethoughtError
from ..prompts import load_template
from ..queries import load_queries
from ..settings import DoctorSettings
from ..store import write_json
from ..types import Generation, Query, Request, Sampling, StopReason
from ..waiting import finish
from .efforts import CEILING, LEVELS, QUANTILE, measured
from .findings import Diagnosis, Finding
from .talks import Talks

TOPIC = "server"
CAPS = (8, 16, 48)
MOST_OFFSET = 8
QUESTIONS = (
    "A farmer has 17 rows of 23 trees. 58 trees are cut and 12 new rows of 9 are planted. How many trees are there?",
    "Ann reads 14 pages on Monday, twice as many on Tuesday, and 9 fewer than that on Wednesday. How many in all?",
)
_talk = logging.getLogger(OpenAIEngine.__module__)
PREFERRED = ("two-call", "native", "effort", "max-tokens")


@dataclass(frozen=True, slots=True)
class _Kept:
    """How one way to keep budgets went."""

    enforce: str
    is_kept: bool
    finding: Finding
    flags: str = ""


def server_diagnosis(settings: DoctorSettings) -> Diagnosis:
    """Looks at the server of `settings`."""
    level = _talk.level
    _talk.setLevel(logging.WARNING)  # every engine that is opened says so
    try:
        engine = _opened(settings, "max-tokens")
        return _diagnosis(settings, engine)
    except EngineError as error:
        return Diagnosis((Finding(TOPIC, "reachable", False, str(error)),), is_kept=False)
    finally:
        _talk.setLevel(level)


def _diagnosis(settings: DoctorSettings, engine: OpenAIEngine) -> Diagnosis:
    findings: list[Finding] = []
    server = engine.server
    findings.append(Finding(TOPIC, "reachable", True, str(engine.address)))
    findings.append(Finding(TOPIC, "kind", server.kind.name != "other", f"{server.name}: {server.how}"))
    findings.append(Finding(TOPIC, "models", bool(server.models), ", ".join(server.models) or "it lists none"))
    if server.context_tokens:
        findings.append(Finding(TOPIC, "context", None, f"{server.context_tokens:,} tokens"))
    named = replace(settings, served_model=settings.served_model or next(iter(server.models), ""))
    findings += finish(_collected(Talks(_opened(named, "max-tokens")).findings()))
    asked = PREFERRED if settings.enforce == "auto" else (settings.enforce,)
    tried: list[_Kept] = []
    for enforce in asked:
        if enforce == "effort" and any(kept.is_kept for kept in tried):
            continue  # whole thoughts at every level, where something finer is kept
        if (kept := _keeps(named, enforce)) is not None:
            tried.append(kept)
    findings += [kept.finding for kept in tried]
    best = next((kept for kept in tried if kept.is_kept), None)
    return Diagnosis(tuple(findings), _flags(named, engine, best) if best else "", is_kept=best is not None)


async def _collected(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]


def _opened(settings: DoctorSettings, enforce: str, **options: Any) -> OpenAIEngine:
    """An engine that asks little and gives up soon. Without a name for the model, one that only looks around."""
    return OpenAIEngine(
        settings.served_model,
        template=load_template(settings.template),
        base_url=settings.base_url,
        enforce=enforce,
        timeout_seconds=settings.timeout_seconds,
        max_attempts=2,
        **{"sampling": settings.drawn(0.0), "context_tokens": 8192, **settings.options, **options},
    )


def _keeps(settings: DoctorSettings, enforce: str) -> _Kept | None:
    """Whether budgets are kept by `enforce`; None where the server offers no such thing and nobody asked for it."""
    name = f"budget by {enforce}"
    try:
        if enforce == "effort" and "effort_costs" not in settings.options:
            return _efforts(settings, name)
        engine = _opened(settings, enforce)
        found = _asked(engine)
        offset = engine.counters.largest_overshoot
        if 0 < offset <= MOST_OFFSET and enforce == "native":  # vLLM overshoots by the length of its start tag less one
            offset += int(settings.options.get("cap_offset", 0))
            found = _asked(_opened(settings, enforce, cap_offset=offset))
        else:
            offset = 0
    except ForethoughtError as error:
        if settings.enforce == "auto":
            return None
        return _Kept(enforce, False, Finding(TOPIC, name, False, str(error)))
    detail, is_kept = _told(found)
    if not is_kept:
        needs = engine.server.kind.needs if enforce == "native" else ""
        return _Kept(enforce, False, Finding(TOPIC, name, False, detail, f"start it with {needs}" if needs else ""))
    flags = f"--engine-option cap_offset={offset}" if offset else ""
    hint = f"it overshoots by up to {offset} tokens: {flags}" if flags else ""
    return _Kept(enforce, True, Finding(TOPIC, name, True, detail, hint), flags)


def _questions() -> list[Query]:
    return [Query(f"question {number}", text) for number, text in enumerate(QUESTIONS)]


def _asked(engine: OpenAIEngine) -> list[Generation]:
    """The questions at every cap."""
    least = engine.server.kind.least if engine.enforce == "native" else 0
    requests = [
        Request(query, cap + least, sample, seed=1) for query in _questions() for sample, cap in enumerate(CAPS)
    ]
    return finish(_generations(engine, requests))


def _told(found: list[Generation]) -> tuple[str, bool]:
    """`(in words, kept)`. Caps that no thought reached are not shown to be kept."""
    errors = [done.error for done in found if done.error]
    if errors:
        return f"{len(errors)} of {len(found)} requests: {errors[0]}", False
    ordered = sorted(found, key=lambda done: done.budget)
    detail = "thoughts as counted, at each cap: " + ", ".join(f"{d.budget}: {d.reasoning_tokens}" for d in ordered)
    if all(done.stop_reason is not StopReason.BUDGET for done in found):
        return f"{detail}; none was long enough for its cap to show", False
    unanswered = sum(not done.answer for done in found)
    return detail + (f"; {unanswered} of {len(found)} were left without an answer" if unanswered else ""), True


def _efforts(settings: DoctorSettings, name: str) -> _Kept | None:
    """Measures what each effort level takes, where the server knows any; on the user's questions it is written down."""
    queries = load_queries(settings.questions, limit=settings.limit) if settings.questions else _questions()
    drawn = settings.drawn(Sampling().temperature)  # as a run draws: a level's costs are its thoughts'

    def opened(level: str) -> OpenAIEngine:
        # No room for an answer: so a thought that fills the ceiling is one that was cut, and not a failure.
        asked = {"effort_costs": {level: 0}, "context_tokens": 2 * CEILING, "answer_room": 0}
        return _opened(settings, "effort", sampling=drawn, **asked)

    costs = measured(opened, queries, settings.levels or LEVELS)
    caps = {level: cost.cap for level, cost in costs.items()}
    if len(set(caps.values())) < 2:
        if settings.enforce == "auto":
            return None
        return _Kept("effort", False, Finding(TOPIC, name, False, f"its levels make no difference: {caps}"))
    if not settings.questions:
        detail = f"most tokens over {len(queries)} questions: {json.dumps(caps)}"
        hint = "measure on your own questions: forethought doctor --enforce effort --questions FILE"
        return _Kept("effort", False, Finding(TOPIC, name, None, detail, hint))
    write_json(Path(settings.out), {level: cost.to_json() for level, cost in costs.items()})
    shown = ", ".join(
        f"{level} {cost.cap:,} (mean {cost.mean:,g}, n {cost.n}"
        + "".join(f", {count} {what}" for what, count in (("failed", cost.failed), ("cut", cost.cut)) if count)
        + ")"
        for level, cost in costs.items()
    )
    detail = f"tokens that {QUANTILE:.0%} of the thoughts stay within: {shown}; written to {settings.out}"
    return _Kept("effort", True, Finding(TOPIC, name, True, detail), f"--engine-option effort_costs={settings.out}")


async def _generations(engine: OpenAIEngine, requests: list[Request]) -> list[Generation]:
    return [done async for done in engine.generate(requests)]


def _flags(settings: DoctorSettings, engine: OpenAIEngine, best: _Kept) -> str:
    served = f"--served-model {settings.served_model}" if settings.served_model else ""
    given = [
        f"--engine-option {shlex.quote(f'{name}={value if isinstance(value, str) else json.dumps(value)}')}"
        for name, value in settings.options.items()
        if f"{name}=" not in best.flags
    ]
    parts = ("--engine openai", f"--base-url {engine.address}", served, f"--enforce {best.enforce}", *given, best.flags)
    return " ".join(part for part in parts if part)
