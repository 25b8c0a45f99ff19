"""The load of `forethought serve --demo`: tenants that ask steadily, in bursts and in streams, and tell outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from .load import Answered, Asked, Clients, ask_chat
from .model import ThoughtModel

FEEDBACK_SHARE = 0.5  # of the answers whose outcome is told


@dataclass(frozen=True, slots=True)
class Habit:
    """How one tenant asks.

    Attributes:
        rate: requests a second, on average.
        burst: how many times the rate in a burst; 1 for a steady tenant.
        period: seconds from one burst to the next; each takes a quarter of it.
        streams: the share that is streamed.
        own_cap: the share that brings a cap of its own.
    """

    rate: float
    burst: float = 1.0
    period: float = 40.0
    streams: float = 0.5
    own_cap: float = 0.0

    def rate_at(self, seconds: float) -> float:
        """Requests a second at this time; the average over a period is `rate`."""
        quiet = self.rate / (0.75 + 0.25 * self.burst)
        return quiet * (self.burst if seconds % self.period < self.period / 4 else 1.0)


HABITS = (Habit(2.0, streams=1.0), Habit(1.5, burst=8.0), Habit(0.8, burst=3.0, period=25.0, own_cap=0.3))


async def run_demo_load(
    url: str,
    keys: Mapping[str, str],
    questions: Sequence[str],
    model: ThoughtModel,
    *,
    habits: Sequence[Habit] = HABITS,
    seconds: float = math.inf,
    seed: int = 0,
) -> None:
    """Asks as several tenants until it is cancelled or the time is over.

    Args:
        url: of the gateway, `/v1` included.
        keys: tenant -> its key; tenants take the habits in turn.
        questions: to choose from at random.
        model: of the scripted server, which knows the right answers.
        habits: how tenants ask.
        seconds: to go on for.
        seed: of all that is random.
    """
    parts = urlsplit(url)
    clients, page = Clients(url, is_read=True), Clients(f"{parts.scheme}://{parts.netloc}")
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else seconds):
            await asyncio.gather(
                *(
                    _tenant(
                        clients, page, key, questions, model, habits[place % len(habits)], random.Random(seed + place)
                    )
                    for place, key in enumerate(keys.values())
                )
            )
    except TimeoutError:
        pass
    finally:
        clients.close()
        page.close()


async def _tenant(
    clients: Clients,
    page: Clients,
    key: str,
    questions: Sequence[str],
    model: ThoughtModel,
    habit: Habit,
    dice: random.Random,
) -> None:
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    begun = loop.time()
    try:
        while True:
            await asyncio.sleep(dice.expovariate(habit.rate_at(loop.time() - begun)))
            task = asyncio.create_task(_ask(clients, page, key, dice.choice(questions), model, habit, dice))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()


async def _ask(
    clients: Clients, page: Clients, key: str, question: str, model: ThoughtModel, habit: Habit, dice: random.Random
) -> None:
    is_stream, tells = dice.random() < habit.streams, dice.random() < FEEDBACK_SHARE
    own = {"thinking_token_budget": 32} if dice.random() < habit.own_cap else {}
    asked = ask_chat(question, key=key, stream=is_stream, seed=dice.randrange(1 << 20), **own)
    answered = await clients.ask(asked)
    if answered.status == 200 and tells and (request_id := answered.headers.get("x-forethought-id")):
        right = f"{{{model.right_answer(question)}}}" in text_of(answered)
        body = json.dumps({"id": request_id, "right": right}).encode()
        await page.ask(Asked(body, path="/forethought/feedback"))


def text_of(answered: Answered) -> str:
    """The text of a chat's answer, streamed or not; what cannot be read is left out."""
    lines = [line.removeprefix("data: ") for line in answered.content.decode("utf-8", "replace").split("\n")]
    texts: list[str] = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            choice = json.loads(line)["choices"][0]
            texts.append((choice.get("delta") or choice["message"]).get("content") or "")
    return "".join(texts)
