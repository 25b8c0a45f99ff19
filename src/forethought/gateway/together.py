"""Questions that wait at the same moment are predicted together: most of what one costs, it costs once for all."""

from __future__ import annotations

import asyncio
from collections import deque

from .decision import Asked, Decider, Decision

MOST_TOGETHER = 16  # questions of one pass: about 3 ms, in which the event loop does nothing else
LONG_CHARACTERS = 4000  # of a question, which takes about 3 ms alone: it goes to a thread


class Together:
    """Decides on questions as they come.

    A question that comes alone is decided on at the next turn of the event loop. Under load several have come by then.

    Args:
        decider: gives options.
    """

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._waiting: deque[tuple[Asked, asyncio.Future[Decision]]] = deque()

    async def decide(self, asked: Asked) -> Decision:
        """The option of one question."""
        if len(asked.question) > LONG_CHARACTERS:
            return (await asyncio.to_thread(self._decided, [asked]))[0]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Decision] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._run)
        self._waiting.append((asked, future))
        return await future

    def _run(self) -> None:
        some = [self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        some = [(asked, future) for asked, future in some if not future.done()]  # the others' clients have left
        if not some:
            return
        try:
            decisions = self._decided([asked for asked, _ in some])
        except Exception as error:  # each of them says it to its client
            for _, future in some:
                future.set_exception(error)
            return
        for (_, future), decision in zip(some, decisions, strict=True):
            future.set_result(decision)

    def _decided(self, asked: list[Asked]) -> list[Decision]:
        return self._decider.by_curves(asked)
