"""Where a request gets its budget: from the fields that came in to the fields that go on, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ..core.data import Query
from ..core.prompts import PromptTemplate
from ..engines.forcing import Forcing
from ..errors import InvalidInputError
from .decision import NONE, OWN, UNTOUCHED, Decider, Decision, Priorities
from .host import Host, Tags, logger
from .metrics import Counter, Metrics, Watch
from .request import CHAT, PRIORITY_HEADER, BudgetRequest, read


class Policy:
    """Decides on requests.

    Args:
        decider: gives budgets.
        host: the server.
        tags: the host's.
        template: the predictor's; None where it is not known.
        answer_room: tokens after the thought.
        offset: tokens by which the server overshoots a cap.
        priorities: the order of waiting requests, where the server schedules by priority.
        metrics: counts.
        watch: holds the thoughts that come back against the predicted ones.
    """

    def __init__(
        self,
        decider: Decider,
        host: Host,
        tags: Tags,
        *,
        template: PromptTemplate | None,
        answer_room: int,
        offset: int,
        priorities: Priorities,
        metrics: Metrics,
        watch: Watch,
    ) -> None:
        self.decider = decider
        self.host = host
        self.template = template
        self.answer_room = answer_room
        self.offset = offset
        self.priorities = priorities if host.has_priorities else Priorities(NONE)
        self.metrics = metrics
        self.watch = watch
        self.counter = Counter(host.tokenizer, tags)
        self._start = tags.start
        self._forcing = None if template is None else Forcing(host.tokenizer, template)

    async def decide(self, path: str, body: Mapping[str, Any], headers: Collection[str] = ()) -> Decision | None:
        """What becomes of a request; None where vLLM will refuse it anyway.

        Args:
            path: CHAT or TEXT.
            body: of the request.
            headers: names of its headers, in lower case.
        """
        started = time.perf_counter()
        host = self.host
        request = read(
            path, body, kind=host.kind, template=self.template, models=host.models, start=self._start, headers=headers
        )
        if request is None:
            return None
        decision = await self._decide(request, body)
        self.metrics.decided(decision, time.perf_counter() - started)
        return decision

    async def _decide(self, request: BudgetRequest, body: Mapping[str, Any]) -> Decision:
        if request.untouched:
            return self._queued(request, Decision(UNTOUCHED, f"untouched: {request.untouched}"), {})
        if request.own_cap is not None:
            return self._queued(request, Decision(OWN, "the client's own cap", request.own_cap), {})
        if request.no_curve:
            decision = self.decider.by_mean(request.no_curve)
        elif self.decider.reads_hidden:
            decision = await self._by_state(request, body)
        else:
            decision = self.decider.by_curve(request.question, note=self._note(request))
        assert decision.budget is not None
        room = decision.budget + self.answer_room
        changes = {
            **self.host.kind.native(max(0, decision.budget - self.offset)),
            request.room_field: room if request.own_room is None else min(room, request.own_room),
        }
        if request.own_room is not None and request.own_room < room:
            decision = replace(decision, tokens_B=None)  # the client's limit may cut the thought, and not the budget
        return self._queued(request, decision, changes)

    def _queued(self, request: BudgetRequest, decision: Decision, changes: dict[str, Any]) -> Decision:
        """With a place in the queue: without one, a request that gets no budget would go before all that do."""
        priority = None if request.has_priority else self._priority(decision.length)
        changes = changes if priority is None else changes | {"priority": priority}
        return replace(decision, changes=changes, num_thoughts=request.num_thoughts)

    def place(self, body: Mapping[str, Any], headers: Collection[str] = ()) -> int | None:
        """The priority of a request of another kind, QUEUED; None where the client set one or where none count."""
        if body.get("priority") is not None or PRIORITY_HEADER in headers:
            return None
        return self._priority(None)

    def _priority(self, length: int | None) -> int | None:
        """For a request of `length` expected tokens; None for as many as the mean one's."""
        tokens = self.decider.by_mean("").length if length is None else length
        assert tokens is not None
        return self.priorities.of(tokens)

    def _note(self, request: BudgetRequest) -> str:
        """That the predictor's curves were measured under another prompt than the client's."""
        name = "" if self.template is None or request.is_templates else self.template.name
        return f"not the prompt of template {name}" if name else ""

    async def _by_state(self, request: BudgetRequest, body: Mapping[str, Any]) -> Decision:
        """By the hidden state of the prompt, where that is the one that the predictor's questions were asked with."""
        layer = self.decider.predictor.card.features.layer
        assert layer is not None
        if self._forcing is None or request.path != CHAT:
            return self.decider.by_mean("the prompt cannot be compared with the predictor's template")
        ids = await self.host.render(body)
        if ids is None:
            return self.decider.by_mean("the prompt was refused")
        try:
            wanted = self._forcing.prompt_ids(Query("asked", request.question))
        except InvalidInputError:
            return self.decider.by_mean("the chat template refuses the predictor's turns")
        if ids != wanted:
            return self.decider.by_mean(f"not the prompt of template {self._forcing.template.name}")
        hidden_D = await self.host.hidden_state(ids, layer)
        if hidden_D is None:
            logger.warning("no hidden state was caught of a prompt of %d tokens", len(ids))
            return self.decider.by_mean("no hidden state was caught")
        return self.decider.by_curve(request.question, hidden_D)
