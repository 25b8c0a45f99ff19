"""What a gateway counts and shows of its requests: numbers that add up, bounded, and cheap."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from forethought.core.menu import Menu
from forethought.core.provenance import Provenance
from forethought.gateway.journal import Journal
from forethought.gateway.seen import GATEWAY, LENGTH, Balance, Seen, Series
from forethought.gateway.totals import MOST_LABELS, OTHER, Exposition, Totals
from forethought.runs.journal import (
    CLIENT_LEFT,
    REFUSED,
    REFUSED_UPSTREAM,
    UPSTREAM_FAILED,
    Entry,
    JournalHeader,
    read_entries,
)
from timing import least_seconds

pytest.importorskip("prometheus_client", reason="needs the extra gateway")


def entry(name: str = "a" * 32, **more: Any) -> Entry:
    known = {"tenant": "team", "model": "toy", "kind": "predicted", "reason": "predicted", "question": "q-1"}
    given = {"option": "128", "budget": 128, "expected": 0.5, "predicted": 80, "reserved": 200, "settled": 120}
    used = {"prompt_tokens": 20, "reasoning_tokens": 90, "output_tokens": 100, "added_ms": 0.8}
    return Entry(name, 1_000.0, **{**known, **given, **used, **more})


def exposed(totals: Totals) -> dict[str, float]:
    """Samples of the page, by name with labels."""
    from prometheus_client.parser import text_string_to_metric_families

    kind, content = Exposition(totals).page()
    assert kind.startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(content.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_page_of_prometheus_says_what_happened() -> None:
    totals = Totals()
    for each in (
        entry(),
        entry(reasoning_tokens=150, output_tokens=160, settled=250, predicted=100),
        entry(kind="mean", reason="mean curve: tools", tenant="other", added_ms=30.0, option="64", budget=64),
        entry(ending=UPSTREAM_FAILED, output_tokens=None, reasoning_tokens=None, settled=200),
        entry(ending=REFUSED_UPSTREAM, status=0, output_tokens=None, reasoning_tokens=None, settled=0),
        entry(ending=REFUSED_UPSTREAM, status=503, output_tokens=None, reasoning_tokens=None, settled=0),
        entry(ending=CLIENT_LEFT, settled=60, output_tokens=40, reasoning_tokens=40),
        entry(ending=REFUSED, status=429, kind="", option=None),
        entry(ending=REFUSED, status=401, kind="", option=None, tenant=""),
    ):
        totals.began()
        totals.ended(each)
    totals.began()
    totals.price = 0.0005
    said = exposed(totals)
    assert said["forethought_requests_total{kind=predicted}"] == 6
    assert said["forethought_requests_total{kind=mean}"] == 1
    assert said["forethought_endings_total{ending=client left}"] == 1
    assert said["forethought_refusals_total{status=429}"] == said["forethought_refusals_total{status=401}"] == 1
    assert said["forethought_upstream_errors_total{kind=broken}"] == 1
    assert said["forethought_upstream_errors_total{kind=unreachable}"] == 1
    assert said["forethought_upstream_errors_total{kind=5xx}"] == 1
    assert said["forethought_settled_tokens_total{tenant=team}"] == 120 + 250 + 200 + 60
    assert said["forethought_settled_tokens_total{tenant=other}"] == 120
    assert said["forethought_reserved_tokens_total"] == 7 * 200
    assert said["forethought_over_reserved_total"] == 1
    assert said["forethought_overshoots_total"] == 2  # 150 over 128, and 90 over 64
    assert said["forethought_overshoot_tokens_total"] == 22 + 26
    assert said["forethought_predicted_tokens_total"] == 80 + 100 + 80
    assert said["forethought_predicted_used_tokens_total"] == 100 + 160 + 100
    assert said["forethought_reasoning_tokens_total"] == 90 + 150 + 90
    assert said["forethought_price"] == 0.0005
    assert said["forethought_open_requests"] == 1
    assert said["forethought_added_seconds_bucket{le=0.001}"] == 6
    assert said["forethought_added_seconds_bucket{le=0.05}"] == said["forethought_added_seconds_count"] == 7
    assert said["forethought_added_seconds_sum"] == pytest.approx(0.0348)


def test_two_gateways_in_one_process_do_not_meet() -> None:
    first, second = Totals(), Totals()
    first.began()
    first.ended(entry())
    assert exposed(first)["forethought_output_tokens_total"] == 100
    assert exposed(second)["forethought_output_tokens_total"] == 0


def test_names_of_others_are_escaped_and_bounded() -> None:
    totals = Totals()
    for number in range(MOST_LABELS + 50):
        totals.began()
        totals.ended(entry(tenant=f'team "{number}"\n# HELP', option=f"option {number}", reason=f"reason {number}"))
    said = exposed(totals)
    tenants = {name for name in said if name.startswith("forethought_settled_tokens_total")}
    assert len(tenants) == len(totals.options) == MOST_LABELS + 1
    assert said[f"forethought_settled_tokens_total{{tenant={OTHER}}}"] == 50 * 120
    assert len(totals.reasons) == MOST_LABELS + 1
    assert sum(totals.reasons.values()) == MOST_LABELS + 50


def test_openmetrics_is_given_where_it_is_asked_for() -> None:
    kind, content = Exposition(Totals()).page("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")


def test_a_novel_request_counts_under_its_reason_without_its_number() -> None:
    totals = Totals()
    for p in (0.01, 0.02):
        totals.began()
        totals.ended(entry(kind="novel", reason=f"predicted; novel to the predictor (p={p})"))
    assert dict(totals.reasons) == {"predicted": 2}
    assert dict(totals.kinds) == {"novel": 2}


class Quotas:
    """Balances as a test sets them."""

    def __init__(self) -> None:
        self.settled, self.start = 0, 1_000.0
        self.is_away = False

    async def __call__(self) -> Sequence[Balance]:
        if self.is_away:
            raise OSError("the ledger is away")
        return [
            Balance("team", "minute", self.start, self.start + 60, 1_000, self.settled, 100, 200),
            Balance("team", "all", 0.0, math.inf, None, self.settled),
            Balance(GATEWAY, "day", self.start, self.start + 86_400, 50_000, self.settled),
        ]


async def test_a_snapshot_holds_quotas_tenants_and_requests_and_no_text() -> None:
    now, quotas = [1_000.0], Quotas()
    seen = Seen(balances=quotas, price=lambda: 0.002, clock=lambda: now[0], about={"model": "toy"})
    for number in range(60):
        now[0] += 1
        quotas.settled += 10
        seen.end(entry(seen.begin(), text="a question of mine", seconds=0.5 + number))
        await seen.sample()
    refused = entry(seen.begin(), ending=REFUSED, status=429, kind="", option=None)
    seen.end(refused)
    found = seen.snapshot(with_series=True)
    content = json.dumps(found, allow_nan=False)
    assert "a question of mine" not in content
    assert [(each["account"], each["settled"]) for each in found["quotas"]] == [(GATEWAY, 600), ("team", 600)]
    (row,) = found["tenants"]["rows"]
    assert (row["name"], row["requests"], row["refused"], row["share"]) == ("team", 61, 1, 0.7)
    assert row["balance"]["window"] == "minute"
    assert len(found["recent"]) == 50
    assert found["recent"][0]["id"] == refused.id
    assert found["recent"][1]["seconds"] == 59.5
    assert (found["requests"], found["open"], found["price"]) == (61, 0, 0.002)
    (option,) = found["options"]
    assert option == {
        "label": "128",
        "requests": 60,
        "budget": 128.0,
        "reasoning": 90.0,
        "predicted": 80.0,
        "used": 100.0,
        "overshoots": 0,
    }
    series = {(each["account"], each["window"]): each["points"] for each in found["series"]}
    assert [tokens for _, tokens, _ in series["team", "minute"]] == [110 + 10 * n for n in range(60)]
    assert found["used"][-1] == (1_060.0, 60 * 120, 0.002)
    assert "series" not in seen.snapshot()
    quotas.start += 60
    await seen.sample()
    assert len(seen.snapshot(with_series=True)["series"][0]["points"]) == 1  # a new window begins anew


async def test_a_ledger_that_is_away_leaves_what_was_known(caplog: pytest.LogCaptureFixture) -> None:
    quotas = Quotas()
    seen = Seen(balances=quotas)
    await seen.sample()
    quotas.is_away = True
    await seen.sample()
    assert len(seen.snapshot()["quotas"]) == 2
    await seen.sample()
    assert caplog.text.count("the ledger is away") == 1
    said = exposed(seen.totals)
    assert said["forethought_quota_tokens{account=team,window=minute}"] == 1_000
    assert said["forethought_quota_taken_tokens{account=team,window=minute}"] == 100


async def test_a_ledger_that_hangs_does_not_hold_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.gateway.seen.PATIENCE", 0.02)

    async def never() -> Sequence[Balance]:
        await asyncio.sleep(60)
        return ()

    seen = Seen(balances=never)
    await asyncio.wait_for(seen.refresh(), 1)
    assert seen.snapshot()["quotas"] == []


async def test_who_looks_for_the_first_time_sees_what_is_now() -> None:
    quotas = Quotas()
    seen = Seen(balances=quotas)
    await seen.refresh()
    seen._sampled += 1_000  # however long the next lines take
    quotas.settled = 7
    await seen.refresh()
    assert seen.snapshot()["quotas"][0]["settled"] == 0  # of the last second
    seen._sampled -= 1_002
    await seen.refresh()
    assert seen.snapshot()["quotas"][0]["settled"] == 7


def test_a_series_stays_short_and_reaches_from_first_to_last() -> None:
    series = Series(0.0)
    for second in range(10_000):
        series.add(float(second), second, None)
    assert LENGTH / 2 <= len(series.points) <= LENGTH
    assert series.points[0][0] == 0.0
    assert series.points[-1][0] > 9_800


async def test_outcomes_are_held_against_what_was_expected(tmp_path: Path) -> None:
    journal = Journal(tmp_path, JournalHeader(Menu.of([128]), Provenance(model="toy")))
    seen = Seen(journal=journal)
    ids = [seen.begin() for _ in range(3)]
    for name, expected in zip(ids, (0.9, 0.5, None), strict=True):
        seen.end(entry(name, expected=expected))
    assert seen.unknown([*ids, "f" * 32]) == ["f" * 32]
    await seen.feed([(ids[0], True), (ids[1], True)])
    await seen.feed([(ids[1], False), (ids[2], False)])
    await seen.feed([(ids[1], False)])
    found = seen.snapshot()
    assert found["outcomes"] == {"right": 1, "wrong": 2, "expected_right": 1.4, "expected_of": 2}
    assert [row["right"] for row in found["recent"]] == [False, False, True]
    journal.close()


async def test_what_has_no_key_does_not_fill_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, JournalHeader(Menu.of([128]), Provenance(model="toy")))
    seen = Seen(journal=journal)
    seen.end(entry(seen.begin(), tenant="", ending=REFUSED, status=401))
    seen.end(entry(seen.begin()))
    journal.close()
    assert [each.tenant for each in read_entries(tmp_path)] == ["team"]
    assert len(seen.snapshot()["recent"]) == 1
    assert seen.snapshot()["refusals"] == {"401": 1}


def test_a_name_that_a_client_chose_is_cut() -> None:
    seen = Seen()
    seen.end(entry(seen.begin(), model="m" * 10_000))
    assert len(seen.snapshot()["recent"][0]["model"]) == 201


def test_a_request_costs_microseconds(tmp_path: Path) -> None:
    journal = Journal(tmp_path, JournalHeader(Menu.of([128]), Provenance(model="toy")))
    seen, noted = Seen(journal=journal), entry("")

    def ask() -> None:
        seen.begin()
        seen.end(noted)

    assert least_seconds(ask, times=1000, rounds=10) < 100e-6
    journal.close()
