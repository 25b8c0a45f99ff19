"""The ledger in Redis: kills, restarts, replicas, and what it says."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forethought.errors import LedgerError, MissingExtraError
from forethought.gateway.ledger import Claim
from forethought.gateway.ledger.opening import open_ledger
from forethought.gateway.ledger.redis import RedisLedger
from forethought.gateway.scripted import ScriptedServer
from forethought.gateway.windows import ALL, windows_at
from gateway_upstream import KEY, Client, question, saved_predictor, served, tenants_file
from redis_server import RedisServer
from test_gateway_ledger_kill import Told, Worker, check


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as found:
        yield found


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    found = await RedisLedger.open(server.url)
    yield found
    await found.close()
    await found.close()


def claim(name: str, reserved: int = 40, lease: float = 60.0) -> Claim:
    return Claim(name, {"gateway": {ALL: 1_000}}, reserved, 100, lease)


async def settled(ledger: RedisLedger) -> int:
    return next(each.settled for each in await ledger.counts(["gateway"]) if each.window == ALL)


async def until(ledger: RedisLedger, wanted: tuple[int, int]) -> None:
    """Waits until so many tokens are settled, and so many claims open."""
    ends = time.monotonic() + 10.0
    found = None
    while found != wanted:
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.05)
        with suppress(LedgerError):
            found = await settled(ledger), await ledger.num_open()


async def test_what_was_told_is_there_after_a_kill_of_redis(server: RedisServer, ledger: RedisLedger) -> None:
    await ledger.reserve(claim("a"))
    await ledger.reserve(claim("b"))
    assert await ledger.settle("b", 12) == 12
    server.kill()
    with pytest.raises(LedgerError, match="the ledger cannot be reached") as caught:
        await ledger.reserve(claim("c"))
    assert caught.value.retry_after > 0
    server.start()
    assert await ledger.settle("a", 7) == 7
    assert await ledger.settle("b", 99) == 12
    assert await settled(ledger) == 19


async def test_a_settlement_that_redis_did_not_hear_is_told_until_it_does(
    server: RedisServer, ledger: RedisLedger
) -> None:
    await ledger.reserve(claim("a"))
    server.kill()
    with pytest.raises(LedgerError):
        await ledger.settle("a", 7)
    await asyncio.sleep(0.6)
    server.start()
    await until(ledger, (7, 0))


async def test_a_claim_that_may_have_been_taken_is_given_back(server: RedisServer) -> None:
    """Redis stands still, and goes on after the gateway has given up."""
    ledger = await RedisLedger.open(server.url, timeout=0.5)
    server.signal(signal.SIGSTOP)
    with pytest.raises(LedgerError):
        await ledger.reserve(claim("a"))
    server.signal(signal.SIGCONT)
    ends = time.monotonic() + 10.0
    while server.say("EXISTS {forethought}:settled:a") != b":1\r\n":
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    assert (await settled(ledger), await ledger.num_open()) == (0, 0)
    with pytest.raises(LedgerError, match="given up"):
        await ledger.reserve(claim("a"))
    await ledger.close()


async def test_while_redis_is_away_nothing_grows_with_what_is_refused(server: RedisServer, ledger: RedisLedger) -> None:
    """Each refused request left a task that asked Redis four times a second, for as long as it was away."""
    await ledger.reserve(claim("a"))
    server.kill()
    with pytest.raises(LedgerError):
        await ledger.settle("a", 7)
    num_tasks = len(asyncio.all_tasks())
    for number in range(50):
        with pytest.raises(LedgerError):
            await ledger.reserve(claim(str(number), lease=0.3))
    assert len(asyncio.all_tasks()) <= num_tasks
    await asyncio.sleep(0.9)
    assert list(ledger._late) == ["a"]
    server.start()
    await until(ledger, (7, 0))


async def test_who_asks_a_redis_that_stands_still_waits_no_longer_than_the_first(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last of 2,000 would wait eight times as long, and with each second more come than are answered."""
    ledger = await RedisLedger.open(server.url, timeout=0.5)
    send, sent = ledger._send, []

    async def counted(calls: list[tuple[object, ...]]) -> list[object]:
        sent.append(len(calls))
        return await send(calls)

    monkeypatch.setattr(ledger, "_send", counted)
    server.signal(signal.SIGSTOP)
    asked = (ledger.reserve(claim(str(number), lease=0.1)) for number in range(2_000))
    found = await asyncio.gather(*asked, return_exceptions=True)
    server.signal(signal.SIGCONT)
    assert {type(each) for each in found} == {LedgerError}
    assert sum(number for number in sent if number > 1) <= 256
    await ledger.close()


async def test_a_reservation_can_be_said_again(ledger: RedisLedger) -> None:
    for _ in range(2):
        assert await ledger.reserve(claim("a")) is None
    assert await ledger.num_open() == 1
    assert next(each.bound for each in await ledger.counts(["gateway"])) == 100


async def test_a_redis_that_forgot_the_script_is_told_it_again(server: RedisServer, ledger: RedisLedger) -> None:
    assert server.say("SCRIPT FLUSH") == b"+OK\r\n"
    found = await asyncio.gather(*(ledger.reserve(claim(str(number))) for number in range(5)))
    assert found == [None] * 5


