"""The questions that gained and lost under an evaluation's plan, with their traces."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from ..core.data import Cost, FloatArray, StopReason
from ..core.menu import Menu
from ..core.profile import RIGHT, UNREADABLE, UNTRIED, WRONG, Profile
from ..core.records import Record
from ..core.terms import percent
from ..evaluation.frontier import shares_for
from ..evaluation.policies import FORETHOUGHT, ORACLE, UNIFORM
from ..evaluation.resampled import SAME
from ..evaluation.results import Evaluation
from .findings import rows_at
from .groups import given
from .pages import Question, Questions, Table, Thought
from .wording import amount, level_words, points

MOST = 120  # rows; what moved most in either direction comes first
MOST_TRACES = 8  # of a question, in its table
MOST_COLUMNS = 17  # options in a question's table of curves
LONGEST_TITLE = 110  # letters of a question in its row
LONGEST_TEXT = 1200  # of a question
LONGEST_THOUGHT = 1500  # of one thought
MOST_THOUGHTS = 4  # of a question
GRADES = {WRONG: "wrong", RIGHT: "right", UNREADABLE: "unreadable", UNTRIED: "not tried"}
ENDS = {StopReason.NATURAL: "itself", StopReason.BUDGET: "the cap", StopReason.ERROR: "an error"}
NEVER, AT_ONCE, BOUGHT = "never right", "most often right at the cheapest option", "more often right at a higher cost"

ReadRecords = Callable[[Collection[str]], Mapping[str, Sequence[Record]]]  # ids -> the records behind them


def evaluated_questions(result: Evaluation, cost: Cost, records: ReadRecords | None = None) -> Questions:
    """The questions at the headline level of one cost: who answers them more often, and what each took.

    Uniform is taken at what forethought really used, so the mean of the column is the gain that the page states.

    Args:
        result: an evaluation.
        cost: whose level.
        records: reads the traces of some questions, where they lie beside the profile.
    """
    measured, level = result.measured, result.headline[cost]
    share_B, column_Q = _uniform_shares(result, cost, level), given(result, cost, FORETHOUGHT, level)
    assert column_Q is not None  # forethought plans
    row_Q, costs_Q_B = np.arange(measured.num_queries), _costs(measured, cost)
    p_Q_B = measured.curves.p_Q_B
    ours_Q, others_Q = p_Q_B[row_Q, column_Q], p_Q_B @ share_B
    gain_Q, taken_Q, others_taken_Q = ours_Q - others_Q, costs_Q_B[row_Q, column_Q], costs_Q_B @ share_B
    chosen = _most_moved(gain_Q, taken_Q - others_taken_Q)
    found = {} if records is None else records([measured.query_ids[row] for row in chosen])
    unit = {Cost.GRANTED: "cap", Cost.SPENT: "tokens", Cost.USD: "USD"}[cost]
    rows = []
    for row in chosen:
        query_id = measured.query_ids[row]
        text = measured.texts[row] if measured.texts else ""
        cells: list[tuple[str, float | str]] = [
            (first_letters(text or query_id, LONGEST_TITLE), text or query_id),
            (percent(others_Q[row]), float(others_Q[row])),
            (percent(ours_Q[row]), float(ours_Q[row])),
            (points(gain_Q[row]), float(gain_Q[row])),
            (amount(others_taken_Q[row], cost), float(others_taken_Q[row])),
            (amount(taken_Q[row], cost), float(taken_Q[row])),
        ]
        if not measured.menu.is_named:
            cells.append((f"{measured.menu.caps[column_Q[row]]:,}", int(column_Q[row])))
        else:
            cells.append((measured.menu.labels[column_Q[row]], int(column_Q[row])))
        columns = list(dict.fromkeys([int(share_B.argmax()), int(column_Q[row])]))
        detail: list[str | Table | Thought] = [*_text(text), _curves(result, row), *_traces(measured, row, columns)]
        detail += _thoughts(found.get(query_id, ()))
        rows.append(Question(query_id, cells, detail))
    head = ["question", "uniform right", "forethought right", "points", f"uniform {unit}", f"forethought {unit}"]
    head += ["option given" if measured.menu.is_named else "cap given"]
    return Questions(head, rows, _words(gain_Q, chosen, f"{level_words(level, cost)} {unit}"))


def kinds_of_questions(result: Evaluation, cost: Cost) -> Table:
    """Cost of each policy on questions that are never right, right at the cheapest, and right more often for more."""
    measured, level = result.measured, result.headline[cost]
    p_Q_B, costs_Q_B = measured.curves.p_Q_B, _costs(measured, cost)
    cheapest = int(costs_Q_B.mean(axis=0).argmin())
    best_Q = p_Q_B.max(axis=1)
    is_never_Q = best_Q <= 0
    is_at_once_Q = ~is_never_Q & (p_Q_B[:, cheapest] >= best_Q)
    kinds = {NEVER: is_never_Q, AT_ONCE: is_at_once_Q, BOUGHT: ~is_never_Q & ~is_at_once_Q}
    taken: dict[str, FloatArray] = {UNIFORM: costs_Q_B @ _uniform_shares(result, cost, level)}
    for policy in (FORETHOUGHT, ORACLE):
        taken[policy] = costs_Q_B[np.arange(measured.num_queries), given(result, cost, policy, level)]
    rows = []
    for kind, is_of_Q in kinds.items():
        share = float(is_of_Q.mean())
        means = [amount(float(each[is_of_Q].mean()), cost) if is_of_Q.any() else "–" for each in taken.values()]
        rows.append([kind, percent(share), *means])
    unit = {Cost.GRANTED: "granted tokens", Cost.SPENT: "tokens", Cost.USD: "USD"}[cost]
    return Table(["on measured traces", "of the questions", *(f"{unit}, {each}" for each in taken)], rows)


def _costs(measured: Profile, cost: Cost) -> FloatArray:
    costs_Q_B = measured.curves.costs_Q_B(cost)
    assert costs_Q_B is not None
    return costs_Q_B


def _uniform_shares(result: Evaluation, cost: Cost, level: float) -> FloatArray:
    """Share of each option under uniform at what forethought really used, shape (B,)."""
    mean_B = _costs(result.measured, cost).mean(axis=0)
    realised = rows_at(result, cost, level)[FORETHOUGHT].realised
    return shares_for(mean_B, np.arange(len(mean_B)), realised)


def _most_moved(gain_Q: FloatArray, more_Q: FloatArray) -> list[int]:
    """Rows of those that gained most, lost most and took most more or less, in turn, so that a page can be opened."""
    by_gain = np.argsort(-gain_Q, kind="stable")
    if len(gain_Q) <= MOST:
        return list(map(int, by_gain))
    gained = [row for row in by_gain.tolist() if gain_Q[row] > SAME][: MOST * 2 // 5]
    lost = [row for row in by_gain[::-1].tolist() if gain_Q[row] < -SAME][: MOST * 2 // 5]
    taken = {*gained, *lost}
    rest = [row for row in np.argsort(-np.abs(more_Q), kind="stable").tolist() if row not in taken]
    kept = [*gained, *lost, *rest[: MOST - len(taken)]]
    return sorted(kept, key=lambda row: -gain_Q[row])


def _words(gain_Q: FloatArray, chosen: Sequence[int], level: str) -> str:
    gained, lost, same = _num_moved(gain_Q)
    said = (
        f"At {level} per question, forethought is right more often than uniform on {gained:,} questions, less often on "
        f"{lost:,}, and equally often on {same:,}. "
    )
    if left := len(gain_Q) - len(chosen):
        gained, lost, same = _num_moved(gain_Q[list(chosen)])
        said += (
            f"The table shows the {gained:,} that gain most, the {lost:,} that lose most and {same:,} others; {left:,} "
            "are left out to keep the page small. "
        )
    return said + "Click a column's name to sort by it; click a question to open it."


def _num_moved(gain_Q: FloatArray) -> tuple[int, int, int]:
    """How many gained, lost, and did neither but for rounding."""
    gained, lost = int((gain_Q > SAME).sum()), int((gain_Q < -SAME).sum())
    return gained, lost, len(gain_Q) - gained - lost


def first_letters(text: str, most: int) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def cut(title: str, text: str, most: int) -> Thought:
    """A text of others, cut where it is long."""
    return Thought(title, text[:most], max(0, len(text) - most))


def _text(text: str) -> Iterator[Thought]:
    if text:
        yield cut("question", text, LONGEST_TEXT)


def _curves(result: Evaluation, row: int) -> Table:
    """Measured and predicted success, and tokens, at every option, or at some of very many."""
    measured, menu = result.measured, result.menu
    places = (
        np.unique(np.linspace(0, menu.num_options - 1, MOST_COLUMNS).round().astype(int))
        if (menu.num_options > MOST_COLUMNS)
        else np.arange(menu.num_options)
    )
    tries_B, right_B = measured.tries_Q_B[row], measured.num_right_Q_B[row]
    predicted_B = result.predicted.p_Q_B[row]
    names = [_option(menu, int(place)) for place in places]
    rows = [
        ["right, of traces", *(f"{right_B[place]} of {tries_B[place]}" for place in places)],
        ["predicted", *(percent(predicted_B[place], 0) for place in places)],
    ]
    if measured.is_spend_measured:
        rows.append(["tokens", *(f"{measured.tokens_Q_B[row, place]:,.0f}" for place in places)])
    return Table(["option" if menu.is_named else "cap", *names], rows)


def _option(menu: Menu, place: int) -> str:
    return menu.labels[place] if menu.is_named else f"{menu.caps[place]:,}"


def _traces(measured: Profile, row: int, columns: Sequence[int]) -> Iterator[Table]:
    """What each trace answered under uniform's option and under forethought's."""
    traces = measured.traces
    if traces is None:
        return
    where, answers = measured.traces_of_Q[row], traces.answers_Q[row]
    names = [_option(measured.menu, column) for column in columns]
    rows = []
    for place in range(where.start, min(where.stop, where.start + MOST_TRACES)):
        cells = [f"trace {traces.sample_N[place]}"]
        for column in columns:
            grade, answer = int(traces.grade_N_B[place, column]), int(traces.answer_N_B[place, column])
            said = answers[answer] if grade != UNTRIED and 0 <= answer < len(answers) else ""
            cells += [first_letters(said, LONGEST_TITLE) or "(empty)" if grade != UNTRIED else "", GRADES[grade]]
            cells.append("" if grade == UNTRIED else f"{traces.tokens_N_B[place, column]:,}")
        rows.append(cells)
    heads = [cell for name in names for cell in (f"answer at {name}", "verdict", "tokens")]
    yield Table(["", *heads], rows)


def _thoughts(records: Sequence[Record]) -> Iterator[Thought]:
    for record in sorted(records, key=lambda each: (each.sample, each.option))[:MOST_THOUGHTS]:
        yield thought(record)


def thought(record: Record) -> Thought:
    """One trace as it was generated."""
    by = f" by {record.option}" if record.option else ""
    if record.is_failed:
        return Thought(f"trace {record.sample}{by} failed", record.error or "")
    tokens = "tokens not counted" if record.reasoning_tokens is None else f"{record.reasoning_tokens:,} tokens"
    return cut(
        f"thought of trace {record.sample}{by}: {tokens}, ended by {ENDS[record.stop_reason]}",
        record.reasoning,
        LONGEST_THOUGHT,
    )
