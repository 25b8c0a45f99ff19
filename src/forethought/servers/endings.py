"""Why a server stopped, in its own words, and which of the two reasons of an answer that is.

Servers say it in the words of OpenAI, Anthropic, Gemini, Cohere, Mistral, Hugging Face, and at times not at all.
"""

from __future__ import annotations

import re
from typing import Any

from .client import RequestError

STOPPED = re.compile(
    r"stop|eos|eos_token|eos_found|end_turn|end_of_turn|end_of_text|stop_sequence|stop_token|stop_str|stop_word|"
    r"complete|completed|done|end|finish|finished|word"
)
CUT = re.compile(
    r"length|max_tokens|max_length|max_new_tokens|max_output_tokens|max_completion_tokens|model_length|"
    r"model_context_window_exceeded|token_limit|limit|truncated|incomplete"
)
FILTERED = re.compile(
    r"content_filter|content_filtered|safety|recitation|blocklist|prohibited_content|spii|refusal|sensitive|"
    r"guardrail"
)


def is_cut(reason: Any, *, tokens: int = 0) -> bool:
    """Whether an answer that ended for `reason` ran into its bound on tokens. No reason given is no such bound.

    Args:
        reason: the `finish_reason` as it came.
        tokens: generated so far, which are lost with the answer.

    Raises:
        RequestError: it ended for another reason than that it was complete or too long.
    """
    if reason in (None, "", "stop", "length"):
        return bool(reason == "length")
    name = re.sub(r"[\s-]+", "_", str(reason)[:100].strip().lower().rpartition(".")[2]).removeprefix("finish_reason_")
    if STOPPED.fullmatch(name):
        return False
    if CUT.fullmatch(name):
        return True
    by = " (a filter of its own)" if FILTERED.fullmatch(name) else ""
    raise RequestError.after(f"the server ended the request with {str(reason)[:60]!r}{by}", tokens)
