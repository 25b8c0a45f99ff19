"""Lets a request in: at a smaller cap, where a quota does not hold the one that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .admission import Admission, Grant, Refusal
from .call import Call
from .decision import Decision
from .policy import Policy

LOWERED = "lowered to what is left of the quota"


async def admitted(
    admission: Admission,
    policy: Policy,
    call: Call,
    body: Mapping[str, Any],
    *,
    num_bytes: int,
    beyond: int,
    may_lower: bool = True,
) -> Grant | Refusal:
    """Reserves what a request may use; `call.decision` is the one that fits.

    Args:
        admission: keeps the quotas.
        policy: decides once more.
        call: the request, decided on.
        body: of it.
        num_bytes: of its prompt, images left out.
        beyond: the most tokens that it may use beyond text and answers.
        may_lower: a smaller cap may be tried.

    Raises:
        LedgerError: the ledger cannot be reached; nothing may be sent.
    """
    assert call.decision is not None
    found = await admission.admit(call.tenant, prompt_bytes=num_bytes, decision=call.decision, beyond=beyond)
    if isinstance(found, Grant) or not may_lower:
        return found
    lower = await _lower(policy, call, body, found.left - admission.prompt_bound(num_bytes, beyond))
    if lower is None:
        return found
    call.decision = lower
    return await admission.admit(call.tenant, prompt_bytes=num_bytes, decision=lower, beyond=beyond)


async def _lower(policy: Policy, call: Call, body: Mapping[str, Any], left: int) -> Decision | None:
    """Decides once more under `left` tokens for thoughts and answers; None where not even the smallest option fits."""
    assert call.request is not None
    assert call.decision is not None
    if isinstance(call.tenant.ceiling, str) or policy.decider.menu.is_named:
        return None
    ceiling = left // max(1, call.request.num_thoughts) - policy.answer_room
    if ceiling < policy.decider.menu.smallest or ceiling >= (call.decision.budget or 0):
        return None
    ceiling = ceiling if call.tenant.ceiling is None else min(ceiling, int(call.tenant.ceiling))
    lower = await policy.decide_on(call.request, body, price=call.price, ceiling=ceiling, is_bounded=True)
    return replace(lower, reason=f"{lower.reason}; {LOWERED}")
