"""A server: its kind, its features, and whether it enforces a budget, by small real requests."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...core.data import Generation, Query, Request, Sampling, StopReason
from ...core.files import write_atomically
from ...core.options import Option
from ...core.prompts import load_template
from ...core.showing import Progress, silent, told
from ...core.study_settings import DoctorSettings
from ...core.waiting import collect, finish
from ...engines.server.dialects import Drawing, TokenDialect
from ...engines.server.engine import OpenAIEngine
from ...errors import EngineError, ForethoughtError
from ...questions.queries import load_queries
from ...servers.address import without_secrets
from ...servers.client import Client
from .findings import Bill, Diagnosis, Finding, Item
from .levels import CEILING, SIGNIFICANCE, longest, measure, options_of
from .talks import COUNTING, LATE, NUM_LOOKS, NUM_REQUESTS, TOKENS_EACH, UNTRIED, Talks

TOPIC, LEVELS = "server", "effort levels"
CAPS = (8, 16, 48)
MOST_OFFSET = 8
QUESTIONS = (
    "A farmer has 17 rows of 23 trees. 58 trees are cut and 12 new rows of 9 are planted. How many trees are there?",
    "Ann reads 14 pages on Monday, twice as many on Tuesday, and 9 fewer than that on Wednesday. How many in all?",
)
logger = logging.getLogger(__name__)
_talk = logging.getLogger(OpenAIEngine.__module__)
PREFERRED = ("two-call", "native", "max-tokens")


@dataclass(frozen=True, slots=True)
class _Kept:
    """How one way to keep budgets went."""

    enforce: str
    is_kept: bool
    finding: Finding
    flags: str = ""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to keep budgets, before it is tried, and what trying it costs."""

    enforce: str
    item: Item
    attempt: Callable[[Progress], _Kept]


def server_diagnosis(settings: DoctorSettings, *, progress: Progress = silent) -> Diagnosis:
    """Looks at the server of `settings`; `progress` is called with what is being done, steps done and in all."""
    progress(f"ask {without_secrets(settings.base_url)}", 0, 1)
    level = _talk.level
    _talk.setLevel(logging.WARNING)  # every engine that is opened says so
    try:
        engine = _opened(settings, "max-tokens")
        return _diagnosis(settings, engine, progress)
    except EngineError as error:
        return Diagnosis((Finding(TOPIC, "reachable", False, str(error)),), is_kept=False)
    finally:
        _talk.setLevel(level)


def _diagnosis(settings: DoctorSettings, engine: OpenAIEngine, progress: Progress) -> Diagnosis:
    server = engine.server
    findings = [
        Finding(TOPIC, "reachable", True, str(engine.address)),
        Finding(TOPIC, "kind", server.kind.name != "other", f"{server.name}: {server.how}"),
        Finding(TOPIC, "models", bool(server.models), ", ".join(server.models) or "it lists none"),
    ]
    if server.context_tokens:
        findings.append(Finding(TOPIC, "context", None, f"{server.context_tokens:,} tokens"))
    named = replace(settings, served_model=settings.served_model or next(iter(server.models), ""))
    ways, refused = _ways(named)
    looks = Item("looks", NUM_REQUESTS, NUM_REQUESTS * TOKENS_EACH)
    bill = Bill((looks, *(way.item for way in ways)))
    if settings.dry_run:
        return Diagnosis((*findings, *(kept.finding for kept in refused)), bill=bill)
    logger.info("asking the server: %s", bill.to_text())
    asking = _opened(named, "max-tokens")
    talks = Talks(asking.client, asking.server, asking.served_model, partial(_continues_ids, asking))
    looked = finish(collect(told(talks.findings(), progress, "what the server can do", NUM_LOOKS)))
    findings += looked
    tried = list(refused)
    is_late = any(LATE in finding.detail for finding in looked)
    for way in ways:
        if is_late:
            tried.append(_Kept(way.enforce, False, Finding(TOPIC, way.item.name, None, UNTRIED)))
            continue
        tried.append(way.attempt(progress))
        is_late = LATE in tried[-1].finding.detail
    findings += [kept.finding for kept in tried]
    best = next((kept for kept in tried if kept.is_kept), None)
    if best is None and settings.enforce == "auto" and server.kind.effort and not settings.questions:
        hint = "measure them on your own questions: forethought doctor --base-url URL --questions FILE"
        findings.append(Finding(TOPIC, LEVELS, None, "not measured unless asked for", hint))
    return Diagnosis(tuple(findings), _flags(named, engine, best) if best else "", best is not None, bill)


