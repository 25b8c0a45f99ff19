"""A simulated model: traces of made-up words whose true accuracy and usage curves are known exactly."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import math
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from ..core.data import (
    Curves,
    EngineInfo,
    FloatArray,
    Generation,
    Logprobs,
    Probe,
    Query,
    Request,
    Sampling,
    StopReason,
)
from ..core.flags import at_least, check_all
from ..core.menu import Menu
from ..core.options import Option
from ..core.prompts import PromptTemplate
from ..core.registry import unknown_name_message
from ..errors import InvalidSettingsError
from .context import ceiling_of
from .flight import check_layers, failed, refusal
from .latent import LEVELS, Latent
from .lengths import in_words

# Requests that are under way together: results come back shortest first within such a group, as from a real batch.
GROUP_SIZE = 64
LATENTS_KEPT = 1 << 14  # queries whose truth is kept; it comes back the same
VOCABULARY = (
    "so then we add take twice half each left total minus over thus now three seven of the is which gives check"
)
WORDS = VOCABULARY.split()
PROMPT_TOKENS = 8192  # longest prompt, suffix and answer of a fake model without a context of its own
_STREAM_WORDS = 1 << 14


class FakeEngine:
    """A deterministic simulated model, whose results have exactly the shape of a real one's.

    Each query has a latent difficulty, drawn from a hash of its id, its text and the engine's seed. Its accuracy curve
    dips, jumps later and ends on a plateau; natural lengths are random, one per trace. Within a trace one uniform
    number u decides every cut: cut after n tokens, the answer is right when u < success(n). So cuts of one trace agree
    as far as they can, two cuts with the same chance always agree, and each cut alone is right with exactly its chance.
    Answers to a query without a reference are judged against one made up from its text.

    An option may set `reasoning_effort` to one of `LEVELS`: thoughts are so much longer, and right more often.

    Args:
        model: name to report.
        template: the text around a query; its words are the prompt's tokens.
        sampling: kept for the record; traces are always drawn at random.
        num_layers: decoder layers to pretend.
        hidden_size: width of the hidden states.
        seed: which fake model this is; another seed has other difficulties.
        menu: scale of the curves: jumps lie within its largest cap; as a `Menu` or as text (`geometric:256:32768`).
        failure_rate: share of traces that come back as an error, from 0 to 1.
        logprobs: show how likely the model found its answers and thoughts (`Generation.logprobs`): a right answer as
            likely as it is to come, which is simulated as all else is.
        context_tokens: longest prompt + thought + answer; None for prompts of at most `PROMPT_TOKENS` and any thought.
        tokens_per_second: pretend this speed by sleeping; None for none.

    Raises:
        InvalidSettingsError: a number that no model has.
    """

    def __init__(
        self,
        model: str = "fake",
        *,
        template: PromptTemplate,
        sampling: Sampling = Sampling(),
        num_layers: int = 4,
        hidden_size: int = 32,
        seed: int = 0,
        menu: Menu | str | int = Menu.evenly(16, 256),
        failure_rate: float = 0.0,
        logprobs: bool = False,
        context_tokens: int | None = None,
        tokens_per_second: float | None = None,
    ) -> None:
        is_speed = tokens_per_second is None or tokens_per_second > 0
        check_all(
            (
                at_least("num_layers", num_layers, 1),
                at_least("hidden_size", hidden_size, 1),
                None if 0 <= failure_rate <= 1 else f"failure_rate must lie between 0 and 1, not {failure_rate:g}",
                None if is_speed else f"tokens_per_second must be more than 0, not {tokens_per_second:g}",
            )
        )
        menu = menu if isinstance(menu, Menu) else Menu.parse(str(menu))
        self.template = template
        self.sampling = sampling
        self.seed = seed
        self.menu = menu
        self.failure_rate = failure_rate
        self.tokens_per_second = tokens_per_second
        self._context_tokens, self.shows_logprobs = context_tokens, logprobs
        self._suffix_tokens = in_words(template, ()).suffix_tokens
        self._latents: dict[tuple[str, str], Latent] = {}
        stream = random.Random(seed).choices(WORDS, k=_STREAM_WORDS)
        self._stream = " ".join(stream) + " "
        self._word_start = [0]  # offset in the stream's text of each word
        for word in stream:
            self._word_start.append(self._word_start[-1] + len(word) + 1)
        self.info = EngineInfo(
            engine="fake",
            model=model,
            model_hash=hashlib.sha256(f"{model} {seed} {menu}".encode()).hexdigest(),
            template=template.name,
            template_hash=template.hash,
            sampling=sampling,
            num_layers=num_layers,
            hidden_size=hidden_size,
            context_tokens=context_tokens,
            dtype="float32",
            device="cpu",
            simulated=True,
        )

    def with_template(self, template: PromptTemplate) -> FakeEngine:
        """See `TemplateEngine.with_template`."""
        other = copy.copy(self)
        other.template = template
        other._suffix_tokens = in_words(template, ()).suffix_tokens
        other._latents = {}
        other.info = replace(self.info, template=template.name, template_hash=template.hash)
        return other

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`; shortest first within each group of `GROUP_SIZE` requests."""
        waiting = iter(requests)
        while group := [self.run(request) for request in islice(waiting, GROUP_SIZE)]:
            for generation in sorted(group, key=lambda done: done.reasoning_tokens or 0):
                if self.tokens_per_second is not None:
                    outcome = generation.at(generation.budget)
                    await asyncio.sleep((outcome.tokens or 0 if outcome else 0) / self.tokens_per_second)
                yield generation
            await asyncio.sleep(0)

    def check_option(self, option: Option) -> None:
        """See `OptionEngine.check_option`: levels are known, and nothing else can be set."""
        if other := [name for name in option.set if name != "reasoning_effort"]:
            raise InvalidSettingsError(
                f"option {option.label!r} sets {other[0]!r}; the fake model supports only levels"
            )
        level = option.set.get("reasoning_effort", "medium")
        if level not in LEVELS:
            raise InvalidSettingsError(
                f"option {option.label!r}: {unknown_name_message('effort level', str(level), LEVELS)}"
            )

    def run(self, request: Request) -> Generation:
        """One request, at once; what `generate` gives for it."""
        query, latent = request.query, self._latent(request.query)
        try:
            if request.option is not None:
                self.check_option(request.option)
        except InvalidSettingsError as error:
            return failed(request, str(error), prompt_tokens=latent.prompt_tokens, is_final=True)
        is_open = request.option is not None and request.option.cap is None
        reason = refusal(
            replace(request, budget=1) if is_open else request,
            prompt_tokens=latent.prompt_tokens,
            suffix_tokens=self._suffix_tokens,
            answer_tokens=self.template.max_answer_tokens,
            context_tokens=self._context_tokens or PROMPT_TOKENS + request.budget,
        )
        if reason is not None:
            return failed(request, reason, prompt_tokens=latent.prompt_tokens, is_final=True)
        digest = _digest("trace", self.seed, query.id, query.text, request.sample, request.seed)
        u_right, u_length, u_failure, u_text = (_uniform(digest[i : i + 8]) for i in range(0, 32, 8))
        if u_failure < self.failure_rate:
            reason = f"the fake engine failed on purpose (rate {self.failure_rate})"
            return failed(request, reason, prompt_tokens=latent.prompt_tokens)
        natural_length = latent.at_level(request.option).natural_length(u_length)
        length = min(natural_length, request.budget)
        right = self.right_answer(query)
        wrong = _wrong_answer(right, round(u_text * 1e6))

        if self.template.choices:
            right = wrong = _stated(latent, u_right, self.template.choices)

        def answer(tokens: int) -> str:
            return right if u_right < latent.success(tokens) else wrong

        def shown(tokens: int) -> Logprobs | None:
            if not self.shows_logprobs:
                return None
            chance = min(max(float(latent.success(tokens)), 0.01), 0.99)
            likely = chance if u_right < latent.success(tokens) else 1.0 - chance
            return Logprobs(round(math.log(likely), 4), round(math.log(0.5 + 0.5 * likely), 4) if tokens else None)

        return Generation(
            query_id=query.id,
            sample=request.sample,
            budget=request.budget,
            reasoning=self._text(u_text, length),
            reasoning_tokens=length,
            answer=answer(length),
            answer_tokens=latent.answer_tokens,
            suffix_tokens=self._suffix_tokens,
            prompt_tokens=latent.prompt_tokens,
            stop_reason=StopReason.NATURAL if natural_length < request.budget else StopReason.BUDGET,
            probes=tuple(
                Probe(cut, answer(cut), latent.answer_tokens, logprobs=shown(cut))
                for cut in sorted(set(request.probe_budgets))
                if cut < length
            ),
            option=request.label,
            logprobs=shown(length),
        )

    def _text(self, u: float, num_words: int) -> str:
        """`num_words` words, one per token, from a place in the stream that `u` names: cuts of a trace are prefixes."""
        start = int(u * (_STREAM_WORDS // 2))
        parts = []
        while num_words > 0:  # a thought longer than what is left of the stream goes on from its beginning
            end = min(start + num_words, _STREAM_WORDS)
            parts.append(self._stream[self._word_start[start] : self._word_start[end]])
            num_words -= end - start
            start = 0
        return "".join(parts).rstrip()

    def right_answer(self, query: Query) -> str:
        """The answer this engine gives to `query` when it is right."""
        return query.reference if query.reference is not None else str(_digest("right", query.text)[0])

    def true_curves(self, queries: Sequence[Query], menu: Menu | None = None) -> Curves:
        """The exact accuracy and usage curves from which traces are sampled.

        With N the natural length, p(b) = sum over n of P(N = n) success(min(n, b)), and the tokens at cap b are
        E[min(N, b)] = sum over k < b of P(N > k), plus suffix and answer.

        Args:
            queries: Q of them.
            menu: the budgets, or options with names; the engine's own menu by default.
        """
        menu = menu or self.menu
        asked = [menu.asked(budget, ceiling_of(self.info)) for budget in menu.caps]
        cap_B = np.array([cap for cap, _ in asked])
        p_Q_B = np.empty((len(queries), menu.num_options))
        tokens_Q_B = np.empty_like(p_Q_B)
        input_Q_B = np.empty_like(p_Q_B) if menu.is_named else None
        tokens_N = np.arange(cap_B.max() + 1, dtype=np.float64)
        for row, query in enumerate(queries):
            latent = self._latent(query)
            for columns, option in [(slice(None), None)] if not menu.is_named else enumerate(each for _, each in asked):
                level, success_N = latent.at_level(option), latent.success(tokens_N)
                within_N = level.length_within(tokens_N)
                ended_N = np.concatenate(([0.0], np.cumsum(np.diff(within_N) * success_N[1:])))  # right, ended by n
                right_N = ended_N + (1.0 - within_N) * success_N
                reasoning_N = np.concatenate(([0.0], np.cumsum(1.0 - within_N[:-1])))
                p_Q_B[row, columns] = right_N[cap_B[columns]]
                tokens_Q_B[row, columns] = reasoning_N[cap_B[columns]] + self._suffix_tokens + latent.answer_tokens
            if input_Q_B is not None:
                input_Q_B[row] = latent.prompt_tokens
        return Curves(tuple(query.id for query in queries), menu, p_Q_B, tokens_Q_B, input_Q_B)

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: a fixed random map of the latents plus noise, clearest half way up."""
        return self._noisy_latents("hidden", queries, layers)

    def pooled_states(self, queries: Sequence[Query], layers: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """See `PooledStateEngine.pooled_states`: the mean is the same map with other noise."""
        return self.hidden_states(queries, layers), self._noisy_latents("mean", queries, layers)

    def _noisy_latents(self, name: str, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        num_layers, hidden_size = check_layers(layers, self.info)
        states_Q_L_D = np.full((len(queries), len(layers), hidden_size), np.nan, dtype=np.float32)
        maps = {layer: np.random.default_rng([self.seed, layer]).normal(size=(4, hidden_size)) for layer in layers}
        for row, query in enumerate(queries):
            latent = self._latent(query)
            if latent.prompt_tokens >= (self._context_tokens or PROMPT_TOKENS):
                continue
            for column, layer in enumerate(layers):
                clarity = 1.0 - 0.9 * abs(2.0 * layer / num_layers - 1.0)
                noise_D = _generator(name, self.seed, query.id, query.text, layer).normal(size=hidden_size)
                states_Q_L_D[row, column] = clarity * (np.array(latent.z) @ maps[layer]) + 0.5 * noise_D
        return states_Q_L_D

    def close(self) -> None:
        """Clears the cached latents; they are recomputed identically."""
        self._latents.clear()

    def _latent(self, query: Query) -> Latent:
        key = (query.id, query.text)
        if key not in self._latents:
            if len(self._latents) >= LATENTS_KEPT:
                self._latents.clear()
            z = tuple(float(value) for value in _generator("latent", self.seed, *key).normal(size=4))
            self._latents[key] = Latent.of(
                z,
                self.menu.largest,
                answer_tokens=min(2 + len(self.right_answer(query)) // 4, self.template.max_answer_tokens),
                prompt_tokens=in_words(self.template, [query]).total,
            )
        return self._latents[key]


def _stated(latent: Latent, u: float, choices: Sequence[str]) -> str:
    """What the fake model says when asked to choose: the later its jump, the later a choice, with some doubt."""
    hardness = latent.hardness + 0.3 * (u - 0.5)
    edges = np.linspace(0.4, 0.6, len(choices) - 1)
    return choices[int(np.searchsorted(edges, hardness, side="right"))]


def _digest(*parts: object) -> bytes:
    """32 bytes that depend on `parts` alone, whatever the process or platform."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=32).digest()


def _uniform(content: bytes) -> float:
    """A number strictly between 0 and 1 from 8 bytes."""
    return ((int.from_bytes(content, "big") >> 12) + 0.5) / 2.0**52


def _generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(_digest(*parts)[:8], "big"))


def _wrong_answer(right: str, draw: int) -> str:
    """An answer of the same kind as `right` that no grader takes for it."""
    try:
        return str(int(right.replace(",", "")) + 1 + draw % 9)
    except ValueError:
        if len(right) == 1 and right.isalpha():  # a choice: another of the first four letters, in the same case
            first = "a" if right.islower() else "A"
            others = [chr(ord(first) + i) for i in range(4) if chr(ord(first) + i) != right]
            return others[draw % len(others)]
        return f"{draw % 9 + 2} times ({right}) + 1"
