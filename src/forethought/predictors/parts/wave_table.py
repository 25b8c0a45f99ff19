"""How the votes of one option stand and move, learned on measured samples of training questions.

What is known of a query while its samples are drawn is how its vote stands and, from the plan, how likely it is to be
answered right at all. The table says how often a vote that stands so is right, and how it moves with one more sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...core.codec import UnfitError, decode
from ...core.data import FloatArray, IntArray
from ...errors import InvalidInputError
from ...evaluation.vote_replay import FrozenDraws
from .folds import assign_folds

STRENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)  # questions that a parent counts as; the left-out log loss chooses
BINS = (1, 2, 4, 8)  # of the predicted chance; the same loss chooses
FEWEST = 20  # training questions in a bin
FOLDS = 5
STEPS = 8  # of Newton's method
SLOPE_VARIANCE = 1.0  # of the prior of slopes: by how much log-odds rise with the predicted ones
GAINED_ALIKE = 256.0  # questions that the gain of all bins counts as: bins differ by a point, questions by thirty
DIGITS = 5  # of a number, as stored
PRICES = tuple(float(f"{price:.3g}") for price in np.geomspace(2e-5, 1.0, 72))  # of a sample, in right answers
DEAREST = 1e6  # right answers per sample: nothing but the first wave is worth it
SUREST = 1e-3  # a chance is never nearer to 0 or 1 than this, in a log loss


@dataclass(frozen=True, slots=True)
class WaveState:
    """What is known of votes that stand alike, one number per bin of the predicted chance.

    Attributes:
        drawn: samples so far.
        top: votes of the largest group.
        second: votes of the next one.
        num_queries: training questions that the numbers stand on: each counts by its share of orders that come by here.
        right: chance that the vote, ended here, is right; ties shared.
        leads: chance that the next sample makes the largest group larger.
        follows: chance that it makes the second one larger. With what is left it does neither.
        worth: the highest price of a sample, in right answers, at which the next wave is worth it; 0 where none is.
    """

    drawn: int
    top: int
    second: int
    num_queries: float
    right: tuple[float, ...]
    leads: tuple[float, ...]
    follows: tuple[float, ...]
    worth: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WaveEnd:
    """What sampling comes to in the end, where a sample has one price.

    Attributes:
        price: of a sample, in right answers.
        odds: log-odds of a right answer for a question of the mean predicted log-odds.
        slope: by how much they rise with the predicted log-odds.
        samples: drawn on average, one number per bin.
    """

    price: float
    odds: float
    slope: float
    samples: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WaveTable:
    """How votes of one option stand, move and end, learned on training questions; `encode` gives readable JSON.

    Attributes:
        points: numbers of samples at which it is decided, ascending; waves lie between them.
        edges: of the bins of the predicted chance, ascending; a chance on an edge is in the bin above it.
        centre: mean predicted log-odds.
        strength: how many questions the parent of a number counts as.
        num_queries: training questions.
        states: all that a vote can come by, in order of samples, votes of the largest group, and of the second.
        ends: by rising price.
        weights: of the votes that it was learned from, see `core.votes.Voting`.
    """

    points: tuple[int, ...]
    edges: tuple[float, ...]
    centre: float
    strength: float
    num_queries: int
    states: tuple[WaveState, ...]
    ends: tuple[WaveEnd, ...]
    weights: str = ""

    @property
    def most(self) -> int:
        """Samples of a query, at most."""
        return self.points[-1]

    @property
    def num_bins(self) -> int:
        """G."""
        return len(self.edges) + 1

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """As `encode` wrote it; raises UnfitError for numbers that no such table has."""
        found = decode(cls, value)
        for name, values in (("points", found.points), ("edges", found.edges)):
            if list(values) != sorted(set(values)):
                raise UnfitError("must ascend", name)
        if not found.points or found.points[0] < 1:
            raise UnfitError("must be numbers of samples", "points")
        if [(each.drawn, each.top, each.second) for each in found.states] != list(_reachable(found.most)):
            raise UnfitError(f"must hold every state of up to {found.most} samples once, in order", "states")
        if [each.price for each in found.ends] != list(PRICES):
            raise UnfitError("must hold the same prices as every table", "ends")
        for number, state in enumerate(found.states):
            chances = (state.right, state.leads, state.follows)
            if any(len(each) != found.num_bins for each in (*chances, state.worth)):
                raise UnfitError(f"needs {found.num_bins} numbers each", f"states[{number}]")
            moves = np.add(state.leads, state.follows)
            if any(not 0.0 <= chance <= 1.0 for each in chances for chance in each) or moves.max() > 1.0 + 1e-9:
                raise UnfitError("must hold chances", f"states[{number}]")
        for number, end in enumerate(found.ends):
            if len(end.samples) != found.num_bins:
                raise UnfitError(f"needs {found.num_bins} numbers of samples", f"ends[{number}]")
        return found

    def bins(self, predicted: FloatArray) -> IntArray:
        """The bin of each predicted chance, in its shape."""
        return np.searchsorted(np.array(self.edges), predicted, side="right")

    def dense(self, name: str) -> FloatArray:
        """One field of the states by samples, bin, top and second; shape (N, G, A, B), 0 where nothing comes."""
        size = self.most + 1
        found = np.zeros((size, self.num_bins, size, size))
        for each in self.states:
            values = {"right": each.right, "leads": each.leads, "follows": each.follows, "worth": each.worth}[name]
            found[each.drawn, :, each.top, each.second] = values
        return found


def learn_waves(draws: FrozenDraws, predicted_Q: FloatArray | None = None) -> WaveTable:
    """Learns how votes stand, move and end from measured samples, each query's in many orders.

    Whether a further wave is worth it is decided from the last sample backwards (as options are priced by simulation:
    Longstaff and Schwartz, 2001): what the votes that stand alike gained in the end by going on, less the price of the
    samples until then, against ending at once, on the same samples. A higher price never draws more: it draws only
    where every lower one does.

    Numbers are shrunk level by level, since rare states are seen in few questions: the mean after so many samples, then
    of the same lead, then of the same votes, then of the same votes in one bin. For chances the parent of the last one
    is shifted in log-odds, in proportion to the predicted log-odds, by one slope per number of samples. How strong
    parents are, and how many bins there are, minimises the log loss on questions that were left out.

    Args:
        draws: samples of the training questions under one option; not those that will be reported.
        predicted_Q: predicted chance of a right answer, made without seeing the question, shape (Q,); None: unknown.

    Raises:
        InvalidInputError: fewer than two questions.
    """
    num_queries = len(draws.group_Q_T)
    if num_queries < 2:
        raise InvalidInputError("a table of waves needs samples of at least two questions")
    most = draws.num_samples
    predicted_Q = np.full(num_queries, 0.5) if predicted_Q is None else np.asarray(predicted_Q, dtype=np.float64)
    fold_Q = assign_folds([str(row) for row in range(num_queries)], num_folds=min(FOLDS, num_queries), seed=0)
    found = []
    for edges in _edges(predicted_Q):
        bin_Q = np.searchsorted(np.array(edges), predicted_Q, side="right")
        seen_F = _count(draws, bin_Q, fold_Q, len(edges) + 1, most)
        odds_G = _mean_odds(predicted_Q, bin_Q)
        found += [(_left_out_loss(seen_F, odds_G, strength), strength, edges) for strength in STRENGTHS]
    _, strength, edges = min(found)
    bin_Q = np.searchsorted(np.array(edges), predicted_Q, side="right")
    seen = _count(draws, bin_Q, np.zeros_like(bin_Q), len(edges) + 1, most)[0]
    worth, right_X_Q, samples_X_Q = _priced(draws, bin_Q, seen[0], strength)
    fitted = [np.round(each, DIGITS) for each in _fit(seen, _mean_odds(predicted_Q, bin_Q), strength)]
    visits = seen[0].sum(axis=1)
    states = []
    for drawn, top, second in _reachable(most):
        numbers = (tuple(each[drawn, :, top, second].tolist()) for each in (*fitted, worth))
        states.append(WaveState(drawn, top, second, round(float(visits[drawn, top, second]), 3), *numbers))
    centre = float(log_odds(predicted_Q).mean())
    return WaveTable(
        points=tuple(range(1, most + 1)),
        edges=edges,
        centre=round(centre, DIGITS),
        strength=strength,
        num_queries=num_queries,
        states=tuple(states),
        ends=_ends(right_X_Q, samples_X_Q, log_odds(predicted_Q) - centre, bin_Q),
    )


def _priced(
    draws: FrozenDraws, bin_Q: IntArray, visits: FloatArray, strength: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What the next wave is worth in each state, shape (N, G, A, B); what each question came to, shape (X, Q) each."""
    most = draws.num_samples
    right_Q_R_N, standing = draws.right_Q_R_N, draws.standing_Q_R_N
    shape = (len(PRICES), *right_Q_R_N.shape[:2])
    price_X, worth = np.array(PRICES)[:, None, None], np.zeros(visits.shape)
    right_N = {most: np.broadcast_to(right_Q_R_N[:, :, most], shape)}
    samples_N = {most: np.zeros(shape)}
    for drawn in range(most - 1, -1, -1):
        now, after = right_Q_R_N[:, :, drawn], drawn + 1
        more = samples_N[after] + 1
        if not drawn:
            right_N[0], samples_N[0] = right_N[after], more
            break
        gain = right_N[after] - price_X * more - now
        top, second = (values[:, :, drawn].astype(np.int64) for values in (standing.top, standing.second))
        place = np.ravel_multi_index((np.broadcast_to(bin_Q[:, None], top.shape), top, second), visits.shape[1:])
        size = int(np.prod(visits.shape[1:]))
        every = place + size * np.arange(len(PRICES))[:, None, None]
        summed = np.bincount(every.ravel(), gain.ravel(), minlength=size * len(PRICES)) / shape[2]
        summed = summed.reshape(len(PRICES), *visits.shape[1:])
        counted = np.broadcast_to(visits[drawn], summed.shape)
        alike = _shrunk_to_lead(summed.sum(axis=1), counted.sum(axis=1), strength)
        is_gained = _shrunk(summed, counted, alike[:, None], GAINED_ALIKE) > 0.0
        is_worth = np.logical_and.accumulate(is_gained, axis=0)
        worth[drawn] = np.where(is_worth[0], np.array(PRICES)[np.maximum(is_worth.sum(axis=0) - 1, 0)], 0.0)
        goes_on = is_worth.reshape(len(PRICES), -1)[:, place]
        right_N[drawn] = np.where(goes_on, right_N[after], now)
        samples_N[drawn] = np.where(goes_on, more, 0.0)
    worth[0] = DEAREST  # the first wave is always drawn
    return worth, right_N[0].mean(axis=2), samples_N[0].mean(axis=2)