async def _continues_ids(engine: OpenAIEngine, client: Client) -> tuple[bool, str]:
    dialect = TokenDialect(engine.server, engine.served_model, engine.template, None, engine.counters)
    await dialect.start(client)
    prompt = await dialect.prompt(client, Query("ids", COUNTING))
    done = await dialect.complete(client, prompt, [], Drawing(max_tokens=8, stop="\n\n\n"))
    return 0 < len(done.ids) <= 8, f"{len(prompt)} in, {len(done.ids)} out: {dialect.forcing.decode(done.ids)!r}"


def _ways(settings: DoctorSettings) -> tuple[list[_Way], list[_Kept]]:
    """The ways to be tried, and those that were asked for and cannot be: nothing has been generated for this."""
    ways: list[_Way] = []
    refused: list[_Kept] = []
    if settings.questions:
        try:
            engine = _opened(settings, settings.enforce, context_tokens=CEILING, sampling=_drawn(settings))
            options, queries = options_of(settings.levels, engine.server.kind.effort), _own_questions(settings)
            most = [longest(option, engine.info.context_tokens, engine.answer_room) for option in options]
            item = Item(LEVELS, len(options) * len(queries), sum(most) * len(queries))
            return [_Way(engine.enforce, item, partial(_levels, settings, engine, queries, options))], []
        except ForethoughtError as error:
            return [], [_Kept(settings.enforce, False, Finding(TOPIC, LEVELS, False, str(error)))]
    for enforce in PREFERRED if settings.enforce == "auto" else (settings.enforce,):
        name = f"budget by {enforce}"
        try:
            engine = _opened(settings, enforce)
            ways.append(_Way(enforce, _caps_item(engine, name), partial(_keeps, settings, engine, name)))
        except ForethoughtError as error:
            if settings.enforce != "auto":
                refused.append(_Kept(enforce, False, Finding(TOPIC, name, False, str(error))))
    return ways, refused


def _caps_item(engine: OpenAIEngine, name: str) -> Item:
    requests = _requests(engine)
    budgets = sum(request.budget for request in requests)
    if engine.enforce == "max-tokens":
        return Item(name, len(requests), budgets)
    if engine.enforce == "two-call":
        return Item(name, 2 * len(requests), budgets + len(requests) * engine.template.max_answer_tokens)
    rounds = 2 if engine.enforce == "native" else 1  # once more where the cap is overshot by a constant
    return Item(name, rounds * len(requests), rounds * (budgets + len(requests) * engine.answer_room))


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


def _keeps(settings: DoctorSettings, engine: OpenAIEngine, name: str, progress: Progress) -> _Kept:
    """Whether budgets are kept in the way of `engine`."""
    enforce = engine.enforce
    try:
        found = _generated(engine, progress)
        offset = engine.counters.largest_overshoot
        if 0 < offset <= MOST_OFFSET and enforce == "native":  # vLLM overshoots by the length of its start tag less one
            offset += int(settings.options.get("cap_offset", 0))
            found = _generated(_opened(settings, enforce, cap_offset=offset), progress)
        else:
            offset = 0
    except ForethoughtError as error:
        return _Kept(enforce, False, Finding(TOPIC, name, False, str(error)))
    detail, is_kept = _verdict(found)
    if not is_kept:
        needs = engine.server.kind.needs if enforce == "native" else ""
        return _Kept(enforce, False, Finding(TOPIC, name, False, detail, f"start it with {needs}" if needs else ""))
    flags = f"--engine-option cap_offset={offset}" if offset else ""
    hints = [f"it overshoots by up to {offset} tokens: {flags}"] if flags else []
    if enforce != "two-call":
        hints.append("one answer per thought: profile measures several caps as options (--menu FILE)")
    if enforce == "max-tokens":
        hints.append("thought and answer share the cap: a thought that fills it leaves no answer")
    return _Kept(enforce, True, Finding(TOPIC, name, True, detail, "; ".join(hints)), flags)


