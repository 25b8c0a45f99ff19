"""A ledger in Redis, for any number of gateways.

Every step is one call of a Lua script, by Redis's clock. Calls of one turn of the event loop go out as one pipeline, in
a task of their own: a client that leaves cancels none of them. A call whose reply is lost may have run or not; all are
safe to repeat, and a settlement is repeated until Redis answers.

What Redis told is as durable as Redis keeps it. With `appendonly yes` and `appendfsync always` a reply comes after the
fsync, so that a kill or a loss of power loses nothing; with `everysec` up to a second is lost, and what was told in it
is not counted. `open` says in the log where Redis says that it does less than always. A ledger may lie in a cluster
(all keys have one hash tag) and beside other keys. Redis 6.2 or newer.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

from ...errors import LedgerError, MissingExtraError
from ...servers.address import without_secrets
from ..host import logger
from ..windows import WINDOWS
from . import Claim, Count, Full, State

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX = "{forethought}"
TIMEOUT = 2.0  # seconds for one call
RETRY_SECONDS = 0.25  # between tries of a settlement that Redis did not answer
CLOSE_SECONDS = 5.0  # for settlements that wait when the gateway ends; leases settle the rest
MOST_CALLS = 256  # of one pipeline
MOST_NAMES = 500  # of accounts in one call
_SCRIPT = (resources.files("forethought") / "gateway" / "ledger" / "ledger.lua").read_text("utf-8")


class RedisLedger:
    """A ledger in Redis; `open` makes one.

    Args:
        redis: client.
        address: for messages, without a password.
        ahead: seconds by which windows and leases are ahead of Redis's clock; for tests.
    """

    def __init__(self, redis: Redis, address: str, *, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self._redis = redis
        self._address = address
        self._sha = ""
        self._calls: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._late: dict[str, tuple[int, float]] = {}  # what Redis has not heard: claim -> tokens, when it is given up
        self._is_sending = self._is_telling = self._is_closed = False
        self._away: Exception | None = None  # why Redis did not answer the last calls
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, *, timeout: float = TIMEOUT) -> Self:
        """Connects, and looks at how Redis keeps what it is told.

        Args:
            url: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, `rediss://` with TLS, `unix://PATH`.
            timeout: seconds for one call.

        Raises:
            LedgerError: it cannot be reached, or is too old.
            MissingExtraError: the client is not installed.
        """
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError as error:
            raise MissingExtraError("a ledger in Redis needs: pip install 'forethought[gateway]'") from error
        try:
            redis = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 1),  # at once: a connection may be older than a restart of Redis
            )
        except ValueError:
            raise LedgerError("the ledger's address is no URL of Redis: redis://HOST:6379/0") from None
        address = without_secrets(url)
        found = cls(redis, address)
        try:
            await found._load()
            await found.now()
            await _look(redis, address)
        except (RedisError, OSError) as error:
            await redis.aclose()
            raise LedgerError(f"{address}: the ledger cannot be reached: {_said(error)}") from None
        except LedgerError:
            await redis.aclose()
            raise
        return found

    async def reserve(self, claim: Claim) -> Full | None:
        """Takes a claim; see `Ledger`."""
        accounts: list[Any] = []
        for account, quotas in claim.accounts.items():
            accounts += [account, *(quotas.get(name, "") for name in WINDOWS)]
        try:
            reply = await self._call("reserve", claim.id, claim.reserved, claim.bound, claim.lease, *accounts)
        except LedgerError:  # it may have been taken all the same, until its lease runs out; nothing is sent for it
            self._tell_later(claim.id, 0, claim.lease)
            raise
        if reply[0] == "full":
            account, window, quota, left, wait = reply[1:]
            return Full(account, window, int(quota), int(left), float(wait))
        if reply[0] != "taken":
            raise LedgerError(f"{self._address}: the claim was given up")
        return None

    async def durable(self, claim_id: str) -> None:
        """Nothing more to wait for: Redis answers once it has kept a claim, in its own way."""

    async def renew(self, claim_id: str, lease: float) -> bool:
        """Gives a claim more time; see `Ledger`."""
        return bool(await self._call("renew", claim_id, lease))

    async def settle(self, claim_id: str, tokens: int) -> int | None:
        """Counts what a claim used; where Redis does not answer, it goes on to try after this has raised."""
        try:
            reply = await self._call("settle", claim_id, tokens, 0)
        except LedgerError:
            self._tell_later(claim_id, tokens, math.inf)
            raise
        return None if reply is None else int(reply)

    async def sweep(self) -> int:
        """Settles claims whose lease has run out to their reservation."""
        return int(await self._call("sweep"))

    async def counts(self, accounts: Collection[str]) -> list[Count]:
        """Counts of these accounts in all present windows."""
        names, rows = list(accounts), []
        for start in range(0, len(names), MOST_NAMES):
            rows += await self._call("counts", *names[start : start + MOST_NAMES])
        return [Count(account, window, *map(int, numbers)) for account, window, *numbers in rows]

    async def num_open(self) -> int:
        """Claims that are neither settled nor swept."""
        return int(await self._call("num_open"))

    async def now(self) -> float:
        """By Redis's clock."""
        return float(await self._call("now"))

    async def state(self, name: str) -> State:
        """A shared value."""
        value, version = await self._call("state", name)
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise LedgerError(f"{self._address}: the shared value {name!r} is no JSON object; delete its key")
        return State(found, int(version))

    async def swap(self, name: str, value: Mapping[str, Any], version: int) -> bool:
        """Keeps `value` where the version is still the given one."""
        return bool(await self._call("swap", name, json.dumps(value), version))

    async def close(self) -> None:
        """Waits a little for settlements that Redis has not answered, and lets go."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._tasks:
            _, waiting = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in waiting:
                task.cancel()
        await self._redis.aclose()

    async def _call(self, *arguments: Any) -> Any:
        """The reply of one step, which is sent with all others of this turn of the loop."""
        if self._is_closed and arguments[0] != "settle":
            raise LedgerError(f"{self._address}: the ledger is closed")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.append((arguments, reply))
        if not self._is_sending:
            self._is_sending = True
            self._spawn(self._send_all())
        return await reply

    async def _send_all(self) -> None:
        """Sends what waits, one pipeline after the other: what comes meanwhile goes into the next."""
        await asyncio.sleep(0)
        try:
            while self._calls:
                calls, self._calls = self._calls[:MOST_CALLS], self._calls[MOST_CALLS:]
                try:
                    replies = await self._send([each for each, _ in calls])
                except Exception as error:  # of the client itself: nobody may wait for ever
                    logger.exception("the ledger's client failed")
                    replies, self._away = [error] * len(calls), error
                if self._away is not None:  # what came meanwhile would wait as long to be told the same
                    replies += [self._away] * len(self._calls)
                    calls, self._calls = [*calls, *self._calls], []
                for (_, waiting), reply in zip(calls, replies, strict=True):
                    if waiting.done():  # whoever asked has gone
                        continue
                    if isinstance(reply, Exception):
                        text = f"{self._address}: the ledger cannot be reached: {_said(reply)}"
                        waiting.set_exception(LedgerError(text))
                    else:
                        waiting.set_result(reply)
        finally:
            self._is_sending = False

    async def _send(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Replies in order; an exception in the place of each that failed."""
        from redis.exceptions import NoScriptError, RedisError

        replies: list[Any] = [None] * len(calls)
        waiting = list(range(len(calls)))
        for _ in range(2):
            try:
                if not self._sha:
                    await self._load()
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for number in waiting:
                        name, *rest = calls[number]
                        pipeline.evalsha(self._sha, 1, PREFIX, name, self.ahead, *rest)
                    found = await pipeline.execute(raise_on_error=False)
                self._away = None
            except (RedisError, OSError) as error:
                found = [error] * len(waiting)
                self._away = error
            for number, reply in zip(waiting, found, strict=True):
                replies[number] = reply
            # Redis was started anew and does not know the script: these have not run.
            waiting = [number for number in waiting if isinstance(replies[number], NoScriptError)]
            if not waiting:
                break
            self._sha = ""
        return replies

    async def _load(self) -> None:
        self._sha = str(await self._redis.script_load(_SCRIPT))

    def _tell_later(self, claim_id: str, tokens: int, seconds: float) -> None:
        """Tries a settlement again until Redis answers, for so many seconds at most."""
        self._late[claim_id] = tokens, time.monotonic() + seconds
        if not self._is_telling:
            self._is_telling = True
            self._spawn(self._tell())

    async def _tell(self) -> None:
        """One call at a time until Redis answers, then all that wait."""
        try:
            while self._late:
                await asyncio.sleep(RETRY_SECONDS)
                now = time.monotonic()
                self._late = {name: late for name, late in self._late.items() if late[1] > now}
                await asyncio.gather(*map(self._told, list(self._late)[:1]))
                if self._away is None:
                    await asyncio.gather(*map(self._told, list(self._late)))
        finally:
            self._is_telling = False

    async def _told(self, claim_id: str) -> None:
        with suppress(LedgerError):
            await self._call("settle", claim_id, self._late[claim_id][0], 1)
            del self._late[claim_id]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _look(redis: Redis, address: str) -> None:
    """Refuses a Redis that is too old, and says where it may lose what it was told."""
    from redis.exceptions import ResponseError

    version = str((await redis.info("server")).get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (6, 2):
        raise LedgerError(f"{address}: this is Redis {version}, and a ledger needs 6.2 or newer")
    try:
        found: dict[Any, Any] = {}
        for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
            found |= await redis.config_get(name)
    except ResponseError:  # forbidden by whoever runs it, who knows
        return
    if (found.get("appendonly"), found.get("appendfsync")) != ("yes", "always"):
        logger.warning(
            "%s: Redis has appendonly %s, appendfsync %s: where it is killed, the last claims may be lost and not be "
            "counted. To lose nothing: appendonly yes, appendfsync always",
            address,
            found.get("appendonly"),
            found.get("appendfsync"),
        )
    if found.get("maxmemory") != "0" and found.get("maxmemory-policy") != "noeviction":
        logger.warning(
            "%s: Redis has maxmemory-policy %s: where its memory is full it drops counts, and quotas are passed. To "
            "keep them: maxmemory-policy noeviction",
            address,
            found.get("maxmemory-policy"),
        )


def _said(error: BaseException) -> str:
    """What Redis or the system says, on one line; without what it was asked, in which names of tenants could be."""
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
