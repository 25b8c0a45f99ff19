"""Where a request gets its option: from the fields that came in to the fields that go on, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ..core.prompts import PromptTemplate
from .ceiling import within
from .decision import NONE, OWN, UNTOUCHED, Asked, Ceiling, Decider, Decision, Priorities
from .fields import cap_fields, option_fields
from .host import Host
from .metrics import Counter, Metrics, Watch
from .request import CHAT, FORMED, MOST_NUMBER, PATHS, PRIORITY_HEADER, BudgetRequest, read
from .states import PromptStates
from .together import Together

LOWERED = "the client's own choice, lowered to the ceiling"


class Policy:
    """Decides on requests.

    Args:
        decider: gives options.
        host: the server.
        start: the text that opens a thought, by which a text prompt is known to have one; None where it is not known.
        counter: counts thoughts by a tokenizer, where one is at hand; None to count by what the server says.
        states: reads hidden states, for a predictor that needs them.
        template: the predictor's; None where it is not known.
        answer_room: tokens after the thought.
        offset: tokens by which the server overshoots a cap.
        priorities: the order of waiting requests, where the server schedules by priority.
        metrics: counts.
        watch: holds the thoughts that come back against the predicted ones.
        paths: routes on which budgets are set.
        has_caps: whether the server keeps a cap itself; else the answer is asked for in a second call.
    """

    def __init__(
        self,
        decider: Decider,
        host: Host,
        *,
        start: str | None,
        counter: Counter | None,
        template: PromptTemplate | None,
        answer_room: int,
        offset: int,
        priorities: Priorities,
        metrics: Metrics,
        watch: Watch,
        states: PromptStates | None = None,
        paths: Collection[str] = PATHS,
        has_caps: bool = True,
    ) -> None:
        self.decider = decider
        self._together = Together(decider)
        self.host = host
        self.template = template
        self.answer_room = answer_room
        self.offset = offset
        self.priorities = priorities if host.has_priorities else Priorities(NONE)
        self.metrics = metrics
        self.watch = watch
        self.counter = counter
        self.states = states
        self.paths = frozenset(paths)
        self.has_caps = has_caps
        self._start = start

    def read(self, path: str, body: Mapping[str, Any], headers: Collection[str] = ()) -> BudgetRequest | None:
        """What a request asks; None where the server will refuse it anyway.

        Args:
            path: one of `paths`.
            body: of the request.
            headers: names of its headers, in lower case.
        """
        return read(
            path,
            body,
            kind=self.host.kind,
            template=self.template,
            models=self.host.models,
            start=self._start,
            headers=headers,
            menu=self.decider.menu,
        )

    async def decide(self, path: str, body: Mapping[str, Any], headers: Collection[str] = ()) -> Decision | None:
        """What becomes of a request; None where the server will refuse it anyway. Arguments as of `read`."""
        request = self.read(path, body, headers)
        return None if request is None else await self.decide_on(request, body)

    async def decide_on(
        self,
        request: BudgetRequest,
        body: Mapping[str, Any],
        *,
        price: float | None = None,
        ceiling: Ceiling = None,
        is_bounded: bool = False,
    ) -> Decision:
        """What becomes of a request that was read.

        Args:
            request: what `read` made of it.
            body: of the request.
            price: right answers that a token must buy; None for the policy's own.
            ceiling: most reasoning tokens, or the largest option's name; None for no bound.
            is_bounded: all that is generated gets a limit, also where the client's own choice is kept.
        """
        started = time.perf_counter()
        decision = await self._decide(request, body, price, ceiling, is_bounded)
        if ceiling is not None:
            decision = within(
                decision,
                request,
                body,
                ceiling,
                decider=self.decider,
                kind=self.host.kind,
                has_caps=self.has_caps,
                offset=self.offset,
            )
        self.metrics.decided(decision, time.perf_counter() - started)
        return decision

    async def _decide(
        self, request: BudgetRequest, body: Mapping[str, Any], price: float | None, ceiling: Ceiling, is_bounded: bool
    ) -> Decision:
        if request.untouched:
            decision = Decision(UNTOUCHED, f"untouched: {request.untouched}", most_tokens=request.own_room)
            return self._queued(request, decision, {})
        if request.own_cap is not None or request.own_option is not None:
            return self._own(request, ceiling, is_bounded)
        if request.no_curve:
            decision = self.decider.by_mean(request.no_curve, price=price, ceiling=ceiling)
        elif self.states is not None:
            state_D = await self.states.read(request, body)
            if isinstance(state_D, str):
                decision = self.decider.by_mean(state_D, price=price, ceiling=ceiling)
            else:
                decision = self.decider.by_curve(request.question, state_D, price=price, ceiling=ceiling)
        else:
            asked = Asked(request.question, None, self._note(request), price, ceiling)
            decision = await self._together.decide(asked)
        return self._set(request, decision)

    def _set(self, request: BudgetRequest, decision: Decision) -> Decision:
        """The decision with the fields that carry it out, and the limit on all that is generated."""
        kind, menu = self.host.kind, self.decider.menu
        if decision.option:
            fields = option_fields(request.path, menu.options[menu.column_of(decision.option)], kind)
        else:
            assert decision.budget is not None
            fields = cap_fields(request.path, max(kind.least, decision.budget - self.offset), kind)
            if not self.has_caps:  # the host makes two calls of it, which only a plain chat can be
                is_plain = request.path == CHAT and request.no_curve not in FORMED
                fields = {} if is_plain else None
        if fields is None:
            lack = f"untouched: {request.path} has no field for {decision.option or 'a cap'} that is known"
            return self._queued(request, Decision(UNTOUCHED, lack, most_tokens=request.own_room), {})
        if decision.budget is None:
            return self._queued(request, decision, fields, most_tokens=request.own_room)
        room = decision.budget + self.answer_room
        most = min(limit for limit in (room, request.own_room, self.host.context_tokens) if limit is not None)
        changes = fields | dict.fromkeys(request.room_fields, most)
        own: dict[str, Any] = {"most_tokens": most, "answer_tokens": self.answer_room}
        if most < room:
            own["tokens_B"] = None  # the client's limit or the context may cut the thought, and not the budget
        return self._queued(request, decision, changes, **own)

    def _own(self, request: BudgetRequest, ceiling: Ceiling, is_bounded: bool) -> Decision:
        """The client's own cap or level; its tenant's ceiling lowers it."""
        decider, menu, column = self.decider, self.decider.menu, request.own_option
        if column is not None and column >= 0:
            decision = decider.of_client(column, "the client's own level")
            is_above = ceiling is not None and column not in decider.columns(ceiling)
        elif request.own_cap is not None:
            decision = Decision(
                OWN, "the client's own cap", request.own_cap, high_tokens=max(0, request.own_cap) or None
            )
            most = ceiling if isinstance(ceiling, int) else None
            is_above = most is not None and (request.own_cap < 0 or request.own_cap > most)
        else:
            unknown = ", which is none of the menu's" if menu.is_named else ""
            decision = Decision(OWN, f"the client's own level{unknown}")
            is_above = ceiling is not None
        if is_above and menu.is_named:
            return self._set(request, decider.of_client(decider.columns(ceiling)[-1], LOWERED))
        if is_above and isinstance(ceiling, int):
            return self._set(request, Decision(OWN, LOWERED, ceiling, high_tokens=ceiling))
        changes: dict[str, Any] = {}
        most = request.own_room
        if is_bounded and most is None and decision.budget is not None and decision.budget >= 0:
            most = min(decision.budget + self.answer_room, self.host.context_tokens or MOST_NUMBER)
            changes = dict.fromkeys(request.room_fields, most)
        return self._queued(request, decision, changes, most_tokens=most, answer_tokens=self.answer_room)

    def _queued(self, request: BudgetRequest, decision: Decision, changes: dict[str, Any], **own: Any) -> Decision:
        """With other fields, and a place in the queue: without one, what gets no budget would go before all that do."""
        predicted = decision.predicted_tokens if decision.is_ours else None
        priority = None if request.has_priority else self._priority(predicted)
        changes = changes if priority is None else changes | {"priority": priority}
        return replace(decision, changes=changes, num_thoughts=request.num_thoughts, **own)

    def place(self, body: Mapping[str, Any], headers: Collection[str] = ()) -> int | None:
        """The priority of a request of another kind, QUEUED; None where the client set one or where none count."""
        if body.get("priority") is not None or PRIORITY_HEADER in headers:
            return None
        return self._priority(None)

    def _priority(self, tokens: int | None) -> int | None:
        """For a request of so many expected tokens; None for as many as the mean one's."""
        if self.priorities.way == NONE:
            return None
        tokens = self.decider.by_mean("").predicted_tokens if tokens is None else tokens
        assert tokens is not None
        return self.priorities.of(tokens)

    def _note(self, request: BudgetRequest) -> str:
        """That the predictor's curves were measured under another prompt than the client's."""
        name = "" if self.template is None or request.is_templates else self.template.name
        return f"not the prompt of template {name}" if name else ""
