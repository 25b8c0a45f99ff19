"""What every ledger does, and the SQLite one's own file."""

import asyncio
import json
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.errors import LedgerError
from forethought.gateway.ledger import Claim, Full, Ledger
from forethought.gateway.ledger.book import Book
from forethought.gateway.ledger.redis import RedisLedger
from forethought.gateway.ledger.sqlite import SqliteLedger
from forethought.gateway.ledger.thread import Beside
from forethought.gateway.windows import ALL, DAY, HOUR, MINUTE, MONTH, Window, window_at
from redis_server import RedisServer

START = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC).timestamp()


class Clock:
    """Seconds that a test sets."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def claim(name: str, bound: int, reserved: int | None = None, lease: float = 60.0, **quotas: int) -> Claim:
    return Claim(name, {"gateway": quotas}, bound if reserved is None else reserved, bound, lease)


async def totals(ledger: Ledger, account: str = "gateway") -> dict[str, tuple[int, int, int]]:
    return {each.window: (each.settled, each.reserved, each.bound) for each in await ledger.counts([account])}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as found:
        yield found


@pytest.fixture(params=["sqlite", "redis"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    found: Ledger
    if request.param == "sqlite":
        found = SqliteLedger(tmp_path / "ledger.sqlite", clock=clock)
    else:
        found = await shifted(request.getfixturevalue("server"), clock)
    yield found
    await found.close()


async def shifted(server: RedisServer, clock: Clock, *, keep: bool = False) -> Ledger:
    """A ledger in Redis, empty unless `keep`, by a clock that a test sets."""

    class Shifted(RedisLedger):
        @property  # type: ignore[override]
        def ahead(self) -> float:
            return clock.now - time.time()

        @ahead.setter
        def ahead(self, value: float) -> None:
            pass

    if not keep:
        server.flush()
    return await Shifted.open(server.url)


async def test_a_claim_is_counted_in_every_window_and_settles_to_what_was_used(ledger: Ledger) -> None:
    assert await ledger.reserve(claim("a", 100, 40)) is None
    assert set((await totals(ledger)).values()) == {(0, 40, 100)}
    await ledger.durable("a")
    assert await ledger.settle("a", 33) == 33
    assert await totals(ledger) == dict.fromkeys((MINUTE, HOUR, DAY, MONTH, ALL), (33, 0, 0))
    assert await ledger.num_open() == 0


async def test_a_claim_settles_once(ledger: Ledger) -> None:
    await ledger.reserve(claim("a", 100))
    first, second = await asyncio.gather(ledger.settle("a", 10), ledger.settle("a", 99))
    assert {first, second} <= {10, 99}
    assert first == second == await ledger.settle("a", 5)
    assert (await totals(ledger))[ALL][0] == first


async def test_what_was_never_claimed_is_not_counted(ledger: Ledger) -> None:
    assert await ledger.settle("never", 10) is None
    assert not await ledger.renew("never", 60.0)
    assert (await totals(ledger))[ALL] == (0, 0, 0)


async def test_bounds_of_open_claims_count_and_what_they_leave_unused_is_free_again(ledger: Ledger) -> None:
    assert await ledger.reserve(claim("a", 60, 20, day=100)) is None
    full = await ledger.reserve(claim("b", 41, day=100))
    assert isinstance(full, Full)
    assert (full.account, full.window, full.quota, full.left) == ("gateway", DAY, 100, 40)
    await ledger.settle("a", 10)
    assert await ledger.reserve(claim("b", 90, day=100)) is None
    assert isinstance(await ledger.reserve(claim("c", 1, day=100)), Full)


async def test_every_account_must_have_room(ledger: Ledger) -> None:
    both = {"gateway": {DAY: 100}, "tenant:a": {HOUR: 50}}
    assert await ledger.reserve(Claim("a", both, 30, 50)) is None
    full = await ledger.reserve(Claim("b", both, 1, 1))
    assert isinstance(full, Full)
    assert (full.account, full.window) == ("tenant:a", HOUR)
    assert await ledger.reserve(Claim("c", {"gateway": {DAY: 100}, "tenant:b": {}}, 50, 50)) is None
    assert (await totals(ledger, "tenant:b"))[MINUTE] == (0, 50, 50)


async def test_a_refused_claim_leaves_nothing(ledger: Ledger) -> None:
    await ledger.reserve(claim("a", 101, day=100))
    assert await ledger.num_open() == 0
    assert (await totals(ledger))[DAY] == (0, 0, 0)


async def test_a_claim_larger_than_its_quota_never_fits(ledger: Ledger) -> None:
    full = await ledger.reserve(claim("a", 101, minute=100))
    assert isinstance(full, Full)
    assert math.isinf(full.retry_after)
    assert full.left == 100


async def test_after_what_retry_after_says_the_same_claim_fits(ledger: Ledger, clock: Clock) -> None:
    quotas: dict[str, int] = {"minute": 100, "hour": 150, "day": 200}
    await ledger.reserve(claim("a", 100, **quotas))
    await ledger.settle("a", 100)
    full = await ledger.reserve(claim("b", 60, **quotas))
    assert isinstance(full, Full)
    assert full.window in (MINUTE, HOUR)
    assert full.retry_after == pytest.approx(window_at(HOUR, clock.now).end - clock.now, abs=0.1)
    clock.now += full.retry_after - 0.5
    assert isinstance(await ledger.reserve(claim("b", 60, **quotas)), Full)
    clock.now += 0.6
    assert await ledger.reserve(claim("b", 60, **quotas)) is None


async def test_retry_after_waits_for_leases_where_they_end_before_the_window(ledger: Ledger, clock: Clock) -> None:
    clock.now = datetime(2026, 1, 10, tzinfo=UTC).timestamp()
    await ledger.reserve(claim("a", 90, 10, lease=20.0, month=100, all=100))
    full = await ledger.reserve(claim("b", 80, month=100, all=100))
    assert isinstance(full, Full)
    assert full.retry_after == pytest.approx(20.0, abs=0.1)
    clock.now += 20.1
    assert await ledger.reserve(claim("b", 80, month=100, all=100)) is None


async def test_where_all_is_used_no_wait_helps(ledger: Ledger) -> None:
    await ledger.reserve(claim("a", 100, all=100))
    await ledger.settle("a", 95)
    full = await ledger.reserve(claim("b", 6, all=100))
    assert isinstance(full, Full)
    assert math.isinf(full.retry_after)
    assert full.left == 5


async def test_a_lease_that_runs_out_settles_at_the_reservation(ledger: Ledger, clock: Clock) -> None:
    await ledger.reserve(claim("a", 100, 40, lease=10.0))
    await ledger.reserve(claim("b", 100, 30, lease=10.0))
    clock.now += 6.0
    assert await ledger.renew("b", 10.0)
    clock.now += 6.0
    assert await ledger.sweep() == 1
    assert (await totals(ledger))[ALL] == (40, 30, 100)
    assert await ledger.settle("a", 99) == 40
    assert not await ledger.renew("a", 10.0)
    assert await ledger.sweep() == 0
    assert await ledger.settle("b", 0) == 0
    assert (await totals(ledger))[ALL] == (40, 0, 0)


async def test_a_reservation_sweeps_what_has_run_out(ledger: Ledger, clock: Clock) -> None:
    await ledger.reserve(claim("a", 100, 10, lease=10.0, all=100))
    clock.now += 11.0
    assert await ledger.reserve(claim("b", 90, all=100)) is None


async def test_a_request_counts_in_the_windows_in_which_it_came(ledger: Ledger, clock: Clock) -> None:
    await ledger.reserve(claim("a", 50, lease=600.0))
    clock.now += 60.0  # another minute, hour, day and month
    await ledger.settle("a", 50)
    assert await totals(ledger) == dict.fromkeys((MINUTE, HOUR, DAY, MONTH), (0, 0, 0)) | {ALL: (50, 0, 0)}
    clock.now -= 60.0
    assert set((await totals(ledger)).values()) == {(50, 0, 0)}


async def test_a_state_changes_only_where_nobody_else_changed_it(ledger: Ledger) -> None:
    assert (await ledger.state("price")).version == 0
    assert await ledger.swap("price", {"value": 0.5}, 0)
    assert not await ledger.swap("price", {"value": 0.7}, 0)
    state = await ledger.state("price")
    assert (dict(state.value), state.version) == ({"value": 0.5}, 1)
    assert await ledger.swap("price", {"value": 0.25}, 1)
    assert dict((await ledger.state("price")).value) == {"value": 0.25}


async def test_many_at_once_never_pass_the_quota(ledger: Ledger) -> None:
    async def one(number: int) -> int:
        if await ledger.reserve(claim(str(number), 10, 5, minute=1000, day=1000)) is not None:
            return 0
        await ledger.durable(str(number))
        await asyncio.sleep(0)
        return await ledger.settle(str(number), 7) or 0

    used = sum(await asyncio.gather(*(one(number) for number in range(300))))
    settled, reserved, bound = (await totals(ledger))[DAY]
    assert (settled, reserved, bound) == (used, 0, 0)
    assert 700 <= used <= 1000


# The same by a simple model, in any order of steps.

SIZES = st.integers(0, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), SIZES, SIZES, st.sampled_from(["a", "b"])),
        st.tuples(st.just("settle"), st.integers(0, 30), SIZES),
        st.tuples(st.just("renew"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 50).map(lambda seconds: seconds + 0.5)),
        st.just(("sweep",)),
        st.just(("crash",)),
    ),
    max_size=40,
)
LEASE = 30.0
QUOTAS: dict[str, dict[str, int]] = {"gateway": {MINUTE: 150, ALL: 700}, "tenant:a": {HOUR: 100}, "tenant:b": {}}


class Model:
    """Claims as a list, counts as sums over it."""

    def __init__(self) -> None:
        self.claims: list[dict[str, Any]] = []

    def expire(self, now: float) -> None:
        for each in self.claims:
            if each["used"] is None and each["expires"] <= now:
                each["used"] = each["reserved"]

    def sum(self, account: str, window: Window, key: str) -> int:
        inside = [
            each for each in self.claims if account in each["accounts"] and window_at(window.name, each["at"]) == window
        ]
        if key == "used":
            return sum(each["used"] for each in inside if each["used"] is not None)
        return sum(each[key] for each in inside if each["used"] is None)

    def fits(self, accounts: list[str], bound: int, now: float) -> bool:
        cells = [
            (account, window_at(name, now), quota) for account in accounts for name, quota in QUOTAS[account].items()
        ]
        return all(self.sum(a, w, "used") + self.sum(a, w, "bound") + bound <= quota for a, w, quota in cells)


@pytest.mark.slow
@settings(max_examples=40)
@given(steps=STEPS)
def test_random_steps_and_crashes_come_to_what_a_model_says(
    tmp_path_factory: Any, steps: list[tuple[Any, ...]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"

    async def crashed(ledger: Ledger, clock: Clock) -> Ledger:
        """The file as a kill leaves it: copied while it is open, its log not checkpointed."""
        copies = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
        await ledger.close()
        for name, content in copies.items():
            Path(f"{path}{name}").write_bytes(content)
        return SqliteLedger(path, clock=clock)

    async def walk() -> None:
        clock = Clock()
        await _walk(SqliteLedger(path, clock=clock), clock, steps, crashed, keeps_renewals=False)

    asyncio.run(walk())


@pytest.mark.slow
@settings(max_examples=30)
@given(steps=STEPS)
def test_the_same_in_redis(server: RedisServer, steps: list[tuple[Any, ...]]) -> None:
    clock = Clock()

    async def crashed(ledger: Ledger, clock: Clock) -> Ledger:
        """A gateway that is gone, and another that opens the same."""
        await ledger.close()
        return await shifted(server, clock, keep=True)

    async def walk() -> None:
        await _walk(await shifted(server, clock), clock, steps, crashed, keeps_renewals=True)

    asyncio.run(walk())


Crash = Callable[[Ledger, Clock], Awaitable[Ledger]]


async def _walk(
    ledger: Ledger, clock: Clock, steps: list[tuple[Any, ...]], crashed: Crash, *, keeps_renewals: bool
) -> None:
    model = Model()
    for step in steps:
        kind, *rest = step
        if kind == "wait":
            clock.now += rest[0]
        elif kind == "crash":
            ledger = await crashed(ledger, clock)
            for each in model.claims if not keeps_renewals else ():
                each["expires"] = each["told"]
        elif kind == "sweep":
            await ledger.sweep()
            model.expire(clock.now)
        elif kind == "reserve":
            reserved, bound = sorted(rest[:2])
            accounts = ["gateway", f"tenant:{rest[2]}"]
            name = str(len(model.claims))
            found = await ledger.reserve(Claim(name, {one: QUOTAS[one] for one in accounts}, reserved, bound, LEASE))
            model.expire(clock.now)
            assert (found is None) == model.fits(accounts, bound, clock.now)
            if found is None:
                one = {"accounts": accounts, "at": clock.now, "reserved": reserved, "bound": bound, "used": None}
                model.claims.append(one | {"expires": clock.now + LEASE, "told": clock.now + LEASE})
        elif model.claims:
            each = model.claims[rest[0] % len(model.claims)]
            name = str(rest[0] % len(model.claims))
            if kind == "renew":
                assert await ledger.renew(name, LEASE) == (each["used"] is None)
                each["expires"] = clock.now + LEASE
            else:
                tokens = min(rest[1], each["bound"])
                each["used"] = tokens if each["used"] is None else each["used"]
                assert await ledger.settle(name, tokens) in (each["used"], None)
        await _agree(ledger, model, clock)
    await ledger.close()


async def _agree(ledger: Ledger, model: Model, clock: Clock) -> None:
    for count in await ledger.counts(QUOTAS):
        window = window_at(count.window, clock.now)
        found = (count.settled, count.reserved, count.bound)
        assert found == tuple(model.sum(count.account, window, key) for key in ("used", "reserved", "bound"))
        quota = QUOTAS[count.account].get(count.window, math.inf)
        assert count.settled + count.bound <= quota
    assert await ledger.num_open() == sum(each["used"] is None for each in model.claims)


CLAIMS = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(0, 200), st.booleans()), max_size=12)


@given(claims=CLAIMS, bound=st.integers(1, 120))
def test_what_a_refusal_says_of_waiting_is_true(claims: list[tuple[int, int, int, bool]], bound: int) -> None:
    """Claims come, of which some are settled; the rest ends with its lease, and nobody else comes."""
    now, book, quotas = START - 100.0, Book(), {MINUTE: 100, HOUR: 250, DAY: 300, ALL: 350}
    for number, (one, other, seconds, is_settled) in enumerate(claims):
        reserved, most = sorted((one, other))
        if book.take(Claim(str(number), {"gateway": quotas}, reserved, most, 45.0), now) is None and is_settled:
            book.settle(str(number), reserved)
        now += seconds / 10.0
        sweep(book, now)
    wanted = Claim("wanted", {"gateway": quotas}, bound, bound)
    full = book.take(wanted, now)
    if full is None:
        return
    assert 0 <= full.left < bound
    if math.isinf(full.retry_after):
        for days in (0, 1, 40):
            sweep(book, now + 86_400.0 * days + 100.0)
            assert book.take(wanted, now + 86_400.0 * days + 100.0) is not None
    else:
        sweep(book, now + full.retry_after)
        assert book.take(wanted, now + full.retry_after) is None


def sweep(book: Book, now: float) -> None:
    for name, reserved in list(book.expired(now)):
        book.settle(name, reserved)


# The SQLite file.


async def test_what_was_returned_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path, clock=clock)
    await ledger.reserve(claim("a", 100, 40))
    await ledger.reserve(claim("b", 50, 20))
    await ledger.settle("b", 12)
    await ledger.swap("price", {"value": 0.5}, 0)
    await ledger.close()
    await ledger.close()
    ledger = SqliteLedger(path, clock=clock)
    assert (await totals(ledger))[DAY] == (12, 40, 100)
    assert (await ledger.state("price")).version == 1
    assert await ledger.settle("a", 7) == 7
    await ledger.close()


async def test_one_gateway_a_file(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match=r"in use by another gateway.*--ledger redis://"):
        SqliteLedger(tmp_path / "ledger.sqlite")
    await ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        await ledger.reserve(claim("a", 1))
    await SqliteLedger(tmp_path / "ledger.sqlite").close()


def _other_program(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE cats (name TEXT)")
    database.close()


def _later_format(path: Path) -> None:
    asyncio.run(SqliteLedger(path).close())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def _damaged_page(path: Path) -> None:
    asyncio.run(SqliteLedger(path).close())
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


def _damaged_claim(path: Path) -> None:
    asyncio.run(SqliteLedger(path).close())
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO claims VALUES ('a', 'no list', 1.0, 1, 1, 1.0)")
    database.close()


def _count_below_0(path: Path) -> None:
    asyncio.run(SqliteLedger(path).close())
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO counts VALUES ('gateway', 'day', 0, -100000)")
    database.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"no database at all, but text" * 100), "is no ledger, or is damaged"),
        (_other_program, "a database of another program"),
        (_later_format, "format 99"),
        (_damaged_page, "damaged"),
        (_damaged_claim, "damaged"),
        (_count_below_0, r"damaged \(a count of -100,000\)"),
        (lambda path: path.mkdir(), "cannot be"),
    ],
    ids=["text", "another program's", "a later format", "damaged pages", "a damaged claim", "a count", "a folder"],
)
def test_a_file_that_is_no_ledger_is_one_clear_error(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "ledger.sqlite"
    make(path)
    with pytest.raises(LedgerError, match=message):
        SqliteLedger(path)
    with pytest.raises(LedgerError, match=message):  # and holds no lock afterwards
        SqliteLedger(path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="Make its folder first"):
        SqliteLedger(tmp_path / "none" / "ledger.sqlite")


async def test_a_commit_that_fails_takes_the_claim_back_and_keeps_settlements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    monkeypatch.setattr("forethought.gateway.ledger.sqlite.RETRY_SECONDS", 0.02)
    await ledger.reserve(claim("a", 100, 40))
    commit, ledger._file.commit = ledger._file.commit, _full_disk  # type: ignore[method-assign]
    with pytest.raises(LedgerError, match="disk is full"):
        await ledger.reserve(claim("b", 100, 40))
    with pytest.raises(LedgerError, match="disk is full"):
        await ledger.settle("a", 30)
    assert (await totals(ledger))[ALL] == (30, 0, 0)
    ledger._file.commit = commit  # type: ignore[method-assign]
    await asyncio.sleep(0.1)
    await ledger.close()
    ledger = SqliteLedger(path)
    assert (await totals(ledger))[ALL] == (30, 0, 0)
    await ledger.close()


def _full_disk(statements: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_sync_that_fails_ends_reservations(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")

    def broken() -> None:
        raise OSError("input/output error")

    ledger._file.sync = broken  # type: ignore[method-assign]
    await ledger.reserve(claim("a", 100, 40))
    with pytest.raises(LedgerError, match="cannot be synced"):
        await ledger.durable("a")
    with pytest.raises(LedgerError, match="start the gateway again"):
        await ledger.reserve(claim("b", 1))
    assert await ledger.settle("a", 3) == 3
    await ledger.close()


async def test_a_claim_is_synced_while_its_request_is_answered(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    numbers, sync = [], ledger._file.sync

    def counted() -> None:
        numbers.append(1)
        sync()

    ledger._file.sync = counted  # type: ignore[method-assign]
    await asyncio.gather(*(ledger.reserve(claim(name, 10, 4)) for name in "abc"))
    await ledger.reserve(claim("d", 10, 4))  # while the first may still be synced
    async with asyncio.timeout(5):
        while ledger._num_synced < ledger._num_committed:  # nobody has asked
            await asyncio.sleep(0.001)
    num = len(numbers)
    assert 1 <= num <= 2
    for name in "abcd":
        await ledger.durable(name)
        await ledger.settle(name, 1)
    await asyncio.sleep(0.05)
    assert len(numbers) == num  # settlements alone are not synced
    await ledger.close()


async def test_the_log_is_shortened_while_claims_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.gateway.ledger.sqlite.CHECKPOINT_COMMITS", 20)
    path = tmp_path / "ledger.sqlite"
    ledger, num_checkpoints = SqliteLedger(path, clock=Clock()), 0
    ledger._next_checkpoint = 20
    checkpoint = ledger._file.checkpoint

    def counted() -> None:
        nonlocal num_checkpoints
        num_checkpoints += 1
        checkpoint()
        if num_checkpoints == 2:
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(ledger._file, "checkpoint", counted)
    for number in range(100):
        await ledger.reserve(claim(str(number), 5))
        await ledger.durable(str(number))
        await ledger.settle(str(number), 3)
    assert num_checkpoints >= 3  # also after one that failed
    assert Path(f"{path}-wal").stat().st_size < 60 * 4 * 4200  # it began anew: 200 commits of some pages came
    await ledger.close()
    ledger = SqliteLedger(path, clock=Clock())
    assert (await totals(ledger))[ALL] == (300, 0, 0)
    await ledger.close()


async def test_another_program_that_writes_to_the_file_holds_up_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        with pytest.raises(LedgerError, match="locked"):
            await ledger.reserve(claim("a", 5))
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.9  # opening waits for 1 s
    other.close()
    assert await ledger.reserve(claim("a", 5)) is None
    await ledger.close()


async def test_counts_of_windows_long_past_go(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path, clock=clock)
    await ledger.reserve(claim("a", 10))
    await ledger.settle("a", 10)
    clock.now += 200 * 86_400.0
    await ledger.sweep()
    await ledger.close()
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT window, settled FROM counts ORDER BY window").fetchall()
    database.close()
    assert rows == [("all", 10), ("month", 10)]


@pytest.mark.parametrize(
    ("name", "day", "start", "end"),
    [
        (MINUTE, datetime(2026, 3, 1, 5, 6, 59, 999, tzinfo=UTC), (2026, 3, 1, 5, 6), (2026, 3, 1, 5, 7)),
        (HOUR, datetime(2026, 3, 1, 5, 0, tzinfo=UTC), (2026, 3, 1, 5), (2026, 3, 1, 6)),
        (DAY, datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC), (2026, 2, 28), (2026, 3, 1)),
        (MONTH, datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), (2026, 12, 1), (2027, 1, 1)),
        (MONTH, datetime(2028, 2, 29, tzinfo=UTC), (2028, 2, 1), (2028, 3, 1)),
    ],
)
def test_windows_are_the_calendars_in_utc(name: str, day: datetime, start: Any, end: Any) -> None:
    found = window_at(name, day.timestamp())
    wanted = (datetime(*(*part, 1)[: max(3, len(part))], tzinfo=UTC).timestamp() for part in (start, end))
    assert (found.start, found.end) == tuple(wanted)


def test_a_claim_is_plain_text_in_the_file(tmp_path: Path) -> None:
    """No key and no text of a request could be in it: these columns are all."""
    asyncio.run(_one_claim(tmp_path / "ledger.sqlite"))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        rows = database.execute("SELECT * FROM claims").fetchall()
    database.close()
    assert [(row[0], json.loads(row[1]), *row[2:5]) for row in rows] == [("a", ["gateway"], START, 5, 5)]


async def _one_claim(path: Path) -> None:
    ledger = SqliteLedger(path, clock=Clock())
    await ledger.reserve(claim("a", 5))
    await ledger.close()


async def test_settlements_wait_a_little_for_others_and_one_commit_takes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, num_commits = SqliteLedger(tmp_path / "ledger.sqlite"), 0
    commit = ledger._file.commit

    def counted(statements: Any) -> None:
        nonlocal num_commits
        num_commits += 1
        commit(statements)

    monkeypatch.setattr(ledger._file, "commit", counted)
    await asyncio.gather(*(ledger.reserve(claim(str(number), 5)) for number in range(20)))
    assert num_commits == 1
    await asyncio.gather(*(ledger.settle(str(number), 5) for number in range(20)))
    assert num_commits == 2
    await ledger.close()


async def test_what_a_thread_raises_is_said_in_the_loop() -> None:
    beside, said, order = Beside("test"), asyncio.Queue[BaseException | None](), list[int]()

    def fails() -> None:
        raise OSError("no")

    beside.run(lambda: order.append(1), said.put_nowait)
    beside.run(fails, said.put_nowait)
    beside.run(lambda: order.append(2), said.put_nowait)
    assert await said.get() is None
    assert isinstance(await said.get(), OSError)
    assert await said.get() is None
    assert order == [1, 2]
    beside.close()
    Beside("never used").close()