def _ends(right_X_Q: FloatArray, samples_X_Q: FloatArray, odds_Q: FloatArray, bin_Q: IntArray) -> tuple[WaveEnd, ...]:
    """What sampling comes to at each price: a logistic curve over the predicted log-odds, and samples of each bin."""
    start = np.stack([log_odds(right_X_Q.mean(axis=1)), np.zeros(len(right_X_Q))], axis=1)
    design = np.stack([np.ones_like(odds_Q), odds_Q], axis=1)
    penalty = np.array([0.0, 1.0 / SLOPE_VARIANCE])
    for _ in range(STEPS):
        chance = 1.0 / (1.0 + np.exp(-(start @ design.T)))
        gradient = (right_X_Q - chance) @ design - penalty * start
        bend = np.einsum("xq,qi,qj->xij", chance * (1.0 - chance), design, design) + np.diag(penalty + 1e-9)
        start = start + np.clip(np.linalg.solve(bend, gradient[:, :, None])[:, :, 0], -1.0, 1.0)
    samples_X_G = np.stack([np.bincount(bin_Q, row) for row in samples_X_Q]) / np.bincount(bin_Q)
    rows = zip(PRICES, np.round(start, DIGITS).tolist(), np.round(samples_X_G, DIGITS).tolist(), strict=True)
    return tuple(WaveEnd(price, odds, slope, tuple(samples)) for price, (odds, slope), samples in rows)


