"""What a request asks, as far as budgets go: the question, what the client fixed itself, and why no curve is for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.data import Query
from ..core.menu import Menu
from ..core.prompts import PromptTemplate
from ..servers.kinds import ServerKind
from .fields import MESSAGES, RESPONSES, own_option

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PATHS = (CHAT, TEXT)
QUEUED = (RESPONSES, MESSAGES)  # vLLM takes no budget from us there, and a priority by header
SAGEMAKER, ADAPTER = "/invocations", "x-amzn-sagemaker-adapter-identifier"  # the latter names another model
SESSION = "requestType"  # a field of SageMaker's: the body opens or closes a session, and may hold no other
# Other routes of vLLM that ask its engine, which take no budget from us and a priority by field.
QUEUED_BY_FIELD = (
    *(SAGEMAKER, "/v1/chat/completions/batch", "/inference/v1/generate", "/cohere/v2/chat"),
    *("/v1/systemone", "/generative_scoring"),
)
PRIORITY_HEADER = "x-vllm-priority"

MAX_CHARACTERS = 32_768  # of a question: predictors read it in the server's event loop, which waits for them
NO_THOUGHT, BEAMS = "the prompt opens no thought", "beam search keeps no thinking budget"
TOOLS, SHAPED = "tools", "structured output"
FORMED = (TOOLS, SHAPED)  # why there is no curve, where the answer is no plain text either
MOST_THOUGHTS = 1 << 16  # of one request; no server takes more
MOST_NUMBER = 1 << 53  # of a cap or a limit, the same
COMPLETION_LIMIT = ("vllm", "openai")  # kinds where `max_completion_tokens` goes before `max_tokens`
OTHER_LIMITS = {"llama.cpp": ("n_predict",)}  # fields that go before the usual ones
OTHER_NUMBERS = {"llama.cpp": ("n_cmpl",)}  # fields that ask for several answers, beside `n`
# Fields of a body that shape the answer's form: no curve was measured under them.
SHAPING = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """A request, as far as its budget goes.

    Attributes:
        path: CHAT, TEXT, RESPONSES or MESSAGES.
        question: the last user turn without the template's instruction, or the text prompt.
        no_curve: why the predictor has no curve for it, "" where it has.
        is_templates: the turns are the predictor's prompt template's, to the letter.
        own_cap: the client's own thinking budget.
        own_option: column of the option that the client chose itself, by its fields; -1: by fields that are none of the
            menu's; None where it chose none.
        own_room: the client's own limit on all that is generated.
        num_thoughts: thoughts that it asks for.
        has_priority: the client set one.
        untouched: why nothing can be set, "" where it can.
        room_fields: the fields that limit all that is generated.
        model: that it names.
        is_stream: the client wants a stream.
        knows_start: it is known what opens a thought.
    """

    path: str
    question: str = ""
    no_curve: str = ""
    is_templates: bool = False
    own_cap: int | None = None
    own_option: int | None = None
    own_room: int | None = None
    num_thoughts: int = 1
    has_priority: bool = False
    untouched: str = ""
    room_fields: tuple[str, ...] = ("max_completion_tokens",)
    model: str | None = None
    is_stream: bool = False
    knows_start: bool = False

    @property
    def opens_no_thought(self) -> bool:
        """Whether it is known that nothing is thought."""
        return self.untouched == NO_THOUGHT and self.knows_start

    @property
    def untouched_by_cap(self) -> bool:
        """Whether no cap has an effect on it, wherever it stands."""
        return self.untouched == BEAMS


def asked_as(path: str, body: Mapping[str, Any] | None, headers: Collection[str]) -> str:
    """The route whose request this is: SageMaker's one route takes those of two others.

    Args:
        path: that was asked.
        body: of the request; None where it is no object.
        headers: names of its headers, in lower case.
    """
    if path != SAGEMAKER or body is None or ADAPTER in headers:
        return path
    return CHAT if isinstance(body.get("messages"), list) else TEXT if "prompt" in body else path


def read(
    path: str,
    body: Mapping[str, Any],
    *,
    kind: ServerKind,
    template: PromptTemplate | None,
    models: Collection[str],
    start: str | None,
    headers: Collection[str] = (),
    menu: Menu | None = None,
) -> BudgetRequest | None:
    """What `body` asks; None where it is no request that the server would take, which it then says itself.

    Args:
        path: CHAT, TEXT, RESPONSES or MESSAGES.
        body: of the request.
        kind: of the server: how a body names the cap on thinking.
        template: the predictor's, None where it is not known.
        models: names of the model that the predictor is for; others, such as adapters, have other curves.
        start: the text that opens a thought; a text prompt without it has none to be cut. None where it is not known.
        headers: names of the request's headers, in lower case.
        menu: the predictor's options; None for caps.
    """
    own_cap = kind.cap_in(body) if path != RESPONSES else None
    own_room, room_fields = _room(path, body, kind)
    model, thoughts = body.get("model"), [body.get(name) for name in ("n", *OTHER_NUMBERS.get(kind.name, ()))]
    thoughts.append(body.get("best_of") if path == TEXT else None)
    if not (_is_whole(own_cap) and _is_whole(own_room) and all(map(_is_whole, thoughts))):
        return None
    if not (model is None or isinstance(model, str)) or any(number is not None and number < 1 for number in thoughts):
        return None
    found, num_thoughts = _asked(path, body, template, start), _num_thoughts(path, body, thoughts)
    if found is None or num_thoughts > MOST_THOUGHTS:
        return None
    question, no_curve, is_templates, untouched = found
    if body.get("use_beam_search"):
        untouched = BEAMS
    if models and model is not None and model not in models:
        no_curve = "another model than the predictor's"
    if _is_shaped(body):
        no_curve = no_curve or SHAPED
    if len(question) > MAX_CHARACTERS:
        no_curve = no_curve or f"a question of more than {MAX_CHARACTERS:,} characters"
    return BudgetRequest(
        path=path,
        question=question,
        no_curve=no_curve,
        is_templates=is_templates,
        own_cap=own_cap,
        own_option=own_option(path, body, kind, menu),
        own_room=own_room,
        num_thoughts=num_thoughts,
        has_priority=body.get("priority") is not None or PRIORITY_HEADER in headers,
        untouched=untouched,
        room_fields=room_fields,
        model=model,
        is_stream=body.get("stream") is True,
        knows_start=start is not None,
    )


def _num_thoughts(path: str, body: Mapping[str, Any], thoughts: list[int | None]) -> int:
    prompts = body.get("prompt") if path == TEXT else None
    several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    if path == TEXT and isinstance(embedded := body.get("prompt_embeds"), list):  # vLLM answers each of these too
        several += len(embedded)
    return several * max(number or 1 for number in thoughts)


def _room(path: str, body: Mapping[str, Any], kind: ServerKind) -> tuple[Any, tuple[str, ...]]:
    """`(the client's own limit on all that is generated, the fields to set)`; None for no limit, as -1 is to some."""
    if path == RESPONSES:
        known: tuple[str, ...] = ("max_output_tokens",)
    elif path == CHAT:
        known = ("max_completion_tokens", "max_tokens")
    else:
        known = ("max_tokens",)
    known += OTHER_LIMITS.get(kind.name, ())
    names = tuple(name for name in known if body.get(name) is not None)
    if not all(_is_whole(body[name]) for name in names):
        return "", names
    if path == CHAT and kind.name in COMPLETION_LIMIT:
        own, fields = body[names[0]] if names else None, known[:1]
    else:
        own = min((body[name] for name in names if body[name] >= 0), default=None)
        usual = (kind.length,) if path == CHAT else known[:1]
        fields = names or usual
        if names == ("max_completion_tokens",) and kind.name in OTHER_LIMITS:  # older ones do not know that name
            fields += usual
    return own if own is None or own >= 0 else None, fields


def _is_shaped(body: Mapping[str, Any]) -> bool:
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else body.get("response_format")
    return (isinstance(form, dict) and form.get("type") != "text") or any(body.get(name) for name in SHAPING)


def _is_whole(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER)


def _asked(
    path: str, body: Mapping[str, Any], template: PromptTemplate | None, start: str | None
) -> tuple[str, str, bool, str] | None:
    """`(question, no_curve, is_templates, untouched)`; None where the server would refuse it."""
    if path == TEXT:
        return _text(body, start)
    if path == RESPONSES:
        given = body.get("input")
        turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if body.get("previous_response_id") or body.get("conversation"):
            return "", "earlier turns", False, ""
        return _chat({"messages": turns, "tools": body.get("tools")}, template, system=body.get("instructions"))
    return _chat(body, template, system=body.get("system") if path == MESSAGES else None)


def _chat(
    body: Mapping[str, Any], template: PromptTemplate | None, system: object = None
) -> tuple[str, str, bool, str] | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(turn, dict) for turn in messages):
        return None
    if body.get("tools") or body.get("functions"):
        return "", TOOLS, False, ""
    turns = [(turn.get("role"), _plain(turn.get("content"))) for turn in messages]
    if any(text is None for _, text in turns):
        return "", "not text alone", False, ""
    role, last = turns[-1]
    if role != "user" or body.get("continue_final_message"):
        return "", "no question at the end", False, ""
    question = last or ""
    if template is not None:
        if template.instruction:
            question = question.removesuffix(f"\n{template.instruction}")
        told = [("system", str(system)), *turns] if system else turns
        if len(told) == template.num_turns:
            given = [(turn.role, turn.content) for turn in template.messages(Query("", question))]
            if given == told:
                return question, "", True, ""
    if any(role not in ("system", "developer", "user") for role, _ in turns) or sum(r == "user" for r, _ in turns) > 1:
        return question, "earlier turns", False, ""
    return question, "", False, ""


def _text(body: Mapping[str, Any], start: str | None) -> tuple[str, str, bool, str] | None:
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        return "", "", False, "only a single text prompt gets a budget"
    if start is None or start not in prompt:
        return "", "", False, NO_THOUGHT
    return prompt, "", False, ""


def _plain(content: object) -> str | None:
    """A turn's text; None where it holds anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    kinds = ("text", "input_text")
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") in kinds else None for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else None
