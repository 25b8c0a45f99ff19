"""`compare_live`: questions run under several policies, and what their number allows to conclude."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.data import FloatArray
from ..core.showing import Shown
from ..core.terms import usd_words
from ..errors import InvalidInputError
from .bootstrap import estimate, resampled_means
from .policies import BLIND, UNIFORM
from .results import Estimate, Result

WIDE = 0.2  # an interval of 20 points or more that holds 0 decides nothing
FEW = 30
WANTED_HALF_WIDTH = 0.05


@dataclass(frozen=True, slots=True)
class LivePolicy(Result):
    """The result of one policy.

    Attributes:
        num_right: questions answered right; a sum of shares when shares were given.
        accuracy: num_right / n, and its interval.
        granted: mean cap per question, tokens; None of named options, which need not have one.
        spent: mean tokens generated per question.
        usd: mean price per question; None if it is not known.
    """

    policy: str
    num_right: float
    accuracy: Estimate
    granted: float | None
    spent: float
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class LiveDifference(Result):
    """One policy less a baseline, paired by question.

    Attributes:
        accuracy: difference in accuracy.
        granted: difference in mean cap, tokens; None of named options.
        spent: difference in mean tokens generated.
        usd: difference in the mean bill; None where it is not known.
        num_better: questions on which the policy did better.
        num_worse: questions on which it did worse.
        sentence: what this many questions show.
    """

    policy: str
    baseline: str
    accuracy: Estimate
    granted: Estimate | None
    spent: Estimate
    num_better: int
    num_worse: int
    sentence: str
    usd: Estimate | None = None


@dataclass(frozen=True, slots=True, repr=False)
class LiveComparison(Result, Shown):
    """Policies run on the same questions and traces."""

    simulated: bool
    num_questions: int
    policies: tuple[LivePolicy, ...]
    differences: tuple[LiveDifference, ...]
    num_resamples: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        made = ", SIMULATED" if self.simulated else ""
        rights = [f"{each.policy} {each.num_right:g} right" for each in self.policies]
        return f"LiveComparison({self.num_questions:,} questions, {', '.join(rights)}{made})"


def compare_live(
    outcomes: Mapping[str, Sequence[Any]],
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    simulated: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> LiveComparison:
    """Compares policies that were run on the same questions with uniform and blind; with the first if neither is there.

    A live run has one budget per question and policy, so there is no frontier to compare on at equal tokens: both costs
    stand beside each difference, and the sentence says so when they are not equal.

    With few questions the bare bootstrap claims too much: when all twelve answers are right it gives the interval
    from 100% to 100%. So intervals of accuracy come from the questions and four made-up ones, two right and two wrong
    (Agresti and Coull, 1998), those of differences from the questions and two made-up ones, one that only the policy
    and one that only the baseline gets right (after Agresti and Min, 2005). Values are of the real questions alone.

    Args:
        outcomes: policy -> (right_Q, granted_Q, spent_Q), or (right_Q, granted_Q, spent_Q, usd_Q): right or wrong, or
            the share of traces right, in [0, 1]; the cap, or None for all of named options; the tokens generated; the
            bill. The same questions in the same order for every policy.
        num_resamples: bootstrap resamples.
        seed: of the bootstrap.
        simulated: whether the outcomes come from a simulation or a replay.
        provenance: what made them (model, template, engine, command), passed through to the report.
    """
    arrays = _arrays(outcomes)
    names = list(arrays)
    baselines = [name for name in (UNIFORM, BLIND) if name in arrays] or names[:1]
    right_Q_P, *cost_3_Q_P = (
        None if any(column is None for column in columns) else np.stack(columns, axis=1)
        for columns in zip(*arrays.values(), strict=True)
    )
    assert right_Q_P is not None
    pairs: list[tuple[int, int]] = []  # (policy, baseline); two baselines meet once
    for base in map(names.index, baselines):
        pairs += [(policy, base) for policy in range(len(names)) if policy != base and (base, policy) not in pairs]

    def estimates(values_Q_N: FloatArray, made_up: Sequence[float] = ()) -> list[Estimate]:
        extended_Q_N = np.concatenate([values_Q_N, np.repeat(np.array(made_up)[:, None], values_Q_N.shape[1], axis=1)])
        means_R_N = resampled_means(extended_Q_N, num_resamples=num_resamples, seed=seed)
        means_R_N[0] = values_Q_N.mean(axis=0)
        return [estimate(means_R) for means_R in means_R_N.T]

    accuracies = estimates(right_Q_P, made_up=(1.0, 1.0, 0.0, 0.0))
    granted_P, spent_P, usd_P = (None if each is None else each.mean(axis=0).tolist() for each in cost_3_Q_P)
    assert spent_P is not None
    policies = tuple(
        LivePolicy(
            policy=name,
            num_right=float(right_Q_P[:, p].sum()),
            accuracy=accuracies[p],
            granted=None if granted_P is None else granted_P[p],
            spent=spent_P[p],
            usd=None if usd_P is None else usd_P[p],
        )
        for p, name in enumerate(names)
    )
    accuracy_N = estimates(_paired(right_Q_P, pairs), made_up=(1.0, -1.0))
    granted_N, spent_N, usd_N = (None if each is None else estimates(_paired(each, pairs)) for each in cost_3_Q_P)
    differences = []
    for at, (policy, base) in enumerate(pairs):
        difference_Q = right_Q_P[:, policy] - right_Q_P[:, base]
        assert spent_N is not None
        differences.append(
            LiveDifference(
                policy=names[policy],
                baseline=names[base],
                accuracy=accuracy_N[at],
                granted=None if granted_N is None else granted_N[at],
                spent=spent_N[at],
                num_better=int((difference_Q > 0).sum()),
                num_worse=int((difference_Q < 0).sum()),
                sentence=_sentence(policies[policy], policies[base], accuracy_N[at], len(difference_Q)),
                usd=None if usd_N is None else usd_N[at],
            )
        )
    return LiveComparison(
        simulated=simulated,
        num_questions=len(right_Q_P),
        policies=policies,
        differences=tuple(differences),
        num_resamples=num_resamples,
        seed=seed,
        provenance=dict(provenance or {}),
    )


def accuracy_of(right_Q: FloatArray) -> Estimate:
    """The share right of some questions, with the interval that `compare_live` gives it."""
    zeros_Q = np.zeros(len(right_Q))
    return compare_live({"": (right_Q, zeros_Q, zeros_Q)}).policies[0].accuracy


def _paired(values_Q_P: FloatArray, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    policies, bases = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return values_Q_P[:, policies] - values_Q_P[:, bases]


def _sentence(policy: LivePolicy, base: LivePolicy, gain: Estimate, num_questions: int) -> str:
    """The conclusion that the width of the interval allows."""
    width = gain.high - gain.low
    ends = f"from {_points(gain.low)} to {_points(gain.high)}"
    span = f"the interval of the difference spans {100 * width:.1f} points, {ends}"
    if gain.low <= 0.0 <= gain.high:
        needed = num_questions * (width / 2.0 / WANTED_HALF_WIDTH) ** 2
        more = f"; an interval of ±{100 * WANTED_HALF_WIDTH:.0f} points needs about {_rounded(needed)} questions"
        if width >= WIDE:
            text = f"n={num_questions} questions are too few to show a difference: {span}{more}"
        else:
            text = f"{num_questions} questions show no difference between {policy.policy} and {base.policy}: {span}"
    else:
        side = "ahead of" if gain.value > 0 else "behind"
        text = (
            f"{policy.policy} is {side} {base.policy} by {100 * abs(gain.value):.1f} points (n={num_questions}): {span}"
        )
        if num_questions < FEW:
            text += "; with so few questions this is no proof"
    tokens = (("granted", policy.granted, base.granted), ("spent", policy.spent, base.spent))
    unequal = [
        f"{cost} {mine:.1f} against {theirs:.1f}"
        for cost, mine, theirs in tokens
        if mine is not None and theirs is not None and abs(mine - theirs) > 0.02 * max(theirs, 1.0)
    ]
    text += f"; tokens per question are not equal ({', '.join(unequal)})" if unequal else ""
    if policy.usd is not None and base.usd is not None and abs(policy.usd - base.usd) > 0.02 * base.usd:
        text += f"; prices per question are not equal ({usd_words(policy.usd)} against {usd_words(base.usd)})"
    return text


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _rounded(number: float) -> str:
    """Two significant digits, upwards."""
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1.0))) - 1)
    return f"{math.ceil(number / unit) * unit:,}"


def _arrays(outcomes: Mapping[str, Sequence[Any]]) -> dict[str, tuple[FloatArray | None, ...]]:
    """Policy -> (right_Q, granted_Q, spent_Q, usd_Q), None for what is not known."""
    if not outcomes:
        raise InvalidInputError("there is no policy to compare")
    arrays = {name: _columns(name, columns) for name, columns in outcomes.items()}
    lengths = {name: len(columns[0]) for name, columns in arrays.items() if columns[0] is not None}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"policies must be evaluated on the same questions; they have {lengths}")
    return arrays


def _columns(name: str, columns: Sequence[Any]) -> tuple[FloatArray | None, ...]:
    given = [None if column is None else np.asarray(column, dtype=np.float64) for column in columns]
    known = [column for column in given if column is not None]
    if len(given) not in (3, 4) or given[0] is None or given[2] is None or len(set(map(len, known))) != 1:
        counts = ", ".join("none" if column is None else str(len(column)) for column in given)
        raise InvalidInputError(
            f"policy {name!r} needs one verdict, cap and token count per question; a price is optional; it has {counts}"
        )
    right_Q = given[0]
    if not len(right_Q):
        raise InvalidInputError(f"policy {name!r} has no question")
    if not (all(np.isfinite(column).all() for column in known) and ((right_Q >= 0) & (right_Q <= 1)).all()):
        raise InvalidInputError(
            f"policy {name!r}: verdicts must lie between 0 and 1, and tokens and prices must be finite numbers"
        )
    return (*given, None)[:4]
