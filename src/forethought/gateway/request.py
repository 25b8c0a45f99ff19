"""What a request asks, as far as budgets go: the question, what the client fixed itself, and why no curve is for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.data import Query
from ..core.prompts import PromptTemplate
from ..servers.kinds import ServerKind

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PATHS = (CHAT, TEXT)
QUEUED = ("/v1/responses", "/v1/messages")  # vLLM takes no budget from us there, and a priority by header
PRIORITY_HEADER = "x-vllm-priority"

MAX_CHARACTERS = 32_768  # of a question: predictors read it in the server's event loop, which waits for them
# Fields of a body that shape the answer's form: no curve was measured under them.
SHAPING = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """A request, as far as its budget goes.

    Attributes:
        path: CHAT or TEXT.
        question: the last user turn without the template's instruction, or the text prompt.
        no_curve: why the predictor has no curve for it, "" where it has.
        is_templates: the turns are the predictor's prompt template's, to the letter.
        own_cap: the client's own thinking budget.
        own_room: the client's own limit on all that is generated.
        num_thoughts: thoughts that it asks for.
        has_priority: the client set one.
        untouched: why nothing can be set, "" where it can.
    """

    path: str
    question: str = ""
    no_curve: str = ""
    is_templates: bool = False
    own_cap: int | None = None
    own_room: int | None = None
    num_thoughts: int = 1
    has_priority: bool = False
    untouched: str = ""

    @property
    def room_field(self) -> str:
        """The field that limits all that is generated."""
        return "max_completion_tokens" if self.path == CHAT else "max_tokens"


def read(
    path: str,
    body: Mapping[str, Any],
    *,
    kind: ServerKind,
    template: PromptTemplate | None,
    models: Collection[str],
    start: str,
    headers: Collection[str] = (),
) -> BudgetRequest | None:
    """What `body` asks; None where it is no request that vLLM would take, which it then says itself.

    Args:
        path: CHAT or TEXT.
        body: of the request.
        kind: of the server: how a body names the cap on thinking.
        template: the predictor's, None where it is not known.
        models: names of the model that the predictor is for; others, such as adapters, have other curves.
        start: the text that opens a thought; a text prompt without it has none to be cut.
        headers: names of the request's headers, in lower case.
    """
    own_cap, own_room = body.get(kind.cap), body.get("max_completion_tokens")
    own_room = body.get("max_tokens") if own_room is None or path == TEXT else own_room
    model, num_thoughts = body.get("model"), body.get("n")
    if not (_is_whole(own_cap) and _is_whole(own_room) and _is_whole(num_thoughts)):
        return None
    if not (model is None or isinstance(model, str)) or (num_thoughts is not None and num_thoughts < 1):
        return None
    found = _chat(body, template) if path == CHAT else _text(body, start)
    if found is None:
        return None
    question, no_curve, is_templates, untouched = found
    if body.get("use_beam_search"):
        untouched = "beam search keeps no thinking budget"
    if models and model is not None and model not in models:
        no_curve = "another model than the predictor's"
    if _is_shaped(body):
        no_curve = no_curve or "structured output"
    if len(question) > MAX_CHARACTERS:
        no_curve = no_curve or f"a question of more than {MAX_CHARACTERS:,} characters"
    return BudgetRequest(
        path=path,
        question=question,
        no_curve=no_curve,
        is_templates=is_templates,
        own_cap=own_cap,
        own_room=own_room,
        num_thoughts=num_thoughts or 1,
        has_priority=body.get("priority") is not None or PRIORITY_HEADER in headers,
        untouched=untouched,
    )


def _is_shaped(body: Mapping[str, Any]) -> bool:
    form = body.get("response_format")
    return (isinstance(form, dict) and form.get("type") != "text") or any(body.get(name) for name in SHAPING)


def _is_whole(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _chat(body: Mapping[str, Any], template: PromptTemplate | None) -> tuple[str, str, bool, str] | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(turn, dict) for turn in messages):
        return None
    if body.get("tools") or body.get("functions"):
        return "", "tools", False, ""
    turns = [(str(turn.get("role")), _plain(turn.get("content"))) for turn in messages]
    if any(text is None for _, text in turns):
        return "", "not text alone", False, ""
    role, last = turns[-1]
    if role != "user" or body.get("continue_final_message"):
        return "", "no question at the end", False, ""
    question = last or ""
    if template is not None:
        if template.instruction:
            question = question.removesuffix(f"\n{template.instruction}")
        if [(turn.role, turn.content) for turn in template.messages(Query("", question))] == turns:
            return question, "", True, ""
    if any(role not in ("system", "developer", "user") for role, _ in turns) or sum(r == "user" for r, _ in turns) > 1:
        return question, "earlier turns", False, ""
    return question, "", False, ""


def _text(body: Mapping[str, Any], start: str) -> tuple[str, str, bool, str] | None:
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        return "", "", False, "only a single text prompt gets a budget"
    if start not in prompt:
        return "", "", False, "the prompt opens no thought"
    return prompt, "", False, ""


def _plain(content: object) -> str | None:
    """A turn's text; None where it holds anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else None
