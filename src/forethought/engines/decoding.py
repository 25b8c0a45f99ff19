"""Runs rows of tokens through a causal model in one flat batch, and caches the keys and values of prompts.

A step takes any number of new tokens from each row, concatenates them without padding, and runs the model once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import EngineError
from .attention import Pass, Slots, Span, ends

PREFILL_TOKENS = 1024  # most prompt tokens in one pass; bounds the memory of its attention scores
PREFILL_ROWS = 32  # most prompts whose keys and values are built together


class Decoder:
    """A causal language model with a shared prompt prefix and a cache of prompts.

    Args:
        model: a transformers causal model, loaded with `attn_implementation=ATTENTION`.
        prefix_ids: tokens that most prompts begin with.
        prompt_cache_bytes: how many bytes of prompts' keys and values to keep; the least recently used go first.
    """

    def __init__(self, model: Any, *, prefix_ids: Sequence[int], prompt_cache_bytes: int) -> None:
        config = model.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.model = model
        self.shape = (config.num_hidden_layers, config.num_key_value_heads, width)
        self.dtype, self.device = model.dtype, model.device
        self.prefix_ids = tuple(prefix_ids)
        self.num_tokens_run = 0  # tokens that went through the model, for tests and for honest accounting
        self._prefix: Tensor | None = None
        self._prompts: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._prompt_cache_bytes = prompt_cache_bytes

    def with_prefix(self, prefix_ids: Sequence[int]) -> Decoder:
        """The same model with another shared prefix and a cache of its own."""
        return Decoder(self.model, prefix_ids=prefix_ids, prompt_cache_bytes=self._prompt_cache_bytes)

    def num_shared(self, prompt: Sequence[int]) -> int:
        """How many tokens of the shared prefix a prompt begins with; at least one of its tokens is its own."""
        return min(common_length(prompt, self.prefix_ids), len(prompt) - 1)

    def new_slots(self, num_slots: int, capacity: int) -> Slots:
        """Empty slots for `num_slots` rows of `capacity` own tokens."""
        return Slots(self.shape, num_slots, capacity, dtype=self.dtype, device=self.device)

    @torch.inference_mode()
    def run(self, slots: Slots, spans: Sequence[Span]) -> Tensor:
        """Adds the tokens of `spans` to their slots; the logits after each span's last token, float32, (spans, V)."""
        last = ends(spans)
        output = self._forward(self.model, slots, spans, self._shared_prefix(), logits_to_keep=last.to(self.device))
        logits_R_V: Tensor = output.logits[0].float()
        return logits_R_V

    @torch.inference_mode()
    def read(self, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Keys and values of each prompt's own tokens, from the cache or computed now."""
        keys = [tuple(prompt) for prompt in prompts]
        found = {key: self._prompts[key] for key in keys if key in self._prompts}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        for key in found:
            self._prompts.move_to_end(key)
        for start in range(0, len(missing), PREFILL_ROWS):
            group = missing[start : start + PREFILL_ROWS]
            found.update(zip(group, self._prefill(group, layers=())[0], strict=True))
        return [found[key] for key in keys]

    @torch.inference_mode()
    def hidden_states(self, prompts: Sequence[Sequence[int]], layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`(last, mean)` of the residual stream, float32, shape (prompts, layers, width) each; fills the cache.

        `last` is at each prompt's last token, `mean` over its own tokens: all that the shared prefix does not hold.
        """
        groups = [prompts[start : start + PREFILL_ROWS] for start in range(0, len(prompts), PREFILL_ROWS)]
        found = [self._prefill(group, layers)[1:] for group in groups]
        return torch.cat([last for last, _ in found]), torch.cat([mean for _, mean in found])

    def _prefill(self, prompts: Sequence[Sequence[int]], layers: Sequence[int]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Runs whole prompts, in passes of at most PREFILL_TOKENS, and caches them: keys and values, last, mean."""
        prefix = self._shared_prefix()
        rows = [(shared := self.num_shared(prompt), prompt[shared:]) for prompt in prompts]
        slots = self.new_slots(len(rows), max(len(own) for _, own in rows))
        last_Q_L_D = torch.empty(len(rows), len(layers), self.model.config.get_text_config().hidden_size)
        mean_Q_L_D = torch.zeros_like(last_Q_L_D)
        for spans in _passes(rows):
            with self._watched(layers, spans) as states:
                self._forward(self.model.get_decoder(), slots, spans, prefix)
            ended = [index for index, span in enumerate(spans) if span.start + len(span.ids) == len(rows[span.slot][1])]
            share_S_1 = torch.tensor([1.0 / len(rows[span.slot][1]) for span in spans])[:, None]
            for column, layer in enumerate(layers):
                last_S_D, sum_S_D = states[layer]
                last_Q_L_D[[spans[index].slot for index in ended], column] = last_S_D[ended]
                mean_Q_L_D[:, column].index_add_(0, torch.tensor([span.slot for span in spans]), sum_S_D * share_S_1)
        kvs = [slots.kv[:, :, slot, :, : len(own)].clone() for slot, (_, own) in enumerate(rows)]
        for prompt, kv in zip(prompts, kvs, strict=True):
            self._remember(tuple(prompt), kv)
        return kvs, last_Q_L_D, mean_Q_L_D

    def _remember(self, prompt: tuple[int, ...], kv: Tensor) -> None:
        self._prompts[prompt] = kv
        self._prompts.move_to_end(prompt)
        while sum(kept.nbytes for kept in self._prompts.values()) > self._prompt_cache_bytes:
            self._prompts.popitem(last=False)

    def _shared_prefix(self) -> Tensor | None:
        """Keys and values of the shared prefix, shape (layers, 2, heads, tokens, width), computed once."""
        if self._prefix is None and self.prefix_ids:
            slots = self.new_slots(1, len(self.prefix_ids))
            for spans in _passes([(0, self.prefix_ids)]):
                self._forward(self.model.get_decoder(), slots, spans, None)
            self._prefix = slots.kv[:, :, 0]
        return self._prefix

    def _forward(self, module: Any, slots: Slots, spans: Sequence[Span], prefix: Tensor | None, **options: Any) -> Any:
        ids = [token for span in spans for token in span.ids]
        positions = [span.shared + span.start + offset for span in spans for offset in range(len(span.ids))]
        self.num_tokens_run += len(ids)
        try:
            return module(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                forethought_pass=Pass(slots, spans, prefix),
                **options,
            )
        except EngineError:
            raise
        except (RuntimeError, MemoryError) as error:
            raise EngineError(
                f"the model failed on a batch of {len(spans)} rows, {len(ids)} tokens: {error}. "
                "If this is a lack of memory, give a smaller num_sequences."
            ) from error

    @contextmanager
    def _watched(self, layers: Sequence[int], spans: Sequence[Span]) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
        """Catches the residual stream after each of `layers`: at the last token of each span, and summed over it."""
        states: dict[int, tuple[Tensor, Tensor]] = {}
        last = ends(spans)
        span_of_token = torch.repeat_interleave(
            torch.arange(len(spans)), torch.tensor([len(span.ids) for span in spans])
        )

        def watch(layer: int) -> Any:
            def hook(_module: Any, _arguments: Any, output: Any) -> None:
                stream = output[0] if isinstance(output, tuple) else output
                sum_S_D = torch.zeros(len(spans), stream.shape[-1], device=stream.device)
                sum_S_D.index_add_(0, span_of_token.to(stream.device), stream[0].float())
                states[layer] = (stream[0, last.to(stream.device)].float().cpu(), sum_S_D.cpu())

            return hook

        blocks = self.model.get_decoder().layers
        modules = {layer: self.model.get_input_embeddings() if layer == 0 else blocks[layer - 1] for layer in layers}
        handles = [module.register_forward_hook(watch(layer)) for layer, module in modules.items()]
        try:
            yield states
        finally:
            for handle in handles:
                handle.remove()


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def _passes(rows: Sequence[tuple[int, Sequence[int]]]) -> Iterator[list[Span]]:
    """Cuts prompts, given as `(shared, own ids)`, into passes of at most PREFILL_TOKENS; prompt i goes to slot i."""
    spans: list[Span] = []
    room = PREFILL_TOKENS
    for slot, (shared, own) in enumerate(rows):
        start = 0
        while start < len(own):
            ids = own[start : start + room]
            spans.append(Span(slot, shared, start, ids))
            start, room = start + len(ids), room - len(ids)
            if room == 0:
                yield spans
                spans, room = [], PREFILL_TOKENS
    if spans:
        yield spans
