"""The price law: the price of a token rises where tokens go faster than a quota lasts, and falls where they go slower.

Each window with a quota has a dual variable, the price at which its quota would last to its end. After a step of `s`
seconds in which `u` tokens were used, with `a` tokens and `t` seconds left to the end of a window of length `T`,

    price <- price * exp(gain / T * (u * t / a - s))

so a price stays where tokens go at the rate `a / t` that is left, and moves by a factor of e while a share 1/gain of
the window passes at twice that rate, or at none. What is paid is the largest of them: the tightest window rules. Used
tokens are settled ones and reservations of open claims, so a burst is felt when it is let in, not when it has ended.

This is dual mirror descent with the entropy as its reference function (multiplicative updates), as Balseiro, Lu and
Mirrokni analyse it for online allocation under a budget: The Best of Many Worlds: Dual Mirror Descent for Online
Allocation Problems, Operations Research 71 (2023), their algorithm 1 and example 2. Two things differ. The rate is what
is left over the time that is left, and not the one that was planned at the start, since nobody knows how many requests
will come; so the law is a heuristic, and their bounds on its regret do not carry over. And everything is bounded: a
price by a lowest and a highest, a step by a factor of 2, the speed `u * t / (a * s)` by 4. A window that does not rule
stays within a factor of 8 of the price, so that it is soon there when it does. Where nothing is left, a price stays as
it is: nobody is let in at any. A quota in all has no end, and so no rate; it holds, and moves no price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ledger import Count, Ledger
from .tenants import Tenants
from .windows import ALL, MONTH, SECONDS, WINDOWS, Quotas, window_at

GAIN = 4.0
RANGE = 32.0  # the lowest and highest price are the first one divided and multiplied by this, where nothing is said
MOST_STEP = 2.0
MOST_SPEED = 4.0
SLACK = 8.0
STEP_SECONDS = 1.0
STATE = "price"  # name of the shared value


@dataclass(frozen=True, slots=True)
class Pace:
    """What is left of a quota.

    Attributes:
        left: tokens.
        seconds_left: to the end of the window.
        length: of the window, in seconds.
    """

    left: float
    seconds_left: float
    length: float


@dataclass(frozen=True, slots=True)
class PriceLaw:
    """Steps of the price.

    Attributes:
        first: where it starts; right answers a token.
        low, high: its bounds; None for the first one divided, or multiplied, by RANGE.
        gain: see the law; a larger one follows sooner and swings more.
    """

    first: float
    low: float | None = None
    high: float | None = None
    gain: float = GAIN

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not (0.0 < low <= self.first <= high < math.inf and 0.0 < self.gain < math.inf):
            raise ValueError(f"a price law needs 0 < {low} <= {self.first} <= {high}, and a gain above 0: {self.gain}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest price."""
        low = self.first / RANGE if self.low is None else self.low
        return low, self.first * RANGE if self.high is None else self.high

    def step(
        self, prices: Mapping[str, float], *, used: float, seconds: float, paces: Mapping[str, Pace]
    ) -> dict[str, float]:
        """The next price of each window in `paces`.

        Args:
            prices: of the windows so far; one that is missing starts at `first`.
            used: tokens since the last step; below 0 where reservations were larger than what came of them.
            seconds: since the last step.
            paces: of the windows with a quota.
        """
        low, high = self.bounds
        found = {}
        for name, pace in paces.items():
            price = prices.get(name, self.first)
            if pace.left > 0.0 and seconds > 0.0:
                speed = used * max(pace.seconds_left, seconds) / (pace.left * seconds)
                speed = min(max(speed, -MOST_SPEED), MOST_SPEED)
                change = self.gain * seconds / pace.length * (speed - 1.0)
                price *= math.exp(min(max(change, -math.log(MOST_STEP)), math.log(MOST_STEP)))
            found[name] = price
        floor = max(found.values(), default=low) / SLACK
        return {name: min(max(price, floor, low), high) for name, price in found.items()}


def price_of(prices: Mapping[str, float], law: PriceLaw) -> float:
    """What is paid at these prices of windows."""
    low, high = law.bounds
    return min(max(max(prices.values(), default=law.first), low), high)


def steering_quotas(tenants: Tenants) -> Quotas:
    """The quotas that move the price: the gateway's; where it has none the sum of all tenants', if all have one."""
    found = {}
    for name in WINDOWS:
        own = [tenant.quotas.get(name) for tenant in tenants.all]
        known = [quota for quota in own if quota is not None]
        if name in tenants.quotas:
            found[name] = tenants.quotas[name]
        elif len(known) == len(own):
            found[name] = sum(known)
    return {name: quota for name, quota in found.items() if name != ALL}


def paces_of(quotas: Quotas, counts: Sequence[Count], now: float) -> dict[str, Pace]:
    """What is left of each quota, by the counts of one account."""
    found = {}
    for count in counts:
        if count.window not in quotas or count.window == ALL:
            continue
        window = window_at(count.window, count.start)
        length = window.end - window.start if count.window == MONTH else float(SECONDS[count.window])
        left = quotas[count.window] - count.settled - count.reserved
        found[count.window] = Pace(float(left), max(0.0, window.end - now), length)
    return found


class SharedPrice:
    """The price of a gateway, kept in its ledger, so that all gateways on one ledger have the same.

    Args:
        law: how it moves.
        quotas: that move it; see `steering_quotas`.

    Attributes:
        value: as it was at the last step.
        prices: of each window.
    """

    def __init__(self, law: PriceLaw, quotas: Quotas) -> None:
        self.law = law
        self.quotas = quotas
        self.value = law.first
        self.prices: Mapping[str, float] = {}

    async def step(self, ledger: Ledger, account: str) -> None:
        """Takes a step where one is due, unless another gateway took it; then takes over what is kept.

        Raises:
            LedgerError: the ledger cannot be reached; the price stays as it is.
        """
        state = await ledger.state(STATE)
        now, counts = await ledger.now(), await ledger.counts([account])
        tokens = next(count.settled + count.reserved for count in counts if count.window == ALL)
        prices, before, seconds = _read(state.value, tokens, now)
        if state.version == 0 or seconds >= STEP_SECONDS or seconds < 0.0:
            paces = paces_of(self.quotas, counts, now)
            following = self.law.step(prices, used=tokens - before, seconds=max(0.0, seconds), paces=paces)
            kept = {"prices": following, "tokens": tokens, "at": now}
            if await ledger.swap(STATE, kept, state.version):
                prices = following
            else:  # another gateway took this step
                prices, _, _ = _read((await ledger.state(STATE)).value, tokens, now)
        self.prices = {name: price for name, price in prices.items() if name in self.quotas}
        self.value = price_of(self.prices, self.law)


def _read(value: Mapping[str, object], tokens: int, now: float) -> tuple[dict[str, float], int, float]:
    """`(prices, tokens at the last step, seconds since)` of a kept value; whatever is odd in it counts as missing."""
    prices, before, at = value.get("prices"), value.get("tokens"), value.get("at")
    found = {}
    for name, price in prices.items() if isinstance(prices, dict) else ():
        if isinstance(price, (int, float)) and math.isfinite(price) and price > 0.0:
            found[str(name)] = float(price)
    before = before if isinstance(before, int) else tokens
    return found, before, now - at if isinstance(at, (int, float)) else 0.0
