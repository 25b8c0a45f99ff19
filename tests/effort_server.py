"""A server that offers effort levels and nothing else, for the pages of the documents: its thoughts are numbers alone.

How long a thought is and whether its answer is right follow from the question, the level and the sample's seed. Short
questions are answered at any level, most need `medium` or `high`, and long ones are answered by luck.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from loopback import Asked, Reply

NUM_ANSWER = 5  # tokens of an answer
LEVELS = {"low": 60, "medium": 300, "high": 1200}  # tokens of a thought, about
CHANCES = {"easy": (0.95, 0.97, 0.98), "medium": (0.2, 0.8, 0.9), "hard": (0.02, 0.05, 0.3)}


def _answers() -> dict[str, str]:
    lines = (resources.files("forethought") / "data" / "gsm8k-demo.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["question"].strip(): str(row["answer"]).rpartition("####")[2].strip() for row in rows}


@dataclass
class EffortServer:
    """Chat alone: the answers of the shipped questions, more often right the more effort is asked for.

    Attributes:
        model: the name that it serves.
        levels: the efforts that it heeds, and about how many tokens a thought is under each.
        answers: question -> its answer.
        shows_logprobs: whether it shows log-probabilities, those of the message alone: most wrong answers are unlikely.
    """

    model: str = "toy"
    levels: dict[str, int] = field(default_factory=LEVELS.copy)
    answers: dict[str, str] = field(default_factory=_answers)
    shows_logprobs: bool = False

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return Reply({"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "toy"}]})
        if not asked.path.endswith("/chat/completions"):
            return Reply({"error": {"message": "no such route"}}, status=404)
        body = asked.json
        level = body.get("reasoning_effort", "high")
        if level not in self.levels:
            words = f"reasoning_effort must be one of {', '.join(self.levels)}"
            return Reply({"error": {"message": words}}, status=400)
        text = body["messages"][-1]["content"]
        question = next((each for each in self.answers if each in text), "")
        digest = hashlib.blake2b(f"{question}:{level}:{body.get('seed')}".encode(), digest_size=8).digest()
        kind = "easy" if len(question) < 160 else "hard" if len(question) > 290 else "medium"
        chance = CHANCES[kind][list(LEVELS).index(level)]
        is_right = bool(question) and digest[0] < 256 * chance
        thought = int(self.levels[level] * (0.5 + digest[1] / 256) * {"easy": 0.6, "medium": 1.0, "hard": 1.4}[kind])
        answer = self.answers.get(question, "0") if is_right else str(digest[2])
        usage = {
            "prompt_tokens": len(text) // 4,
            "completion_tokens": thought + NUM_ANSWER,
            "total_tokens": len(text) // 4 + thought + NUM_ANSWER,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        message = {"role": "assistant", "content": f"Final answer: \\boxed{{{answer}}}"}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if self.shows_logprobs and body.get("logprobs"):
            likely = 0.9 if is_right else 0.2 + 0.2 * (digest[3] / 256)
            pieces = {"Final answer: \\boxed{": 0.99, answer: likely, "}": 0.99}
            shown = [{"token": piece, "bytes": None, "logprob": math.log(p)} for piece, p in pieces.items()]
            choice["logprobs"] = {"content": shown}
        return Reply({"choices": [choice], "usage": usage})
