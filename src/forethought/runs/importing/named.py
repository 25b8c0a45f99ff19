"""Rows under named options -> separate counts for each option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.import_settings import ImportSettings
from ...core.menu import Menu
from ...core.options import Option, read_options
from ...core.profile import RIGHT, UNREADABLE, UNTRIED, WRONG, Traces
from ...errors import InvalidMenuError
from .counted import Counts, LeftOut
from .rows import Rows

MOST_OPTIONS = 256  # a column of more different texts names no options
MOST_SAMPLES = 1 << 31  # as profiles keep their numbers


def count_options(
    rows: Rows, kept: IntArray, settings: ImportSettings, left_out: Sequence[LeftOut], notes: list[str]
) -> Counts:
    """Sums over the rows `kept`. Options ascend by their mean tokens.

    Raises:
        InvalidMenuError: the options make no menu.
    """
    query_codes, query_K = np.unique(rows.query.code_N[kept], return_inverse=True)
    codes, column_K = np.unique(rows.budget_N[kept].astype(np.int64), return_inverse=True)
    labels = [rows.labels[code] for code in codes.tolist()]
    if len(labels) > MOST_OPTIONS:
        raise InvalidMenuError(f"{rows.naming.columns['option']!r} holds {len(labels):,} different texts: no options")
    cells = _Cells((len(query_codes), len(labels)), query_K, column_K, rows.tried_N[kept])
    menu = _menu(labels, None if rows.tokens_N is None else cells.mean_B(rows.tokens_N[kept]), settings, notes)
    order = [labels.index(label) for label in menu.labels]
    cells = replace(cells, column_K=np.argsort(order)[column_K])
    reasoning_K = _reasoning(rows, kept, notes)
    traces = _traces(rows, kept, cells, reasoning_K, notes)
    return Counts(
        query_ids=tuple(rows.query.values[code] for code in query_codes),
        menu=menu,
        num_right_Q_B=cells.summed(rows.right_N[kept]).astype(np.int64),
        num_tried_Q=cells.tried_Q_B.max(axis=1) if traces is None else traces[1],
        tokens_Q_B=None if rows.tokens_N is None else cells.mean_Q_B(rows.tokens_N[kept]),
        reasoning_Q_B=None if reasoning_K is None else cells.mean_Q_B(reasoning_K),
        texts=rows.texts(kept, query_K, len(query_codes)),
        hidden_Q_D=None,
        traces=None if traces is None else traces[0],
        left_out=tuple(left_out),
        notes=tuple(notes),
        tried_Q_B=cells.tried_Q_B,
        input_Q_B=None if rows.input_N is None else cells.mean_Q_B(rows.input_N[kept]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """K rows by query and option.

    Attributes:
        shape: (Q, B).
        query_K, column_K: where each stands.
        tried_K: how many draws it counts.
    """

    shape: tuple[int, int]
    query_K: IntArray
    column_K: IntArray
    tried_K: FloatArray

    @property
    def cell_K(self) -> IntArray:
        """Query and option as one number."""
        cell_K: IntArray = self.query_K * self.shape[1] + self.column_K
        return cell_K

    @property
    def tried_Q_B(self) -> IntArray:
        """Draws, shape (Q, B)."""
        return self.summed(self.tried_K).astype(np.int64)

    def summed(self, value_K: FloatArray) -> FloatArray:
        """Sums, shape (Q, B)."""
        return np.bincount(self.cell_K, value_K, self.shape[0] * self.shape[1]).reshape(self.shape).astype(np.float64)

    def mean_B(self, value_K: FloatArray) -> FloatArray:
        """Each option's mean over the queries that were tried under it, shape (B,)."""
        tried_Q_B = self.tried_Q_B
        mean_Q_B = self.summed(self.tried_K * value_K) / np.maximum(tried_Q_B, 1)
        mean_B: FloatArray = mean_Q_B.sum(axis=0) / (tried_Q_B > 0).sum(axis=0)
        return mean_B

    def mean_Q_B(self, value_K: FloatArray) -> FloatArray:
        """Each query's mean, shape (Q, B); the option's where the query was not tried under it."""
        tried_Q_B = self.tried_Q_B
        mean_Q_B = self.summed(self.tried_K * value_K) / np.maximum(tried_Q_B, 1)
        return np.where(tried_Q_B > 0, mean_Q_B, self.mean_B(value_K))


