"""Does the price law pay? A SIMULATION of days of a gateway: law, fixed prices and uniform caps under the same quotas.

    OMP_NUM_THREADS=1 python benchmarks/price_law.py --out docs/results/gateway     # the days that are reported
    OMP_NUM_THREADS=1 python benchmarks/price_law.py --tune                         # other days, to choose the gain on

Replayed: the held-out profile shipped with a predictor, 400 questions. An arrival is a question drawn at random; it is
right with the share that was measured at its cap, and takes the mean tokens that were measured there. Its options are
chosen from what the predictor, which has not seen these questions, says of it. Prompts cost nothing here.

Simulated: arrivals, a Poisson process whose rate swings over the day (a peak five times the trough) with bursts (on
average twelve a day, five minutes long, six times the rate). A request is open for half a second and 20 ms per token.
Quotas are held by the gateway's own code (`ledger.book`) and the price moves by its own law; a request that does not
fit is decided once more under what is left, and refused where not even the smallest cap fits. Who is refused does not
come back, and counts as wrong. Scenarios say how many requests come, against how many were expected when the quota and
the first price were set, and which quotas there are:

- `as expected`, `half as many again`, `a third fewer`: a quota for the day of 64 tokens for each expected request, and
  one per minute of three times its rate.
- `hours alone`: no quota for the day, and one per hour of 64 tokens for each request of the mean rate.

Policies: `law`, as the gateway runs it, and `law, up to N` with a highest price of N times the first; `fixed price`, at
which the expected requests would use the day's quota; `fixed price, number known`, set with the day's true number of
requests, which nobody knows beforehand; `fixed price, hindsight`, of several the one that did best on that very day;
`cap N` for all. Intervals are 95% bootstraps of days; differences are paired.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forethought.allocators.price import budgets_at, price_for
from forethought.control.sources import open_predictor, shipped_heldout
from forethought.core.data import Cost, Curves, FloatArray, IntArray
from forethought.core.features import Features
from forethought.core.profile import Profile
from forethought.evaluation.bootstrap import estimate, resampled_means
from forethought.gateway.law import HIGH, LOW, PriceLaw, paces_of, price_of
from forethought.gateway.ledger import Claim
from forethought.gateway.ledger.book import Book
from forethought.gateway.windows import ALL, DAY, HOUR, MINUTE, Quotas

MODEL = "qwen2.5-coder-1.5b"
MEAN_TOKENS = 64.0  # of the quota, for each expected request
EXPECTED = 8_000  # requests a day
DAY_SECONDS, START = 86_400, 1_767_225_600.0  # midnight
ROOM = 40  # tokens for an answer, in the bound of a request
SECONDS_PER_TOKEN, SECONDS = 0.02, 0.5
PRICES = 192  # of the grid on which options are worked out beforehand
REPORTED, TUNED = range(16), range(1000, 1004)
CAPS = (32, 48, 64, 80, 96, 128, 256)
GAINS = (2.0, 4.0, 8.0)
HIGHS = (1.1, HIGH, 8.0)  # the highest price, as a multiple of the first
LAW, FIXED, KNOWN, BEST = "law", "fixed price", "fixed price, number known", "fixed price, hindsight"
TRIED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)  # prices for BEST, as multiples of the first
MINUTE_QUOTA = 3.0 * MEAN_TOKENS * EXPECTED / 1_440


@dataclass(frozen=True)
class Scenario:
    """How many requests come, as a multiple of the expected, and the quotas."""

    share: float
    quotas: Quotas


BOTH = {DAY: round(MEAN_TOKENS * EXPECTED), MINUTE: round(MINUTE_QUOTA)}
SCENARIOS = {
    "as expected": Scenario(1.0, BOTH),
    "half as many again": Scenario(1.5, BOTH),
    "a third fewer": Scenario(2 / 3, BOTH),
    "hours alone": Scenario(1.0, {HOUR: round(MEAN_TOKENS * EXPECTED / 24)}),
}


@dataclass(frozen=True)
class Questions:
    """The replayed questions, and the column of each at each price of a grid, under each ceiling."""

    curves: Curves
    p_Q_B: FloatArray
    tokens_Q_B: FloatArray
    price_G: FloatArray
    column_B_G_Q: IntArray

    @classmethod
    def of(cls, profile: Profile, curves: Curves, first: float) -> Questions:
        """Works out every decision beforehand."""
        assert curves.tokens_Q_B is not None
        price_G = np.geomspace(first * LOW, first * max(HIGHS), PRICES)
        caps = curves.menu.caps
        column_B_G_Q = np.empty((len(caps), PRICES, profile.num_queries), dtype=np.int64)
        for last in range(len(caps)):
            kept = list(range(last + 1))
            part = Curves(curves.query_ids, curves.menu.select(kept), curves.p_Q_B[:, kept], curves.tokens_Q_B[:, kept])
            for row, price in enumerate(price_G):
                column_B_G_Q[last, row] = part.menu.columns(budgets_at(part, price=float(price), cost=Cost.SPENT))
        return cls(
            curves, profile.num_right_Q_B / profile.num_tried_Q[:, None], profile.tokens_Q_B, price_G, column_B_G_Q
        )

    def column(self, question: int, price: float, last: int) -> int:
        """The option of one question at a price, none beyond the column `last`."""
        row = int(np.searchsorted(self.price_G, price * 0.999))
        return int(self.column_B_G_Q[last, min(row, PRICES - 1), question])


def arrivals(seed: int, share: float, num_questions: int) -> tuple[FloatArray, IntArray]:
    """Seconds of the day at which requests come, in order, and their questions."""
    random = np.random.default_rng(seed)
    second = np.arange(DAY_SECONDS)
    rate_S = 1.0 - (2.0 / 3.0) * np.cos(2.0 * np.pi * second / DAY_SECONDS)  # from 1/3 at midnight to 5/3 at noon
    for start in random.integers(DAY_SECONDS, size=random.poisson(12)):
        rate_S[start : start + 300] *= 6.0
    usual = 1.0 + 12 * 300 * 5.0 / DAY_SECONDS
    count_S = random.poisson(rate_S * share * EXPECTED / DAY_SECONDS / usual)
    at = np.sort(np.repeat(second, count_S) + random.random(int(count_S.sum())))
    return at, random.integers(num_questions, size=len(at))


def day(
    questions: Questions,
    at: FloatArray,
    asked: IntArray,
    quotas: Quotas,
    *,
    price: float | None = None,
    cap: int | None = None,
    law: PriceLaw | None = None,
) -> dict[str, float]:
    """One day under one policy: a fixed price, a cap, or a law."""
    book, ends, prices = Book(), list[tuple[float, str, int]](), dict[str, float]()
    caps = questions.curves.menu.caps
    most = len(caps) - 1 if cap is None else caps.index(cap)
    paid = price or 0.0
    if law is not None:
        paid = law.first
    num_right = num_refused = num_tokens = num_second = 0.0
    tokens_before, stepped, turned_away = 0, START, set[str]()
    smallest = caps[0] + ROOM
    for number, (moment, question) in enumerate(zip((START + at).tolist(), asked.tolist(), strict=True)):
        while ends and ends[0][0] <= moment:
            _, name, tokens = heapq.heappop(ends)
            book.settle(name, tokens)
        # Every second in which something happened; longer stretches of quiet are one step, as they are in the gateway
        # for all but its bounds.
        if law is not None and moment - stepped >= 1.0:
            counts = book.counts(["gateway"], moment)
            tokens_now = next(each.settled + each.reserved for each in counts if each.window == ALL)
            paces = paces_of(quotas, counts, moment)
            used, seconds = tokens_now - tokens_before, moment - stepped
            prices = law.step(prices, used=used, seconds=seconds, paces=paces, full=turned_away)
            turned_away.clear()
            paid, tokens_before, stepped = price_of(prices, law), tokens_now, moment
        column = most if cap is not None else questions.column(question, paid, most)
        full = book.take(_claim(number, quotas, questions, question, column), moment)
        if full is not None:
            turned_away.add(full.window)
        if full is not None and full.left >= smallest:
            fitting = max(last for last in range(len(caps)) if caps[last] + ROOM <= full.left)
            column = min(fitting, most) if cap is not None else questions.column(question, paid, min(fitting, most))
            full = book.take(_claim(number, quotas, questions, question, column), moment)
            num_second += full is None
        if full is not None:
            num_refused += 1
            continue
        tokens = round(float(questions.tokens_Q_B[question, column]))
        num_right += questions.p_Q_B[question, column]
        num_tokens += tokens
        heapq.heappush(ends, (moment + SECONDS + SECONDS_PER_TOKEN * tokens, str(number), tokens))
    num_asked = len(at)
    return {
        "accuracy": num_right / num_asked,
        "accuracy_of_served": num_right / max(1.0, num_asked - num_refused),
        "tokens": num_tokens,
        "refused": num_refused / num_asked,
        "decided_again": num_second / num_asked,
        "requests": float(num_asked),
    }


def _claim(number: int, quotas: Quotas, questions: Questions, question: int, column: int) -> Claim:
    assert questions.curves.tokens_Q_B is not None
    bound = questions.curves.menu.caps[column] + ROOM
    reserved = min(bound, round(float(questions.curves.tokens_Q_B[question, column])))
    return Claim(str(number), {"gateway": quotas}, reserved, bound)


def days(questions: Questions, scenario: Scenario, seeds: Sequence[int], law: PriceLaw, *, only_law: bool) -> Any:
    """Policy -> quantities, one row for each day."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        at, asked = arrivals(seed, scenario.share, len(questions.p_Q_B))
        policies: dict[str, dict[str, Any]] = {LAW: {"law": law}}
        if not only_law:
            known = price_of_mean(questions.curves, scenario.quotas.get(DAY, MEAN_TOKENS * EXPECTED) / len(at))
            policies |= {f"law, up to {each:g}": {"law": law_up_to(law, each)} for each in HIGHS if each != HIGH}
            policies |= {FIXED: {"price": law.first}, KNOWN: {"price": known}}
            policies |= {f"cap {cap}": {"cap": cap} for cap in CAPS}
        for name, policy in policies.items():
            found.setdefault(name, []).append(day(questions, at, asked, scenario.quotas, **policy))
        if not only_law:
            tried = [day(questions, at, asked, scenario.quotas, price=each * law.first) for each in TRIED]
            found.setdefault(BEST, []).append(max(tried, key=lambda one: one["accuracy"]))
    return found