def _questions() -> list[Query]:
    return [Query(f"question {number}", text) for number, text in enumerate(QUESTIONS)]


def _own_questions(settings: DoctorSettings) -> list[Query]:
    return load_queries(settings.questions, limit=settings.limit, **settings.columns)


def _drawn(settings: DoctorSettings) -> Sampling:
    """As a profile draws: what a level takes is what its thoughts do."""
    return settings.drawn(Sampling().temperature)


def _requests(engine: OpenAIEngine) -> list[Request]:
    """The questions at every cap."""
    least = engine.server.kind.least if engine.enforce == "native" else 0
    return [Request(query, cap + least, sample, seed=1) for query in _questions() for sample, cap in enumerate(CAPS)]


def _generated(engine: OpenAIEngine, progress: Progress) -> list[Generation]:
    requests = _requests(engine)
    return finish(collect(told(engine.generate(requests), progress, f"budgets by {engine.enforce}", len(requests))))


def _verdict(found: list[Generation]) -> tuple[str, bool]:
    """`(in words, kept)`. Caps that no thought reached are not shown to be kept."""
    errors = [done.error for done in found if done.error]
    if errors:
        return f"{len(errors)} of {len(found)} requests: {errors[0]}", False
    if uncounted := sum(done.reasoning_tokens is None for done in found):
        hint = "--engine-option tokenizer=NAME counts them"
        return f"{uncounted} of {len(found)} thoughts: their tokens cannot be counted reliably; {hint}", False
    ordered = sorted(found, key=lambda done: done.budget)
    detail = "thoughts as counted, at each cap: " + ", ".join(f"{d.budget}: {d.reasoning_tokens}" for d in ordered)
    if all(done.stop_reason is not StopReason.BUDGET for done in found):
        return f"{detail}; none was long enough to reach its cap", False
    unanswered = sum(not done.answer for done in found)
    return detail + (f"; {unanswered} of {len(found)} were left without an answer" if unanswered else ""), True


def _levels(
    settings: DoctorSettings,
    engine: OpenAIEngine,
    queries: Sequence[Query],
    options: Sequence[Option],
    progress: Progress,
) -> _Kept:
    """Measures what each option takes on the user's questions, and writes it down as a menu."""
    try:
        measured = measure(engine, queries, options, progress=progress)
    except ForethoughtError as error:
        return _Kept(engine.enforce, False, Finding(TOPIC, LEVELS, False, str(error)))
    if not measured.taken:
        return _Kept(
            engine.enforce, False, Finding(TOPIC, LEVELS, False, "no level gave an answer that could be counted")
        )
    detail = "; ".join(each.to_text() for each in measured.taken)
    differs = measured.chance <= SIGNIFICANCE
    if not differs:
        seen = f"they make no visible difference (p = {measured.chance:.2f}, {len(queries)} questions)"
        detail = f"{detail}; {seen}" + ("" if measured.can_tell else "; so few questions cannot show one")
    if len(measured.taken) < 2 or (measured.can_tell and not differs):
        return _Kept(engine.enforce, False, Finding(TOPIC, LEVELS, False, detail))
    made = f"measured by forethought doctor on {len(queries)} questions of {Path(settings.questions).name}"
    made += f" at {engine.server.name}, model {engine.served_model}, temperature {_drawn(settings).temperature:g}"
    write_atomically(Path(settings.out), measured.to_toml(made).encode())
    hint = "add the price of each option, usd_per_million = { input = …, output = … }, to plan in money"
    finding = Finding(TOPIC, LEVELS, True if differs else None, f"{detail}; written to {settings.out}", hint)
    return _Kept(engine.enforce, True, finding, f"--menu {settings.out}")


def _flags(settings: DoctorSettings, engine: OpenAIEngine, best: _Kept) -> str:
    served = f"--served-model {shlex.quote(settings.served_model)}" if settings.served_model else ""
    given = [
        f"--engine-option {shlex.quote(f'{name}={value if isinstance(value, str) else json.dumps(value)}')}"
        for name, value in settings.options.items()
        if f"{name}=" not in best.flags
    ]
    address = f"--base-url {shlex.quote(str(engine.address))}"
    parts = ("--engine openai", address, served, f"--enforce {best.enforce}", *given, best.flags)
    return " ".join(part for part in parts if part)
