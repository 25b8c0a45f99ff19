"""A server with a toy model behind vLLM's and llama.cpp's routes: well behaved, deterministic, quick.

The model speaks one letter a token. Its next token follows from the last few tokens, from the seed where it draws, and
from nothing else; so a cut of a trace is its prefix, as with a real model. One letter is of two tokens, as the letters
outside ASCII of real models are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from loopback import Asked, Reply

END, TURN = "<end>", "<turn>"
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz +-=\n?.:#{}ABC"
SPLIT = "é"  # two tokens, each of which alone shows as a replacement character
PIECES: list[bytes] = [
    END.encode(),
    TURN.encode(),
    *(letter.encode() for letter in LETTERS),
    *(bytes([byte]) for byte in SPLIT.encode()),
]
IDS = {piece: number for number, piece in enumerate(PIECES)}
DRAWN = "0123456789abc +=\n#{}"
ROLES = ("system", "user", "assistant")


def shown_token(token: int) -> dict[str, Any]:
    """A token as log-probabilities show it: each less likely the larger its number."""
    return {"token": decode([token]), "bytes": list(PIECES[token]), "logprob": -token / 100}


def encode(text: str) -> list[int]:
    ids: list[int] = []
    rest = text.encode()
    while rest:
        tag = next((tag for tag in (END.encode(), TURN.encode()) if rest.startswith(tag)), None)
        piece = tag or rest[:1]
        ids.append(IDS.get(piece, IDS[b"?"]))
        rest = rest[len(piece) :]
    return ids


def decode(ids: list[int], *, special: bool = True) -> str:
    return b"".join(PIECES[token] for token in ids if special or token > 1).decode("utf-8", "replace")


def render(messages: list[dict[str, str]], *, continued: bool = False) -> str:
    if any(message["role"] not in ROLES for message in messages):
        raise ValueError("no such role")
    text = "".join(f"{TURN}{message['role'][0]}:{message['content']}{END}" for message in messages)
    return text.removesuffix(END) if continued else f"{text}{TURN}a:"


def next_token(context: list[int], seed: int | None) -> int:
    """The likeliest next token (no seed), or a drawn one."""
    digest = hashlib.blake2b(repr((context[-12:], len(context), seed)).encode(), digest_size=8).digest()
    if digest[0] < 10:
        return IDS[END.encode()]
    if digest[1] < 12 and PIECES[context[-1]] != SPLIT.encode()[:1]:
        return IDS[SPLIT.encode()[:1]]
    if PIECES[context[-1]] == SPLIT.encode()[:1]:
        return IDS[SPLIT.encode()[1:]]
    if PIECES[context[-1]] == b"#" and digest[2] < 128:
        return IDS[b"#"]
    return IDS[DRAWN[digest[3] % len(DRAWN)].encode()]


OWNERS = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llamacpp"}
KEEPS_STOP = {"vllm": "include_stop_str_in_output", "sglang": "no_stop_trim"}
STOPPED_BY = {"vllm": "stop_reason", "sglang": "matched_stop"}


@dataclass
class ToyServer:
    """Handles requests as a server of `kind` would.

    Attributes:
        kind: "vllm", "sglang", "llama.cpp" or "other" (chat alone).
        model: the name that it serves.
        context_tokens: longest prompt + answer.
        keeps_cap: whether its native thinking cap is kept.
        parses: whether a chat comes as thought, but where the request asks for one text as llama.cpp is asked.
        behind: what a LiteLLM proxy in front of it says that it passes on to; "" for no proxy.
        shows_logprobs: whether chats come with log-probabilities where asked for.
        asked: paths of the requests so far.
    """

    kind: str = "vllm"
    model: str = "toy"
    context_tokens: int = 256
    keeps_cap: bool = True
    parses: bool = False
    behind: str = ""
    shows_logprobs: bool = True
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked.path)
        routes = {
            "/v1/models": self._models,
            "/v1/chat/completions": self._chat,
        }
        if self.behind:
            model = {"model_name": self.model, "litellm_params": {"model": f"{self.behind}/{self.model}"}}
            routes["/v1/model/info"] = lambda _: {"data": [model]}
        if self.kind == "vllm" and not self.behind:
            routes |= {
                "/version": lambda _: {"version": "0.toy"},
                "/tokenize": self._tokenize,
                "/detokenize": lambda body: {"prompt": decode(body["tokens"])},
                "/v1/completions": self._completions,
            }
        if self.kind == "sglang":
            routes |= {
                "/server_info": lambda _: {"version": "0.toy", "api_key": "hidden"},
                "/tokenize": self._tokenize,
                "/detokenize": lambda body: {
                    "text": decode(body["tokens"], special=not body.get("skip_special_tokens", True))
                },
                "/v1/completions": self._completions,
            }
        if self.kind == "llama.cpp":
            routes |= {
                "/props": self._props,
                "/tokenize": lambda body: {"tokens": encode(body["content"])},
                "/detokenize": lambda body: {"content": decode(body["tokens"])},
                "/apply-template": lambda body: {"prompt": render(body["messages"])},
                "/completion": self._llama,
                "/v1/completions": self._completions,
            }
        if asked.path not in routes:
            return Reply({"error": {"message": "no such route"}}, status=404)
        body = asked.json
        self.bodies.append(body)
        try:
            return Reply(routes[asked.path](body))
        except ValueError as error:
            return Reply({"error": {"message": str(error), "type": "BadRequestError"}}, status=400)

    def _props(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"build_info": "btoy", "default_generation_settings": {"n_ctx": self.context_tokens}}

    def _models(self, _: dict[str, Any]) -> dict[str, Any]:
        owner = "openai" if self.behind else OWNERS.get(self.kind, "someone")
        length = {"max_model_len": self.context_tokens} if self.kind in ("vllm", "sglang") else {}
        return {"object": "list", "data": [{"id": self.model, "owned_by": owner, **length}]}

    def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        text = render(body["messages"]) if "messages" in body else body["prompt"]
        return {"tokens": encode(text), "count": len(encode(text)), "max_model_len": self.context_tokens}

    def _draw(self, prompt: list[int], most: int, body: dict[str, Any]) -> tuple[list[int], str | None, bool]:
        """`(new ids, the stop text run into, whether cut)`."""
        if len(prompt) + most > self.context_tokens:
            raise ValueError(f"the model's context length is {self.context_tokens}")
        seed = body.get("seed") if body.get("temperature", 1.0) > 0 else None
        context, new = list(prompt), []
        for _ in range(most):
            token = next_token(context, seed)
            context.append(token)
            new.append(token)
            if PIECES[token] == END.encode():
                return new, None, False
            text = decode(new, special=False)
            stop = next((stop for stop in body.get("stop") or [] if stop in text), None)
            if stop is not None:
                return new, stop, False
        return new, None, True

    @staticmethod
    def _usage(prompt: list[int], new: list[int]) -> dict[str, Any]:
        return {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(new),
            "total_tokens": len(prompt) + len(new),
            "prompt_tokens_details": {"cached_tokens": len(prompt) // 16 * 16},
        }

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"] if isinstance(body["prompt"], list) else encode(body["prompt"])
        new, stop, is_cut = self._draw(prompt, body["max_tokens"], body)
        text = decode(new, special=False)
        if stop is not None and not body.get(KEEPS_STOP.get(self.kind, "")):
            text = text[: text.index(stop)]
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": "length" if is_cut else "stop"}
        if self.kind in STOPPED_BY:
            choice |= {STOPPED_BY[self.kind]: stop, "token_ids": new if body.get("return_token_ids") else None}
        if body.get("logprobs") and self.kind == "llama.cpp":
            choice["logprobs"] = {"content": [shown_token(token) for token in new]}
        elif body.get("logprobs"):
            shown = {"tokens": [decode([token]) for token in new], "token_logprobs": [-token / 100 for token in new]}
            choice["logprobs"] = shown
        return {"id": "c", "object": "text_completion", "choices": [choice], "usage": self._usage(prompt, new)}

    def _llama(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"] if isinstance(body["prompt"], list) else encode(body["prompt"])
        new, stop, is_cut = self._draw(prompt, body["n_predict"], body)
        text = decode(new, special=False)
        return {
            "content": text[: text.index(stop)] if stop is not None else text,
            "tokens": new if body.get("return_tokens") else [],
            "stop_type": "word" if stop is not None else "limit" if is_cut else "eos",
            "stopping_word": stop or "",
            "tokens_predicted": len(new),
            "tokens_evaluated": len(prompt),
            **({"completion_probabilities": [shown_token(token) for token in new]} if body.get("n_probs") else {}),
            "timings": {"cache_n": len(prompt) // 2},
        }

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        continued = messages[-1]["role"] == "assistant" and (
            self.kind == "llama.cpp" or bool(body.get("continue_final_message"))
        )
        prompt = encode(render(messages, continued=continued))
        cap = body.get("thinking_token_budget", body.get("reasoning_budget_tokens"))
        cap = (body.get("custom_params") or {}).get("thinking_budget", cap)
        if cap is not None and self.keeps_cap:
            return self._capped(prompt, cap, body)
        room = max(1, self.context_tokens - len(prompt))  # without a bound it goes on to the end of its context
        bound = body.get("max_tokens") or body.get("max_completion_tokens", room)
        new, stop, is_cut = self._draw(prompt, bound, body)
        text = decode(new, special=False)
        text = text[: text.index(stop)] if stop is not None else text
        if continued and self.kind == "llama.cpp":
            text = messages[-1]["content"] + text  # it repeats the begun turn
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", **self._told_apart(text, body)},
            "finish_reason": "length" if is_cut else "stop",
        }
        if body.get("return_token_ids"):
            choice["response_token_ids" if self.kind == "sglang" else "token_ids"] = new
        if self.kind in STOPPED_BY:
            choice[STOPPED_BY[self.kind]] = stop
        if body.get("logprobs") and self.shows_logprobs:
            choice["logprobs"] = {"content": [shown_token(token) for token in new]}
        return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": self._usage(prompt, new)}

    def _told_apart(self, text: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.parses and not (self.kind == "llama.cpp" and body.get("reasoning_format") == "none"):
            return {"reasoning_content": text, "content": None}
        return {"content": text}

    def _capped(self, prompt: list[int], cap: int, body: dict[str, Any]) -> dict[str, Any]:
        """A thought of at most `cap` tokens in a field of its own, then an answer."""
        new, _, is_cut = self._draw(prompt, cap, body | {"stop": []}) if cap else ([], None, True)
        thought = new if is_cut else new[:-1]
        answer = encode("the answer is ##{12}")
        usage = self._usage(prompt, thought + answer)
        closing = len(encode("</think>")) if self.kind == "sglang" else 0  # which counts it in
        usage["completion_tokens_details"] = {"reasoning_tokens": len(thought) + closing}
        message = {"role": "assistant", "reasoning_content": decode(thought), "content": decode(answer)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs") and self.shows_logprobs:  # of all that was generated, tags and end of turn included
            tag = encode(END)
            choice["logprobs"] = {"content": [shown_token(token) for token in [*thought, *tag, *answer, *tag]]}
        return {"choices": [choice], "usage": usage}
