"""Several profiles of the same questions as one: the samples of a question are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.menu import Menu
from ..core.profile import Profile, Traces
from ..errors import MismatchError
from .profiles import joined


def pooled(profiles: Sequence[Profile]) -> Profile:
    """One profile of several measured in the same way, which may share questions.

    A question stands where it first stood; what it reads (text, hidden states) is taken from there. Named options are
    matched by name.

    Raises:
        MismatchError: another menu, model, template, sampling or grader.
    """
    first = profiles[0]
    if len(profiles) == 1:
        return first
    alike = [on_options_of(first.menu, profile) for profile in profiles]
    apart = [
        replace(each, query_ids=tuple(f"{number}\0{query_id}" for query_id in each.query_ids))
        for number, each in enumerate(alike)
    ]
    stacked = joined(apart)
    ids = [query_id.partition("\0")[2] for query_id in stacked.query_ids]
    place_of = {query_id: place for place, query_id in enumerate(dict.fromkeys(ids))}
    place_N = np.array([place_of[query_id] for query_id in ids], dtype=np.int64)
    order_N = np.argsort(place_N, kind="stable")
    starts_Q = np.flatnonzero(np.diff(place_N[order_N], prepend=-1))
    tries_N_B = np.concatenate([each.tries_Q_B for each in alike])

    def summed(value_N: Any) -> Any:
        return np.add.reduceat(value_N[order_N], starts_Q)

    def mean(value_N_B: FloatArray) -> FloatArray:
        total_Q_B = np.add.reduceat(np.where(tries_N_B > 0, value_N_B, 0.0)[order_N] * tries_N_B[order_N], starts_Q)
        with np.errstate(invalid="ignore"):
            mean_Q_B: FloatArray = total_Q_B / summed(tries_N_B)
        return mean_Q_B

    inputs = [each.input_Q_B for each in alike]
    known = [each for each in inputs if each is not None]
    tries_Q_B, first_N = summed(tries_N_B), order_N[starts_Q]
    num_tried_Q = summed(stacked.num_tried_Q)
    kept = replace(stacked, traces=None, tried_Q_B=None, input_Q_B=None).select(first_N)
    return replace(
        kept,
        query_ids=tuple(place_of),
        num_right_Q_B=summed(stacked.num_right_Q_B),
        num_tried_Q=num_tried_Q,
        tokens_Q_B=mean(stacked.tokens_Q_B),
        reasoning_Q_B=mean(stacked.reasoning_Q_B),
        input_Q_B=mean(np.concatenate(known)) if len(known) == len(inputs) else None,
        tried_Q_B=tries_Q_B if any(each.tried_Q_B is not None for each in alike) else None,
        traces=None if stacked.traces is None else _traces(stacked, order_N, num_tried_Q),
    )


def on_options_of(menu: Menu, profile: Profile) -> Profile:
    """The profile with its named options under the names' columns of `menu`; of caps, as it is.

    Raises:
        MismatchError: options of other names, or a name that stands for something else.
    """
    if not (menu.is_named and profile.menu.is_named) or menu == profile.menu:
        return profile
    if set(menu.labels) != set(profile.menu.labels):
        raise MismatchError(f"these profiles were measured under other options: {menu}, and {profile.menu}")
    columns = np.array([profile.menu.column_of(label) for label in menu.labels], dtype=np.int64)
    for option, column in zip(menu.options, columns.tolist(), strict=True):
        other = profile.menu.options[column]
        if (option.cap, option.samples, dict(option.set)) != (other.cap, other.samples, dict(other.set)):
            raise MismatchError(f"the option {option.label!r} sets something else in another of these profiles")
    return profile.on_columns(menu, columns)


def _traces(stacked: Profile, order_N: IntArray, num_tried_Q: IntArray) -> Traces:
    """The traces of each question together, numbered anew, their answers in one list a question."""
    assert stacked.traces is not None
    held = stacked.traces.select(
        order_N.tolist(),
        np.concatenate(
            [np.arange(stacked.traces_of_Q[row].start, stacked.traces_of_Q[row].stop) for row in order_N.tolist()]
            or [np.arange(0)]
        ),
    )
    answer_N_B, answers_Q = held.answer_N_B.copy(), []
    ends = np.cumsum(stacked.num_tried_Q[order_N])
    texts_of = iter(zip(held.answers_Q, [0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    end = 0
    for num_tried in num_tried_Q.tolist():
        codes: dict[str, int] = {}
        end += num_tried
        for texts, start, stop in texts_of:
            new = np.array([codes.setdefault(text, len(codes)) for text in texts] or [0], dtype=np.int64)
            answer_N_B[start:stop] = new[np.minimum(answer_N_B[start:stop], len(new) - 1)]
            if stop == end:
                break
        answers_Q.append(tuple(codes))
    sample_N = np.concatenate([np.arange(num_tried) for num_tried in num_tried_Q.tolist()] or [np.arange(0)])
    return replace(held, sample_N=sample_N, answer_N_B=answer_N_B, answers_Q=tuple(answers_Q))