def law_up_to(law: PriceLaw, high: float) -> PriceLaw:
    """The same law with another highest price, a multiple of the first."""
    return PriceLaw(law.first, high=law.first * high, gain=law.gain)


def price_of_mean(curves: Curves, mean_tokens: float) -> float:
    """The price at which these questions use so many tokens each; never below that of the smallest budgets."""
    assert curves.tokens_Q_B is not None
    least, most = curves.tokens_Q_B[:, 0].mean() + 0.01, curves.tokens_Q_B[:, -1].mean()
    return price_for(curves, mean_tokens=float(np.clip(mean_tokens, least, most)), cost=Cost.SPENT)


def summary(found: Mapping[str, Sequence[Mapping[str, float]]], scenario: Scenario) -> dict[str, Any]:
    """Means over days with intervals; differences to the law are paired."""
    rows = {}
    for name, measured in found.items():
        keys = list(measured[0])
        values = np.array([[one[key] for key in keys] for one in measured])
        less = np.array([[mine["accuracy"] - one["accuracy"]] for mine, one in zip(found[LAW], measured, strict=True)])
        means = resampled_means(np.hstack([values, less]), num_resamples=10_000, seed=0)
        row: dict[str, Any] = {}
        for column, key in enumerate([*keys, "law_minus_this"]):
            one = estimate(means[:, column])
            row[key] = [round(one.value, 5), round(one.low, 5), round(one.high, 5)]
        if DAY in scenario.quotas:
            row["share_of_quota"] = round(row["tokens"][0] / scenario.quotas[DAY], 4)
        rows[name] = row
    return rows


