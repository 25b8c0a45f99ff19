"""What a gateway has counted since it started: plain numbers, which Prometheus's client shows when it is asked."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MissingExtraError
from ..runs.journal import CLIENT_LEFT, DONE, ENDINGS, REFUSED, REFUSED_UPSTREAM, UPSTREAM_FAILED, Entry
from .decision import KINDS, OWN

MOST_LABELS = 200  # of one kind: what comes later counts as OTHER
MOST_OWN = MOST_LABELS // 2  # of them, for caps that clients chose: the menu's options keep their rows
OTHER = "other"
ADDED_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)  # upper ends of the histogram's bins
DETAIL = re.compile(r"\s*(?:;|\(p=).*", re.DOTALL)  # of a reason: what is another for each request


@dataclass(slots=True)
class OptionTotals:
    """Requests that got one option.

    Attributes:
        requests: how many.
        asked, budget_tokens: thoughts that they asked for under a cap, and the sum of these caps.
        counted: those of which all tokens came back counted, and the prediction is known.
        predicted_tokens, output_tokens: of the counted ones, as predicted and as generated.
        thoughts, reasoning_tokens: thoughts whose tokens were counted, and these tokens.
        overshoots: requests whose thoughts were longer than their caps.
    """

    requests: int = 0
    asked: int = 0
    budget_tokens: int = 0
    counted: int = 0
    predicted_tokens: int = 0
    output_tokens: int = 0
    thoughts: int = 0
    reasoning_tokens: int = 0
    overshoots: int = 0


@dataclass(slots=True)
class TenantTotals:
    """Requests of one tenant: how many, how many of them were refused, and the tokens they were settled to."""

    requests: int = 0
    refused: int = 0
    settled_tokens: int = 0


class Totals:
    """Counts of one gateway process; one event loop changes them.

    Attributes:
        num_open: requests that have begun and not ended.
        kinds, reasons, endings, refusals, upstream_errors: requests by each; refusals by status.
        options, tenants: by label and by name.
        outcomes: how many were told to be right, and how many wrong.
        expected_right, num_expected: of requests with an outcome: the sum of the predicted chances, and how many.
        num_lost: requests that the journal could not keep.
        price: of a token, as the last request faced it at weight 1; None before the first.
        quotas: (account, window, tokens, of these used or reserved), as they were known last.
    """

    def __init__(self) -> None:
        self.num_open = self.num_requests = self.num_shadowed = 0
        self.kinds: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        self.upstream_errors: Counter[str] = Counter()
        self.outcomes: Counter[bool] = Counter()
        self.options: dict[str, OptionTotals] = {}
        self.tenants: dict[str, TenantTotals] = {}
        self.expected_right, self.num_expected, self.num_lost = 0.0, 0, 0
        self.price: float | None = None
        self.quotas: Sequence[tuple[str, str, int, int]] = ()
        self.reserved_tokens = self.settled_tokens = self.prompt_tokens = self.output_tokens = 0
        self.num_overshoots = self.overshoot_tokens = self.num_over_reserved = self.num_over_bound = 0
        self.added_seconds, self._added_bins = 0.0, [0] * (len(ADDED_SECONDS) + 1)
        self.largest_overshoot = 0

    def began(self) -> None:
        """A request has come."""
        self.num_open += 1

    def ended(self, entry: Entry) -> None:
        """It has ended; once for each that began."""
        self.num_open -= 1
        self.num_requests += 1
        self.num_shadowed += entry.is_shadow
        self.endings[entry.ending if entry.ending in ENDINGS else OTHER] += 1
        tenant = _under(self.tenants, entry.tenant, TenantTotals)
        tenant.requests += 1
        if entry.ending == REFUSED:
            self.refusals[entry.status] += 1
            tenant.refused += 1
            return
        if entry.ending != CLIENT_LEFT and (kind := _upstream_error(entry)):
            self.upstream_errors[kind] += 1
        self.kinds[entry.kind if entry.kind in KINDS else OTHER] += 1
        if entry.reason:
            _count(
                self.reasons,
                DETAIL.sub("", entry.reason) if ";" in entry.reason or "(" in entry.reason else entry.reason,
            )
        self._count_tokens(entry, tenant)
        seconds = entry.added_ms / 1000
        self.added_seconds += seconds
        self._added_bins[bisect_left(ADDED_SECONDS, seconds)] += 1

    def _count_tokens(self, entry: Entry, tenant: TenantTotals) -> None:
        reserved, settled = entry.reserved or 0, entry.settled or 0
        self.reserved_tokens += reserved
        self.settled_tokens += settled
        tenant.settled_tokens += settled
        self.num_over_reserved += bool(reserved) and settled > reserved
        self.num_over_bound += entry.bound is not None and settled > entry.bound
        self.prompt_tokens += entry.prompt_tokens or 0
        self.output_tokens += entry.output_tokens or 0
        if entry.option is None or entry.is_shadow:
            return
        most = MOST_OWN if entry.kind == OWN else MOST_LABELS  # any number may be a client's cap
        option = _under(self.options, entry.option, OptionTotals, most)
        option.requests += 1
        limit = None if entry.budget is None else entry.budget * entry.num_thoughts
        if limit is not None:
            option.asked += entry.num_thoughts
            option.budget_tokens += limit
        if entry.ending != DONE:
            return
        if entry.predicted is not None and entry.output_tokens is not None:
            option.counted += 1
            option.predicted_tokens += entry.predicted
            option.output_tokens += entry.output_tokens
        if entry.reasoning_tokens is not None:
            option.thoughts += entry.num_thoughts
            option.reasoning_tokens += entry.reasoning_tokens
            if limit is not None and entry.reasoning_tokens > limit:
                option.overshoots += 1
                self.num_overshoots += 1
                self.overshoot_tokens += entry.reasoning_tokens - limit
                self.largest_overshoot = max(self.largest_overshoot, entry.reasoning_tokens - limit)

    def told(self, expected: float | None, *, right: bool, before: bool | None = None) -> None:
        """An outcome was told.

        Args:
            expected: predicted chance of a right answer, where the request is still known.
            right: what was told.
            before: what was told of the same request before.
        """
        if before is not None:
            self.outcomes[before] -= 1
        elif expected is not None:
            self.expected_right += expected
            self.num_expected += 1
        self.outcomes[right] += 1

    def summed(self, name: str) -> int:
        """A number of `OptionTotals`, over all options."""
        return sum(getattr(each, name) for each in self.options.values())

    def families(self) -> Iterator[Any]:
        """Prometheus's families of metrics, as they stand."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def labelled(name: str, words: str, label: str, counts: Any) -> Any:
            family = CounterMetricFamily(f"forethought_{name}", words, labels=[label])
            for value, count in counts.items():
                family.add_metric([str(value)], count)
            return family

        yield labelled("requests", "Requests by how their budget was found", "kind", self.kinds)
        yield labelled("endings", "Requests by how they ended", "ending", self.endings)
        yield labelled("refusals", "Requests that the gateway refused, by status", "status", self.refusals)
        yield labelled("upstream_errors", "Failures of the upstream", "kind", self.upstream_errors)
        spent = {name: each.settled_tokens for name, each in self.tenants.items()}
        yield labelled("settled_tokens", "Tokens that were counted against quotas", "tenant", spent)
        told = {"right": self.outcomes[True], "wrong": self.outcomes[False]}
        yield labelled("outcomes", "Requests of which the outcome was told", "outcome", told)
        for name, (words, value) in self._plain().items():
            yield CounterMetricFamily(f"forethought_{name}", words, value=value)
        yield GaugeMetricFamily("forethought_open_requests", "Requests that go on", value=self.num_open)
        if self.price is not None:
            yield GaugeMetricFamily("forethought_price", "Right answers that a token must buy", value=self.price)
        limits = GaugeMetricFamily("forethought_quota_tokens", "Tokens of a quota", labels=["account", "window"])
        taken = GaugeMetricFamily(
            "forethought_quota_taken_tokens", "Used and reserved tokens of a quota", labels=["account", "window"]
        )
        for account, window, limit, tokens in self.quotas:
            limits.add_metric([account, window], limit)
            taken.add_metric([account, window], tokens)
        yield from (limits, taken)
        total, bins = 0, []
        for end, count in zip((*ADDED_SECONDS, "+Inf"), self._added_bins, strict=True):
            total += count
            bins.append((str(end), total))
        words = "Seconds that the gateway took before a request went on"
        yield HistogramMetricFamily("forethought_added_seconds", words, buckets=bins, sum_value=self.added_seconds)

    def _plain(self) -> dict[str, tuple[str, int]]:
        """Counters without a label: name -> (words, value)."""
        return {
            "reserved_tokens": ("Tokens that were set aside for requests", self.reserved_tokens),
            "prompt_tokens": ("Tokens of prompts", self.prompt_tokens),
            "output_tokens": ("Tokens that were generated", self.output_tokens),
            "budget_tokens": ("Reasoning tokens that were granted", self.summed("budget_tokens")),
            "reasoning_tokens": ("Reasoning tokens that came back", self.summed("reasoning_tokens")),
            "predicted_tokens": ("Tokens predicted of requests that were counted", self.summed("predicted_tokens")),
            "predicted_used_tokens": ("Tokens that the same requests generated", self.summed("output_tokens")),
            "overshoots": ("Requests with more thought than their budget", self.num_overshoots),
            "overshoot_tokens": ("Reasoning tokens beyond budgets", self.overshoot_tokens),
            "over_reserved": ("Requests settled to more than was set aside", self.num_over_reserved),
            "over_bound": ("Requests settled to more than the most they were taken to use", self.num_over_bound),
            "journal_lost": ("Requests that the journal could not keep", self.num_lost),
        }


