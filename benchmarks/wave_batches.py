"""How full waves keep an engine's batch: busy slots of all, against one stream of fixed votes. SIMULATED thoughts.

    python benchmarks/wave_batches.py --out docs/results/votes/batches.json

An engine with a number of slots decodes one token a step in each busy slot; a thought holds its slot for as many steps
as it has tokens (the fake engine's). `busy` is the share of slot-seconds in which a slot was decoding. A slot idles
where the next sample waits for answers that have not come yet, and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import forethought as ft
from forethought.core.data import Generation, Request
from forethought.engines.fake import FakeEngine

STEP = 0.004  # seconds a token


class SlotEngine:
    """An engine that holds one of a number of slots for as long as a thought takes."""

    def __init__(self, inner: FakeEngine, num_slots: int) -> None:
        self.inner, self.info, self.num_slots = inner, inner.info, num_slots
        self.busy = 0.0

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        waiting, running = iter(requests), set[asyncio.Task[Generation]]()
        while True:
            while len(running) < self.num_slots and (request := next(waiting, None)) is not None:
                running.add(asyncio.create_task(self._one(request)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()

    async def _one(self, request: Request) -> Generation:
        (generation,) = [each async for each in self.inner.generate([request])]
        outcome = generation.at(request.budget)
        seconds = STEP * (outcome.tokens or 0 if outcome else 0)
        self.busy += seconds
        await asyncio.sleep(seconds)
        return generation

    def close(self) -> None:
        """Closes the fake engine."""
        self.inner.close()


def measure(predictor: ft.Predictor, rows: list[dict[str, str]], num_slots: int, *, waves: bool) -> dict[str, Any]:
    """Seconds and the share of busy slots of one run."""
    plan = ft.plan(predictor, rows, mean_tokens=250, cost="spent", waves=waves, progress=False)
    engine = SlotEngine(ft.open_engine(plan), num_slots)
    started = time.perf_counter()
    answers = plan.run(engine, progress=False)
    seconds = time.perf_counter() - started
    return {
        "waves": waves,
        "questions": len(rows),
        "slots": num_slots,
        "seconds": round(seconds, 2),
        "busy": round(engine.busy / (seconds * num_slots), 4),
        "tokens": answers.counts["spent_tokens"],
        "samples": answers.counts.get("samples", len(answers)),
        "right": answers.counts["right"],
    }


def main() -> None:
    """Measures all, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64])
    options = parser.parse_args()

    def rows(first: int, count: int) -> list[dict[str, str]]:
        return [{"question": f"What is {n} times 7?", "answer": str(7 * n)} for n in range(first, first + count)]

    with ft.open_engine("fake") as engine:
        profile = ft.profile(engine, rows(0, 200), menu="32,64,128", num_traces=8, progress=False)
    predictor = ft.train(profile, "text", samples=[1, 2, 4, 8], progress=False)
    found = [
        measure(predictor, rows(1000, count), slots, waves=waves)
        for count in options.questions
        for slots in options.slots
        for waves in (False, True)
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"simulated": True, "seconds_a_token": STEP, "runs": found}, indent=1) + "\n")
    for each in found:
        print(each)


if __name__ == "__main__":
    main()