def table(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a scenario and policy, for a CSV file."""
    rows = []
    for scenario, policies in results.items():
        for policy, row in policies.items():
            found: dict[str, Any] = {"scenario": scenario, "policy": policy}
            for key in ("accuracy", "accuracy_of_served", "tokens", "refused", "decided_again", "law_minus_this"):
                found[key], found[f"{key}_low"], found[f"{key}_high"] = row[key]
            rows.append(found | {"share_of_quota": row.get("share_of_quota", "")})
    return rows


def main() -> None:
    """Plays all days; prints what was found, and keeps it with --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="only the law, with several gains, on days not reported")
    parser.add_argument("--gain", type=float, help="of the law; default: the gateway's own")
    parser.add_argument("--out", type=Path, help="folder for price_law.json and price_law.csv")
    options = parser.parse_args()
    profile, predictor = shipped_heldout(MODEL), open_predictor(MODEL)
    curves = predictor.predict(list(profile.query_ids), Features.of(profile, predictor.card.features.layer))
    first, started = price_of_mean(curves, MEAN_TOKENS), time.perf_counter()
    questions = Questions.of(profile, curves, first)
    if options.tune:
        for gain, high in itertools.product(GAINS, HIGHS):
            law = law_up_to(PriceLaw(first, gain=gain), high)
            found = {
                name: days(questions, scenario, TUNED, law, only_law=True)[LAW] for name, scenario in SCENARIOS.items()
            }
            for key in ("accuracy", "refused"):
                row = {name: round(float(np.mean([each[key] for each in rows])), 4) for name, rows in found.items()}
                print(f"gain {gain:g}, up to {high:g}: {key}, mean {np.mean(list(row.values())):.4f}  {row}")
        return
    law = PriceLaw(first) if options.gain is None else PriceLaw(first, gain=options.gain)
    results = {
        name: summary(days(questions, scenario, REPORTED, law, only_law=False), scenario)
        for name, scenario in SCENARIOS.items()
    }
    settings = {
        "kind": "simulation of arrivals, replay of measured outcomes",
        "model": MODEL,
        "predictor": predictor.card.predictor,
        "questions": profile.num_queries,
        "days": len(REPORTED),
        "seeds": [REPORTED[0], REPORTED[-1]],
        "tuned_on_seeds": [TUNED[0], TUNED[-1]],
        "expected_requests": EXPECTED,
        "mean_tokens": MEAN_TOKENS,
        "first_price": first,
        "gain": law.gain,
        "lowest_and_highest_price": law.bounds,
        "quotas": {name: dict(scenario.quotas) for name, scenario in SCENARIOS.items()},
    }
    text = json.dumps({"settings": settings, "scenarios": results})
    for row in table(results):
        print(", ".join(f"{key} {row[key]}" for key in ("scenario", "policy", "accuracy", "refused", "law_minus_this")))
    print(f"{time.perf_counter() - started:.0f} s")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "price_law.json").write_text(text + "\n", "utf-8")
        with (options.out / "price_law.csv").open("w", newline="", encoding="utf-8") as file:
            rows = table(results)
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
