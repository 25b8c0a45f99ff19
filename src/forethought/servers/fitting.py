"""Bodies made to fit a server that refuses fields it does not know: optional ones are left out, budgets never."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

# Nothing here bounds an answer. What switches a server's own sampling off is of no use where it knows no such thing.
OPTIONAL = re.compile(
    r"seed|stream_options|continuous_usage_stats|priority|top_k|min_p|repetition_penalty|samplers|mirostat|"
    r"dynatemp_range|logprobs|return_token_ids|cache_prompt"
)
HARMLESS = {"temperature": 1.0, "top_p": 1.0}  # left out only where they say what holds anyway
RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
TALK = frozenset(("model", "messages", "prompt", "stream"))  # words that any refusal may use
REFUSING = re.compile(
    r"extra|unknown|unrecogni[sz]ed|unsupported|not supported|not permitted|unexpected|not allowed|additional|"
    r"does not support|no such|not a valid|invalid (?:field|param|argument|key)",
    re.IGNORECASE,
)
UNNAMED = re.compile(r"(?:extra|unknown|unrecogni[sz]ed|unexpected|additional)\W+(?:\w+\W+){0,3}?", re.IGNORECASE)


class Fitting:
    """What one server's bodies leave out, learnt from what it refuses; shared by all that talk to it."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self.renamed: set[str] = set()

    def fit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`body` as this server takes it."""
        found = {}
        for name, value in body.items():
            if name in self.left_out and (name not in HARMLESS or value == HARMLESS[name]):
                continue
            if isinstance(value, dict) and name == "stream_options":
                value = {inner: each for inner, each in value.items() if inner not in self.left_out}
                if not value:
                    continue
            found[RENAMED[name] if name in self.renamed else name] = value
        return found

    def learn(self, sent: Mapping[str, Any], refusal: str) -> bool:
        """Notes what `refusal`, the body of an error 400 or 422, says of the body that was `sent`.

        Returns:
            Whether there is something to leave out or to call otherwise, so that trying again makes sense.
        """
        if not REFUSING.search(refusal):
            return False
        within = sent.get("stream_options")
        droppable = {name for name in sent if OPTIONAL.fullmatch(name) or sent[name] == HARMLESS.get(name)}
        nested = {name for name in within if OPTIONAL.fullmatch(name)} if isinstance(within, Mapping) else set()
        named = {name for name in {*sent, *nested} if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", refusal)}
        renamed = {name for name in named if name in RENAMED and RENAMED[name] not in self.renamed}
        drop = named & nested or named & droppable
        if not drop and not renamed and not named - TALK and UNNAMED.search(refusal):
            drop = droppable  # it does not say which: all that can be missed
        if not drop and not renamed:
            return False
        new = (drop - self.left_out) | (renamed - self.renamed)
        self.left_out |= drop
        self.renamed |= renamed
        if new:
            again = "; without a seed no trace can be drawn again" if "seed" in new else ""
            logger.warning("the server refuses %s: it is asked without from now on%s", ", ".join(sorted(new)), again)
        return True