class Exposition:
    """The page that Prometheus reads, of one registry that belongs to nobody else.

    Args:
        totals: what is shown.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(self, totals: Totals) -> None:
        try:
            from prometheus_client import CollectorRegistry, exposition
        except ImportError as error:
            raise MissingExtraError("/metrics needs prometheus_client: pip install 'forethought[gateway]'") from error
        self._totals, self._exposition = totals, exposition
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Any]:
        """What a collector of Prometheus gives."""
        return self._totals.families()

    def page(self, accept: str = "") -> tuple[str, bytes]:
        """`(content type, body)` as the header `Accept` asks for: Prometheus's text, or OpenMetrics."""
        encode, kind = self._exposition.choose_encoder(accept)
        return kind, encode(self.registry)


def _upstream_error(entry: Entry) -> str:
    """What kind of failure of the upstream a request met; "" for none."""
    if entry.status >= 400:
        return f"{entry.status // 100}xx"
    return {UPSTREAM_FAILED: "broken", REFUSED_UPSTREAM: "unreachable"}.get(entry.ending, "")


def _under(totals: dict[str, Any], name: str, kind: Any, most: int = MOST_LABELS) -> Any:
    """What stands under a name; under OTHER where there are too many."""
    found = totals.get(name)
    if found is None:
        name = name if len(totals) < most else OTHER
        found = totals.setdefault(name, kind())
    return found


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < MOST_LABELS else OTHER] += 1
