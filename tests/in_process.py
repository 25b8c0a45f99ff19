"""`python in_process.py ENGINE`: what the engine in process thinks and answers greedily, as JSON. Needs no pytest."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from forethought.core import registry
from forethought.core.data import Generation, Request, Sampling
from forethought.core.prompts import load_template
from forethought.questions.queries import load_queries

MODEL = "qwen2.5-coder-0.5b"
GREEDY = Sampling(temperature=0.0)
CUTS = (16, 32)
CAP = 48
OPTIONS: dict[str, dict[str, Any]] = {
    "vllm": {"num_sequences": 8, "kv_cache_gib": 1},
    "transformers": {"dtype": "bfloat16", "num_threads": 1},
}


def requests() -> list[Request]:
    """Eight questions, probed."""
    return [Request(query, CAP, 0, 1, CUTS) for query in load_queries("gsm8k-demo", limit=8)]


def collected(engine: Any) -> dict[str, dict[str, Any]]:
    """What `engine` makes of them, by question."""

    async def collect() -> list[Generation]:
        return [done async for done in engine.generate(requests())]

    return {
        done.query_id: {
            "error": done.error,
            "lengths": [done.prompt_tokens, done.suffix_tokens, done.reasoning_tokens],
            "reasoning": done.reasoning,
            "answers": [[probe.budget, probe.answer] for probe in done.probes] + [[CAP, done.answer]],
        }
        for done in asyncio.run(collect())
    }


if __name__ == "__main__":
    made = registry.resolve("engines", sys.argv[1])
    engine = made(MODEL, template=load_template("boxed"), sampling=GREEDY, context_tokens=1024, **OPTIONS[sys.argv[1]])
    found = collected(engine)
    engine.close()
    print(json.dumps(found))
