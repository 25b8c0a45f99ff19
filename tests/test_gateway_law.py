"""The price law: its steps, its loop with a demand, and the price that gateways share."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forethought.gateway.admission import GATEWAY, Admission, Grant, Refusal
from forethought.gateway.law import (
    MOST_STEP,
    SLACK,
    Pace,
    PriceLaw,
    SharedPrice,
    paces_of,
    price_of,
    steering_quotas,
)
from forethought.gateway.ledger import Claim, Ledger
from forethought.gateway.ledger.sqlite import SqliteLedger
from forethought.gateway.tenants import Tenant, Tenants
from forethought.gateway.used import Used
from forethought.gateway.windows import ALL, DAY, HOUR, MINUTE, MONTH, windows_at

LAW = PriceLaw(0.001)
HALF_DAY = Pace(quota=86_400.0, left=43_200.0, seconds_left=43_200.0, length=86_400.0)  # 1 token per second


def after(
    used: float, pace: Pace = HALF_DAY, law: PriceLaw = LAW, seconds: float = 60.0, price: float = 0.001
) -> float:
    return law.step({DAY: price}, used=used, seconds=seconds, paces={DAY: pace})[DAY]


def test_a_price_stays_where_tokens_go_at_the_rate_that_is_left() -> None:
    assert after(60.0) == pytest.approx(0.001)


def test_it_moves_by_e_while_a_share_of_the_window_passes_at_twice_the_rate_or_at_none() -> None:
    share = 60.0 / 86_400.0
    assert after(120.0) == pytest.approx(0.001 * math.exp(LAW.gain * share))
    assert after(0.0) == pytest.approx(0.001 * math.exp(-LAW.gain * share))


def test_reservations_that_come_back_lower_it() -> None:
    assert after(-60.0) < after(0.0) < after(30.0) < 0.001 < after(90.0) < after(1e9)


def test_a_window_in_which_a_request_did_not_fit_is_dearer_though_little_was_used() -> None:
    pace = Pace(60.0, 5.0, 30.0, 60.0)
    prices = LAW.step({MINUTE: 0.001}, used=0.0, seconds=1.0, paces={MINUTE: pace}, full=[MINUTE])
    assert prices[MINUTE] == pytest.approx(after(2 * 20.0 / 45.0, pace, seconds=1.0))
    assert after(0.0, pace, seconds=1.0) < 0.001 < prices[MINUTE]


def test_where_nothing_is_left_it_is_still_a_number() -> None:
    assert 0.001 < after(100.0, Pace(86_400.0, 0.0, 100.0, 86_400.0)) < 0.0011
    assert 0.0009 < after(0.0, Pace(86_400.0, -5.0, 100.0, 86_400.0)) < 0.001


MINUTE_PACE = Pace(60.0, 60.0, 60.0, 60.0)


def test_a_step_is_bounded() -> None:
    law = PriceLaw(0.001, high=1.0)
    assert after(1e12, MINUTE_PACE, law) == pytest.approx(0.001 * MOST_STEP)
    assert after(0.0, MINUTE_PACE, law) == pytest.approx(0.001 / MOST_STEP)


def test_a_price_is_bounded() -> None:
    law = PriceLaw(0.001, low=0.0009, high=0.0012)
    assert after(1e12, MINUTE_PACE, law) == 0.0012
    assert after(0.0, MINUTE_PACE, law) == 0.0009


def test_the_tightest_window_rules_and_the_others_stay_near() -> None:
    law, paces = PriceLaw(0.001, low=1e-6, high=1.0), {MINUTE: MINUTE_PACE, DAY: HALF_DAY}
    found = law.step({MINUTE: 0.01, DAY: 0.000_01}, used=60.0, seconds=60.0, paces=paces)
    assert price_of(found, law) == found[MINUTE] == pytest.approx(0.01)
    assert found[DAY] == pytest.approx(0.000_01)
    found = law.step({MINUTE: 0.000_01, DAY: 0.01}, used=60.0, seconds=60.0, paces=paces)
    assert price_of(found, law) == found[DAY] == pytest.approx(0.01)
    assert found[MINUTE] == pytest.approx(0.01 / SLACK)


def test_without_a_quota_it_is_the_first_price() -> None:
    assert LAW.step({}, used=1e9, seconds=1.0, paces={}) == {}
    assert price_of({}, LAW) == 0.001


@pytest.mark.parametrize(
    "settings",
    [
        {"first": 0.0},
        {"first": -1.0},
        {"first": math.nan},
        {"low": 0.002},
        {"high": 0.0005},
        {"low": 0.0},
        {"gain": 0.0},
    ],
    ids=str,
)
def test_settings_that_are_no_law(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a price law needs"):
        PriceLaw(**{"first": 0.001} | settings)


NUMBERS = st.floats(-1e12, 1e12)


@given(
    used=NUMBERS, seconds=st.floats(0, 1e9), left=NUMBERS, seconds_left=st.floats(0, 1e9), price=st.floats(1e-12, 1e12)
)
def test_whatever_is_seen_a_price_is_within_its_bounds(
    used: float, seconds: float, left: float, seconds_left: float, price: float
) -> None:
    low, high = LAW.bounds
    found = after(used, Pace(1.0, left, seconds_left, 60.0), seconds=seconds, price=price)
    assert low <= found <= high


@pytest.mark.parametrize("requests", [0.5, 1.0, 3.0])
def test_in_a_loop_with_a_demand_a_quota_lasts_to_its_end(requests: float) -> None:
    """Each second `requests` come, which take 100 tokens at half of the first price and half of that at twice it."""
    law, quota, prices = PriceLaw(0.001, high=0.1), 3_600.0 * 50.0, {HOUR: 0.001}
    for _ in range(4):
        used, full_for = 0.0, 0
        for second in range(3_600):
            tokens = requests * 50.0 * math.sqrt(0.001 / prices[HOUR])
            full = [HOUR] if used + tokens > quota else []
            full_for, tokens = full_for + len(full), 0.0 if full else tokens
            used += tokens
            pace = Pace(quota, quota - used, 3_600.0 - second, 3_600.0)
            prices = law.step(prices, used=tokens, seconds=1.0, paces={HOUR: pace}, full=full)
    assert 0.95 * quota < used <= quota
    assert full_for < 60
    assert prices[HOUR] == pytest.approx(0.001 * requests**2, rel=0.2)


def test_what_steers_are_the_gateways_quotas_or_the_sum_of_all_tenants() -> None:
    two = [Tenant("a", quotas={DAY: 10, HOUR: 3}), Tenant("b", quotas={DAY: 20, MINUTE: 1, ALL: 5})]
    assert steering_quotas(Tenants(two, quotas={MONTH: 500, ALL: 900})) == {MONTH: 500, DAY: 30}
    assert steering_quotas(Tenants(two, quotas={DAY: 7})) == {DAY: 7}
    assert steering_quotas(Tenants()) == {}


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    found = SqliteLedger(tmp_path / "ledger.sqlite", clock=clock)
    yield found
    await found.close()


async def use(ledger: Ledger, name: str, tokens: int) -> None:
    assert await ledger.reserve(Claim(name, {GATEWAY: {}}, tokens, tokens)) is None
    await ledger.settle(name, tokens)


async def test_paces_are_what_counts_leave(ledger: Ledger, clock: Clock) -> None:
    await use(ledger, "a", 30)
    await ledger.reserve(Claim("b", {GATEWAY: {}}, 20, 90))
    paces = paces_of({HOUR: 100, MONTH: 1_000, ALL: 5}, await ledger.counts([GATEWAY]), clock.now)
    windows = {window.name: window for window in windows_at(clock.now)}
    assert paces == {
        HOUR: Pace(100.0, 50.0, windows[HOUR].end - clock.now, 3_600.0),
        MONTH: Pace(1_000.0, 950.0, windows[MONTH].end - clock.now, 31 * 86_400.0),
    }


async def test_gateways_on_one_ledger_have_one_price_and_take_one_step_a_second(ledger: Ledger, clock: Clock) -> None:
    one, two = (SharedPrice(PriceLaw(0.001), {MINUTE: 600}) for _ in range(2))
    await one.step(ledger, GATEWAY)
    await two.step(ledger, GATEWAY)
    assert one.value == two.value == 0.001
    await use(ledger, "a", 200)
    clock.now += 1.5
    await one.step(ledger, GATEWAY)
    assert one.value > 0.001
    clock.now += 0.5
    await two.step(ledger, GATEWAY)
    assert two.value == one.value
    assert (await ledger.state("price")).version == 2
    clock.now += 1.0
    await two.step(ledger, GATEWAY)
    assert two.value < one.value


async def test_a_gateway_that_is_idle_writes_no_price(ledger: Ledger, clock: Clock) -> None:
    price = SharedPrice(PriceLaw(0.001), {MINUTE: 600})
    for _ in range(100):
        await price.step(ledger, GATEWAY)
        clock.now += 1.0
    assert price.value == price.law.bounds[0]
    version = (await ledger.state("price")).version
    assert version < 50
    await use(ledger, "a", 500)
    await price.step(ledger, GATEWAY)
    assert (await ledger.state("price")).version == version + 1


async def test_where_two_take_a_step_at_once_one_counts(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = SharedPrice(PriceLaw(0.001), {MINUTE: 600})
    await one.step(ledger, GATEWAY)
    clock.now += 2.0
    swap = ledger.swap

    async def late(name: str, value: object, version: int) -> bool:
        await swap(name, {"prices": {MINUTE: 0.0015}, "tokens": 0, "at": clock.now}, version)
        return await swap(name, {}, version)

    monkeypatch.setattr(ledger, "swap", late)
    await one.step(ledger, GATEWAY)
    assert one.value == 0.0015


@pytest.mark.parametrize(
    "value",
    [{}, {"prices": 3}, {"prices": {MINUTE: "x"}}, {"prices": {MINUTE: -1.0}}, {"tokens": "x", "at": None}],
    ids=str,
)
async def test_a_kept_value_that_is_odd_counts_as_missing(ledger: Ledger, value: dict[str, object]) -> None:
    await ledger.swap("price", value, 0)
    price = SharedPrice(PriceLaw(0.001), {MINUTE: 600})
    await price.step(ledger, GATEWAY)
    assert price.value == 0.001


async def test_a_price_outlives_its_gateway(tmp_path: Path, clock: Clock) -> None:
    path, price = tmp_path / "kept.sqlite", SharedPrice(PriceLaw(0.001), {MINUTE: 600})
    ledger = SqliteLedger(path, clock=clock)
    for number in range(3):
        await use(ledger, str(number), 100)
        await price.step(ledger, GATEWAY)
        clock.now += 1.0
    await ledger.close()
    ledger, again = SqliteLedger(path, clock=clock), SharedPrice(PriceLaw(0.001), {MINUTE: 600})
    clock.now -= 0.5
    await again.step(ledger, GATEWAY)
    assert again.value == price.value > 0.001
    await ledger.close()


async def test_a_refusal_by_the_gateways_quota_raises_the_price(ledger: Ledger, clock: Clock) -> None:
    @dataclass(frozen=True)
    class Decided:
        budget = high_tokens = most_tokens = 100
        answer_tokens, num_thoughts = 0, 1

    tenants = Tenants([Tenant("a"), Tenant("b", quotas={MINUTE: 600})], quotas={MINUTE: 1_000})
    price = SharedPrice(PriceLaw(0.001), tenants.quotas)
    admission = Admission(tenants, ledger, price=price)
    for tenant, num_grants, is_dearer in ((tenants.all[1], 1, False), (tenants.all[0], 2, True)):
        clock.now += 60.0
        await admission.tick()
        grants = [await admission.admit(tenant, prompt_bytes=0, decision=Decided()) for _ in range(num_grants)]
        assert isinstance(await admission.admit(tenant, prompt_bytes=0, decision=Decided()), Refusal)
        for grant in grants:
            assert isinstance(grant, Grant)
            await admission.settle(grant, Used(1, 1, 1))
        before = price.value
        clock.now += 2.0
        await admission.tick()
        assert (price.value > before) == is_dearer


async def test_a_tenant_faces_the_price_over_its_weight(ledger: Ledger) -> None:
    light, heavy = Tenant("light"), Tenant("heavy", weight=4.0)
    price = SharedPrice(PriceLaw(0.001), {MINUTE: 600})
    admission = Admission(Tenants([light, heavy]), ledger, price=price)
    await admission.tick()
    assert admission.price(light) == 0.001
    assert admission.price(heavy) == 0.000_25
