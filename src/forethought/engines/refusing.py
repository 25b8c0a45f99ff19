"""What every engine says about a request before it runs, and about one that failed."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.data import EngineInfo, Generation, Request, StopReason
from ..errors import InvalidFeaturesError


def refusal(
    request: Request, *, prompt_tokens: int, suffix_tokens: int, answer_tokens: int, context_tokens: int | None
) -> str | None:
    """Why `request` cannot run, or None.

    Args:
        request: what was asked for.
        prompt_tokens: tokens of its prompt.
        suffix_tokens: tokens of the forced answer suffix.
        answer_tokens: most tokens of the answer.
        context_tokens: most tokens the engine can hold for one request; None where that is not known.
    """
    if request.budget < 0:
        return f"a budget cannot be negative; got {request.budget}"
    needed = prompt_tokens + request.budget + suffix_tokens + answer_tokens
    if context_tokens is not None and needed > context_tokens:
        return (
            f"the prompt has {prompt_tokens} tokens; with {request.budget} of reasoning and the answer it needs "
            f"{needed}, more than the context of {context_tokens}"
        )
    return None


def failed(request: Request, error: str, *, prompt_tokens: int = 0, is_final: bool = False) -> Generation:
    """The generation of a request that came to nothing: no text, no tokens generated, and why.

    Args:
        request: what was asked for.
        error: why it failed.
        prompt_tokens: tokens of its prompt, where known.
        is_final: it would fail again in the same way, so long as nothing is set otherwise.
    """
    return Generation(
        query_id=request.query.id,
        sample=request.sample,
        budget=request.budget,
        reasoning="",
        reasoning_tokens=0,
        answer="",
        answer_tokens=0,
        suffix_tokens=0,
        prompt_tokens=prompt_tokens,
        stop_reason=StopReason.ERROR,
        error=error,
        is_final=is_final,
    )


def check_layers(layers: Sequence[int], info: EngineInfo) -> tuple[int, int]:
    """`(layers, width)` of the model; raises InvalidFeaturesError for a layer that it does not have."""
    assert info.num_layers is not None
    assert info.hidden_size is not None
    if outside := [layer for layer in layers if not 0 <= layer <= info.num_layers]:
        raise InvalidFeaturesError(f"no layer {outside[0]}; {info.model} has the layers 0 to {info.num_layers}")
    return info.num_layers, info.hidden_size
