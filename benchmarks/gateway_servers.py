"""The gateway in front of a real server: are caps kept, natively and by two calls, and what does it add?

    python benchmarks/gateway_servers.py --url http://127.0.0.1:8000 --model coder --way native --out FILE.json

Questions come from GSM8K's shipped sample, in the words of the template `boxed`. Each is asked through the gateway (a
`text` predictor trained on the shipped profile of the 0.5b model, at a price), streamed or whole by turns, and by
`--direct` rounds also straight, under the same cap and length, by turns: the ratio of the two times is what the gateway
adds. A thought counts as kept when its tokens, as the server reports or shows them, are at most its budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

import forethought as ft
from forethought.control import sources
from forethought.core.prompts import load_template
from forethought.core.serve_settings import ServeSettings
from forethought.gateway.hosts.upstream.serving import running
from forethought.questions.queries import load_queries
from forethought.servers.kinds import KINDS, merged

PREDICTOR = "qwen2.5-coder-0.5b"
TEMPLATE = "boxed"
ROOM = 32  # tokens of an answer


def predictor(folder: Path) -> str:
    """A text predictor on disk, for prompts of TEMPLATE."""
    measured = sources.shipped_heldout(PREDICTOR)
    provenance = replace(measured.provenance, template=TEMPLATE, template_hash=load_template(TEMPLATE).hash)
    return str(ft.train(replace(measured, provenance=provenance), predictor="text").save(folder / "predictor"))


def body_of(question: str, asked: argparse.Namespace, *, is_stream: bool) -> dict[str, Any]:
    """A chat as a client of the template writes it."""
    instruction = load_template(TEMPLATE).instruction
    turns = [{"role": "user", "content": f"{question}\n{instruction}" if instruction else question}]
    more = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    return {"model": asked.model, "messages": turns, "temperature": 0.0, "seed": 7, **more}


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request: times, headers, texts, usage, and whether a stream was whole."""
    started, first = time.perf_counter(), None
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        chunks = []
        async for chunk in response.content.iter_any():
            first = first or time.perf_counter() - started
            chunks.append(chunk)
        content, headers = b"".join(chunks), dict(response.headers)
        if response.status != 200:
            raise SystemExit(f"HTTP {response.status}: {content[:300]!r}")
    seconds = time.perf_counter() - started
    if not body.get("stream"):
        parts = [json.loads(content)]
    else:
        lines = [line[5:].strip() for line in content.splitlines() if line.startswith(b"data:")]
        assert lines[-1] == b"[DONE]", lines[-1]
        parts = [json.loads(line) for line in lines[:-1]]
    usage = next((part["usage"] for part in reversed(parts) if part.get("usage")), {})
    texts = {"thought": "", "answer": ""}
    ends = []
    for part in parts:
        for choice in part.get("choices", []):
            said = choice.get("message") or choice.get("delta") or {}
            texts["thought"] += said.get("reasoning_content") or said.get("reasoning") or ""
            texts["answer"] += said.get("content") or ""
            ends += [choice["finish_reason"]] if choice.get("finish_reason") else []
    details = usage.get("completion_tokens_details") or {}
    return {
        "seconds": seconds,
        "first": first,
        "headers": headers,
        "thought_tokens": details.get("reasoning_tokens"),
        "output_tokens": usage.get("completion_tokens"),
        "ends": ends,
        **texts,
    }


async def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All questions; see the module."""
    questions = [query.text for query in load_queries("gsm8k-demo", limit=asked.questions)]
    kind = KINDS[asked.kind]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = ServeSettings(
            upstream=f"{asked.url}/v1",
            predictor=predictor(Path(scratch)),
            price=asked.price,
            port=0,
            enforce=asked.way,
            served_model=asked.model,
            cap_offset=asked.cap_offset,
            answer_room=ROOM,
            ledger=f"sqlite:{scratch}/ledger.db",
            log=f"{scratch}/journal",
        )
        async with running(settings) as gateway, aiohttp.ClientSession() as session:
            base = gateway.url.removesuffix("/v1")
            await ask(session, base, body_of(questions[0], asked, is_stream=False))  # the prefix is in the cache then
            for number, question in enumerate(questions):
                body = body_of(question, asked, is_stream=bool(number % 2))
                found = await ask(session, base, body)
                budget = int(found["headers"]["x-forethought-budget"])
                row = {"budget": budget, "is_stream": bool(number % 2), **found}
                del row["headers"]
                row["is_kept"] = None if found["thought_tokens"] is None else found["thought_tokens"] <= budget
                if number < asked.direct and asked.way == "native":
                    same = merged(body, kind.native(max(0, budget - asked.cap_offset)))
                    same["max_completion_tokens"] = budget + ROOM
                    row["direct_seconds"] = (await ask(session, asked.url, same))["seconds"]
                    row["again_seconds"] = (await ask(session, base, body))["seconds"]
                rows.append(row)
                print(
                    json.dumps({key: row[key] for key in ("budget", "thought_tokens", "is_kept", "seconds")}),
                    flush=True,
                )
    ratios = [row["again_seconds"] / row["direct_seconds"] for row in rows if "direct_seconds" in row]
    known = [row["is_kept"] for row in rows if row["is_kept"] is not None]
    return {
        "command": " ".join(sys.argv),
        "server": asked.kind,
        "way": asked.way,
        "questions": len(rows),
        "kept": f"{sum(known)} of {len(known)}",
        "answered": sum(bool(row["answer"].strip()) for row in rows),
        "one_end": sum(len(row["ends"]) == 1 for row in rows),
        "added_ratio": None if not ratios else [statistics.median(ratios), min(ratios), max(ratios)],
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "rows": [{key: value for key, value in row.items() if key not in ("thought", "answer")} for row in rows],
    }


def main() -> None:
    """Reads the flags, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the server, without /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", default="vllm", choices=sorted(KINDS))
    parser.add_argument("--way", default="native", choices=["native", "two-call"])
    parser.add_argument("--cap-offset", type=int, default=0)
    parser.add_argument("--price", type=float, default=0.0005)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--direct", type=int, default=12)
    parser.add_argument("--out", default="")
    asked = parser.parse_args()
    found = asyncio.run(measure(asked))
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}, indent=1))
    if asked.out:
        Path(asked.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
