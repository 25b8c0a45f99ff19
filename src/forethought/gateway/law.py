"""The price law: the price of a token rises where tokens go faster than a quota lasts, and falls where they go slower.

Each window with a quota `Q` has a dual variable, the price at which the quota would last to its end. After a step of
`s` seconds in which `u` tokens were used, with `a` tokens and `t` seconds left to the end of a window of length `T`,

    speed = (u / s) / ((a + Q/4) / (t + T/4))
    price <- price * exp(gain * s / T * (speed - 1))

so a price stays where tokens go at the rate that is left, and moves by a factor of e while a share 1/gain of the window
passes at twice that rate, or at none. The rate looks a quarter of the next window ahead: at the end of a window, where
little is left for a short time, it would else throw the price about. What is paid is the largest of the prices: the
tightest window rules. Used tokens are settled ones and reservations of open claims, so a burst is felt when it is let
in.

This is dual mirror descent with the entropy as its reference function (multiplicative updates), as Balseiro, Lu and
Mirrokni analyse it for online allocation under a budget: The Best of Many Worlds: Dual Mirror Descent for Online
Allocation Problems, Operations Research 71 (2023), their algorithm 1 and example 2. Two things differ. The rate is what
is left over the time that is left, and not the one that was planned at the start, since nobody knows how many requests
will come; so the law is a heuristic, and their bounds on its regret do not carry over. And everything is bounded:

- a price by a lowest and a highest;
- a step by a factor of 2, and the speed by 4;
- the speed from below by 2 where a request did not fit, since what was refused is not in `u`;
- the price of a window by an eighth of that of a longer one, so that it is soon there when it rules.

The highest price matters most. Above the price at which even the best cap of a question is not worth its tokens, short
thoughts for all buy fewer right answers than long ones for those who come first, and refusals for the rest; below it
more are refused. benchmarks/price_law.py shows by how much. A quota in all has no end, and so no rate: it holds, and
moves no price.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .ledger import Count, Ledger
from .tenants import Tenants
from .windows import ALL, MONTH, SECONDS, WINDOWS, Quotas, window_at

GAIN = 4.0  # chosen with HIGH on simulated days: benchmarks/price_law.py --tune
LOW, HIGH = 1 / 8, 2.0  # the lowest and the highest price as multiples of the first one, where nothing else is given
MOST_STEP = 2.0
MOST_SPEED = 4.0
FULL_SPEED = 2.0
AHEAD = 0.25
SLACK = 8.0
STEP_SECONDS = 1.0
STATE = "price"  # name of the shared value


@dataclass(frozen=True, slots=True)
class Pace:
    """What is left of a quota.

    Attributes:
        quota: tokens.
        left: of them; may be below 0.
        seconds_left: to the end of the window.
        length: of the window, in seconds.
    """

    quota: float
    left: float
    seconds_left: float
    length: float

    @property
    def rate(self) -> float:
        """Tokens per second at which the quota lasts, looking ahead by a share of the next window; above 0."""
        left = max(self.left, 0.0) + AHEAD * self.quota
        return left / (self.seconds_left + AHEAD * self.length)


@dataclass(frozen=True, slots=True)
class PriceLaw:
    """Steps of the price.

    Attributes:
        first: where it starts; right answers per token.
        low, high: its bounds; None for LOW and HIGH times the first one.
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
        low = self.first * LOW if self.low is None else self.low
        return low, self.first * HIGH if self.high is None else self.high

    def step(
        self,
        prices: Mapping[str, float],
        *,
        used: float,
        seconds: float,
        paces: Mapping[str, Pace],
        full: Collection[str] = (),
    ) -> dict[str, float]:
        """The next price of each window in `paces`.

        Args:
            prices: of the windows so far; one that is missing starts at `first`.
            used: tokens since the last step; below 0 where reservations were larger than what came of them.
            seconds: since the last step.
            paces: of the windows with a quota.
            full: windows in which a request did not fit since the last step.
        """
        low, high = self.bounds
        found = {}
        for name, pace in paces.items():
            price = prices.get(name, self.first)
            speed = used / seconds / pace.rate if seconds > 0.0 else 1.0
            speed = max(speed, FULL_SPEED) if name in full else speed
            change = self.gain * seconds / pace.length * (min(max(speed, -MOST_SPEED), MOST_SPEED) - 1.0)
            price *= math.exp(min(max(change, -math.log(MOST_STEP)), math.log(MOST_STEP)))
            found[name] = price
        floor = low
        for name in sorted(found, key=lambda name: -paces[name].length):
            found[name] = min(max(found[name], floor), high)
            floor = max(floor, found[name] / SLACK)
        return found


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
        quota = quotas[count.window]
        left = quota - count.settled - count.reserved
        found[count.window] = Pace(float(quota), float(left), max(0.0, window.end - now), length)
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
        self._full: set[str] = set()

    def refused(self, window: str) -> None:
        """Notes that a request did not fit into the gateway's quota of this window."""
        self._full.add(window)

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
            used, full = tokens - before, frozenset(self._full)
            self._full.clear()
            following = self.law.step(prices, used=used, seconds=max(0.0, seconds), paces=paces, full=full)
            kept = {"prices": following, "tokens": tokens, "at": now}
            is_idle = state.version > 0 and not used and following == prices  # at its lowest, say: nothing to write
            if is_idle or await ledger.swap(STATE, kept, state.version):
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
