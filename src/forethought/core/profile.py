"""Profiles: the measurements of each query at each cap, as counts and as traces, with features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .arguments import path_of
from .data import Curves, FloatArray, IntArray
from .menu import Menu
from .provenance import UNKNOWN, Provenance
from .showing import Shown

OF_TRACES = ("sample_N", "length_N")  # of `Traces`: one number a trace
PER_CAP = ("tokens_N_B", "grade_N_B", "answer_N_B", "answer_logprob_N_B", "thought_logprob_N_B")  # one at each cap
WRONG, RIGHT, UNREADABLE, UNTRIED = 0, 1, 2, 3  # codes of `Traces.grade_N_B`


def tries(num_tried_Q: IntArray, tried_Q_B: IntArray | None, shape: tuple[int, ...]) -> IntArray:
    """Traces of each query under each option, shape (Q, B): as counted apart, else as many under each."""
    return np.broadcast_to(num_tried_Q[:, None], shape) if tried_Q_B is None else tried_Q_B


@dataclass(frozen=True, slots=True, eq=False)
class Traces:
    """Every trace of a profile, N of them: those of its first query first, each query's by sample.

    Answers are what votes and controllers need; a query may have any number of traces. Under caps a row is one thought
    cut at each; under named options it is one sample number, with a draw of its own under each option that has one.

    Attributes:
        sample_N: which of its query's traces, int, shape (N,).
        length_N: reasoning tokens of the whole trace, int, shape (N,).
        tokens_N_B: tokens generated at each cap (reasoning + suffix + answer), int, shape (N, B).
        grade_N_B: verdict at each cap: 0 wrong, 1 right, 2 unreadable, 3 not tried there; int8, shape (N, B).
        answer_N_B: answer at each cap, as an index into its query's `answers_Q`, int, shape (N, B).
        answers_Q: the different answers to each query, as texts.
        answer_logprob_N_B: mean log-probability of the answer's tokens at each cap, float, shape (N, B), NaN where it
            was not shown; None where none was.
        thought_logprob_N_B: the same of the thought's last tokens, see `Logprobs`.
    """

    sample_N: IntArray
    length_N: IntArray
    tokens_N_B: IntArray
    grade_N_B: IntArray
    answer_N_B: IntArray
    answers_Q: tuple[tuple[str, ...], ...]
    answer_logprob_N_B: FloatArray | None = None
    thought_logprob_N_B: FloatArray | None = None

    def select(self, rows_Q: Sequence[int], index_N: IntArray) -> Traces:
        """The traces `index_N`, which are those of the queries `rows_Q`."""
        return replace(
            self._mapped(lambda values: values[index_N]), answers_Q=tuple(self.answers_Q[row] for row in rows_Q)
        )

    def _mapped(self, change: Callable[[Any], Any], *, names: Sequence[str] = ()) -> Traces:
        """The same with each array, or those in `names`, changed."""
        chosen = names or (*OF_TRACES, *PER_CAP)
        held = {name: values for name in chosen if (values := getattr(self, name)) is not None}
        return replace(self, **{name: change(values) for name, values in held.items()})

    def at(self, columns: IntArray) -> Traces:
        """The traces at some columns of the menu."""
        return self._mapped(lambda values: values[:, columns], names=PER_CAP)

    @classmethod
    def joined(cls, parts: Sequence[Traces]) -> Traces:
        """The traces of several parts, one behind the other; log-probabilities where all of them have them."""
        first, arrays = parts[0], dict[str, Any]()
        for name in (*OF_TRACES, *PER_CAP):
            values = [getattr(part, name) for part in parts]
            arrays[name] = None if any(each is None for each in values) else np.concatenate(values)
        return replace(first, **arrays, answers_Q=tuple(answers for part in parts for answers in part.answers_Q))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Profile(Shown):
    """What was measured of each query at each cap, plus features.

    Counts are stored; where traces are kept they are their sums.

    Attributes:
        query_ids: length Q.
        menu: the budgets, B of them.
        num_right_Q_B: traces answered right when cut at each budget, shape (Q, B): int; of votes expected
            numbers, float.
        num_tried_Q: traces sampled, int, shape (Q,).
        tokens_Q_B: mean tokens generated at each cap (reasoning + suffix + answer), float, shape (Q, B).
        reasoning_Q_B: mean reasoning tokens alone at each cap, float, shape (Q, B).
        hidden_Q_L_D: hidden states of the last prompt token, float16 or float32, shape (Q, L, D), or None.
        layers: which layers L holds; layer k is the residual stream after k decoder layers.
        texts: the questions as text, length Q, or empty when unknown.
        difficulties: what the model said when asked how hard each question is ("easy", "medium", "hard", or None for
            anything else), length Q, or empty when it was not asked.
        provenance: how it was measured. Without measured tokens a cap stands for what it costs.
        traces: the traces one by one, or None where only counts are known (an import, a profile of schema 1).
        tried_Q_B: traces of each named option, int, shape (Q, B), 0 where one was not tried; None where all were tried
            `num_tried_Q` times.
        input_Q_B: mean tokens of the prompt as billed under each named option, shape (Q, B); None where not known.
    """

    query_ids: tuple[str, ...]
    menu: Menu
    num_right_Q_B: IntArray | FloatArray
    num_tried_Q: IntArray
    tokens_Q_B: FloatArray
    reasoning_Q_B: FloatArray
    hidden_Q_L_D: FloatArray | None = None
    layers: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    difficulties: tuple[str | None, ...] = ()
    provenance: Provenance = UNKNOWN
    traces: Traces | None = None
    tried_Q_B: IntArray | None = None
    input_Q_B: FloatArray | None = None

    def __repr__(self) -> str:
        made = ", SIMULATED" if self.provenance.simulated else ""
        layers = f", hidden states of {len(self.layers)} layers" if self.layers else ""
        return (
            f"Profile({self.num_queries:,} queries, {int(self.num_tried_Q.sum()):,} traces, budgets {self.menu}, "
            f"model {self.provenance.model}{layers}{made})"
        )

    @property
    def num_queries(self) -> int:
        """Q."""
        return len(self.query_ids)

    @property
    def is_spend_measured(self) -> bool:
        """Whether `tokens_Q_B` was measured; else it holds the caps, and nothing may be said of spent tokens."""
        return self.provenance.spend_measured

    @property
    def curves(self) -> Curves:
        """The measured curves: share of traces right, and mean tokens generated, at every cap; NaN where not tried."""
        with np.errstate(invalid="ignore"):
            p_Q_B = self.num_right_Q_B / self.tries_Q_B
        return Curves(self.query_ids, self.menu, p_Q_B, self.tokens_Q_B, self.input_Q_B)

    def on_columns(self, menu: Menu, columns: IntArray) -> Profile:
        """The same profile under the options of `menu`, which are those of its own at `columns`, in that order."""
        tried_Q_B, input_Q_B = self.tried_Q_B, self.input_Q_B
        return replace(
            self,
            menu=menu,
            num_right_Q_B=self.num_right_Q_B[:, columns],
            tokens_Q_B=self.tokens_Q_B[:, columns],
            reasoning_Q_B=self.reasoning_Q_B[:, columns],
            traces=self.traces and self.traces.at(columns),
            tried_Q_B=None if tried_Q_B is None else tried_Q_B[:, columns],
            input_Q_B=None if input_Q_B is None else input_Q_B[:, columns],
        )

    @property
    def tries_Q_B(self) -> IntArray:
        """Traces of each query under each option, shape (Q, B)."""
        return tries(self.num_tried_Q, self.tried_Q_B, self.num_right_Q_B.shape)

    @property
    def token_variance_Q_B(self) -> FloatArray | None:
        """Variance of the tokens over each query's traces, shape (Q, B), NaN of fewer than two; None without traces."""
        if self.traces is None or not len(self.traces.grade_N_B) or (self.num_tried_Q < 1).any():
            return None
        starts_Q = np.cumsum(self.num_tried_Q) - self.num_tried_Q
        tokens_N_B = np.where(self.traces.grade_N_B == UNTRIED, 0.0, self.traces.tokens_N_B.astype(np.float64))
        tries_Q_B = self.tries_Q_B
        square_Q_B = np.add.reduceat(tokens_N_B**2, starts_Q) - np.add.reduceat(tokens_N_B, starts_Q) ** 2 / np.maximum(
            tries_Q_B, 1
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            variance_Q_B: FloatArray = np.where(tries_Q_B > 1, np.maximum(square_Q_B, 0.0) / (tries_Q_B - 1), np.nan)
        return variance_Q_B

    @property
    def is_complete_Q(self) -> NDArray[np.bool_]:
        """Which queries were tried under every option, shape (Q,)."""
        is_complete_Q: NDArray[np.bool_] = np.all(self.tries_Q_B > 0, axis=1)
        return is_complete_Q

    @property
    def traces_of_Q(self) -> list[slice]:
        """Indices of each query's traces in `traces`, length Q."""
        end_Q = np.cumsum(self.num_tried_Q).tolist()
        return [slice(start, end) for start, end in zip([0, *end_Q], end_Q)]  # noqa: B905

    def select(self, index_Q: IntArray | NDArray[np.bool_]) -> Profile:
        """The profile of some of the queries, by index or mask, in that order."""
        picked = np.asarray(index_Q)
        if picked.ndim != 1 or (picked.size and picked.dtype.kind not in "iub"):
            raise InvalidInputError("queries are selected by a list of row numbers, or one of truths for each query")
        try:
            rows = np.arange(self.num_queries)[picked if picked.size else picked.astype(np.int64)]
        except IndexError as error:
            raise InvalidInputError(f"the profile has {self.num_queries} queries: {error}") from error
        traces = self.traces
        if traces is not None:
            where = self.traces_of_Q
            spans = [np.arange(where[row].start, where[row].stop) for row in rows]
            traces = traces.select(rows.tolist(), np.concatenate([np.arange(0), *spans]))
        return replace(
            self,
            query_ids=tuple(self.query_ids[row] for row in rows),
            num_right_Q_B=self.num_right_Q_B[rows],
            num_tried_Q=self.num_tried_Q[rows],
            tokens_Q_B=self.tokens_Q_B[rows],
            reasoning_Q_B=self.reasoning_Q_B[rows],
            hidden_Q_L_D=None if self.hidden_Q_L_D is None else self.hidden_Q_L_D[rows],
            texts=tuple(self.texts[row] for row in rows) if self.texts else (),
            difficulties=tuple(self.difficulties[row] for row in rows) if self.difficulties else (),
            traces=traces,
            tried_Q_B=None if self.tried_Q_B is None else self.tried_Q_B[rows],
            input_Q_B=None if self.input_Q_B is None else self.input_Q_B[rows],
        )

    def save(self, path: str | Path) -> Path:
        """Writes it as one Parquet file, at once or not at all."""
        from .parquet import write_parquet

        write_parquet(path := path_of(path), self)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """What `save` wrote, by this version or by older ones; of a run directory, the profile that it ended with.

        Raises:
            RunError: anything else.
        """
        from .parquet import read_parquet

        path = path_of(path)
        return read_parquet(path / "profile.parquet" if path.is_dir() else path)
