"""Kinds of servers: their field for the cap on thinking, and their other features. One row per kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Fields = Mapping[str, Any]


def _fields(**values: Any) -> Fields:
    return MappingProxyType(values)


# What makes sampling plain where a server would otherwise apply the model's own or its own defaults.
PLAIN_VLLM = _fields(top_k=-1, min_p=0.0, repetition_penalty=1.0)
# llama.cpp cuts the nucleus before it applies the temperature; in-process engines and vLLM after. Others are left out.
PLAIN_LLAMA = _fields(samplers=["temperature", "top_p"], mirostat=0, dynatemp_range=0.0)
CONTINUED = _fields(continue_final_message=True, add_generation_prompt=False)


@dataclass(frozen=True, slots=True)
class TokenNames:
    """What a server calls things where completions take and give token ids.

    Attributes:
        keeps_stop: field of a body that leaves the stop text in the answer.
        stopped_by: of a choice: the stop text it ran into.
        text: of the answer of `/detokenize`.
        verbatim: what has `/detokenize` leave special tokens in.
    """

    keeps_stop: str
    stopped_by: str
    text: str
    verbatim: Fields = field(default_factory=_fields)


VLLM_NAMES = TokenNames("include_stop_str_in_output", "stop_reason", "prompt")
SGLANG_NAMES = TokenNames("no_stop_trim", "matched_stop", "text", _fields(skip_special_tokens=False))


@dataclass(frozen=True, slots=True)
class BatchForm:
    """How a kind of server takes many requests in a file, one per line.

    Attributes:
        field: of a line: what holds the request. "body" is OpenAI's form, beside method and url; "params" Anthropic's
            own messages.
        most_lines: requests that one file may hold.
        most_bytes: that one file may have.
    """

    field: str
    most_lines: int
    most_bytes: int


# As the makers' own pages said in autumn 2026. What takes OpenAI's form is held to OpenAI's limits.
OPENAI_BATCH = BatchForm("body", 50_000, 200_000_000)
ANTHROPIC_BATCH = BatchForm("params", 100_000, 256_000_000)


@dataclass(frozen=True, slots=True)
class ServerKind:
    """One kind of server.

    Attributes:
        name: what `--engine-option server=NAME` calls it.
        cap: path in the request's body of the native thinking cap, dots between the levels; "" for none.
        aliases: other fields of the body's root that carry the same cap, for other versions.
        beside: what must stand beside the cap.
        least: smallest cap the server takes.
        ids: how it takes and gives token ids: in the manner of "vllm", of "llama.cpp", or "" for not at all.
        names: its own names in vLLM's manner.
        continues: what makes a chat go on with its last, unfinished assistant turn; None where it cannot.
        whole: what makes a chat give thought and answer in one text, as one turn to go on with.
        sampling: fields that switch the server's own sampling defaults off.
        length: what it calls the bound on all tokens of an answer.
        effort: what it calls the effort level; "" for none. A server that hands it to its chat template (vLLM, SGLang,
            llama.cpp) takes it whether or not the template heeds it.
        implied: sampling that it documents as its default and refuses to be told with some models, so it is not said.
        caches_by_slot: whether its prefix cache is the last text of each slot: calls that share a beginning then go one
            after the other.
        has_priority: whether a body's `priority` orders its queue (vLLM: started with --scheduling-policy priority).
        needs: what the server must be started with for its native cap, for messages.
        ignores_cap: whether it takes its cap and, started without `needs`, does nothing of it, without a word.
        counts_closing: whether the reasoning tokens that it reports hold the tag that closes the thought.
        seeding: what it must be started with to heed a request's seed, for messages; "" where it always does.
        streams_usage: whether a stream may ask for its usage (`stream_options.include_usage`).
        lists_all: whether it lists every name that it takes; others take more ("qwen3" for "qwen3:latest", suffixes).
        shows_logprobs: whether its chats may show log-probabilities; with some models they do not all the same.
        batch: how it takes many requests in a file; None where it does not.
    """

    name: str
    cap: str = ""
    aliases: tuple[str, ...] = ()
    beside: Fields = field(default_factory=_fields)
    least: int = 0
    ids: str = ""
    names: TokenNames = VLLM_NAMES
    continues: Fields | None = None
    whole: Fields = field(default_factory=_fields)
    sampling: Fields = field(default_factory=_fields)
    length: str = "max_tokens"
    effort: str = "reasoning_effort"
    implied: Fields = field(default_factory=_fields)
    caches_by_slot: bool = False
    has_priority: bool = False
    needs: str = ""
    ignores_cap: bool = False
    counts_closing: bool = False
    seeding: str = ""
    streams_usage: bool = True
    lists_all: bool = False
    shows_logprobs: bool = True
    batch: BatchForm | None = None

    def native(self, budget: int) -> dict[str, Any]:
        """The fields that cap thinking at `budget` tokens."""
        return _nested(self.cap, budget, self.beside) | dict.fromkeys(self.aliases, budget)

    def cap_in(self, body: Mapping[str, Any]) -> Any:
        """The cap in a request's body, of any type; None if there is none."""
        found: Any = body if self.cap else None
        for name in self.cap.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return next((body[name] for name in self.aliases if name in body), None) if found is None else found


