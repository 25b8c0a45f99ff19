"""Where a request gets its budget: from the fields that came in to the fields that go on, and what is said of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.data import Query
from ..core.prompts import PromptTemplate
from ..engines.forcing import Forcing
from ..errors import InvalidInputError
from .asked import CHAT, PRIORITY_HEADER, Asked, read
from .counting import Counter
from .decision import OWN, UNTOUCHED, Decider, Decision
from .host import Host, Tags
from .priorities import NONE, Priorities
from .tally import Tally
from .watch import Watch

logger = logging.getLogger("vllm.forethought")  # vLLM's own handlers show it


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a request.

    Attributes:
        decision: its budget and why.
        changes: fields to set in its body.
        num_thoughts: that it asks for, each with this budget.
    """

    decision: Decision
    changes: Mapping[str, Any]
    num_thoughts: int = 1

    @property
    def headers(self) -> dict[str, str]:
        """For the response; ASCII, one line each."""
        decision = self.decision
        found = {"x-forethought-reason": _in_header(decision.reason)}
        if decision.budget is not None:
            found["x-forethought-budget"] = str(decision.budget)
        if decision.expected is not None:
            found["x-forethought-expected"] = f"{decision.expected:.3f}"
        return found


class Desk:
    """Rules on requests.

    Args:
        decider: gives budgets.
        host: the server.
        tags: the host's.
        template: the predictor's; None where it is not known.
        answer_room: tokens after the thought.
        offset: tokens by which the server overshoots a cap.
        priorities: the order of waiting requests, where the server schedules by priority.
        tally: counts.
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
        tally: Tally,
        watch: Watch,
    ) -> None:
        self.decider = decider
        self.host = host
        self.template = template
        self.answer_room = answer_room
        self.offset = offset
        self.priorities = priorities if host.has_priorities else Priorities(NONE)
        self.tally = tally
        self.watch = watch
        self.counter = Counter(host.tokenizer, tags)
        self._start = tags.start
        self._forcing = None if template is None else Forcing(host.tokenizer, template)

    async def rule(self, path: str, body: Mapping[str, Any], headers: Collection[str] = ()) -> Ruling | None:
        """What becomes of a request; None where vLLM will refuse it anyway.

        Args:
            path: CHAT or TEXT.
            body: of the request.
            headers: names of its headers, in lower case.
        """
        started = time.perf_counter()
        asked = read(path, body, template=self.template, models=self.host.models, start=self._start, headers=headers)
        if asked is None:
            return None
        ruling = await self._rule(asked, body)
        self.tally.decided(ruling.decision, time.perf_counter() - started, num_thoughts=ruling.num_thoughts)
        return ruling

    async def _rule(self, asked: Asked, body: Mapping[str, Any]) -> Ruling:
        if asked.untouched:
            return self._queued(asked, Decision(UNTOUCHED, f"untouched: {asked.untouched}"), {})
        if asked.own_cap is not None:
            return self._queued(asked, Decision(OWN, "the client's own cap", asked.own_cap), {})
        if asked.no_curve:
            decision = self.decider.by_mean(asked.no_curve)
        elif self.decider.reads_hidden:
            decision = await self._by_state(asked, body)
        else:
            decision = self.decider.by_curve(asked.question, note=self._note(asked))
        assert decision.budget is not None
        room = decision.budget + self.answer_room
        changes = {
            "thinking_token_budget": max(0, decision.budget - self.offset),
            asked.room_field: room if asked.own_room is None else min(room, asked.own_room),
        }
        if asked.own_room is not None and asked.own_room < room:
            decision = replace(decision, tokens_B=None)  # the client's limit may cut the thought, and not the budget
        return self._queued(asked, decision, changes)

    def _queued(self, asked: Asked, decision: Decision, changes: dict[str, Any]) -> Ruling:
        """With a place in the queue: without one, a request that gets no budget would go before all that do."""
        priority = None if asked.has_priority else self._priority(decision.length)
        changes = changes if priority is None else changes | {"priority": priority}
        return Ruling(decision, changes, asked.num_thoughts)

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

    def _note(self, asked: Asked) -> str:
        """That the predictor's curves were measured under another prompt than the client's."""
        return "" if asked.is_templates or self.template is None else f"not the prompt of template {self.template.name}"

    async def _by_state(self, asked: Asked, body: Mapping[str, Any]) -> Decision:
        """By the hidden state of the prompt, where that is the one that the predictor's questions were asked with."""
        layer = self.decider.predictor.card.features.layer
        assert layer is not None
        if self._forcing is None or asked.path != CHAT:
            return self.decider.by_mean("the prompt cannot be compared with the predictor's template")
        ids = await self.host.render(body)
        if ids is None:
            return self.decider.by_mean("the prompt was refused")
        try:
            wanted = self._forcing.prompt_ids(Query("asked", asked.question))
        except InvalidInputError:
            return self.decider.by_mean("the chat template refuses the predictor's turns")
        if ids != wanted:
            return self.decider.by_mean(f"not the prompt of template {self._forcing.template.name}")
        hidden_D = await self.host.hidden_state(ids, layer)
        if hidden_D is None:
            logger.warning("no hidden state was caught of a prompt of %d tokens", len(ids))
            return self.decider.by_mean("no hidden state was caught")
        return self.decider.by_curve(asked.question, hidden_D)


def _in_header(text: str) -> str:
    """As the value of a header: printable ASCII on one line."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in " ".join(text.split()))
