"""The fake engine: its true curves are the ones its traces follow."""

from __future__ import annotations

import numpy as np
import pytest

from engine_contract import TEMPLATE, run
from forethought.core.data import Query, Request, StopReason
from forethought.core.menu import Menu
from forethought.engines.fake import FakeEngine
from forethought.errors import InvalidMenuError, InvalidSettingsError

MENU = Menu.evenly(16, 128)
QUERIES = tuple(Query(f"q{n}", f"what is {n} + {n}?", str(2 * n)) for n in range(24))
CAPS = tuple(int(budget) for budget in MENU.budgets_B)


@pytest.fixture(scope="module")
def engine():
    return FakeEngine(template=TEMPLATE, menu=MENU, seed=3)


@pytest.fixture(scope="module")
def measured(engine):
    """Share right and mean tokens of 2000 traces of four queries at every cap, with the spread of the tokens."""
    queries, num_traces = QUERIES[:4], 2000
    asked = [
        Request(query, MENU.largest, sample, sample, CAPS[:-1]) for query in queries for sample in range(num_traces)
    ]
    found = run(engine, asked)
    right_Q_T_B = np.array(
        [
            [
                [found[query.id, sample].at(cap).answer == query.reference for cap in CAPS]
                for sample in range(num_traces)
            ]
            for query in queries
        ]
    )
    tokens_Q_T_B = np.array(
        [
            [[found[query.id, sample].at(cap).tokens for cap in CAPS] for sample in range(num_traces)]
            for query in queries
        ]
    )
    return queries, right_Q_T_B, tokens_Q_T_B


@pytest.mark.slow
def test_the_share_of_right_answers_is_the_true_curve(engine, measured):
    queries, right_Q_T_B, _ = measured
    p_Q_B = engine.true_curves(queries).p_Q_B
    sigma_Q_B = np.sqrt(p_Q_B * (1 - p_Q_B) / right_Q_T_B.shape[1])
    assert (np.abs(right_Q_T_B.mean(1) - p_Q_B) <= 4 * sigma_Q_B + 1e-9).all()
    assert sigma_Q_B.max() > 0.005  # the curves are not all at 0 or 1, where this would hold of itself


def test_the_tokens_spent_are_the_true_spend_curve(engine, measured):
    queries, _, tokens_Q_T_B = measured
    tokens_Q_B = engine.true_curves(queries).tokens_Q_B
    sigma_Q_B = tokens_Q_T_B.std(1) / np.sqrt(tokens_Q_T_B.shape[1])
    assert (np.abs(tokens_Q_T_B.mean(1) - tokens_Q_B) <= 4 * sigma_Q_B + 0.02).all()
    assert (np.diff(tokens_Q_B) >= 0).all()
    assert (tokens_Q_B[:, -1] < MENU.largest).any()


def test_curves_dip_and_jump_as_real_ones_do(engine):
    p_Q_B = engine.true_curves(QUERIES).p_Q_B
    assert ((p_Q_B >= 0) & (p_Q_B <= 1)).all()
    assert (np.diff(p_Q_B) < 0).any(axis=1).sum() >= 3  # not monotone
    assert (np.diff(p_Q_B, n=2) > 0.01).any(axis=1).sum() >= 12  # not concave
    assert np.ptp(p_Q_B[:, -1]) > 0.3  # queries differ


def test_a_finer_grid_agrees_where_the_grids_meet(engine):
    fine = engine.true_curves(QUERIES, Menu.evenly(8, 128)).p_Q_B
    np.testing.assert_allclose(fine[:, 1::2], engine.true_curves(QUERIES).p_Q_B, rtol=1e-12)


def test_hidden_states_tell_of_the_difficulty_best_half_way_up(engine):
    queries = tuple(Query(f"h{n}", f"how much is {n}?") for n in range(300))
    difficulty_Q = engine.true_curves(queries).p_Q_B.mean(1)
    explained = []
    for layer in (0, 2):
        features_Q_D = np.c_[engine.hidden_states(queries, [layer])[:, 0], np.ones(300)]
        weight_D = np.linalg.lstsq(features_Q_D[:200], difficulty_Q[:200], rcond=None)[0]
        explained.append(np.corrcoef(features_Q_D[200:] @ weight_D, difficulty_Q[200:])[0, 1])
    assert explained[1] > 0.7
    assert explained[1] > explained[0] + 0.1


def test_another_seed_is_another_model():
    one, two = (FakeEngine(template=TEMPLATE, menu=MENU, seed=seed) for seed in (0, 1))
    assert not np.allclose(one.true_curves(QUERIES).p_Q_B, two.true_curves(QUERIES).p_Q_B)
    assert one.info.model_hash != two.info.model_hash
    assert one.info.simulated


@pytest.mark.parametrize("reference", ["42", "1,234", "B", "c", "x^2 + 1", None], ids=str)
def test_wrong_answers_are_of_the_same_kind_and_wrong(reference):
    engine = FakeEngine(template=TEMPLATE, menu=MENU)
    query = Query("q", "what?", reference)
    found = run(engine, [Request(query, 128, sample) for sample in range(200)]).values()
    answers = {done.answer for done in found}
    right = engine.right_answer(query)
    assert right in answers
    assert len(answers) > 1
    if right.isalpha():
        assert all(len(answer) == 1 and answer.islower() == right.islower() for answer in answers)


def test_failures_come_at_the_asked_rate():
    engine = FakeEngine(template=TEMPLATE, menu=MENU, failure_rate=0.25)
    found = run(engine, [Request(query, 64, sample) for query in QUERIES for sample in range(50)])
    rate = np.mean([done.stop_reason is StopReason.ERROR for done in found.values()])
    assert abs(rate - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(found))


def test_the_scale_is_given_as_text_too():
    """As `--engine-option menu=…` gives it, where a single cap arrives as a number."""
    for text, menu in (("512,4096,32768", Menu((512, 4096, 32768))), (64, Menu((64,)))):
        named, given = (FakeEngine(template=TEMPLATE, menu=each) for each in (text, menu))
        assert named.info == given.info
        assert np.array_equal(named.true_curves(QUERIES).p_Q_B, given.true_curves(QUERIES).p_Q_B)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"menu": "many"}, InvalidMenuError),
        ({"menu": {"caps": [1]}}, InvalidMenuError),
        ({"num_layers": 0}, InvalidSettingsError),
        ({"hidden_size": 0}, InvalidSettingsError),
        ({"failure_rate": 2}, InvalidSettingsError),
        ({"tokens_per_second": 0}, InvalidSettingsError),
    ],
    ids=lambda given: str(given),
)
def test_options_that_no_model_has_are_refused(options, error):
    with pytest.raises(error):
        FakeEngine(template=TEMPLATE, **options)
