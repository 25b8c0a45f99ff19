"""One question's decision takes a few tenths of a millisecond, and says what the plain formulas say."""

import asyncio
import re
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forethought as ft
from forethought.allocators import hull
from forethought.allocators.hull import upper_envelope
from forethought.allocators.price import budgets_at, column_at
from forethought.allocators.problem import pose
from forethought.control import sources
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.gateway.decision import Asked, Decider, Decision
from forethought.gateway.together import LONG_CHARACTERS, MOST_TOGETHER, Together
from forethought.predictors.parts import lexical, shape, surprisal
from forethought.predictors.predictor import Predictor
from timing import least_seconds

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(" \n\t.?!0123456789,٣²½ßÉé\x1c\u2028 aAbB'")), max_size=120)
ODD = "\n12,345.67 … 1e9?! é漢字 ² ½ ٣ TOTAL: $5"
# kind, cost, question -> budget, chance of a right answer, tokens: before any of it was made quick
KNOWN = {
    (Cost.GRANTED, 0): (96, 0.4962219, 77),
    (Cost.GRANTED, 1): (112, 0.6989776, 70),
    (Cost.GRANTED, 2): (112, 0.7916117, 57),
    (Cost.GRANTED, 3): (112, 0.6179847, 79),
    (Cost.SPENT, 0): (112, 0.5158163, 82),
    (Cost.SPENT, 1): (256, 0.737002, 74),
    (Cost.SPENT, 2): (224, 0.8281698, 57),
    (Cost.SPENT, 3): (256, 0.6596205, 98),
}


