"""The contract of every estimator: valid curves, bit-identical repetition, a state that survives files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.features import KINDS, Counts, Features
from ..core.menu import Menu
from ..core.protocols import with_defaults
from .checking import check, expect

MENU = Menu.of([0, 16, 48, 64, 256])
NUM_QUERIES = 60
COUNTED = ("num_right_Q_B", "num_tried_Q", "tokens_Q_B")
FIELDS = dict(zip(KINDS, ("hidden_Q_D", "texts", "difficulties", "ids"), strict=True))
Made = Callable[[], Any]


def features(number: int = NUM_QUERIES, *, seed: int = 0) -> Features:
    """Features of every kind; some of them say how easy a query is."""
    random = np.random.default_rng(seed)
    hidden_Q_D = random.standard_normal((number, 8)).astype(np.float32)
    levels = np.array(["hard", "medium", "easy"])[np.digitize(hidden_Q_D[:, 0], [-0.5, 0.5])]
    texts = tuple(f"How much is {row} plus {row * 7 % 11}{' and so on' * (row % 4)}?" for row in range(number))
    return Features(number, hidden_Q_D, texts, tuple(levels.tolist()), tuple(f"{seed}-{row}" for row in range(number)))


def counts(read: Features, *, seed: int = 0, with_tokens: bool = True) -> Counts:
    """Counts of four traces that depend on the first hidden state."""
    random = np.random.default_rng(seed)
    ease_Q_1 = read.hidden[:, :1].astype(np.float64)
    p_Q_B = 1.0 / (1.0 + np.exp(-ease_Q_1 - np.linspace(-2, 2, MENU.num_options)))
    tokens_Q_B = np.minimum(np.array(MENU.caps), np.clip(100 - 40 * ease_Q_1, 5, 400)) + 10.0
    tried_Q = np.full(len(read), 4)
    return Counts(MENU, random.binomial(4, p_Q_B), tried_Q, tokens_Q_B if with_tokens else None)


def _whole(made: Any) -> Any:
    """A stranger's estimator with the defaults that it is registered with."""
    made.__class__ = with_defaults(type(made))
    return made


def _predicted(make: Made, read: Features, measured: Counts) -> Any:
    """`(p_Q_B, tokens_Q_B)`, as far as the stranger's class keeps to it."""
    return _whole(make()).fit(read, measured).predict(read)