def _mean_odds(predicted_Q: FloatArray, bin_Q: IntArray) -> FloatArray:
    """Mean log-odds of the predicted chance in each bin, around the mean of all, shape (G,)."""
    odds_Q = log_odds(predicted_Q)
    found: FloatArray = np.bincount(bin_Q, odds_Q - odds_Q.mean()) / np.bincount(bin_Q)
    return found


def _edges(predicted_Q: FloatArray) -> list[tuple[float, ...]]:
    """Edges of as many bins as `BINS` has, each with about as many questions; without those of too few."""
    found: list[tuple[float, ...]] = []
    for number in BINS:
        if number > 1 and len(predicted_Q) < number * FEWEST:
            break
        inner = np.quantile(predicted_Q, np.arange(1, number) / number)
        edges = tuple(np.unique(np.round(inner, DIGITS)).tolist())
        filled = np.bincount(np.searchsorted(edges, predicted_Q, side="right"), minlength=len(edges) + 1)
        if edges not in found and (number == 1 or filled.min() >= FEWEST):
            found.append(edges)
    return found


def _reachable(most: int) -> Iterator[tuple[int, int, int]]:
    """Samples, votes of the largest group and of the second, of all states that a vote can come by."""
    for drawn in range(most + 1):
        for top in range(drawn + 1):
            for second in range(min(top, drawn - top) + 1):
                yield drawn, top, second