@pytest.fixture(scope="module")
def by_text(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A predictor of texts, as it comes back from its files."""
    trained = ft.train(sources.shipped_heldout("qwen2.5-coder-1.5b"), predictor="text")
    return Predictor.load(trained.save(tmp_path_factory.mktemp("text") / "predictor"))


@pytest.mark.slow
def test_decisions_are_what_they_were(by_text: Predictor) -> None:
    profile = sources.shipped_heldout("qwen2.5-coder-1.5b")
    questions = [profile.texts[3], profile.texts[77], "What is 2+2?", ODD]
    for (cost, row), (budget, expected, tokens) in KNOWN.items():
        found = Decider(by_text, price=1.5e-3, cost=cost).by_curve(questions[row])
        assert (found.budget, found.predicted_tokens) == (budget, tokens)
        assert found.expected == pytest.approx(expected, abs=1e-5)  # training differs by what a processor rounds
        assert found.kind == ("novel" if row > 1 else "predicted")


@pytest.mark.slow
def test_a_loaded_predictor_says_exactly_what_the_fitted_one_said(by_text: Predictor, tmp_path: Path) -> None:
    fitted = ft.train(sources.shipped_heldout("qwen2.5-coder-1.5b"), predictor="text")
    texts = ["What is 2+2?", ODD, "How many apples are left?"]
    assert fitted.predict(texts).p_Q_B.tolist() == by_text.predict(texts).p_Q_B.tolist()
    again = Predictor.load(by_text.save(tmp_path / "again"))
    assert (tmp_path / "again" / "weights.safetensors").stat().st_size < 5_000_000
    assert again.predict(texts).p_Q_B.tolist() == by_text.predict(texts).p_Q_B.tolist()


@given(st.data())
def test_one_query_gets_what_the_envelope_gives(data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 9))
    grid = st.integers(0, 16).map(lambda part: part / 16)
    p_B = np.array(data.draw(st.lists(grid, min_size=num, max_size=num)))
    cost_B = np.cumsum(data.draw(st.lists(st.integers(0, 8), min_size=num, max_size=num))).astype(np.float64) + 1.0
    price = data.draw(st.sampled_from([0.0, 1 / 64, 1 / 16, 1 / 7, 1.0]))
    curves = Curves(("q",), Menu.of(range(16, 16 * num + 1, 16)), p_B[None], cost_B[None])
    budget = budgets_at(curves, price=price, cost=Cost.SPENT)[0]
    column = column_at(p_B, cost_B, price)
    chosen = curves.menu.index(int(budget))
    assert (p_B[column], cost_B[column]) == (p_B[chosen], cost_B[chosen])


def test_a_segment_worth_exactly_the_price_is_not_taken_and_no_number_is_the_cheapest() -> None:
    p_B, cost_B = np.array([0.1, 0.3, 0.5]), np.array([10.0, 20.0, 30.0])
    assert column_at(p_B, cost_B, 0.02) == 0
    assert column_at(p_B, cost_B, 0.0199) == 2
    assert column_at(p_B, cost_B[::-1].copy(), 0.0) == 2
    assert column_at(np.full(3, np.nan), cost_B, 0.01) == 0


def pooled(level_B: np.ndarray) -> np.ndarray:
    """Isotonic regression by pooling neighbours that fall."""
    blocks: list[list[float]] = []
    for value in level_B.tolist():
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, num_left), (right, num_right) = blocks[-2:]
            blocks[-2:] = [[(left * num_left + right * num_right) / (num_left + num_right), num_left + num_right]]
    return np.concatenate([np.full(int(num), value) for value, num in blocks])


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 50])
def test_isotonic_regression_by_passes_is_pooling(rows: int) -> None:
    level_Q_B = np.random.default_rng(rows).normal(size=(rows, 13))
    found_Q_B = shape.isotonic(level_Q_B)
    np.testing.assert_allclose(found_Q_B, [pooled(level_B) for level_B in level_Q_B], atol=1e-12)
    assert shape.isotonic(level_Q_B.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("cost", [Cost.GRANTED, Cost.SPENT])
def test_envelopes_by_blocks_are_those_column_by_column(monkeypatch: pytest.MonkeyPatch, cost: Cost) -> None:
    random = np.random.default_rng(1)
    for rows in (1, 2, 40):
        tokens_Q_B = np.sort(random.integers(1, 60, (rows, 12)), axis=1).astype(np.float64)
        p_Q_B = random.integers(0, 20, (rows, 12)) / 20
        curves = Curves(tuple(map(str, range(rows))), Menu.of(range(8, 104, 8)), p_Q_B, tokens_Q_B)
        problem = pose(curves, total=1e9, cost=cost)
        found = []
        for at_once in (1, 100, 1 << 14):
            monkeypatch.setattr(hull, "AT_ONCE", at_once)
            envelope = upper_envelope(problem)
            names = ("start_M", "row_N", "column_N", "cost_N", "price_N")
            found.append([getattr(envelope, name).tolist() for name in names])
        assert found[0] == found[1] == found[2]


@given(TEXTS)
@settings(max_examples=200)
def test_text_is_counted_and_hashed_as_plain_loops_do(text: str) -> None:
    parts = lexical.parts_of(text)
    shown = [lexical._number_shape(part) if "0" <= part[0] <= "9" else part for part in parts]
    grams = {" ".join(shown[start : start + size]) for size in (1, 2, 3) for start in range(len(shown) - size + 1)}
    buckets = {zlib.crc32(gram.encode("utf-8", "surrogatepass")) % lexical.NUM_BUCKETS for gram in grams}
    assert lexical.buckets_of(parts).tolist() == sorted(buckets)
    assert lexical.count_letters(text, str.isdigit, lexical.DIGITS) == sum(map(str.isdigit, text))
    assert lexical.count_letters(text, str.isupper, lexical.CAPITALS) == sum(map(str.isupper, text))
    _, words, measured = surprisal.hash_text(text)
    plain = re.sub(r"\d", "0", re.sub(r"\s+", " ", text.lower().strip()))
    assert words.tolist() == [zlib.crc32(word.encode(errors="replace")) % surprisal.SIZE for word in plain.split()]
    signs = sum(not (letter.isalnum() or letter == " ") for letter in plain)
    assert measured[3] == pytest.approx(signs / max(1, len(plain)))


@pytest.mark.slow
def test_a_question_is_decided_in_milliseconds_and_time_grows_with_its_length_alone(by_text: Predictor) -> None:
    decider = Decider(by_text, price=1e-3, cost=Cost.SPENT)

    def seconds(question: str) -> float:
        return least_seconds(lambda: decider.by_curve(question), rounds=20)

    questions = sources.shipped_heldout("qwen2.5-coder-1.5b").texts
    assert np.median([seconds(question) for question in questions[:20]]) < 0.005
    long = " ".join(questions)
    assert seconds(long[:32_000]) < 6 * seconds(long[:8_000])


@pytest.mark.slow
@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_many_are_decided_as_each_alone(by_text: Predictor, stretch: float) -> None:
    decider = Decider(by_text, price=1e-3, cost=Cost.SPENT)
    decider.adapt(stretch, 1e-3)
    questions = [*sources.shipped_heldout("qwen2.5-coder-1.5b").texts[:20], " ", ODD]
    asked = [
        Asked(question, None, "a note" if row % 2 else "", [None, 1e-4, 1e-2][row % 3], [None, 100, 5][row % 4 % 3])
        for row, question in enumerate(questions)
    ]
    together = decider.by_curves(asked)
    for one, found in zip(asked, together, strict=True):
        alone = decider.by_curve(one.question, None, one.note, price=one.price, ceiling=one.ceiling)
        assert (found.kind, found.reason, found.budget, found.high_tokens) == (
            alone.kind,
            alone.reason,
            alone.budget,
            alone.high_tokens,
        )
        assert found.expected == pytest.approx(alone.expected, abs=1e-6)
        assert (found.tokens_B is None) == (alone.tokens_B is None)
    assert together[-2].kind == "mean"


@dataclass
class Counted:
    """A decider that notes how many it was asked together, and where."""

    sizes: list[int] = field(default_factory=list)
    threads: list[bool] = field(default_factory=list)

    def by_curves(self, asked: list[Asked]) -> list[Decision]:
        self.sizes.append(len(asked))
        self.threads.append(threading.current_thread() is not threading.main_thread())
        if any(each.question == "bad" for each in asked):
            raise ValueError("bad")
        return [Decision("predicted", each.question) for each in asked]


async def test_questions_that_wait_at_once_are_decided_on_together() -> None:
    counted = Counted()
    together = Together(counted)  # type: ignore[arg-type]
    texts = [str(number) for number in range(MOST_TOGETHER + 3)]
    found = await asyncio.gather(*(together.decide(Asked(text)) for text in texts))
    assert [each.reason for each in found] == texts
    assert counted.sizes == [MOST_TOGETHER, 3]
    assert (await together.decide(Asked("alone"))).reason == "alone"
    assert counted.sizes[2:] == [1]


async def test_a_client_that_leaves_costs_no_decision_and_an_error_reaches_each() -> None:
    counted = Counted()
    together = Together(counted)  # type: ignore[arg-type]
    left, kept = (asyncio.ensure_future(together.decide(Asked(text))) for text in ("left", "kept"))
    await asyncio.sleep(0)
    left.cancel()
    assert (await kept).reason == "kept"
    assert counted.sizes == [1]
    failed = await asyncio.gather(*(together.decide(Asked(t)) for t in ("bad", "good")), return_exceptions=True)
    assert all(isinstance(each, ValueError) for each in failed)
    assert (await together.decide(Asked("good"))).reason == "good"


async def test_a_long_question_holds_nothing_else_up() -> None:
    counted = Counted()
    together = Together(counted)  # type: ignore[arg-type]
    await asyncio.gather(together.decide(Asked("a" * (LONG_CHARACTERS + 1))), together.decide(Asked("short")))
    assert sorted(counted.threads) == [False, True]
