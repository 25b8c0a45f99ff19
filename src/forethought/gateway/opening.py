"""From the environment and a server to a desk that rules on requests; what does not fit stops the server, in words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..control import sources
from ..core.features import DIFFICULTY, HIDDEN
from ..core.prompts import CHAT, PromptTemplate, load_template, shipped_templates
from ..errors import EngineError, InvalidSettingsError
from ..models.thinking import own_template
from ..predictors.predictor import Predictor
from .decision import Decider
from .desk import Desk
from .host import Host
from .measuring import measure_offset
from .options import ServingOptions
from .priorities import Priorities
from .rate import Rate, rate_of
from .tally import Tally
from .watch import Watch

logger = logging.getLogger("vllm.forethought")  # vLLM's own handlers show it

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
    rate: Rate
    template: PromptTemplate | None

    def to_json(self) -> dict[str, Any]:
        """One object, JSON-able."""
        card = self.predictor.card
        return {
            "predictor": self.options.predictor,
            "kind": card.predictor,
            "model": card.model,
            "template": card.template,
            "price": self.rate.price,
            "price_from": self.rate.source,
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
    refuse_costly(predictor)
    template = predictor.card.template
    shipped = load_template(template) if template in shipped_templates() else None
    return Prepared(options, predictor, rate_of(options, predictor), shipped)


def refuse_costly(predictor: Predictor) -> None:
    """Raises InvalidSettingsError for a predictor that cannot say anything before its own model has run."""
    card = predictor.card
    if DIFFICULTY in card.features.reads or predictor.estimator.is_costly:
        raise InvalidSettingsError(
            f"predictor {card.predictor} needs passes of its own for every question, which are not made in a server; "
            "train one that needs none: forethought train RUN --predictor text"
        )


async def opened(prepared: Prepared, host: Host) -> Desk:
    """The desk of a server, its caps measured.

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
    tally = Tally(prepared.rate.mean_budget)
    decider = Decider(prepared.predictor, price=prepared.rate.price, cost=options.cost)
    desk = Desk(
        decider,
        host,
        host.tags,
        template=prepared.template,
        answer_room=options.answer_room,
        offset=offset,
        priorities=Priorities(options.priority, options.patience),
        tally=tally,
        watch=Watch(decider, prepared.rate),
    )
    logger.info(
        "forethought: %s predictor %s, %.3g right answers a token (%s); caps are sent %d lower; %s; thoughts are "
        "counted by %s",
        card.predictor,
        options.predictor,
        prepared.rate.price,
        prepared.rate.source,
        offset,
        desk.priorities,
        desk.counter.way,
    )
    if card.model is not None and card.model not in host.models:
        logger.warning(
            "forethought: the predictor is for model %s, and this server serves %s; that this is the same is your word",
            card.model,
            ", ".join(sorted(host.models)),
        )
    return desk


def with_own_template(prepared: Prepared, host: Host) -> Prepared:
    """The same with the model's own chat template, where the predictor's card names that and it is the same here."""
    card = prepared.predictor.card
    if card.template != CHAT:
        return prepared
    found, how = own_template(host.tokenizer)
    is_same = found.hash == card.template_hash
    logger.info("forethought: template chat: %s%s", how, "" if is_same else "; another than the predictor's")
    return replace(prepared, template=found) if is_same else prepared


def _problems(prepared: Prepared, host: Host) -> Iterator[str]:
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


async def _watch(host: Host, layer: int, width: int) -> None:
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
