"""How far the server's own thinking budget is off, measured at start by short generations under a few caps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..core.data import Query
from ..core.prompts import PromptTemplate
from ..errors import EngineError
from .host import Host, Tags

CAPS = (8, 12, 20)
QUESTION = "A farmer has 17 rows of 23 trees. He cuts 58 trees and plants 3 rows of 12. How many trees are left?"
SLACK = 16  # tokens beyond the cap, its start and its end, in which a late end would still be seen
OWN_WAY = "measure it yourself and set FORETHOUGHT_CAP_OFFSET"


async def measure_offset(host: Host, tags: Tags, template: PromptTemplate | None) -> int:
    """Tokens of thought beyond the cap that the server allows, the same for every cap; negative where it cuts early.

    vLLM counts from the first token of a start tag that has several, so that a thought is longer than its cap by all
    but one of them; and it counts what the chat template puts behind the tag, which makes it shorter.

    Raises:
        EngineError: a cap is not kept at all, or not by the same distance; says why.
    """
    query = Query("measured", QUESTION)
    turns = [{"role": turn.role, "content": turn.content} for turn in template.messages(query)] if template else None
    prompt = await host.render({"messages": turns or [{"role": "user", "content": QUESTION}]})
    if prompt is None:
        raise EngineError(f"the server refuses the question with which its caps are measured; {OWN_WAY}")
    room = len(tags.start_ids) + len(tags.end_ids) + SLACK
    outputs = await asyncio.gather(*(host.generate(prompt, max_tokens=cap + room, cap=cap) for cap in CAPS))
    lengths = [thought_length(ids, tags) for ids in outputs]
    found = ", ".join(
        f"{cap}: {'no end' if length is None else length}" for cap, length in zip(CAPS, lengths, strict=True)
    )
    if None in lengths or len(set(lengths)) == 1:
        raise EngineError(
            f"thinking budgets have no effect on this server (tokens of thought under each cap: {found}). "
            f"{_why_none(prompt, tags)}. Fix the reasoning configuration, or, if the model ended its thoughts by "
            f"itself here, {OWN_WAY}"
        )
    offsets = {length - cap for cap, length in zip(CAPS, lengths, strict=True) if length is not None}
    if len(offsets) > 1:
        raise EngineError(
            f"thinking budgets are not kept evenly (tokens of thought under each cap: {found}); {OWN_WAY}"
        )
    return offsets.pop()


def thought_length(ids: Sequence[int], tags: Tags) -> int | None:
    """Tokens before the end of the thought, counted from its start where the model wrote that itself; None: no end."""
    start = _find(ids, tags.start_ids, 0)
    begin = 0 if start is None else start + len(tags.start_ids)
    end = _find(ids, tags.end_ids, begin)
    return None if end is None else end - begin


def _why_none(prompt: Sequence[int], tags: Tags) -> str:
    if _find(prompt, tags.start_ids, 0) is not None:
        return f"The prompt holds the start {tags.start!r}, but the end {tags.end!r} never came"
    return (
        f"The start {tags.start!r} is tokens {list(tags.start_ids)}, and the prompt does not hold them; it ends in "
        f"{list(prompt[-8:])}. A start that is split otherwise before the next character is never found"
    )


def _find(ids: Sequence[int], wanted: Sequence[int], begin: int) -> int | None:
    size, sought = len(wanted), list(wanted)
    return next((at for at in range(begin, len(ids) - size + 1) if list(ids[at : at + size]) == sought), None)