def _count(draws: FrozenDraws, bin_Q: IntArray, fold_Q: IntArray, num_bins: int, most: int) -> FloatArray:
    """How often each state was seen, was right, and was left by a vote for the first and for the second group.

    In questions, by fold, which of the four, samples, bin, top and second: shape (F, 4, N, G, A, B).
    """
    standing, right_Q_R_N = draws.standing_Q_R_N, draws.right_Q_R_N[:, :, : most + 1]
    shape = (int(fold_Q.max()) + 1, most + 1, num_bins, most + 1, most + 1)
    top, second = (values[:, :, : most + 1].astype(np.int64) for values in (standing.top, standing.second))
    drawn = np.broadcast_to(np.arange(most + 1), top.shape)
    fold, bins = (np.broadcast_to(values[:, None, None], top.shape) for values in (fold_Q, bin_Q))
    place = np.ravel_multi_index((fold, drawn, bins, top, second), shape)
    is_leading = np.diff(top, axis=2) > 0
    is_following = ~is_leading & (np.diff(second, axis=2) > 0)

    def summed(values: FloatArray) -> FloatArray:
        flat = np.bincount(place[:, :, : values.shape[2]].ravel(), values.ravel(), minlength=int(np.prod(shape)))
        per_question: FloatArray = flat.reshape(shape) / top.shape[1]
        return per_question

    each = (np.ones(top.shape), right_Q_R_N, is_leading.astype(np.float64), is_following.astype(np.float64))
    return np.stack([summed(values) for values in each], axis=1)


