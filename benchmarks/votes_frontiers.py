"""Rules of how many samples vote, compared at equal spent tokens.

A rule has settings: an option with a number of samples, a threshold, a window. At each price of a token it takes the
setting that is worth most on training questions, so that nothing is chosen on those that are reported. Over all prices
that is its frontier; at a level between two of its points it is a random mix of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from forethought.core.data import FloatArray, IntArray
from forethought.errors import InvalidInputError
from forethought.evaluation.bootstrap import estimate, resampled_means
from forethought.evaluation.frontier import Frontier
from forethought.evaluation.levels import token_weights
from forethought.evaluation.results import Estimate, Result
from votes_replay import Replayed


@dataclass(frozen=True, slots=True, eq=False)
class PricedRule:
    """What a rule did to each query at each price of a token; P prices, shape (Q, P) each.

    Attributes:
        name: of the rule.
        right_Q_P: share of votes that were right.
        tokens_Q_P: tokens spent.
        samples_Q_P: samples drawn.
    """

    name: str
    right_Q_P: FloatArray
    tokens_Q_P: FloatArray
    samples_Q_P: FloatArray

    @classmethod
    def of(cls, name: str, settings: Sequence[Replayed], choice_Q_P: IntArray) -> Self:
        """From replays under each of N settings, and which one each query has at each price.

        Args:
            name: of the rule.
            settings: what each setting did to all queries.
            choice_Q_P: its index; of shape (1, P) where all queries have the same.
        """
        choice_Q_P = np.broadcast_to(choice_Q_P, (len(settings[0].right_Q), choice_Q_P.shape[1]))
        columns = (
            np.stack([each.right_Q for each in settings], axis=1),
            np.stack([each.tokens_Q for each in settings], axis=1),
            np.stack([each.samples_Q for each in settings], axis=1),
        )
        return cls(name, *(np.take_along_axis(values, choice_Q_P, axis=1) for values in columns))

    @classmethod
    def joined(cls, parts: Sequence[tuple[IntArray, PricedRule]]) -> Self:
        """Of all queries, from disjoint parts: their rows and the rule there."""
        order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
        rules = [rule for _, rule in parts]
        each = (
            [rule.right_Q_P for rule in rules],
            [rule.tokens_Q_P for rule in rules],
            [rule.samples_Q_P for rule in rules],
        )
        return cls(rules[0].name, *(np.concatenate(values)[order] for values in each))


def choose_settings(right_Q_N: FloatArray, tokens_Q_N: FloatArray, price_P: FloatArray) -> IntArray:
    """The setting that is worth most to each query at each price, shape (Q, P): right answers, less their tokens.

    Args:
        right_Q_N: expected right answers under each setting; one row of means for one choice for all.
        tokens_Q_N: expected tokens.
        price_P: in right answers per token.
    """
    value_Q_N_P = right_Q_N[:, :, None] - price_P * tokens_Q_N[:, :, None]
    choice_Q_P: IntArray = np.argmax(value_Q_N_P, axis=1)
    return choice_Q_P


@dataclass(frozen=True, slots=True)
class VoteRow(Result):
    """One rule at one mean of spent tokens per question.

    Attributes:
        rule: its name.
        level: tokens.
        accuracy: of its votes there.
        gain: above the baseline at the same level; None for itself.
        needed: tokens at which it reaches the baseline's accuracy at this level; infinite where it never does.
        samples: drawn per question there.
    """

    rule: str
    level: float
    accuracy: Estimate
    gain: Estimate | None
    needed: Estimate | None
    samples: float


@dataclass(frozen=True, slots=True)
class MeanGain(Result):
    """The mean over all levels of a rule's gain, above one other rule; each level stands for the tokens around it."""

    rule: str
    over: str
    gain: Estimate


@dataclass(frozen=True, slots=True)
class VoteComparison(Result):
    """Rules at equal spent tokens, on the same frozen samples.

    Attributes:
        num_queries: questions reported.
        levels: tokens per question.
        rows: every rule at every level.
        means: gains over the baseline, and of the last rule over each other one.
    """

    num_queries: int
    num_resamples: int
    seed: int
    levels: tuple[float, ...]
    rows: tuple[VoteRow, ...]
    means: tuple[MeanGain, ...]


def compare_rules(
    rules: Sequence[PricedRule],
    levels: Sequence[float],
    *,
    baseline: str = "uniform",
    ours: str,
    num_resamples: int = 2000,
    seed: int = 0,
) -> VoteComparison:
    """Compares rules with paired bootstrap intervals over queries; rules and choices are held fixed in a resample.

    Args:
        rules: of the same queries.
        levels: mean spent tokens per question, ascending.
        baseline: the rule whose accuracy others are compared with at each level.
        ours: the rule that is compared with each other one over all levels.
        num_resamples: of the bootstrap.
        seed: of its draws.

    Raises:
        InvalidInputError: rules of different queries; names that no rule has.
    """
    names = [rule.name for rule in rules]
    sizes = {len(rule.right_Q_P) for rule in rules}
    if len(sizes) != 1 or len(set(names)) < len(names) or not {baseline, ours} <= set(names):
        raise InvalidInputError(f"the rules {names} need names of their own, the same queries, {baseline} and {ours}")
    widths = [rule.right_Q_P.shape[1] for rule in rules]
    columns = [values for rule in rules for values in (rule.tokens_Q_P, rule.right_Q_P)]
    means_R_N = resampled_means(np.concatenate(columns, axis=1), num_resamples=num_resamples, seed=seed)
    found, at = {}, 0
    for rule, width in zip(rules, widths, strict=True):
        tokens_R_P, right_R_P = means_R_N[:, at : at + width], means_R_N[:, at + width : at + 2 * width]
        found[rule.name] = Frontier.through(tokens_R_P, right_R_P)
        at += 2 * width
    accuracy = {
        name: np.stack([frontier.accuracy_at(np.full(num_resamples + 1, level)) for level in levels], axis=1)
        for name, frontier in found.items()
    }
    rows = []
    for rule in rules:
        samples_P, tokens_P = rule.samples_Q_P.mean(axis=0), rule.tokens_Q_P.mean(axis=0)
        order = np.argsort(tokens_P, kind="stable")
        for column, level in enumerate(levels):
            reached_R, base_R = accuracy[rule.name][:, column], accuracy[baseline][:, column]
            is_base = rule.name == baseline
            rows.append(
                VoteRow(
                    rule=rule.name,
                    level=float(level),
                    accuracy=estimate(reached_R),
                    gain=None if is_base else estimate(reached_R - base_R),
                    needed=None if is_base else estimate(found[rule.name].cost_for(base_R)),
                    samples=float(np.interp(level, tokens_P[order], samples_P[order])),
                )
            )
    weight_L = token_weights(list(levels))
    pairs = [(name, baseline) for name in names if name != baseline]
    pairs += [(ours, name) for name in names if name not in (ours, baseline)]
    gains = tuple(MeanGain(name, over, estimate((accuracy[name] - accuracy[over]) @ weight_L)) for name, over in pairs)
    return VoteComparison(
        num_queries=sizes.pop(),
        num_resamples=num_resamples,
        seed=seed,
        levels=tuple(float(level) for level in levels),
        rows=tuple(rows),
        means=gains,
    )
