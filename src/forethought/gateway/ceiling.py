"""A tenant's ceiling where the choice of an option does not keep it: requests left as they are, fields of a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..servers.kinds import ServerKind, merged
from .decision import UNTOUCHED, Decider, Decision
from .fields import cap_fields, option_fields
from .request import CHAT, FORMED, BudgetRequest

CAPPED = "no thought goes above the ceiling"


def within(
    decision: Decision,
    request: BudgetRequest,
    body: Mapping[str, Any],
    ceiling: int | str,
    *,
    decider: Decider,
    kind: ServerKind,
    has_caps: bool,
    offset: int,
) -> Decision:
    """The decision with what keeps the ceiling; its `unkept` says why nothing does.

    Args:
        decision: chosen under the ceiling.
        request: what was asked.
        body: of the request.
        ceiling: most reasoning tokens of a thought, or the name of the largest option.
        decider: whose options these are.
        kind: of the server.
        has_caps: whether the server keeps a cap itself; else two calls do, of a plain chat.
        offset: tokens by which the server overshoots a cap.
    """
    if isinstance(ceiling, int) and decision.most_tokens is not None and decision.most_tokens <= ceiling:
        return decision  # thought and answer together have no more
    if decider.menu.is_named:
        decision = _with_level(decision, request, ceiling, decider, kind)
        if decision.unkept or request.own_cap is None:
            return decision
        option = decider.menu.options[decider.columns(ceiling)[-1]]
        set_by_option = option_fields(request.path, option, kind) or {}
        wire = kind.cap_in(merged(body, decision.changes))
        if wire is not None and wire == kind.cap_in(set_by_option):
            return decision
        if option.cap is None and isinstance(ceiling, str):
            name = kind.cap.partition(".")[0]
            return replace(decision, unkept=f"this tenant's largest level is {ceiling!r}: leave {name} out")
        ceiling = ceiling if isinstance(ceiling, int) else option.cap or 0
    assert isinstance(ceiling, int)
    wires = [] if request.untouched_by_cap else _caps(merged(body, decision.changes), kind)
    most = max(ceiling, ceiling - offset)
    if has_caps and wires and all(isinstance(wire, int) and 0 <= wire <= most for wire in wires):
        return decision
    is_two_call = not has_caps and request.path == CHAT and request.no_curve not in FORMED
    if is_two_call and decision.budget is not None and 0 <= decision.budget <= ceiling:
        return decision
    if request.opens_no_thought and not wires:
        return decision
    fields = cap_fields(request.path, max(kind.least, ceiling - offset), kind)
    if not has_caps or fields is None or ceiling < kind.least or request.untouched_by_cap:
        reason = f"a thought of this tenant has at most {ceiling:,} tokens, and nothing keeps that for such a request"
        return replace(decision, unkept=f"{reason}: set max_tokens to {ceiling} or less")
    changes = merged(decision.changes, fields)
    return replace(decision, reason=f"{decision.reason}; {CAPPED}", budget=ceiling, changes=changes)


def _caps(body: Mapping[str, Any], kind: ServerKind) -> list[Any]:
    """The caps in a body, under all their names."""
    found = [kind.cap_in(body) if kind.cap else None, *(body.get(name) for name in kind.aliases)]
    return [cap for cap in found if cap is not None]


def _with_level(
    decision: Decision, request: BudgetRequest, ceiling: int | str, decider: Decider, kind: ServerKind
) -> Decision:
    """The same with a level within the ceiling, where the client chose one, or the server would choose one itself."""
    if decision.kind != UNTOUCHED:
        return decision
    kept = decider.columns(ceiling)
    if request.untouched and (request.own_option is None or request.own_option in kept):
        return decision
    option = decider.menu.options[kept[-1]]
    fields = option_fields(request.path, option, kind)
    if fields is None:
        unkept = f"this tenant's largest level is {option.label!r}, and this route has no field for it"
        return replace(decision, unkept=unkept)
    changes = merged(decision.changes, fields)
    return replace(decision, reason=f"{decision.reason}; {CAPPED}", option=option.label, changes=changes)