async def test_a_client_that_fails_leaves_nobody_waiting(
    ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(calls: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "_send", broken)
        with pytest.raises(LedgerError, match="cannot be reached: no"):
            await ledger.num_open()
    assert await ledger.num_open() == 0


async def test_windows_are_those_of_the_calendar_on_every_day(ledger: RedisLedger) -> None:
    days = [
        datetime(year, month, 1, tzinfo=UTC).timestamp() for year in (2027, 2028, 2100, 2400) for month in range(1, 13)
    ]
    for day in days:
        for second in (day - 30.0, day + 30.0):
            ledger.ahead = second - time.time()
            starts = {each.window: each.start for each in await ledger.counts(["gateway"])}
            assert starts == {each.name: each.start for each in windows_at(second)}


async def test_counts_of_many_tenants(ledger: RedisLedger) -> None:
    found = await ledger.counts([f"tenant:{number}" for number in range(1_201)])
    assert [each.account for each in found[-6:]] == ["tenant:1199"] + ["tenant:1200"] * 5


async def test_two_gateways_on_one_redis_share_counts_and_states(server: RedisServer, ledger: RedisLedger) -> None:
    other = await open_ledger(server.url)
    assert await ledger.swap("price", {"value": 0.5}, 0)
    assert not await other.swap("price", {"value": 0.6}, 0)
    assert dict((await other.state("price")).value) == {"value": 0.5}
    await ledger.reserve(claim("a"))
    assert await other.num_open() == 1
    await other.close()
    with pytest.raises(LedgerError, match="closed"):
        await other.num_open()


async def test_a_shared_value_that_is_none(server: RedisServer, ledger: RedisLedger) -> None:
    server.say("HSET {forethought}:state:price value [1] version 1")
    with pytest.raises(LedgerError, match="no JSON object"):
        await ledger.state("price")


async def test_a_redis_that_may_lose_something_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("vllm.forethought").propagate = True
    settings = {"appendfsync": "everysec", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with RedisServer(**settings) as server:
        await (await RedisLedger.open(server.url)).close()
    assert "appendonly yes, appendfsync everysec" in caplog.text
    assert "maxmemory-policy allkeys-lru" in caplog.text


async def test_a_redis_that_says_everything_is_not_warned_of(
    server: RedisServer, ledger: RedisLedger, caplog: pytest.LogCaptureFixture
) -> None:
    assert "Redis has" not in caplog.text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://user:geheim@127.0.0.1:1/0", "redis://127.0.0.1:1/0: the ledger cannot be reached"),
        ("redis://user:geheim@127.0.0.1:port/0", "is no URL of Redis"),
        ("unix:///nowhere/at/all", "cannot be reached"),
        ("postgres://user:geheim@a.example/db", "not postgres://a.example/db"),
    ],
)
async def test_an_address_at_which_nothing_answers(url: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message) as caught:
        await open_ledger(url)
    assert "geheim" not in str(caught.value)


async def test_a_wrong_password_is_said_without_it() -> None:
    with RedisServer() as server:
        server.say("CONFIG SET requirepass right")
        with pytest.raises(LedgerError, match="cannot be reached") as caught:
            await RedisLedger.open(server.url.replace("unix://", "unix://:wrongsecret@"))
    assert "wrongsecret" not in str(caught.value)


async def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError, match=r"forethought\[gateway\]"):
        await open_ledger("redis://127.0.0.1:1")


async def test_a_file_by_its_path(tmp_path: Path) -> None:
    ledger = await open_ledger(str(tmp_path / "ledger.sqlite"))
    assert await ledger.num_open() == 0
    await ledger.close()


async def test_while_redis_is_away_nothing_is_sent_and_what_goes_on_is_settled_later(
    server: RedisServer, tmp_path: Path
) -> None:
    tenants = tenants_file(tmp_path / "tenants.toml", '[tenants.a]\nkey_sha256 = "KEY"\ntokens = 1_000_000\n')
    how = {"tenants": tenants, "ledger": server.url, "server": "vllm"}
    predictor = saved_predictor(tmp_path / "predictor")
    async with ScriptedServer(tokens_per_second=40.0) as upstream, served(upstream.url, predictor, **how) as found:
        async with Client(found.url, KEY) as client:
            going = asyncio.ensure_future(client.chat(question(102), stream=True))
            while not upstream.tokens_generated:
                await asyncio.sleep(0.02)
            server.kill()
            status, headers, said = await client.chat(question(1))
            assert (status, said["error"]["code"]) == (503, "ledger_away")
            assert int(headers["retry-after"]) >= 1
            status, _, events = await going
            assert (status, events[-1]) == (200, "[DONE]")
            assert upstream.num_requests == 1
            server.start()
            await until(found.opened.admission.ledger, (upstream.seen[0].prompt_tokens + upstream.seen[0].tokens, 0))


@pytest.mark.slow
def test_four_replicas_two_hundred_clients_and_kills_of_each_kind(server: RedisServer) -> None:
    told, quota, lease = Told(), 60_000, 1.0
    workers = [Worker(server.url, f"one{number}", 50, quota, lease, 4.5) for number in range(4)]
    time.sleep(0.8)
    told.read(workers.pop().kill())
    workers.append(Worker(server.url, "two", 50, quota, lease, 2.5))
    time.sleep(0.4)
    server.kill()
    time.sleep(0.4)
    server.start()
    time.sleep(0.4)
    told.read(workers.pop(0).kill())
    for worker in workers:
        told.read(worker.end())
        assert worker.process.returncode == 0
    assert told.num_errors
    assert len(told.settled) > 100
    time.sleep(lease)

    async def judge() -> None:
        ledger = await RedisLedger.open(server.url)
        await check(ledger, told, quota)
        await ledger.close()

    asyncio.run(judge())