class EstimatorContract:
    """Subclass it as `TestMine(EstimatorContract)`, and give a fixture `make_estimator`: what makes an unfitted one."""

    def test_it_reads_what_there_is(self, make_estimator: Made) -> None:
        """`reads` is a tuple of known kinds."""
        reads = _whole(make_estimator()).reads
        expect(isinstance(reads, tuple), f"reads must be a tuple, not {reads!r}")
        expect(set(reads) <= set(KINDS), f"reads names {reads}")

    def test_fit_returns_itself_and_curves_can_be_true(self, make_estimator: Made) -> None:
        """Chances lie in [0, 1]; tokens never fall as the cap grows, also for queries that are like none before."""
        read = features()
        estimator = _whole(make_estimator())
        expect(estimator.fit(read, counts(read)) is estimator, "fit must return self")
        far = replace(features(seed=1), hidden_Q_D=10 * features(seed=1).hidden)
        p_Q_B, tokens_Q_B = estimator.predict(far)
        shape = (NUM_QUERIES, MENU.num_options)
        expect(p_Q_B.shape == shape, f"p_Q_B has shape {p_Q_B.shape}, not {shape}")
        expect(((p_Q_B >= 0) & (p_Q_B <= 1)).all(), "p_Q_B must lie in [0, 1]")
        expect(tokens_Q_B is not None and tokens_Q_B.shape == shape, f"tokens_Q_B must have the shape {shape}")
        expect((np.diff(tokens_Q_B, axis=1) >= 0).all(), "tokens_Q_B must not fall as the cap grows")
        expect((tokens_Q_B >= 0).all(), "tokens_Q_B must be at least 0")
        expect(np.isfinite(tokens_Q_B).all(), "tokens_Q_B must be finite")

    def test_without_tokens_there_is_no_usage_curve(self, make_estimator: Made) -> None:
        """Fitted on counts alone it predicts no tokens."""
        read = features()
        p_Q_B, tokens_Q_B = _predicted(make_estimator, read, counts(read, with_tokens=False))
        expect(p_Q_B.shape == (NUM_QUERIES, MENU.num_options), f"p_Q_B has shape {p_Q_B.shape}")
        expect(tokens_Q_B is None, "tokens were predicted although none were measured")

    def test_state_survives_files_and_predicts_the_same(self, make_estimator: Made) -> None:
        """`from_state` of what `state` gave, through JSON and arrays, predicts the same bits."""
        read = features()
        estimator = _whole(make_estimator()).fit(read, counts(read))
        settings, arrays = estimator.state()
        settings = json.loads(json.dumps(settings, allow_nan=False))
        arrays = {name: np.ascontiguousarray(array).copy() for name, array in arrays.items()}
        again = _whole(type(estimator).from_state(settings, arrays))
        for first, second in zip(estimator.predict(read), again.predict(read), strict=True):
            expect(np.array_equal(first, second), "it predicts otherwise after from_state")

    def test_the_same_data_gives_the_same_bits(self, make_estimator: Made) -> None:
        """Nothing depends on chance or the clock."""
        read = features()
        measured = counts(read)
        estimator = _whole(make_estimator()).fit(read, measured)
        first, again, other = (
            estimator.predict(read),
            estimator.predict(read),
            _predicted(make_estimator, read, measured),
        )
        expect(all(map(np.array_equal, first, again)), "the same queries are predicted otherwise the second time")
        expect(all(map(np.array_equal, first, other)), "two fits on the same data differ")
        for given, own, name in (
            (features().hidden, read.hidden, "hidden_Q_D"),
            *((getattr(counts(features()), name), getattr(measured, name), name) for name in COUNTED),
        ):
            expect(np.array_equal(given, own), f"fit or predict changed {name}, which is the caller's")

    def test_fitting_again_forgets_what_was_learned(self, make_estimator: Made) -> None:
        """An estimator that was fitted on other data predicts as a new one."""
        read, others = features(), features(seed=1)
        estimator = _whole(make_estimator()).fit(others, counts(others, seed=1)).fit(read, counts(read))
        fresh = _predicted(make_estimator, read, counts(read))
        expect(all(map(np.array_equal, estimator.predict(read), fresh)), "an earlier fit shows in what is predicted")

    def test_it_reads_no_more_than_it_says(self, make_estimator: Made) -> None:
        """With the parts of the features that `reads` names, and no others, it predicts the same."""
        estimator, read = _whole(make_estimator()), features()
        unread: dict[str, Any] = {field: None for kind, field in FIELDS.items() if kind not in estimator.reads}
        own = replace(read, **unread)
        found, wanted = estimator.fit(own, counts(read)).predict(own), _predicted(make_estimator, read, counts(read))
        expect(all(map(np.array_equal, found, wanted)), f"it reads more than it says: {', '.join(estimator.reads)}")

    def test_rows_without_a_trace_teach_nothing(self, make_estimator: Made) -> None:
        """A query that was never tried changes no prediction."""
        read = features()
        measured = counts(read)
        assert measured.tokens_Q_B is not None
        wider = features(NUM_QUERIES + 10)
        more = Counts(
            MENU,
            np.concatenate([measured.num_right_Q_B, np.zeros((10, MENU.num_options), dtype=np.int64)]),
            np.concatenate([measured.num_tried_Q, np.zeros(10, dtype=np.int64)]),
            np.concatenate([measured.tokens_Q_B, np.full((10, MENU.num_options), np.nan)]),
        )
        wider = replace(wider, hidden_Q_D=np.concatenate([read.hidden, wider.hidden[-10:]]))
        wider = replace(wider, difficulties=(*read.stated, *wider.stated[-10:]))
        expected = _predicted(make_estimator, read, measured)
        found = _whole(make_estimator()).fit(wider, more).predict(read)
        is_same = all(np.allclose(one, other, atol=1e-9) for one, other in zip(found, expected, strict=True))
        expect(is_same, "queries without a trace changed what is predicted")

    def test_a_query_that_says_nothing_is_predicted(self, make_estimator: Made) -> None:
        """An empty text, hidden states of zero, no stated difficulty: a predictor that is loaded is tried on these."""
        read = features()
        empty = Features(1, np.zeros((1, 8), dtype=np.float32), ("",), (None,), ("",))
        p_Q_B, tokens_Q_B = _whole(make_estimator()).fit(read, counts(read)).predict(empty)
        expect(((p_Q_B >= 0) & (p_Q_B <= 1)).all(), "p_Q_B must lie in [0, 1]")
        expect(np.isfinite(tokens_Q_B).all(), "tokens_Q_B must be finite")

    def test_queries_are_predicted_one_by_one_as_together(self, make_estimator: Made) -> None:
        """The batch has no say, nor has the order."""
        read = features()
        estimator = _whole(make_estimator()).fit(read, counts(read))
        together = estimator.predict(read)
        turned = estimator.predict(read.select(np.arange(len(read))[::-1]))
        for of_all, of_turned in zip(together, turned, strict=True):
            is_same = np.allclose(of_turned[::-1], of_all, rtol=1e-5, atol=1e-5)
            expect(is_same, "in another order the queries are predicted otherwise")
        alone = [estimator.predict(read.select(np.array([row]))) for row in range(5)]
        for of_all, of_each in zip(together, zip(*alone, strict=True), strict=True):
            is_same = np.allclose(np.concatenate(of_each), of_all[:5], rtol=1e-5, atol=1e-5)
            expect(is_same, "a query alone is predicted otherwise than in a batch")


def check_estimator(make_estimator: Made) -> None:
    """Holds an estimator to the contract; `make_estimator` gives an unfitted one, such as its class.

    Raises:
        AssertionError: every promise that it breaks, a line each.
    """
    check(EstimatorContract(), make_estimator)
