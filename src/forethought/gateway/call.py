"""One request on its way through a gateway, and what is noted of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..questions.queries import content_id
from ..runs.journal import Entry
from .admission import Grant
from .decision import Decision
from .request import BudgetRequest
from .tenants import Tenant
from .used import Used

NOTHING = Decision("", "")  # of a request that was not decided on
UNREAD = BudgetRequest("")


@dataclass(slots=True)
class Call:
    """One request, as it goes through.

    Attributes:
        id: for the client, the journal and feedback.
        came: seconds since 1970.
        started: by the clock of intervals.
        headers: of the request, names in lower case.
        number: what `Watch.begun` gave it; -1 where it was not decided on.
        drops_usage: the usage of its stream was asked for here, and is not the client's.
        has_left: its client went away before the reply was complete.
    """

    id: str
    tenant: Tenant
    path: str
    came: float
    started: float
    headers: Mapping[str, str]
    request: BudgetRequest | None = None
    decision: Decision | None = None
    price: float | None = None
    grant: Grant | None = None
    number: int = -1
    drops_usage: bool = False
    added: float = 0.0
    has_left: bool = False

    def entry(self, used: Used, settled: int | None, *, is_shadow: bool, keeps_text: bool) -> Entry:
        """What is noted of it once it has ended."""
        request, decision = self.request or UNREAD, self.decision or NOTHING
        option = decision.option or (None if decision.budget is None else str(decision.budget))
        predicted = decision.predicted_tokens
        return Entry(
            id=self.id,
            time=self.came,
            tenant=self.tenant.name,
            model=request.model or "",
            path=self.path,
            kind=decision.kind,
            reason=decision.reason,
            question=content_id(request.question) if request.question else "",
            option=option,
            budget=decision.budget,
            num_thoughts=request.num_thoughts,
            price=self.price,
            expected=decision.expected,
            predicted=None if predicted is None else predicted * request.num_thoughts,
            reserved=None if self.grant is None else self.grant.reserved,
            bound=None if self.grant is None else self.grant.bound,
            settled=settled,
            prompt_tokens=used.prompt_tokens,
            reasoning_tokens=used.reasoning_tokens,
            output_tokens=used.output_tokens,
            status=used.status,
            ending=used.ending,
            added_ms=1000.0 * self.added,
            seconds=time.perf_counter() - self.started,
            is_shadow=is_shadow,
            text=(request.question or None) if keeps_text else None,
        )