def merged(body: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body with further fields: they replace fields of the same name, and tables are merged."""
    found = dict(body)
    for name, value in fields.items():
        held = found.get(name)
        found[name] = merged(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return found


def _nested(path: str, value: Any, beside: Fields) -> dict[str, Any]:
    """`value` at the end of a dotted path; `beside` stands next to it."""
    *parents, last = path.split(".")
    found: dict[str, Any] = {last: value, **beside}
    for name in reversed(parents):
        found = {name: found}
    return found


KINDS = {
    kind.name: kind
    for kind in (
        ServerKind(
            "vllm",
            cap="thinking_token_budget",
            ids="vllm",
            continues=CONTINUED,
            sampling=PLAIN_VLLM,
            has_priority=True,
            needs="--reasoning-parser or --reasoning-config",
            lists_all=True,
            batch=OPENAI_BATCH,
        ),
        ServerKind(
            "sglang",
            cap="custom_params.thinking_budget",
            ids="vllm",
            names=SGLANG_NAMES,
            continues=CONTINUED,
            whole=_fields(separate_reasoning=False),
            sampling=PLAIN_VLLM,
            needs="--reasoning-parser NAME --enable-strict-thinking, or a custom logit processor",
            ignores_cap=True,
            counts_closing=True,  # seen with 0.5.23
            seeding="--enable-deterministic-inference",
            lists_all=True,
        ),
        ServerKind(
            "llama.cpp",
            cap="reasoning_budget_tokens",
            aliases=("thinking_budget_tokens",),
            ids="llama.cpp",
            continues=_fields(),  # it goes on with a last assistant turn by itself
            whole=_fields(reasoning_format="none"),
            sampling=PLAIN_LLAMA,
            caches_by_slot=True,
            needs="a chat template whose thinking tags are tokens of the model, or name tags by native_fields",
            ignores_cap=True,
            lists_all=True,
        ),
        ServerKind("tensorrt-llm", cap="thinking_token_budget", needs="its thinking-budget logits processor"),
        ServerKind("dynamo", cap="nvext.max_thinking_tokens"),
        ServerKind(
            "litellm",
            cap="thinking.budget_tokens",
            beside=_fields(type="enabled"),
            least=1024,
            batch=OPENAI_BATCH,
        ),
        ServerKind(
            "anthropic",
            cap="thinking.budget_tokens",
            beside=_fields(type="enabled"),
            least=1024,
            effort="",
            streams_usage=False,
            shows_logprobs=False,
            batch=ANTHROPIC_BATCH,
        ),
        ServerKind(
            "gemini",
            cap="extra_body.google.thinking_config.thinking_budget",
            beside=_fields(include_thoughts=True),
            batch=OPENAI_BATCH,
        ),
        ServerKind(
            "openai",
            length="max_completion_tokens",
            implied=_fields(temperature=1.0, top_p=1.0),
            batch=OPENAI_BATCH,
        ),
        ServerKind("other", streams_usage=False, batch=OPENAI_BATCH),
    )
}
