"""Attention of a flat batch: rows are concatenated without padding and share keys and values.

Every row of a batch begins with the same prompt prefix (template and examples), so its keys and values are stored once
and never copied. Attention is done in two parts that are merged exactly by their log-sum-exp (as in "cascade" or
"Hydragen" attention): one matrix product of all tokens with the shared prefix, then each row with its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..errors import EngineError

ATTENTION = "forethought"  # name under which the attention below is registered with transformers
MASKED = -1e30  # finite, so that a row without a shared prefix gets weight 0 instead of NaN


@dataclass(frozen=True, slots=True)
class Span:
    """The input of one row in one step: `ids`, at its own positions from `start` on.

    Attributes:
        slot: which slot holds the row's keys and values.
        shared: leading tokens of the shared prefix that the row begins with; its own positions count from there.
        start: own tokens that are in the slot already.
        ids: the tokens to add, at least one.
    """

    slot: int
    shared: int
    start: int
    ids: Sequence[int]


class Slots:
    """Keys and values of the rows of one batch, shape (layers, 2, slots, heads, capacity, head width).

    What was never written is 0: attention computes some of it and masks it out, and 0 * NaN would be NaN.
    """

    def __init__(
        self, shape: tuple[int, int, int], num_slots: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        layers, heads, width = shape
        self.kv = torch.zeros((layers, 2, num_slots, heads, capacity, width), dtype=dtype, device=device)

    def reserve(self, capacity: int, num_slots: int = 0) -> None:
        """Makes room for `capacity` tokens per row (growing by a quarter at least), and for `num_slots` rows."""
        old = self.kv
        layers, two, slots, heads, tokens, width = old.shape
        if capacity > tokens or num_slots > slots:
            if capacity > tokens:
                tokens = -(-max(capacity, tokens * 5 // 4) // 128) * 128
            self.kv = old.new_zeros((layers, two, max(slots, num_slots), heads, tokens, width))
            self.kv[:, :, :slots, :, : old.shape[4]] = old

    def load(self, slot: int, kv: Tensor) -> None:
        """Puts the keys and values of a prompt, shape (layers, 2, heads, tokens, width), into `slot`."""
        self.reserve(kv.shape[3])
        self.kv[:, :, slot, :, : kv.shape[3]] = kv

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copies the first tokens of one slot to another."""
        self.kv[:, :, target, :, :num_tokens] = self.kv[:, :, source, :, :num_tokens]

    def clear(self, slot: int) -> None:
        """Forgets what is in `slot`: of a row whose numbers went wrong, nothing may reach the slot's next row."""
        self.kv[:, :, slot] = 0