def _menu(labels: Sequence[str], tokens_B: FloatArray | None, settings: ImportSettings, notes: list[str]) -> Menu:
    """The options by label, with what the menu file says of them and the tokens that were measured."""
    known = {option.label: option for option in read_options(settings.menu_file)} if settings.menu_file else {}
    if unknown := [label for label in known if label not in labels]:
        raise InvalidMenuError(
            f"--menu {settings.menu_file} names the option {unknown[0]!r}, which the files lack; they have "
            f"{', '.join(labels)}"
        )
    options = [known.get(label) or Option(label) for label in labels]
    if tokens_B is not None:
        options = [
            replace(option, tokens=round(float(tokens), 1)) for option, tokens in zip(options, tokens_B, strict=True)
        ]
    elif costless := [option.label for option in options if option.tokens is None and option.cap is None]:
        raise InvalidMenuError(
            f"the tokens of an answer under {costless[0]!r} are not known, and are needed to divide a total: "
            "--tokens-column NAME, or --menu FILE with tokens or a cap for each option"
        )
    if known and (unpriced := [option.label for option in options if option.price is None]):
        notes.append(f"The menu has no price for {', '.join(unpriced)}: nothing can be planned in money.")
    return Menu.named(options)


def _reasoning(rows: Rows, kept: IntArray, notes: list[str]) -> FloatArray | None:
    """Reasoning tokens of each row, at most all its tokens; all of them where a cell is blank; None where all are."""
    if rows.tokens_N is None or rows.reasoning_N is None or np.isnan(rows.reasoning_N[kept]).all():
        return None
    reasoning_K, tokens_K = rows.reasoning_N[kept], rows.tokens_N[kept]
    name, is_blank_K = rows.naming.columns["reasoning"], np.isnan(reasoning_K)
    if num_blank := int(is_blank_K.sum()):
        notes.append(f"{name!r} is blank in {num_blank:,} rows: all their tokens count as reasoning.")
    if num_more := int((reasoning_K > tokens_K).sum()):
        tokens = rows.naming.columns["tokens"]
        notes.append(f"{name!r} is more than {tokens!r} in {num_more:,} rows, and is set to it.")
    return np.where(is_blank_K, tokens_K, np.minimum(reasoning_K, tokens_K))


def _traces(
    rows: Rows, kept: IntArray, cells: _Cells, reasoning_K: FloatArray | None, notes: list[str]
) -> tuple[Traces, IntArray] | None:
    """`(a row for each sample number of each query, how many of them each query has)`; None where rows are counts."""
    if (cells.tried_K != 1).any():
        notes.append("Single samples and answers are not stored: rows are counts.")
        return None
    number_K = _sample_numbers(rows, kept, cells)
    units, unit_K = np.unique(cells.query_K * MOST_SAMPLES + number_K, return_inverse=True)
    query_N = units // MOST_SAMPLES
    shape = (len(units), cells.shape[1])
    row_N_B = np.full(shape, -1, dtype=np.int64)
    row_N_B[unit_K, cells.column_K] = np.arange(len(kept))
    is_tried_N_B = row_N_B >= 0

    def taken(value_K: FloatArray | IntArray | None, where_untried: int) -> IntArray:
        if value_K is None:
            return np.full(shape, where_untried, dtype=np.int64)
        return np.where(is_tried_N_B, np.rint(value_K[row_N_B]).astype(np.int64), where_untried)

    code_N_B = taken(None if rows.answer is None else rows.answer.code_N[kept], -1)
    answer_N_B, answers_Q = rows.answers(query_N, code_N_B)
    # A blank answer could not be read, unless none of the query's were kept at all.
    has_answers_Q = np.bincount(query_N, (code_N_B >= 0).any(axis=1), cells.shape[0]) > 0
    wrong_N_B = np.where((code_N_B < 0) & has_answers_Q[query_N, None], UNREADABLE, WRONG)
    grade_N_B = np.where(is_tried_N_B, np.where(taken(rows.right_N[kept], 0) == 1, RIGHT, wrong_N_B), UNTRIED)
    tokens_N_B = taken(None if rows.tokens_N is None else rows.tokens_N[kept], 0)
    length_N_B = tokens_N_B if reasoning_K is None else taken(reasoning_K, 0)
    traces = Traces(
        sample_N=units % MOST_SAMPLES,
        length_N=length_N_B.max(axis=1),
        tokens_N_B=tokens_N_B,
        grade_N_B=grade_N_B.astype(np.int8),
        answer_N_B=answer_N_B,
        answers_Q=answers_Q,
    )
    return traces, np.bincount(query_N, minlength=cells.shape[0])


def _sample_numbers(rows: Rows, kept: IntArray, cells: _Cells) -> IntArray:
    """The number of each row's draw, shape (K,): as the column says, or its place among those of query and option."""
    if rows.sample is not None:
        texts = rows.sample.values
        numbers = [int(text) if text.isascii() and text.isdecimal() else -1 for text in texts]
        if all(0 <= number < MOST_SAMPLES for number in numbers) and len(set(numbers)) == len(texts):
            found_K: IntArray = np.array(numbers, dtype=np.int64)[rows.sample.code_N[kept]]
            return found_K
    cell_K = cells.cell_K
    order = np.argsort(cell_K, kind="stable")
    _, start_M, of_M = np.unique(cell_K[order], return_index=True, return_inverse=True)
    place_K = np.empty(len(kept), dtype=np.int64)
    place_K[order] = np.arange(len(kept)) - start_M[of_M]
    return place_K
