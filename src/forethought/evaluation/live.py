"""`compare_live`: a handful of questions really run under several policies, and how little or much that shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.data import FloatArray
from ..core.registry import unknown_name_message
from ..errors import InvalidInputError, UnknownNameError
from .bootstrap import estimate, resampled_means
from .policies import BLIND, UNIFORM
from .results import Estimate, Result

WIDE = 0.2  # an interval of 20 points or more that holds 0 decides nothing
FEW = 30
WANTED_HALF_WIDTH = 0.05


@dataclass(frozen=True, slots=True)
class LivePolicy(Result):
    """What one policy came to.

    Attributes:
        num_right: questions answered right; a sum of shares when shares were given.
        accuracy: num_right / n, and its interval.
        granted: mean cap a question, tokens.
        spent: mean tokens generated a question.
    """

    policy: str
    num_right: float
    accuracy: Estimate
    granted: float
    spent: float


@dataclass(frozen=True, slots=True)
class LiveDifference(Result):
    """One policy less a baseline, paired by question.

    Attributes:
        accuracy: difference in accuracy.
        granted: difference in mean cap, tokens.
        spent: difference in mean tokens generated.
        num_better: questions on which the policy did better.
        num_worse: questions on which it did worse.
        sentence: what this many questions show.
    """

    policy: str
    baseline: str
    accuracy: Estimate
    granted: Estimate
    spent: Estimate
    num_better: int
    num_worse: int
    sentence: str


@dataclass(frozen=True, slots=True)
class LiveComparison(Result):
    """Policies run on the same questions and traces."""

    simulated: bool
    num_questions: int
    policies: tuple[LivePolicy, ...]
    differences: tuple[LiveDifference, ...]
    num_resamples: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)


def compare_live(
    outcomes: Mapping[str, tuple[Any, Any, Any]],
    *,
    baselines: Sequence[str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
    simulated: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> LiveComparison:
    """Compares policies that were run on the same questions.

    A live run has one budget a question and policy, so there is no frontier to compare on at equal tokens: both costs
    stand beside each difference, and the sentence says so when they are not equal.

    With few questions the bare bootstrap claims too much: when all twelve answers are right it gives the interval
    from 100% to 100%. So intervals of accuracy come from the questions and four made-up ones, two right and two wrong
    (Agresti and Coull, 1998), those of differences from the questions and two made-up ones, one that only the policy
    and one that only the baseline gets right (after Agresti and Min, 2005). Values are of the real questions alone.

    Args:
        outcomes: policy -> (right_Q, granted_Q, spent_Q): right or wrong, or the share of traces right, in [0, 1]; the
            cap; the tokens generated. The same questions in the same order for every policy.
        baselines: policies to compare the others with; by default those of uniform and blind that are there, or the
            first policy where neither is.
        num_resamples: bootstrap resamples.
        seed: of the bootstrap.
        simulated: whether the outcomes come from a simulation or a replay.
        provenance: what made them (model, template, engine, command), passed through to the report.
    """
    arrays = _arrays(outcomes)
    names = list(arrays)
    if baselines is None:
        baselines = [name for name in (UNIFORM, BLIND) if name in arrays] or names[:1]
    for name in baselines:
        if name not in arrays:
            raise UnknownNameError(unknown_name_message("policy", name, names))
    right_Q_P, granted_Q_P, spent_Q_P = (np.stack(columns, axis=1) for columns in zip(*arrays.values(), strict=True))
    pairs: list[tuple[int, int]] = []  # (policy, baseline); two baselines meet once
    for base in map(names.index, baselines):
        pairs += [(policy, base) for policy in range(len(names)) if policy != base and (base, policy) not in pairs]

    def estimates(values_Q_N: FloatArray, made_up: Sequence[float] = ()) -> list[Estimate]:
        extended_Q_N = np.concatenate([values_Q_N, np.repeat(np.array(made_up)[:, None], values_Q_N.shape[1], axis=1)])
        means_R_N = resampled_means(extended_Q_N, num_resamples=num_resamples, seed=seed)
        means_R_N[0] = values_Q_N.mean(axis=0)
        return [estimate(means_R) for means_R in means_R_N.T]

    accuracies = estimates(right_Q_P, made_up=(1.0, 1.0, 0.0, 0.0))
    policies = tuple(
        LivePolicy(name, float(right_Q_P[:, p].sum()), accuracies[p], float(granted_Q_P[:, p].mean()), float(s))
        for p, (name, s) in enumerate(zip(names, spent_Q_P.mean(axis=0), strict=True))
    )
    found = zip(
        pairs,
        estimates(_paired(right_Q_P, pairs), made_up=(1.0, -1.0)),
        estimates(_paired(granted_Q_P, pairs)),
        estimates(_paired(spent_Q_P, pairs)),
        strict=True,
    )
    differences = []
    for (policy, base), accuracy, granted, spent in found:
        difference_Q = right_Q_P[:, policy] - right_Q_P[:, base]
        differences.append(
            LiveDifference(
                policy=names[policy],
                baseline=names[base],
                accuracy=accuracy,
                granted=granted,
                spent=spent,
                num_better=int((difference_Q > 0).sum()),
                num_worse=int((difference_Q < 0).sum()),
                sentence=_sentence(policies[policy], policies[base], accuracy, len(difference_Q)),
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


def _paired(values_Q_P: FloatArray, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    policies, bases = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return values_Q_P[:, policies] - values_Q_P[:, bases]


def _sentence(policy: LivePolicy, base: LivePolicy, gain: Estimate, num_questions: int) -> str:
    """What the interval's width allows to say, and no more."""
    width = gain.high - gain.low
    ends = f"from {_points(gain.low)} to {_points(gain.high)}"
    span = f"the interval of the difference spans {100 * width:.1f} points, {ends}"
    if gain.low <= 0.0 <= gain.high:
        needed = num_questions * (width / 2.0 / WANTED_HALF_WIDTH) ** 2
        more = f"; to know it to ±{100 * WANTED_HALF_WIDTH:.0f} points takes about {_rounded(needed)} questions"
        if width >= WIDE:
            text = f"so few questions (n={num_questions}) prove nothing: {span}{more}"
        else:
            text = f"{num_questions} questions do not tell {policy.policy} from {base.policy}: {span}"
    else:
        side = "ahead of" if gain.value > 0 else "behind"
        text = (
            f"{policy.policy} is {side} {base.policy} by {100 * abs(gain.value):.1f} points (n={num_questions}): {span}"
        )
        if num_questions < FEW:
            text += "; with so few questions this is a hint and no proof"
    unequal = [
        f"{cost} {mine:.1f} against {theirs:.1f}"
        for cost, mine, theirs in (("granted", policy.granted, base.granted), ("spent", policy.spent, base.spent))
        if abs(mine - theirs) > 0.02 * max(theirs, 1.0)
    ]
    return text + (f"; tokens a question are not equal ({', '.join(unequal)})" if unequal else "")


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _rounded(number: float) -> str:
    """Two significant digits, upwards."""
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1.0))) - 1)
    return f"{math.ceil(number / unit) * unit:,}"


def _arrays(outcomes: Mapping[str, tuple[Any, Any, Any]]) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    if not outcomes:
        raise InvalidInputError("there is no policy to compare")
    arrays = {name: _triple(name, columns) for name, columns in outcomes.items()}
    lengths = {name: len(right_Q) for name, (right_Q, _, _) in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"policies must be judged on the same questions; they have {lengths}")
    return arrays


def _triple(name: str, columns: tuple[Any, Any, Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    right_Q, granted_Q, spent_Q = (np.asarray(column, dtype=np.float64) for column in columns)
    if not len(right_Q) == len(granted_Q) == len(spent_Q) >= 1:
        raise InvalidInputError(
            f"policy {name!r} needs one verdict, cap and token count a question; it has "
            f"{len(right_Q)}, {len(granted_Q)} and {len(spent_Q)}"
        )
    if not (np.isfinite(granted_Q).all() and np.isfinite(spent_Q).all() and ((right_Q >= 0) & (right_Q <= 1)).all()):
        raise InvalidInputError(f"policy {name!r}: verdicts must lie between 0 and 1, and tokens be finite numbers")
    return right_Q, granted_Q, spent_Q