class Pass:
    """One pass of a flat batch of N tokens: who attends to what. Built once, used by every layer."""

    def __init__(self, slots: Slots, spans: Sequence[Span], prefix: Tensor | None) -> None:
        self.slots, self.prefix = slots, prefix
        device = slots.kv.device
        self.longest = max(span.shared + span.start + len(span.ids) for span in spans)
        slots.reserve(max(span.start + len(span.ids) for span in spans))
        positions = [(span.slot, span.start + offset) for span in spans for offset in range(len(span.ids))]
        self.slot_N, self.position_N = torch.tensor(positions, device=device).T
        self.prefix_mask = None  # (N, prefix tokens), only when some row shares less than the whole prefix
        if prefix is not None and any(span.shared < prefix.shape[3] for span in spans):
            shared_N = torch.tensor([span.shared for span in spans for _ in span.ids], device=device)
            self.prefix_mask = _masked(torch.arange(prefix.shape[3], device=device) >= shared_N[:, None])

        # Rows that add one token are taken together; the few that add more (new prompts, suffixes) one by one.
        first = (ends(spans) + 1 - torch.tensor([len(span.ids) for span in spans])).tolist()
        single = [(begin, span) for begin, span in zip(first, spans, strict=True) if len(span.ids) == 1]
        self.several = [
            (begin, span, _causal_mask(span, device))
            for begin, span in zip(first, spans, strict=True)
            if len(span.ids) > 1
        ]
        self.single_R = torch.tensor([begin for begin, _ in single], dtype=torch.long, device=device)
        self.single_slot_R = torch.tensor([span.slot for _, span in single], dtype=torch.long, device=device)
        self.num_own = max((span.start + 1 for _, span in single), default=0)
        # Computing a few slots for nothing is cheaper than gathering the keys of the others into a copy.
        self.num_dense = max((span.slot + 1 for _, span in single), default=0)
        self.dense = self.num_dense <= 2 * len(single)
        length_R = torch.tensor([span.start + 1 for _, span in single], device=device)
        if self.dense and single:
            length_R = torch.ones(self.num_dense, dtype=torch.long, device=device).scatter(
                0, self.single_slot_R, length_R
            )
        outside = torch.arange(self.num_own, device=device) >= length_R[:, None]
        self.single_mask = _masked(outside)[:, None, None, :]  # (rows, heads, group, own tokens)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Stores the new keys and values, shape (heads, N, width), and attends: shape (N, query heads, width).

        `query` has shape (query heads, N, width); its heads h*G … h*G+G-1 belong to head h.
        """
        heads, num_tokens, width = key.shape
        keys, values = self.slots.kv[layer]
        keys[self.slot_N, :, self.position_N] = key.transpose(0, 1)
        values[self.slot_N, :, self.position_N] = value.transpose(0, 1)
        query = query.reshape(heads, -1, num_tokens, width)  # heads, group, N, width
        output, total = self._attend_own(query, keys, values, scaling)
        if self.prefix is not None:
            mask = None if self.prefix_mask is None else self.prefix_mask.repeat(query.shape[1], 1)
            flat = query.reshape(heads, -1, width)
            shared, shared_total = _attend(flat, self.prefix[layer, 0], self.prefix[layer, 1], mask, scaling)
            # exp(a) / (exp(a) + exp(b)) = sigmoid(a - b): the share of the prefix in the softmax over both parts.
            share = torch.sigmoid(shared_total.view_as(total) - total)
            output = torch.lerp(output, shared.view_as(output), share)
        return output.permute(2, 0, 1, 3).reshape(num_tokens, -1, width).to(query.dtype)

    def _attend_own(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """Attention of tokens to their own rows: `(output, log of the softmax's denominator)`, (heads, group, N, …)."""
        heads, group, num_tokens, width = query.shape
        output = query.new_empty((heads, group, num_tokens, width), dtype=torch.float32)
        total = query.new_empty((heads, group, num_tokens, 1), dtype=torch.float32)
        if len(self.single_R):
            query_R = query[:, :, self.single_R].permute(2, 0, 1, 3)  # rows, heads, group, width
            if self.dense:
                own_keys, own_values = keys[: self.num_dense], values[: self.num_dense]
                query_R = query_R.new_zeros((self.num_dense, heads, group, width)).index_copy_(
                    0, self.single_slot_R, query_R
                )
            else:
                own_keys, own_values = keys[self.single_slot_R], values[self.single_slot_R]
            own_keys, own_values = own_keys[:, :, : self.num_own], own_values[:, :, : self.num_own]
            output_R, total_R = _attend(query_R, own_keys, own_values, self.single_mask, scaling)
            if self.dense:
                output_R, total_R = output_R[self.single_slot_R], total_R[self.single_slot_R]
            output[:, :, self.single_R] = output_R.permute(1, 2, 0, 3)
            total[:, :, self.single_R] = total_R.permute(1, 2, 0, 3)
        for begin, span, mask in self.several:
            end, length = begin + len(span.ids), span.start + len(span.ids)
            query_1 = query[:, :, begin:end].reshape(heads, -1, width)
            own_keys, own_values = keys[span.slot, :, :length], values[span.slot, :, :length]
            output_1, total_1 = _attend(query_1, own_keys, own_values, mask.repeat(group, 1), scaling)
            output[:, :, begin:end] = output_1.view(heads, group, -1, width)
            total[:, :, begin:end] = total_1.view(heads, group, -1, 1)
        return output, total


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> tuple[Tensor, Tensor]:
    """Softmax attention, and the log of its denominator; float32 between the two products and after them."""
    scores = torch.matmul(query, key.transpose(-1, -2)).float().mul_(scaling)
    if mask is not None:
        scores += mask
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    return torch.matmul(weights.to(value.dtype), value).float().div_(total), highest.add_(total.log())


def _cascade_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    forethought_pass: Pass,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer, for a batch of one flat row."""
    if (
        softcap is not None
        or s_aux is not None
        or (sliding_window or forethought_pass.longest) < forethought_pass.longest
    ):
        raise EngineError(
            f"the transformers engine does not support this model's attention (sliding window {sliding_window}, "
            f"softcap {softcap}, sinks {s_aux is not None}); use --engine vllm"
        )
    return forethought_pass.attend(module.layer_idx, query[0], key[0], value[0], scaling)[None], None


AttentionInterface.register(ATTENTION, _cascade_attention)


def ends(spans: Sequence[Span]) -> Tensor:
    """Index of each span's last token in the flat batch."""
    return torch.tensor([len(span.ids) for span in spans]).cumsum(0) - 1


def _causal_mask(span: Span, device: torch.device) -> Tensor:
    """(new tokens, own tokens): token i sees the own positions up to its own."""
    own = torch.arange(span.start + len(span.ids), device=device)
    return _masked(own > own[span.start :, None])


def _masked(outside: Tensor) -> Tensor:
    return torch.zeros(outside.shape, device=outside.device).masked_fill_(outside, MASKED)
