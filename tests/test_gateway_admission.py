"""What a request reserves, what it settles to, and what a refusal says."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from forethought.errors import LedgerError
from forethought.gateway.admission import BELIEVED, Admission, Grant, PromptTokens, Refusal, tokens_of
from forethought.gateway.ledger import Claim
from forethought.gateway.ledger.sqlite import SqliteLedger
from forethought.gateway.tenants import Tenant, Tenants
from forethought.gateway.used import CLIENT_LEFT, REFUSED_UPSTREAM, UPSTREAM_FAILED, Used
from forethought.gateway.windows import ALL, DAY, HOUR


@dataclass(frozen=True)
class Decided:
    """What admission reads of a decision."""

    budget: int | None = 100
    high_tokens: int | None = 80
    most_tokens: int | None = 150
    answer_tokens: int = 50
    num_thoughts: int = 1


SEARCH, BATCH = Tenant("search", quotas={HOUR: 2_000}), Tenant("batch", weight=2.0)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def admission(tmp_path: Path, clock: Clock) -> AsyncIterator[Admission]:
    tenants = Tenants([SEARCH, BATCH], quotas={DAY: 10_000})
    found = Admission(tenants, SqliteLedger(tmp_path / "ledger.sqlite", clock=clock), lease=10.0)
    yield found
    await found.close()


async def settled(admission: Admission, account: str = "gateway") -> int:
    return next(each.settled for each in await admission.counts() if (each.account, each.window) == (account, ALL))


async def none_open(admission: Admission) -> None:
    """Waits until all claims are settled."""
    ends = time.monotonic() + 10.0
    while await admission.ledger.num_open():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def grant_of(admission: Admission, tenant: Tenant = SEARCH, **changes: int | None) -> Grant:
    found = await admission.admit(tenant, prompt_bytes=100, decision=Decided(**changes))  # type: ignore[arg-type]
    assert isinstance(found, Grant)
    return found


async def refusal_of(admission: Admission, tenant: Tenant = SEARCH, **changes: int | None) -> Refusal:
    found = await admission.admit(tenant, prompt_bytes=100, decision=Decided(**changes))  # type: ignore[arg-type]
    assert isinstance(found, Refusal)
    return found


async def test_a_request_reserves_its_prompt_its_thoughts_and_its_answers(admission: Admission) -> None:
    one = await grant_of(admission)
    assert (one.prompt_tokens, one.reserved, one.bound) == (30, 30 + 130, 356 + 150)
    three = await grant_of(admission, num_thoughts=3)
    assert (three.reserved, three.bound) == (30 + 3 * 130, 356 + 3 * 150)


@pytest.mark.parametrize(
    ("changes", "reserved", "bound"),
    [
        ({"high_tokens": None}, 150, 150),
        ({"high_tokens": None, "budget": None}, 150, 150),
        ({"high_tokens": 500}, 150, 150),
        ({"num_thoughts": 0}, 130, 150),
    ],
    ids=["no 90th percentile", "nothing predicted", "more than its limit", "no thoughts"],
)
async def test_what_else_a_decision_may_hold(
    admission: Admission, changes: dict[str, int | None], reserved: int, bound: int
) -> None:
    one = await grant_of(admission, **changes)
    assert (one.reserved, one.bound) == (30 + reserved, 356 + bound)


async def test_each_account_counts(admission: Admission) -> None:
    one, two = await grant_of(admission), await grant_of(admission, BATCH)
    await admission.durable(one)
    assert await admission.settle(one, Used(20, 10, 30)) == 50
    assert await admission.settle(two, Used(5, None, 7)) == 12
    found = {(each.account): each.settled for each in await admission.counts() if each.window == ALL}
    assert found == {"gateway": 62, "tenant:search": 50, "tenant:batch": 12}


async def test_a_grant_settles_once_however_often_it_is_asked(admission: Admission) -> None:
    one = await grant_of(admission)
    found = await asyncio.gather(*(admission.settle(one, Used(20, 10, 30 + number)) for number in range(5)))
    assert set(found) == {50}
    assert await admission.settle(one, Used(1, 1, 1)) == 50 == await settled(admission)


async def test_a_settlement_goes_on_where_its_caller_is_cancelled(admission: Admission) -> None:
    one = await grant_of(admission)
    task = asyncio.ensure_future(admission.settle(one, Used(20, 10, 30)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await admission.settle(one, Used(1, 1, 1)) == 50 == await settled(admission)


async def test_a_client_that_leaves_while_it_is_let_in_counts_nothing(admission: Admission) -> None:
    task = asyncio.ensure_future(admission.admit(SEARCH, prompt_bytes=100, decision=Decided()))
    await asyncio.sleep(0)
    assert await admission.ledger.num_open() == 1
    task.cancel()
    await asyncio.wait([task])
    await none_open(admission)
    assert await settled(admission) == 0


GRANT = Grant("id", "search", prompt_tokens=30, prompt_bytes=100, reserved=160, bound=600, most=600 + BELIEVED)


@pytest.mark.parametrize(
    ("used", "tokens"),
    [
        (Used(20, 10, 30), 50),
        (Used(None, 10, 30), 60),
        (Used(0, 0, 0), 1),
        (Used(20, 10, 3_000), 3_020),
        (Used(20, 10, None), 160),
        (Used(20, 500, None), 520),
        (Used(None, None, None, at_least=400), 430),
        (Used(None, None, None), 160),
        (Used(20, None, 30, ending=CLIENT_LEFT), 50),
        (Used(20, None, None, ending=CLIENT_LEFT, at_least=7), 160),
        (Used(20, None, 30, ending=UPSTREAM_FAILED), 160),
        (Used(20, None, 300, ending=UPSTREAM_FAILED), 320),
        (Used(None, None, None, status=503, ending=REFUSED_UPSTREAM), 0),
        (Used(10, 10, 10**8), 600 + BELIEVED),
        (Used(10**8, 10, 10), 600 + BELIEVED),
        (Used(10, 10, 10**7, shown=900_000), 900_600 + BELIEVED),
    ],
)
def test_what_a_request_counts_as(used: Used, tokens: int) -> None:
    assert tokens_of(GRANT, used) == tokens


async def test_a_refusal_says_who_is_out_of_what_and_for_how_long(admission: Admission, clock: Clock) -> None:
    for _ in range(3):
        await grant_of(admission)
    refusal = await refusal_of(admission)
    assert refusal.may_wait
    assert refusal.left == 2_000 - 3 * 506
    assert "tenant search has 2,000 tokens per hour: this request may use up to 506, and 482 are left for now" in (
        refusal.reason
    )
    clock.now += refusal.retry_after
    await grant_of(admission)


async def test_what_never_fits_is_not_told_to_wait(admission: Admission) -> None:
    refusal = await refusal_of(admission, most_tokens=5_000)
    assert not refusal.may_wait
    assert math.isinf(refusal.retry_after)
    assert "never fits; ask for fewer tokens" in refusal.reason
    assert refusal.left == 2_000


async def test_what_nothing_limits_is_refused_where_there_is_a_quota(admission: Admission, tmp_path: Path) -> None:
    await grant_of(admission)
    refusal = await refusal_of(admission, most_tokens=None)
    assert "give it max_tokens" in refusal.reason
    assert (refusal.left, refusal.may_wait) == (2_000 - 506, False)
    free = Admission(Tenants(), SqliteLedger(tmp_path / "free.sqlite"))
    grant = await grant_of(free, Tenant("all"), most_tokens=None)
    assert grant.bound == 356 + 130
    await free.close()


async def test_a_second_decision_under_what_is_left_fits(admission: Admission) -> None:
    for _ in range(3):
        await grant_of(admission)
    left = (await refusal_of(admission)).left
    prompt = 356
    assert (await grant_of(admission, most_tokens=left - prompt)).bound == left


async def test_leases_are_renewed_and_run_out(admission: Admission, clock: Clock) -> None:
    one, two = await grant_of(admission), await grant_of(admission)
    clock.now += 8
    await admission.renew(one)
    clock.now += 8
    await admission.ledger.sweep()
    assert await settled(admission) == two.reserved
    assert await admission.settle(two, Used(1, 1, 1)) == two.reserved
    assert await admission.settle(one, Used(1, 1, 1)) == 2


async def test_a_tick_renews_what_goes_on_and_nothing_that_is_settled(admission: Admission, clock: Clock) -> None:
    one, two = await grant_of(admission), await grant_of(admission)
    await admission.settle(two, Used(1, 1, 1))
    clock.now += 8
    await admission.tick()
    clock.now += 8
    await admission.ledger.sweep()
    assert await settled(admission) == 2
    assert await admission.settle(one, Used(1, 1, 1)) == 2


async def test_it_sweeps_by_itself(admission: Admission, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.gateway.admission.TICK_SECONDS", 0.01)
    await admission.ledger.reserve(Claim("of a gateway that was killed", {"gateway": {}}, 1, 2, lease=10.0))
    admission.start()
    admission.start()
    clock.now += 11
    await none_open(admission)


async def test_a_fault_in_one_tick_is_not_the_last_of_them(
    admission: Admission, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another one no lease would be renewed, and each request counted as its reservation."""
    sweep = admission.ledger.sweep

    async def broken() -> int:
        monkeypatch.setattr(admission.ledger, "sweep", sweep)
        raise OverflowError("a shared value that is odd")

    monkeypatch.setattr("forethought.gateway.admission.TICK_SECONDS", 0.01)
    monkeypatch.setattr(admission.ledger, "sweep", broken)
    await admission.ledger.reserve(Claim("of a gateway that was killed", {"gateway": {}}, 1, 2, lease=10.0))
    clock.now += 11
    admission.start()
    await none_open(admission)


async def test_where_the_ledger_fails_nothing_is_let_in(admission: Admission) -> None:
    await admission.ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        await grant_of(admission)


async def test_without_a_law_there_is_no_price(admission: Admission) -> None:
    assert admission.price(SEARCH) is None


def test_prompts_are_learnt_from() -> None:
    prompts = PromptTokens()
    assert prompts.expected(1_000) == 300
    assert prompts.bound(1_000) == 1_256
    for _ in range(300):
        prompts.see(1_000, 200)
    assert prompts.expected(1_000) == pytest.approx(200, abs=3)
    prompts.see(10, 1_000)  # an image by its address, or a long system prompt of the template
    assert prompts.bound(10) >= 1_000
    prompts.see(10**9, 5)
    assert prompts.expected(0) >= 1
