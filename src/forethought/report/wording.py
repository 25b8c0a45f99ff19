"""The wording of numbers, intervals and samples, the same on the terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.data import Cost
from ..core.terms import percent
from ..core.visible import one_line
from ..evaluation.live import FEW
from ..evaluation.policies import FAIR_ORACLE, GREEDY_ORACLE, ORACLE
from ..evaluation.resampled import SAME
from ..evaluation.results import Estimate

NAMES = {ORACLE: "exact oracle", GREEDY_ORACLE: "greedy oracle", FAIR_ORACLE: "fair oracle"}
WORSE, UNPROVEN, EQUAL = "▼", "~", "="
LEGEND = f"{WORSE} the whole interval is below 0; {UNPROVEN} it includes 0; {EQUAL} no difference."
NOT_REACHED = "not reached"
UNITS = {Cost.SPENT: "tokens", Cost.USD: "USD"}
SIMULATED = "SIMULATED: these numbers come from a simulation or a replay; no model was measured."


def points(share: float) -> str:
    """Percentage points with a sign; a value that rounds to 0 has no sign."""
    return number(100 * share, "+.1f")


def number(value: float, form: str) -> str:
    """A number in a format of `format`, with a true minus, and no sign before 0; in words if it is not finite."""
    if not math.isfinite(value):
        return NOT_REACHED
    text = f"{value:{form}}"
    return text.lstrip("+-") if float(text.replace(",", "")) == 0.0 else text.replace("-", "−")


def amount(value: float | None, cost: Cost) -> str:
    """Tokens, or USD to four digits, per question: a cell in a column whose head names the unit."""
    if value is None:
        return "not measured" if cost is Cost.SPENT else "not known"
    if cost is not Cost.USD or not math.isfinite(value):
        return number(value, ",.1f")
    return f"{value:,.{max(2, 3 - math.floor(math.log10(value))) if value > 0 else 2}f}"


def cost_name(cost: Cost) -> str:
    """The head of a column of amounts."""
    return "USD" if cost is Cost.USD else cost.value


def level_words(level: float, cost: Cost) -> str:
    """A level without its unit: tokens, or USD, as given."""
    return plain_number(level) if cost is Cost.USD else f"{level:.12g}"


def plain_number(value: float) -> str:
    """A number with all its digits, never with an exponent."""
    return f"{value:,.12f}".rstrip("0").rstrip(".")


def amount_interval(found: Estimate, cost: Cost, *, is_signed: bool = False) -> str:
    """An amount of tokens or USD and its interval; with signs for differences."""
    if not math.isfinite(found.value) and not math.isfinite(found.low):
        return NOT_REACHED
    value, low, high = (
        f"{'−' if each < 0 else '+' if is_signed else ''}{amount(abs(each), cost)}"
        for each in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def interval(found: Estimate, form: str) -> str:
    """A value and its interval."""
    value, low, high = (number(each, form) for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def share_right(found: Estimate) -> str:
    """An accuracy with its interval."""
    return f"{percent(found.value)} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def gain_words(found: Estimate | None) -> str:
    """Points with their interval, and a mark if the interval is not entirely above 0."""
    if found is None:
        return "–"
    mark = f" {WORSE}" if found.high < 0.0 else f" {UNPROVEN}" if found.low <= 0.0 else ""
    if found.low > -SAME and found.high < SAME:
        mark = f" {EQUAL}"
    return f"{points(found.value)} [{points(found.low)}, {points(found.high)}]{mark}"


def gap_words(found: Estimate | None) -> str:
    """A share of the gap closed, with its interval."""
    if found is None:
        return "–"
    value, low, high = (str(round(100 * each)).replace("-", "−") for each in (found.value, found.low, found.high))
    return f"{value}% [{low}, {high}]"


def policy_name(policy: str) -> str:
    """The name of a policy in tables."""
    return NAMES.get(policy, policy)


def num_questions(number: int) -> str:
    """A number of questions."""
    return f"{number:,} question{'' if number == 1 else 's'}"


def sample_size(number: int) -> str:
    """The number of questions behind an interval; resampling so few makes it too narrow."""
    return f"n = {num_questions(number)}{', too few for a proof' if number < FEW else ''}"


def sample_words(provenance: Mapping[str, Any], num_queries: int, num_traces: tuple[int, int]) -> str:
    """The measured model, the number of questions and the number of traces."""
    fewest, most = num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    model = one_line(provenance.get("model") or "unknown model")
    return f"{model}: {num_questions(num_queries)}, {traces} trace{'' if traces == '1' else 's'} each"
