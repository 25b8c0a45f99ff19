"""The conclusions of a result in sentences: the decision at the top of a page, and the titles of its plots."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..core.data import Cost
from ..core.terms import percent
from ..evaluation.comparison import Comparison, Score
from ..evaluation.draws import HISTORY, DrawsEvaluation
from ..evaluation.live import LiveComparison
from ..evaluation.policies import BLIND, FORETHOUGHT, ORACLE, UNIFORM
from ..evaluation.resampled import SAME
from ..evaluation.results import COUNTED, Estimate, Evaluation, PolicyRow, Saving
from .wording import NOT_REACHED, UNITS, amount, level_words, points, sample_size

FIFTHS = ("hardest fifth", "second hardest fifth", "middle fifth", "second easiest fifth", "easiest fifth")
SHOWN = (UNIFORM, BLIND, FORETHOUGHT, ORACLE)  # policies
MOST_NAMED = 12  # options in a table with a column each
SHOWN_FIRST = (Cost.SPENT, Cost.USD, Cost.GRANTED)  # what is paid before what is only allowed


def costs_shown(result: Evaluation | DrawsEvaluation | Comparison) -> list[Cost]:
    """The costs under which policies are compared, in the order of every page."""
    return sorted(result.levels, key=SHOWN_FIRST.index)


def rows_at(result: Evaluation, cost: Cost, level: float) -> dict[str, PolicyRow]:
    """Policy -> its row at one level."""
    return {row.policy: row for row in result.rows if row.cost is cost and row.budget == level}


def so_many(value: float, cost: Cost) -> str:
    """An amount with its unit, for a sentence."""
    if cost is Cost.USD:
        return f"{amount(value, cost)} USD"
    number = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    return f"{number} {'granted tokens' if cost is Cost.GRANTED else 'tokens'}"


def difference(found: Estimate) -> str:
    """Points with their interval, without a mark: the sentence around it says what it means."""
    return f"{points(found.value)} points [{points(found.low)}, {points(found.high)}]"


def compared(ours: str, accuracy: float, other: str, reached: float, gain: Estimate) -> str:
    """Which of two policies answers more questions right, and whether the difference is significant."""
    if gain.low > -SAME and gain.high < SAME:
        return f"{ours} and {other} both answer {percent(accuracy)} right"
    words = f"answers {percent(accuracy)} right, {other} {percent(reached)}"
    if gain.low > SAME:
        return f"{ours} {words}"
    if gain.high < 0.0:
        return f"{ours} is less accurate: it {words}"
    return f"no gain is proven: {ours} {words}; the interval of the difference includes 0"


def more_or_less(saving: Saving) -> str:
    """How much more the baseline needs, with the interval, whose upper end may never be reached."""
    value, low, high = (_more(each) for each in (saving.ratio.value, saving.ratio.low, saving.ratio.high))
    never = "" if saving.reached >= 0.995 else f" (reached in {percent(saving.reached, 0)} of resamples)"
    return f"{value} [{low}, {high}]{never}"


def _more(ratio: float) -> str:
    return f"{round(100 * (ratio - 1.0)):+d}%".replace("-", "−") if math.isfinite(ratio) else NOT_REACHED


def evaluation_decision(result: Evaluation) -> Iterator[str]:
    """The conclusions of an evaluation at one level per cost, where the curves are steep; spent cost first."""
    fewest, most = result.num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    for number, cost in enumerate(costs_shown(result)):
        row = rows_at(result, cost, result.headline[cost])[FORETHOUGHT]
        assert row.gain is not None
        reached = row.uniform_at_same_tokens.value
        words = compared("forethought", row.accuracy.value, "uniform", reached, row.gain)
        said = f"At {so_many(row.realised, cost)} per question {words}"
        saving = next(each for each in result.savings if _is_at(each, cost, row.budget))
        is_ahead, ends = row.gain.low > SAME, f"Gain {difference(row.gain)}"
        if is_ahead:
            said += f"; {_saving_words(saving, is_named=result.menu.is_named)}"
            needed = f"; for the same accuracy {saving.baseline} needs {more_or_less(saving)}"
            ends += needed if math.isfinite(saving.needed.value) else ""
        yield f"{said}."
        if number:
            yield f"{ends}."
        else:
            yield f"{ends}; {sample_size(result.num_queries)}, {traces} trace{'' if traces == '1' else 's'} each."
            yield _over_blind(result, cost, row)


def _is_at(saving: Saving, cost: Cost, level: float) -> bool:
    return saving.cost is cost and saving.budget == level and saving.baseline == UNIFORM


def _saving_words(saving: Saving, *, is_named: bool) -> str:
    if not math.isfinite(saving.needed.value):
        return f"{saving.baseline} does not reach this accuracy with any {'option' if is_named else 'cap'} on the menu"
    value = 100 * (saving.ratio.value - 1.0)
    return f"the same accuracy costs {saving.baseline} {abs(value):.0f}% {'more' if value >= 0 else 'less'}"


def _over_blind(result: Evaluation, cost: Cost, row: PolicyRow) -> str:
    """The value of prediction: the gain over a split that is blind to the questions; and the gain at other levels."""
    gain = row.gain_over_blind
    assert gain is not None
    proven = "" if gain.low > SAME else ", not proven" if gain.high >= 0 else ", a loss"
    said = f"Over blind, the best split without predictions, the gain is {difference(gain)}{proven}."
    losses = [each for each in result.losses if each.cost is cost and each.baseline == UNIFORM]
    levels = result.levels[cost]
    if len(levels) == 1:
        return said
    ends = f"from {level_words(levels[0], cost)} to {level_words(levels[-1], cost)} {COUNTED[cost]}"
    return f"{said} Significantly better than uniform at {len(levels) - len(losses)} of {len(levels)} levels {ends}."


def live_decision(result: LiveComparison) -> Iterator[str]:
    """The first policy against its first baseline."""
    by_name = {each.policy: each for each in result.policies}
    if not result.differences:
        (only,) = result.policies
        yield f"{only.policy} answers {percent(only.accuracy.value)} of {result.num_questions:,} questions right."
        return
    first = next((each for each in result.differences if each.policy == FORETHOUGHT), result.differences[0])
    ours, other = by_name[first.policy], by_name[first.baseline]
    words = compared(ours.policy, ours.accuracy.value, other.policy, other.accuracy.value, first.accuracy)
    yield f"On {result.num_questions:,} questions {words}."
    tokens = f"{so_many(ours.spent, Cost.SPENT)} per question against {so_many(other.spent, Cost.SPENT)}"
    yield f"Difference {difference(first.accuracy)}, with {tokens}."


def comparison_decision(result: Comparison) -> Iterator[str]:
    """Which predictor gains most, and whether its lead over the first is significant."""
    for cost in costs_shown(result):
        scores = [each for each in result.scores if each.cost is cost]
        best = max(scores, key=lambda each: each.gain_over_blind.value)
        said = (
            f"In {COUNTED[cost]} {best.name} gains most of {len(scores)}: {difference(best.gain_over_blind)} over blind"
        )
        yield f"{said} (mean over all levels, {sample_size(result.num_queries)}){_lead(scores, best)}."


def best_title(result: Comparison, cost: Cost) -> str:
    """Of gains over blind."""
    scores = [each for each in result.scores if each.cost is cost]
    best = max(scores, key=lambda each: each.gain_over_blind.value)
    return f"{best.name} gains most in {COUNTED[cost]}: {points(best.gain_over_blind.value)} points over blind"


def _lead(scores: list[Score], best: Score) -> str:
    first = scores[0]
    if best is first or best.lead is None:
        others = [each for each in scores[1:] if each.lead is not None and each.lead.high >= 0.0]
        names = ", ".join(each.name for each in others)
        return f"; no proven difference to {names}" if names else "; proven ahead of all others" if scores[1:] else ""
    lead = "proven" if best.lead.low > SAME else "not proven"
    return f"; its lead over {first.name} is {lead}: {difference(best.lead)}"


def draws_decision(result: DrawsEvaluation) -> Iterator[str]:
    """The history at one level per cost, and its cost for the accuracy of the best single option."""
    for cost in costs_shown(result):
        level = result.headline[cost]
        rows = {row.policy: row for row in result.rows if row.cost is cost and row.level == level}
        own = rows[HISTORY]
        assert own.gain is not None
        words = compared("the history", own.accuracy.value, "uniform", rows[UNIFORM].accuracy.value, own.gain)
        yield f"At {so_many(level, cost)} per question {words}."
        yield f"Gain {difference(own.gain)}; {sample_size(result.num_queries)}."
    cost = costs_shown(result)[0]
    best = max((each for each in result.options if each.cost is cost), key=lambda each: each.accuracy.value)
    saved = best.saved[HISTORY]
    so_good = f"{best.label} for every question answers {percent(best.accuracy.value)} right"
    if not math.isfinite(saved.value):
        yield f"{so_good}; the history does not reach this accuracy at any cost."
    else:
        low = percent(saved.low) if math.isfinite(saved.low) else NOT_REACHED
        less = f"{percent(abs(saved.value))} {'less' if saved.value >= 0 else 'more'} cost"
        yield f"{so_good}; the history reaches this accuracy at {less} (saved: [{low}, {percent(saved.high)}])."


def draws_title(result: DrawsEvaluation, cost: Cost) -> str:
    """Title of accuracy against cost with earlier samples."""
    gains = [row.gain for row in result.rows if row.cost is cost and row.policy == HISTORY and row.gain is not None]
    proven = [gain.value for gain in gains if gain.low > SAME]
    if not proven:
        return f"No gain over uniform is proven at any level of {UNITS[cost]}"
    return f"Earlier samples gain up to {points(max(proven))} points over uniform at equal {UNITS[cost]}"


def num_draws_title(result: DrawsEvaluation, cost: Cost) -> str:
    """Title of the gain against the number of samples that choose."""
    level = result.headline[cost]
    found = [row for row in result.by_num_draws if row.cost is cost and row.level == level]
    if not found:
        return "No question has enough samples to show how many are needed"
    not_proven = max((row.num_draws for row in found if row.gain.low <= SAME), default=0)
    proven = [row.num_draws for row in found if row.num_draws > not_proven]
    at = f"at {so_many(level, cost)} per question"
    if not proven:
        return f"A gain is not proven with {not_proven} sample{'' if not_proven == 1 else 's'}, {at}"
    return f"A gain is proven from {min(proven)} sample{'' if min(proven) == 1 else 's'} on, {at}"


def frontier_title(result: Evaluation, cost: Cost) -> str:
    """Title of accuracy against cost."""
    rows = [row for row in result.select(cost, FORETHOUGHT) if row.gain is not None and row.gain.low > SAME]
    if not rows:
        return f"No gain over uniform is proven at any level of {COUNTED[cost]}"
    best = max(rows, key=lambda row: row.gain.value if row.gain else 0.0)
    assert best.gain is not None
    return f"Up to {points(best.gain.value)} points over uniform, at {so_many(best.realised, cost)} per question"


def gain_title(result: Evaluation, cost: Cost) -> str:
    """Title of the paired gains."""
    losses = [each for each in result.losses if each.cost is cost]
    levels = len(result.levels[cost])
    ahead = [levels - sum(loss.baseline == each for loss in losses) for each in (UNIFORM, BLIND)]
    others = "over uniform and over blind" if ahead[0] == ahead[1] else f"over uniform, {ahead[1]} over blind"
    return f"The gain is significantly above 0 at {ahead[0]} of {levels} levels {others}"


def shares_title(result: Evaluation, cost: Cost, level: float) -> str:
    """Title of the share of questions at each option."""
    shares = np.array(rows_at(result, cost, level)[FORETHOUGHT].shares)
    at = f"At {level_words(level, cost)} {COUNTED[cost]}"
    if result.menu.is_named:
        most = int(shares.argmax())
        return f"{at}, forethought gives {result.menu.labels[most]} to {percent(float(shares[most]))} of the questions"
    given = np.flatnonzero(shares >= min(0.01, shares.max()))  # of very many caps each may be rarer than that
    first, last = (f"{result.menu.caps[place]:,}" for place in (given[0], given[-1]))
    if first == last:
        share = float(shares.max())
        return f"{at}, {'every question gets' if share == 1.0 else f'{percent(share)} of the questions get'} {first}"
    return f"{at}, forethought gives caps from {first} to {last}"


def groups_title(cost_G: list[float], cost: Cost) -> str:
    """Title of the mean budget of groups of questions, from the hardest to the easiest."""
    most, least = int(np.argmax(cost_G)), int(np.argmin(cost_G))
    if len(cost_G) != len(FIFTHS) or cost_G[most] - cost_G[least] <= 1e-9 * max(cost_G):
        return "Mean budget by difficulty"
    unit = "USD" if cost is Cost.USD else "tokens"
    ends = f"{amount(cost_G[most], cost)} {unit} against {amount(cost_G[least], cost)}"
    return f"Most goes to the {FIFTHS[most]}, least to the {FIFTHS[least]}: {ends}"


def calibration_title(result: Evaluation) -> str:
    """Title of predicted against measured success."""
    found = result.calibration
    gain = found.log_loss_gain
    told = "distinguish questions" if gain.low > 0 else "do not clearly distinguish questions"
    return f"Predictions are off by {100 * found.calibration_error:.1f} points on average, and {told}"
