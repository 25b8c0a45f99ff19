"""Samples tokens so that a trace depends only on its own seed, not on the rest of the batch."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..core.data import Request


def noise(request: Request, step: int) -> float:
    """The uniform number in (0, 1) for token `step` of the trace: a hash, so it needs no state."""
    key = f"{request.seed}\x1f{request.sample}\x1f{step}\x1f{request.query.id}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2.0**52


def draw(logits_R_V: Tensor, *, temperature: float, top_p: float, uniform_R: Tensor) -> Tensor:
    """One token per row, by inverting the cumulative distribution at `uniform_R`: the same number, the same token.

    Args:
        logits_R_V: float32, finite maximum in every row.
        temperature: above 0.
        top_p: least probability mass that the kept tokens, the likeliest ones, must hold.
        uniform_R: in (0, 1), one per row; the only randomness.
    """
    p_R_V = torch.softmax(logits_R_V / temperature, dim=-1)
    if top_p < 1.0:
        descending, order = p_R_V.sort(dim=-1, descending=True)
        outside = descending.cumsum(-1) - descending >= top_p  # mass before this token already suffices
        p_R_V = p_R_V.scatter(-1, order, descending.masked_fill(outside, 0.0))
    cumulative = p_R_V.cumsum(-1)
    total_R = cumulative[:, -1:]
    # float32 rounds the largest uniforms to 1, which would name a token beyond the last one that has any mass.
    level_R = torch.minimum(uniform_R[:, None].float() * total_R, total_R.nextafter(torch.zeros_like(total_R)))
    return torch.searchsorted(cumulative, level_R, right=True)[:, 0]
