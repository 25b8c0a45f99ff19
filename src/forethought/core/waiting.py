"""Runs coroutines from ordinary code: in a script, and in a notebook, where an event loop is already running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises. Where an event loop is running in this thread, `work` gets a thread of its own.

    An interrupt (Ctrl-C) while waiting cancels `work`, lets it clean up, and is then passed on.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: list[T] = []
    failures: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def watched() -> T:
        task = asyncio.ensure_future(work)
        running.append((asyncio.get_running_loop(), task))
        return await task

    def run() -> None:
        try:
            found.append(asyncio.run(watched()))
        except BaseException as error:  # raised again where the caller waits
            failures.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="forethought")
    thread.start()
    try:
        thread.join()
    except BaseException:
        for loop, task in running:
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if failures:
        raise failures[0]
    return found[0]


async def collect(stream: AsyncIterator[T]) -> list[T]:
    """All that a stream gives, in its order."""
    return [each async for each in stream]