def _fit(seen: FloatArray, odds_G: FloatArray, strength: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`right`, `leads` and `follows` of each state, shrunk, shape (N, G, A, B).

    Args:
        seen: as counted, shape (4, N, G, A, B).
        odds_G: log-odds of the predicted chance in each bin, around their mean.
        strength: of every parent.
    """
    visits, right, leads, follows = seen
    right = _shrunk_to_all(right, visits, odds_G, strength)
    right[:, :, 0] = 0.0  # no vote, no right answer
    moves = visits.copy()
    moves[-1] = 0.0  # nothing follows the last sample
    leads_too = _shrunk_to_all(leads, moves, odds_G, strength)
    follows_else = _shrunk_to_all(follows, moves - leads, odds_G, strength)
    return right, leads_too, (1.0 - leads_too) * follows_else


def _shrunk_to_all(hits: FloatArray, visits: FloatArray, odds_G: FloatArray, strength: float) -> FloatArray:
    """Shares of each state in each bin, shrunk to the shares of all bins, which are shifted for the bin."""
    alike = _shrunk_to_lead(hits.sum(axis=1), visits.sum(axis=1), strength)
    return _shrunk(hits, visits, _shifted(alike[:, None], hits, visits, odds_G), strength)


def _shrunk(hits: FloatArray, visits: FloatArray, parent: FloatArray, strength: float) -> FloatArray:
    found: FloatArray = (hits + strength * parent) / (visits + strength)
    return found


def _shrunk_to_lead(hits_N_A_B: FloatArray, visits_N_A_B: FloatArray, strength: float) -> FloatArray:
    """Means of each state, shrunk to those of the same lead, and these to all after as many samples."""
    size = hits_N_A_B.shape[1]
    lead_A_B = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    is_lead = (lead_A_B.ravel()[:, None] == np.arange(size)).astype(np.float64)
    hits_N_M, visits_N_M = (each.reshape(len(each), -1) @ is_lead for each in (hits_N_A_B, visits_N_A_B))
    whole_N = hits_N_M.sum(axis=1) / np.maximum(visits_N_M.sum(axis=1), 1e-9)
    parent_N_M = _shrunk(hits_N_M, visits_N_M, whole_N[:, None], strength)
    return _shrunk(hits_N_A_B, visits_N_A_B, parent_N_M[:, lead_A_B], strength)


def _shifted(alike: FloatArray, hits: FloatArray, visits: FloatArray, odds_G: FloatArray) -> FloatArray:
    """Shares of all bins alike, moved in log-odds in proportion to the predicted ones.

    There is one slope for each number of samples: the more have been drawn, the less a prediction adds. It has the
    highest likelihood under a normal prior around 0.
    """
    odds, along = log_odds(np.broadcast_to(alike, hits.shape)), odds_G[:, None, None]
    slope = np.zeros((len(hits), 1, 1, 1))
    for _ in range(STEPS):
        chance = 1.0 / (1.0 + np.exp(-(odds + slope * along)))
        gradient = ((hits - visits * chance) * along).sum(axis=(1, 2, 3), keepdims=True) - slope / SLOPE_VARIANCE
        bend = (visits * chance * (1.0 - chance) * along**2).sum(axis=(1, 2, 3), keepdims=True) + 1.0 / SLOPE_VARIANCE
        slope = slope + np.clip(gradient / bend, -1.0, 1.0)
    found: FloatArray = 1.0 / (1.0 + np.exp(-(odds + slope * along)))
    return found


def log_odds(chance: FloatArray) -> FloatArray:
    """Of a chance, which is never taken to be quite certain."""
    sure = np.clip(chance, SUREST, 1.0 - SUREST)
    found: FloatArray = np.log(sure / (1.0 - sure))
    return found


def _left_out_loss(seen_F: FloatArray, odds_G: FloatArray, strength: float) -> float:
    """Mean log loss of the votes of each fold by a table of the others, nats."""
    whole, loss, num_votes = seen_F.sum(axis=0), 0.0, 0.0
    for seen in seen_F:
        right, _, _ = _fit(whole - seen, odds_G, strength)
        chance = np.clip(right, SUREST, 1.0 - SUREST)
        visits, hits = (np.delete(each, 0, axis=2) for each in seen[:2])
        chance = np.delete(chance, 0, axis=2)
        loss -= float((hits * np.log(chance) + (visits - hits) * np.log1p(-chance)).sum())
        num_votes += float(visits.sum())
    return loss / max(num_votes, 1e-9)
