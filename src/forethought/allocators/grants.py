"""The grants: segments of all envelopes in one line, by falling price, as far as the total goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bounds import Columns
from .bracket import bracketed_envelope, sampled_bracket
from .hull import Envelope, marginal_price, upper_envelope
from .problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Grants:
    """The longest beginning of the line of segments that fits.

    Attributes:
        column_Q: the columns granted, shape (Q,).
        price: value per unit of the first segment that did not fit; 0 when all of them did.
        blocked: what that segment costs, in units; 0 when all of them fit.
        left: units of the total not taken.
    """

    column_Q: Columns
    price: float
    blocked: int
    left: int


def grants(problem: Problem) -> Grants:
    """The grants of a batch. Of a large one, only the segments near the margin are ever looked at.

    A bracket guessed from a sample is proved by what the segments in it cost: those dearer than it fit, and not all of
    those in it do. Then the line runs out within it, at the very segment at which the whole line would. A guess that
    was wrong costs time, and nothing else.
    """
    bracket = sampled_bracket(problem)
    if bracket is not None:
        envelope = bracketed_envelope(problem, bracket)
        found = grant(problem, envelope)
        if found.left >= 0 and (found.price > 0.0 or bracket.low == 0.0):
            return found
    return grant(problem, upper_envelope(problem))


def grant(problem: Problem, envelope: Envelope) -> Grants:
    """The grants out of the segments of `envelope`, whose rows are the queries of `problem`."""
    left = problem.left_after(envelope.start_M)
    price = marginal_price(envelope.price_N, envelope.cost_N, left)
    is_granted_N = envelope.price_N > price
    left -= int(envelope.cost_N[is_granted_N].sum())
    blocked = 0
    if price > 0:
        # A query has one segment at a price at most, so the order among these is free: by tie.
        tied = np.flatnonzero(envelope.price_N == price)
        tied = tied[problem.tie_order(envelope.row_N[tied])]
        num_fit = int(np.searchsorted(np.cumsum(envelope.cost_N[tied]), left, side="right"))
        is_granted_N[tied[:num_fit]] = True
        left -= int(envelope.cost_N[tied[:num_fit]].sum())
        blocked = int(envelope.cost_N[tied[num_fit]])
    column_Q = envelope.start_M.copy()
    # Segments lie in order of column within each query, and of repeated assignments the last one stands.
    column_Q[envelope.row_N[is_granted_N]] = envelope.column_N[is_granted_N]
    return Grants(column_Q, price, blocked, left)
