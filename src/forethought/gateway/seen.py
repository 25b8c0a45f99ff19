"""What a gateway is seen to do: one place that hears of every request, and says what is going on now."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..runs.journal import DONE, Entry
from .host import logger
from .journal import Ids, Journal
from .totals import MOST_LABELS, Totals

RECENT = 50  # requests that are listed
POINTS = 200  # requests whose prediction is held against what came
REMEMBERED = 20_000  # requests whose expected accuracy is known when their outcome is told
TIMES = 1_000  # of which the added milliseconds are known one by one
MOST_TENANTS = 100  # that are listed, those that used the largest share of a quota first
MOST_SERIES = 40
LENGTH = 240  # points of a series; then every second one is dropped
PATIENCE = 2.0  # seconds that the page waits for balances
MAX_NAME = 200  # letters of a model's name, which a client may choose
GATEWAY = "gateway"  # the account of all tenants together


@dataclass(frozen=True, slots=True)
class Balance:
    """Tokens of one account in the present window.

    Attributes:
        account: a tenant's name, or GATEWAY.
        window: "minute", "hour", "day", "month" or "all".
        start, end: of the window, seconds since 1970; infinite for "all".
        quota: tokens; None for no quota.
        settled: tokens that were used.
        reserved, bound: what open requests are expected to use, and the most that they can.
    """

    account: str
    window: str
    start: float
    end: float
    quota: int | None
    settled: int
    reserved: int = 0
    bound: int = 0

    @property
    def share(self) -> float:
        """Of the quota, what is used and reserved; 0 without one."""
        return (self.settled + self.reserved) / self.quota if self.quota else 0.0

    def to_json(self) -> dict[str, Any]:
        """One object; what has no end has null."""
        return {
            "account": self.account,
            "window": self.window,
            "start": self.start,
            "end": self.end if math.isfinite(self.end) else None,
            "quota": self.quota,
            "settled": self.settled,
            "reserved": self.reserved,
            "bound": self.bound,
        }


class Spans(Protocol):
    """Where spans of requests go; see `tracing`."""

    def record(self, entry: Entry, parent: Mapping[str, str]) -> None:
        """One request that has ended."""
        ...

    def close(self) -> None:
        """Sends what waits."""
        ...


@dataclass(slots=True)
class Series:
    """Points in time that stay few: with every halving they lie twice as far apart.

    Attributes:
        start: of the window that they belong to.
        points: (second, tokens used and reserved, price or None).
    """

    start: float
    points: list[tuple[float, int, float | None]] = field(default_factory=list)
    _step: float = 0.0

    def add(self, now: float, tokens: int, price: float | None) -> None:
        """One more point, if it is due."""
        if self.points and now < self.points[-1][0] + self._step:
            return
        self.points.append((now, tokens, price))
        if len(self.points) > LENGTH:
            self._step = max(1.0, 2 * self._step)
            del self.points[1::2]


Balances = Callable[[], Awaitable[Sequence[Balance]]]


class Seen:
    """Hears of every request, and passes it on to totals, journal and spans.

    Args:
        about: what the page says of the gateway: names and short texts.
        journal: keeps requests and outcomes; None for none.
        spans: where spans go; None for nowhere.
        balances: of all accounts with their quotas; None where there are no quotas.
        price: right answers per token, at weight 1; None where it is not known.
        clock: seconds since 1970.

    Attributes:
        totals: what was counted.
    """

    def __init__(
        self,
        *,
        about: Mapping[str, Any] | None = None,
        journal: Journal | None = None,
        spans: Spans | None = None,
        balances: Balances | None = None,
        price: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.about, self.journal, self.totals = dict(about or {}), journal, Totals()
        self.ids = Ids() if journal is None else journal.ids
        self._spans, self._balances, self._price, self._clock = spans, balances, price, clock
        self._started = clock()
        self._recent: deque[Entry] = deque(maxlen=RECENT)
        self._points: deque[tuple[int, int]] = deque(maxlen=POINTS)
        self._added_ms: deque[float] = deque(maxlen=TIMES)
        self._remembered: OrderedDict[str, tuple[float | None, bool | None]] = OrderedDict()
        self._known: Sequence[Balance] = ()
        self._is_away, self._sampled = False, -1.0
        self._series: dict[tuple[str, str], Series] = {}
        self._used = Series(self._started)

    @property
    def keeps_texts(self) -> bool:
        """Whether questions are kept."""
        return self.journal is not None and self.journal.keep_texts

    def begin(self) -> str:
        """A request has come; returns its id."""
        self.totals.began()
        return self.ids.new()

    def end(self, entry: Entry, parent: Mapping[str, str] | None = None) -> None:
        """It has ended; once for each that began.

        Args:
            entry: what is known of it.
            parent: the request's headers by name in lower case, from which a span takes its parent.
        """
        totals = self.totals
        if len(entry.model) > MAX_NAME:
            entry = replace(entry, model=f"{entry.model[:MAX_NAME]}…")
        totals.ended(entry)
        if not entry.tenant:  # whoever has no key must fill neither the disk nor the list
            return
        if self.journal is not None:
            self.journal.note(entry)
            totals.num_lost = self.journal.num_lost
        if entry.ending == DONE and not entry.is_shadow and entry.predicted is not None and entry.output_tokens:
            self._points.append((entry.predicted, entry.output_tokens))
        if entry.kind:
            self._added_ms.append(entry.added_ms)
            self._remember(entry.id, entry.expected, None)
        self._recent.append(entry)
        if self._spans is not None:
            self._spans.record(entry, parent or {})

    def close(self) -> None:
        """Keeps and sends what waits; it waits for disk and network."""
        if self.journal is not None:
            self.journal.close()
        if self._spans is not None:
            self._spans.close()

    def unknown(self, ids: Collection[str]) -> list[str]:
        """Those of the ids that no request here ever had."""
        return [name for name in ids if not self.ids.knows(name)]

    async def feed(self, outcomes: Sequence[tuple[str, bool]]) -> None:
        """Whether requests were answered right, by id; returns when the disk has it.

        Raises:
            FileError: the disk does not take it.
        """
        assert self.journal is not None
        await self.journal.feed(outcomes)
        for name, right in outcomes:
            expected, before = self._remembered.get(name, (None, None))
            self.totals.told(expected, right=right, before=before)
            self._remember(name, expected, right)

    def _remember(self, name: str, expected: float | None, right: bool | None) -> None:
        self._remembered[name] = (expected, right)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    async def refresh(self) -> None:
        """Takes a sample unless there is one of the last second: for somebody who looks for the first time."""
        if time.monotonic() >= self._sampled + 1.0:
            await self.sample()

    async def sample(self) -> None:
        """Asks for balances and the price, and adds a point to each series."""
        now, price = self._clock(), self._price()
        self._sampled = time.monotonic()
        self.totals.price = price
        self._used.add(now, self.totals.settled_tokens, price)
        if self._balances is None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                self._known = tuple(await self._balances())
        except Exception as error:  # the page must not stop because the ledger is away: it shows what was known last
            if not self._is_away:
                logger.warning("balances are not known: %s", error or type(error).__name__)
            self._is_away = True
            return
        self._is_away = False
        limited = [each for each in self._known if each.quota is not None][:MOST_LABELS]
        self.totals.quotas = [
            (each.account, each.window, each.quota or 0, each.settled + each.reserved) for each in limited
        ]
        for each in self._known:
            if each.quota is None:
                continue
            key = (each.account, each.window)
            series = self._series.get(key)
            if series is None and len(self._series) >= MOST_SERIES:
                continue
            if series is None or series.start != each.start:
                series = self._series[key] = Series(each.start)
            series.add(now, each.settled + each.reserved, price)

    async def run(self, is_watched: Callable[[], bool] = lambda: False) -> None:
        """Takes samples until it is cancelled: every second while somebody looks, else every five."""
        ticks = 0
        while True:
            if ticks % 5 == 0 or is_watched():
                try:
                    await self.sample()
                except Exception:  # the next one may do better
                    logger.exception("the page could not be brought up to date")
            ticks += 1
            await asyncio.sleep(1.0)

    def snapshot(self, *, with_series: bool = False) -> dict[str, Any]:
        """What is going on, JSON-able: counts, quotas, tenants, the last requests; never a text or a key.

        Args:
            with_series: also what was before: for each quota and for all tokens the points so far.
        """
        totals, added, quotas = self.totals, sorted(self._added_ms), self._quotas()
        found = {
            "now": self._clock(),
            "started": self._started,
            "about": {**self.about, "has_journal": self.journal is not None},
            "price": totals.price,
            "open": totals.num_open,
            "requests": totals.num_requests,
            "shadowed": totals.num_shadowed,
            "kinds": dict(totals.kinds),
            "reasons": dict(totals.reasons.most_common(30)),
            "endings": dict(totals.endings),
            "refusals": {str(status): count for status, count in totals.refusals.items()},
            "upstream_errors": dict(totals.upstream_errors),
            "tokens": {
                "reserved": totals.reserved_tokens,
                "settled": totals.settled_tokens,
                "prompt": totals.prompt_tokens,
                "output": totals.output_tokens,
                "predicted": totals.summed("predicted_tokens"),
                "predicted_used": totals.summed("output_tokens"),
                "overshoot": totals.overshoot_tokens,
                "largest_overshoot": totals.largest_overshoot,
            },
            "overshoots": totals.num_overshoots,
            "options": [_option(label, each) for label, each in totals.options.items()],
            "outcomes": {
                "right": totals.outcomes[True],
                "wrong": totals.outcomes[False],
                "expected_right": totals.expected_right,
                "expected_of": totals.num_expected,
            },
            "added_ms": {"median": _at(added, 0.5), "p99": _at(added, 0.99), "of": len(added)},
            "lost": totals.num_lost,
            "quotas": [each.to_json() for each in quotas],
            "tenants": self._tenants(),
            "points": list(self._points),
            "recent": [self._row(entry) for entry in reversed(self._recent)],
        }
        if with_series:
            names = {(each.account, each.window) for each in quotas}
            series = [(*key, each.points) for key, each in self._series.items() if key in names]
            found["series"] = [{"account": a, "window": w, "points": points} for a, w, points in series]
            found["used"] = self._used.points
        return found

    def _row(self, entry: Entry) -> dict[str, Any]:
        """A request as it is listed: without its text."""
        _, right = self._remembered.get(entry.id, (None, None))
        return {**{name: getattr(entry, name) for name in LISTED}, "used": entry.output_tokens, "right": right}

    def _quotas(self) -> list[Balance]:
        """Balances with a quota: the gateway's first, then the fullest."""
        limited = [each for each in self._known if each.quota is not None]
        limited.sort(key=lambda each: (each.account != GATEWAY, -each.share))
        return limited[:MOST_SERIES]

    def _tenants(self) -> dict[str, Any]:
        """Tenants: what each has used and may use where its quota is fullest, and what became of its requests."""
        fullest: dict[str, Balance] = {}
        for each in self._known:
            known = fullest.get(each.account)
            if each.account != GATEWAY and (known is None or _fullness(each) > _fullness(known)):
                fullest[each.account] = each
        names = {*fullest, *self.totals.tenants} - {""}
        rows: list[dict[str, Any]] = []
        for name in names:
            totals, balance = self.totals.tenants.get(name), fullest.get(name)
            rows.append(
                {
                    "name": name,
                    "requests": totals.requests if totals else 0,
                    "refused": totals.refused if totals else 0,
                    "settled": totals.settled_tokens if totals else 0,
                    "balance": balance.to_json() if balance else None,
                    "share": balance.share if balance else 0.0,
                }
            )
        rows.sort(key=lambda row: (-row["share"], -row["settled"], row["name"]))
        return {"count": len(rows), "rows": rows[:MOST_TENANTS]}


LISTED = (
    *("id", "time", "tenant", "model", "kind", "reason", "option", "expected", "predicted", "reserved", "settled"),
    *("status", "ending", "added_ms", "seconds", "is_shadow"),
)


def _fullness(balance: Balance) -> tuple[bool, float, int]:
    return balance.quota is not None, balance.share, balance.settled


def _option(label: str, totals: Any) -> dict[str, Any]:
    """One option: means a request, None where nothing is known."""

    def mean(total: float, count: int) -> float | None:
        return total / count if count else None

    return {
        "label": label,
        "requests": totals.requests,
        "budget": mean(totals.budget_tokens, totals.asked),
        "reasoning": mean(totals.reasoning_tokens, totals.thoughts),
        "predicted": mean(totals.predicted_tokens, totals.counted),
        "used": mean(totals.output_tokens, totals.counted),
        "overshoots": totals.overshoots,
    }


def _at(ordered: Sequence[float], share: float) -> float | None:
    """The value below which that share lies; None of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
