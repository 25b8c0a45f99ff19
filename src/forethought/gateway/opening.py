"""From the environment and a server to a policy that decides on requests; what does not fit stops the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..control import sources
from ..core.data import Query
from ..core.features import DIFFICULTY, HIDDEN
from ..core.prompts import CHAT, PromptTemplate, load_template, shipped_templates
from ..errors import EngineError, InvalidSettingsError
from ..models.thinking import own_template
from ..predictors.predictor import Predictor
from .decision import Decider, Priorities
from .host import StateHost, Tags, logger
from .metrics import Counter, Metrics, Watch
from .options import ServingOptions
from .policy import Policy
from .price import Price, price_of
from .states import PromptStates

CAPS = (8, 12, 20)
QUESTION = "A farmer has 17 rows of 23 trees. He cuts 58 trees and plants 3 rows of 12. How many trees are left?"
SLACK = 16  # tokens beyond the cap, its start and its end, in which a late end would still be seen
OWN_WAY = "measure it yourself and set FORETHOUGHT_CAP_OFFSET"


async def measure_offset(host: StateHost, tags: Tags, template: PromptTemplate | None) -> int:
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


REASONING_FLAG = (
    "--reasoning-parser NAME (qwen3, deepseek_r1, …), or for a model without tags of its own "
    '--reasoning-config \'{"reasoning_start_str": "<|im_start|>assistant\\n", '
    '"reasoning_end_str": "\\n\\nFinal answer: "}\''
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before there is an engine."""

    options: ServingOptions
    predictor: Predictor
    price: Price
    template: PromptTemplate | None

    def to_json(self) -> dict[str, Any]:
        """One object, JSON-able."""
        card = self.predictor.card
        return {
            "predictor": self.options.predictor,
            "kind": card.predictor,
            "model": card.model,
            "template": card.template,
            "price": self.price.value,
            "price_from": self.price.source,
            "cost": self.options.cost.value,
            "answer_room": self.options.answer_room,
        }


def prepare(environment: Mapping[str, str]) -> Prepared:
    """Reads settings and predictor, and sets the price.

    Raises:
        ForethoughtError: of several kinds, in words.
    """
    options = ServingOptions.from_environment(environment)
    predictor = sources.open_predictor(options.predictor)
    refuse_unfit(predictor)
    template = predictor.card.template
    shipped = load_template(template) if template in shipped_templates() else None
    return Prepared(options, predictor, price_of(options, predictor), shipped)


def refuse_unfit(predictor: Predictor) -> None:
    """Refuses a predictor of named options, or one that says nothing before its own model has run.

    Raises:
        InvalidSettingsError: it is one of these.
    """
    card = predictor.card
    if card.menu.is_named:
        raise InvalidSettingsError(
            f"the predictor is for options with names ({card.menu}), and the plug-in sets caps alone; train one on a "
            "profile by caps: forethought profile MODEL QUESTIONS --budgets CAPS"
        )
    if DIFFICULTY in card.features.reads or predictor.estimator.is_costly:
        raise InvalidSettingsError(
            f"predictor {card.predictor} needs passes of its own for every question, which are not made in a server; "
            "train one that needs none: forethought train RUN --predictor text"
        )


async def open_policy(prepared: Prepared, host: StateHost) -> Policy:
    """The policy of a server, its caps measured.

    Raises:
        EngineError: everything in which the server and the predictor do not fit, and the flags to add.
    """
    prepared = with_own_template(prepared, host)
    options, card = prepared.options, prepared.predictor.card
    problems = list(_problems(prepared, host))
    if problems:
        raise EngineError("forethought cannot set budgets on this server:\n  " + "\n  ".join(problems))
    assert host.tags is not None
    if HIDDEN in card.features.reads:
        assert card.features.layer is not None
        await _watch(host, card.features.layer, card.features.width)
    offset = options.cap_offset
    if offset is None:
        offset = await measure_offset(host, host.tags, prepared.template)
    decider = Decider(prepared.predictor, price=prepared.price.value, cost=options.cost)
    counter = Counter(host.tokenizer, host.tags)
    policy = Policy(
        decider,
        host,
        start=host.tags.start,
        counter=counter,
        states=PromptStates(host, prepared.template, card.features.layer) if decider.reads_hidden else None,
        template=prepared.template,
        answer_room=options.answer_room,
        offset=offset,
        priorities=Priorities(options.priority, options.patience),
        metrics=Metrics(prepared.price.mean_budget),
        watch=Watch(decider, prepared.price),
    )
    logger.info(
        "forethought: %s predictor %s, %.3g right answers per token (%s); caps are sent %d lower; %s; thoughts are "
        "counted by %s",
        card.predictor,
        options.predictor,
        prepared.price.value,
        prepared.price.source,
        offset,
        policy.priorities,
        counter.way,
    )
    if card.model is not None and card.model not in host.models:
        logger.warning(
            "forethought: the predictor is for model %s, and this server serves %s; they are taken to be the same",
            card.model,
            ", ".join(sorted(host.models)),
        )
    return policy


def with_own_template(prepared: Prepared, host: StateHost) -> Prepared:
    """The same with the model's own chat template, where the predictor's card names that and it is the same here."""
    card = prepared.predictor.card
    if card.template != CHAT:
        return prepared
    found, how = own_template(host.tokenizer)
    is_same = found.hash == card.template_hash
    logger.info("forethought: template chat: %s%s", how, "" if is_same else "; another than the predictor's")
    return replace(prepared, template=found) if is_same else prepared


def _problems(prepared: Prepared, host: StateHost) -> Iterator[str]:
    card = prepared.predictor.card
    if host.tags is None:
        yield f"it has no reasoning configuration, without which vLLM refuses thinking budgets; add {REASONING_FLAG}"
    if HIDDEN in card.features.reads:
        if host.why_no_states:
            yield f"the predictor reads hidden states of layer {card.features.layer}, and {host.why_no_states}"
        if card.features.width != host.hidden_size or (card.features.layer or 0) > host.num_layers:
            yield (
                f"the predictor is for {card.model or 'a model'} of width {card.features.width} (layer "
                f"{card.features.layer}); this model has width {host.hidden_size} and {host.num_layers} layers"
            )
        if prepared.template is None:
            yield (
                f"the predictor reads the prompts of template {card.template or 'unknown'} "
                f"({card.template_hash or 'no hash'}), which neither comes with forethought nor is the one of this "
                "model's own chat template, so prompts cannot be compared with it"
            )


async def _watch(host: StateHost, layer: int, width: int) -> None:
    """Reads one state, to know that states can be read at all."""
    await host.watch(layer)
    ids = host.tokenizer.encode("How many?", add_special_tokens=False)
    state_D = await host.hidden_state(ids, layer)
    if state_D is None:
        raise EngineError(
            "the hook for hidden states was never called: graphs that are compiled or captured pass it by; "
            "add --enforce-eager"
        )
    if state_D.shape != (width,):
        raise EngineError(f"layer {layer} gives states of shape {state_D.shape}, and the predictor reads {width}")
