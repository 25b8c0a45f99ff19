"""A history: what earlier draws of the same questions know, fed and forgotten, never mixed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import betabinom

from command_line import write_questions
from forethought.control.answers import Answer
from forethought.control.feeding import answered
from forethought.control.training import train
from forethought.core.data import Grade, Query, StopReason
from forethought.core.features import Counts, Features
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.profile import RIGHT, UNTRIED, WRONG, Profile, Traces
from forethought.core.provenance import Provenance
from forethought.errors import InvalidInputError, InvalidSettingsError
from forethought.predictors.feeding import feed
from forethought.predictors.history import HistoryPredictor, learn_strength, learn_token_strength, log_gamma
from forethought.predictors.parts.draws import Draws
from forethought.predictors.predictor import Predictor
from forethought.runs.pooling import pooled
from forethought.testing import EstimatorContract

LEVELS = Menu.named([Option("low", tokens=100), Option("high", set={"effort": "high"}, tokens=900)])


class TestContract(EstimatorContract):
    @pytest.fixture(params=["mean", "ridge", "text"])
    def make_estimator(self, request):
        return lambda: HistoryPredictor(base=request.param)


def measured(num_queries=60, num_draws=4, *, seed=0, menu=LEVELS, first=0, name="night", chances=None, **made):
    """Draws of questions whose chances are fixed by their number; tokens of a question vary by a fifth."""
    random, ids = np.random.default_rng(seed), [f"q{row}" for row in range(first, first + num_queries)]
    ease_Q = np.array([np.random.default_rng(1000 + row).random() for row in range(first, first + num_queries)])
    p_Q_B = (
        chances
        if chances is not None
        else np.clip(ease_Q[:, None] + np.linspace(-0.2, 0.2, menu.num_options), 0.02, 0.98)
    )
    shape = (num_queries, num_draws, menu.num_options)
    right = random.random(shape) < p_Q_B[:, None]
    tokens = menu.budgets_B * (2.0 - ease_Q[:, None, None]) * random.uniform(0.8, 1.2, shape)
    flat = (num_queries * num_draws, menu.num_options)
    traces = Traces(
        sample_N=np.tile(np.arange(num_draws), num_queries),
        length_N=tokens.reshape(flat).max(axis=1).astype(np.int64),
        tokens_N_B=np.sort(tokens, axis=2).reshape(flat).astype(np.int64),
        grade_N_B=np.where(right.reshape(flat), RIGHT, WRONG).astype(np.int8),
        answer_N_B=np.where(right.reshape(flat), 0, 1),
        answers_Q=(("right", "wrong"),) * num_queries,
    )
    return Profile(
        query_ids=tuple(ids),
        menu=menu,
        num_right_Q_B=right.sum(axis=1),
        num_tried_Q=np.full(num_queries, num_draws),
        tokens_Q_B=traces.tokens_N_B.reshape(shape).mean(axis=1),
        reasoning_Q_B=traces.tokens_N_B.reshape(shape).mean(axis=1),
        texts=tuple(f"How much is {row} and {row}?" for row in range(first, first + num_queries)),
        provenance=Provenance(name=name, model="m", model_hash="h", template="t", menu=menu, **made),
        traces=traces,
    )


def test_log_gamma_is_that_of_scipy():
    x = np.concatenate([np.geomspace(1e-3, 1e4, 300), np.arange(1.0, 30.0)])
    assert np.allclose(log_gamma(x), gammaln(x), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("strength", [0.5, 2.0, 8.0])
def test_the_strength_is_that_of_the_draws(strength):
    prior = np.linspace(0.2, 0.8, 2)
    chance = np.random.default_rng(0).beta(strength * prior, strength * (1 - prior), (3000, 2))
    right = np.random.default_rng(1).binomial(6, chance)
    found = learn_strength(np.tile(prior, (3000, 1)), Counts(LEVELS, right, np.full(3000, 6)))
    assert found == pytest.approx(strength, rel=0.2)


def test_the_likelihood_is_that_of_the_beta_binomial():
    """Of one option the learnt strength is the grid's best by scipy's own formula, the prior aside."""
    menu, prior = Menu.of([1]), np.full((400, 1), 0.4)
    right = np.random.default_rng(2).binomial(5, np.random.default_rng(3).beta(1.2, 1.8, (400, 1)))
    grid = np.geomspace(1 / 16, 64, 81)
    level = [betabinom.logpmf(right, 5, s * 0.4, s * 0.6).sum() - np.log(s / 2) ** 2 / 2 for s in grid]
    assert learn_strength(prior, Counts(menu, right, np.full(400, 5))) == pytest.approx(grid[int(np.argmax(level))])


def test_single_draws_say_nothing_of_the_strength():
    right = np.random.default_rng(0).binomial(1, 0.5, (200, 2))
    assert learn_strength(np.full((200, 2), 0.5), Counts(LEVELS, right, np.ones(200, dtype=int))) == pytest.approx(2.0)


def test_the_tokens_strength_is_variance_within_over_variance_between():
    random = np.random.default_rng(0)
    own = random.normal(1.0, 0.5, (5000, 1, 1))
    drawn = 1000 * (own + random.normal(0.0, 1.0, (5000, 4, 2)))
    counts = Counts(
        LEVELS,
        np.zeros((5000, 2), dtype=int),
        np.full(5000, 4),
        drawn.mean(axis=1),
        token_variance_Q_B=drawn.var(axis=1, ddof=1),
    )
    assert learn_token_strength(np.full((5000, 2), 1000.0), counts) == pytest.approx(4.0, rel=0.1)
    assert learn_token_strength(np.full((5000, 2), 1000.0), replace(counts, token_variance_Q_B=None)) == 2.0


def test_a_seen_question_has_its_counts_and_a_new_one_the_mean_curve():
    profile = measured()
    trained = train(profile, "history")
    strength = trained.estimator.strength_
    mean = np.array(trained.card.mean_p_B)
    curves = trained.predict([Query("q3", "?"), Query("new", "?")])
    expected = (strength * mean + profile.num_right_Q_B[3]) / (strength + 4)
    assert np.allclose(curves.p_Q_B[0], expected)
    assert np.allclose(curves.p_Q_B[1], mean)
    assert np.allclose(curves.tokens_Q_B[1], trained.card.mean_tokens_B)
    assert trained.card.shrinkage is None  # the base's share is taken before the counts, not after


def test_an_unseen_question_is_shrunk_as_the_base_is():
    """Texts that say nothing: the base's curves of new questions are the mean's, a seen one's counts stay."""
    profile = replace(measured(), texts=tuple("Is it?" for _ in range(60)))
    trained = train(profile, "history", options={"base": "text"})
    assert trained.estimator.shrinkage_.accuracy == 0.0
    curves = trained.predict([Query("new", "What?"), Query("q0", "Is it?")])
    assert np.allclose(curves.p_Q_B[0], trained.card.mean_p_B, atol=1e-6)
    assert not np.allclose(curves.p_Q_B[1], trained.card.mean_p_B, atol=0.02)


def test_it_is_saved_and_says_what_it_knows(tmp_path):
    trained = train(measured(), "history", options={"half_life": 3})
    again = Predictor.load(trained.save(tmp_path / "history"))
    queries = [Query(f"q{row}", "?") for row in range(5)]
    assert np.array_equal(again.predict(queries).p_Q_B, trained.predict(queries).p_Q_B)
    assert again.card == trained.card
    words = (tmp_path / "history" / "card.md").read_text()
    assert "480 earlier samples of 60 questions" in words
    assert "The weight of a sample halves after 3 further updates" in words


def test_feeding_adds_draws_and_new_questions():
    trained = train(measured(), "history")
    tonight = measured(num_draws=2, seed=1, first=50, name="tonight")
    fed = trained.feed(tonight)
    assert fed.card.history.num_queries == 110
    assert [each.name for each in fed.card.history.fed] == ["night", "tonight"]
    own = fed.estimator.draws_
    assert own.tried_N_B[own.row_of["q55"]].tolist() == [6, 6]
    assert own.tried_N_B[own.row_of["q80"]].tolist() == [2, 2]
    assert own.tokens_N_B[own.row_of["q80"]] == pytest.approx(2 * tonight.tokens_Q_B[30])
    row = own.row_of["q55"]
    answers = {text: own.answered_M_B[place] for place, (held, text) in enumerate(own.answers) if held == row}
    assert answers["right"].tolist() == own.right_N_B[row].tolist()
    assert trained.card.history.num_queries == 60  # the old one is as it was


def test_the_same_draws_are_not_counted_twice():
    trained = train(measured(), "history")
    again, notes = feed(trained, measured())
    assert again is trained
    assert "was added before" in notes[0]
    tonight = trained.feed(measured(seed=5))
    assert feed(tonight, measured(seed=5))[0] is tonight


@pytest.mark.parametrize("changed", [{"model_hash": "other"}, {"template": "another"}])
def test_another_models_draws_are_not_mixed_in(changed):
    trained = train(measured(), "history")
    tonight = measured(seed=1)
    tonight = replace(tonight, provenance=replace(tonight.provenance, **changed))
    same, notes = feed(trained, tonight)
    assert same is trained
    assert "nothing of night was fed" in notes[0]
    assert "train PROFILE --predictor history" in notes[0]


def test_an_option_that_changed_is_left_out():
    trained = train(measured(), "history")
    changed = Menu.named([Option("low", tokens=120), Option("high", set={"effort": "xhigh"}, tokens=900)])
    fed, notes = feed(trained, measured(seed=1, menu=changed))
    assert "high" in notes[0]
    assert "low" not in notes[0]
    assert fed.estimator.draws_.tried_N_B[0].tolist() == [8, 4]


def test_options_are_matched_by_name_whatever_their_cost():
    trained = train(measured(), "history")
    turned = Menu.named([Option("high", set={"effort": "high"}, tokens=50), Option("low", tokens=100)])
    tonight = measured(seed=1, menu=turned)
    own = trained.feed(tonight).estimator.draws_
    assert own.right_N_B[0].tolist() == (measured().num_right_Q_B[0] + tonight.num_right_Q_B[0][::-1]).tolist()


def test_a_half_life_forgets():
    trained = train(
        [measured(), measured(num_draws=2, seed=1), measured(num_draws=2, seed=2)],
        "history",
        options={"half_life": 2.0},
    )
    own = trained.estimator.draws_
    assert own.tried_N_B[0] == pytest.approx([4 * 0.5 + 2 * 0.5**0.5 + 2] * 2)
    assert trained.card.history.half_life == 2.0


def test_the_same_questions_twice_are_for_a_history_alone():
    nights = [measured(), measured(seed=1, num_draws=2)]
    assert train(nights, "history").card.data.num_traces == 60 * 6
    with pytest.raises(InvalidInputError, match="two of these profiles"):
        train(nights, "mean")


def test_pooled_traces_are_those_of_both_nights():
    both = pooled([measured(), measured(seed=1, num_draws=2, first=30)])
    assert both.num_queries == 90
    assert both.num_tried_Q.tolist() == [4] * 30 + [6] * 30 + [2] * 30
    starts = np.cumsum(both.num_tried_Q) - both.num_tried_Q
    assert (np.add.reduceat(both.traces.grade_N_B == RIGHT, starts) == both.num_right_Q_B).all()
    for row in (0, 40, 80):
        span = both.traces_of_Q[row]
        texts = np.array(both.traces.answers_Q[row])[both.traces.answer_N_B[span]]
        assert ((texts == "right") == (both.traces.grade_N_B[span] == RIGHT)).all()
    assert both.token_variance_Q_B.shape == (90, 2)


def test_options_may_be_drawn_unequally():
    profile = measured()
    tried = np.full((60, 2), 4)
    tried[:10, 1] = 0
    right = np.where(tried > 0, profile.num_right_Q_B, 0)
    tokens = np.where(tried > 0, profile.tokens_Q_B, np.nan)
    grades = profile.traces.grade_N_B.copy()
    grades[:40, 1] = UNTRIED
    profile = replace(
        profile,
        tried_Q_B=tried,
        num_right_Q_B=right,
        tokens_Q_B=tokens,
        reasoning_Q_B=tokens,
        traces=replace(profile.traces, grade_N_B=grades),
    )
    trained = train(profile, "history")
    curves = trained.predict([Query("q0", "?")])
    strength = trained.estimator.strength_
    assert curves.p_Q_B[0, 1] == pytest.approx(trained.card.mean_p_B[1])
    assert curves.p_Q_B[0, 0] == pytest.approx((strength * trained.card.mean_p_B[0] + right[0, 0]) / (strength + 4))
    assert np.isfinite(curves.tokens_Q_B).all()


def test_draws_move_to_other_options_and_keep_their_state():
    draws = Draws.of(measured(num_queries=3))
    moved = draws.on([None, 0])
    assert (moved.tried_N_B[:, 0] == 0).all()
    assert (moved.right_N_B[:, 1] == draws.right_N_B[:, 0]).all()
    again = Draws.from_state(*draws.state())
    assert again.ids == draws.ids
    assert again.answers == draws.answers
    settings, arrays = draws.state()
    with pytest.raises(ValueError, match="a question occurs twice"):
        Draws.from_state({**settings, "ids": ["q0", "q0", "q2"]}, arrays)
    with pytest.raises(ValueError, match="not of its questions"):  # an answer to a question that it does not hold
        Draws.from_state({**settings, "answers": [[99, text] for _, text in settings["answers"]]}, arrays)
    with pytest.raises(ValueError, match="more right than tried"):
        Draws.from_state(settings, {**arrays, "draws.right": arrays["draws.tried"] + 1})


def test_what_no_history_can_be_is_refused():
    with pytest.raises(InvalidSettingsError, match="base must be one of"):
        HistoryPredictor(base="history")
    with pytest.raises(InvalidSettingsError, match="half_life"):
        HistoryPredictor(half_life=0)
    with pytest.raises(InvalidSettingsError, match="half_life"):
        HistoryPredictor(half_life=float("nan"))
    with pytest.raises(InvalidSettingsError, match="can be added only to a history"):
        train(measured(), "mean").feed(measured(seed=1))


def test_features_without_ids_are_told_apart():
    trained = train(measured(), "history")
    curves = trained.predict(["q3"], Features(1, texts=("?",)))  # ids that features lack are those of the queries
    assert np.array_equal(curves.p_Q_B, trained.predict([Query("q3", "?")]).p_Q_B)


def test_profile_and_run_feed_a_history(call, tmp_path):
    questions = write_questions(tmp_path / "train.jsonl", 30)
    tonight = ("profile", "fake", questions, "--traces", 2, "--history", "nightly", "--quiet")
    assert call(*tonight).code == 0
    first = Predictor.load("nightly")
    assert first.card.predictor == "history"
    num_draws, num_queries = first.card.history.num_draws, first.card.history.num_queries
    assert call(*tonight).code == 0  # the same run again feeds nothing
    assert Predictor.load("nightly").card.history == first.card.history
    assert call("run", "nightly", questions, "--mean-tokens", 64, "--seed", 7, "--quiet", "--out", "runs/a").code == 0
    fed = Predictor.load("nightly").card.history
    assert [each.name for each in fed.fed] == ["fake-train", "a"]
    assert fed.num_queries == num_queries
    assert fed.num_draws >= num_draws + num_queries  # a thought that ended counts under larger caps too
    assert call("run", "nightly", questions, "--mean-tokens", 64, "--seed", 7, "--quiet", "--out", "runs/a").code == 0
    assert Predictor.load("nightly").card.history == fed


def test_what_failed_and_is_answered_later_is_fed_by_itself(call, tmp_path, caplog):
    questions = write_questions(tmp_path / "train.jsonl", 30)
    assert call("profile", "fake", questions, "--traces", 2, "--history", "nightly", "--quiet").code == 0
    tonight = ("run", "nightly", questions, "--mean-tokens", 64, "--seed", 7, "--quiet", "--out", "runs/a")
    assert call(*tonight, "--engine-option", "failure_rate=0.4").code == 3
    half = Predictor.load("nightly").card.history.fed
    caplog.clear()
    assert call(*tonight).code == 0
    first, later = Predictor.load("nightly").card.history.fed[1:]
    assert half[1] == first
    assert later.id == f"{first.id}-2"
    assert 0 < later.num_queries < 30
    assert first.num_queries + later.num_queries == 30
    assert not any("the same draws again" in record.message for record in caplog.records)
    whole = Predictor.load("nightly").card.history
    assert call(*tonight).code == 0
    assert Predictor.load("nightly").card.history == whole
    assert "was added before" in caplog.text
    (tmp_path / "runs/a/fed.json").write_text("[]")
    said = call(*tonight)
    assert said.code == 1
    assert "fed.json does not say what of this run a history was fed: must be an object" in said.err


@pytest.mark.parametrize("kind", ["file", "other folder", "other predictor", "nothing"])
def test_what_is_no_history_is_refused_before_anything_is_generated(call, tmp_path, kind):
    questions = write_questions(tmp_path / "train.jsonl", 30)
    assert call("profile", "fake", questions, "--traces", 2, "--quiet").code == 0
    assert call("train", "runs/fake-train", "--predictor", "text", "--out", "other predictor").code == 0
    (tmp_path / "file").write_text("x")
    (tmp_path / "other folder").mkdir()
    (tmp_path / "other folder/x").write_text("x")
    for command in (
        ("run", "other predictor", questions, "--mean-tokens", 64, "--quiet", "--out", "runs/a"),
        *([] if kind == "nothing" else [("profile", "fake", questions, "--quiet", "--out", "runs/a")]),
    ):
        said = call(*command, "--history", kind)
        assert said.code == 1
        assert "Traceback" not in said.err
        assert not (tmp_path / "runs/a").exists()


def test_a_history_is_fed_from_its_own_folder(call, tmp_path, monkeypatch):
    questions = write_questions(tmp_path / "train.jsonl", 30)
    assert call("profile", "fake", questions, "--traces", 2, "--history", "nightly", "--quiet").code == 0
    monkeypatch.chdir(tmp_path / "nightly")
    assert call("run", ".", questions, "--mean-tokens", 64, "--quiet", "--out", "../a").code == 0
    assert len(Predictor.load(".").card.history.fed) == 2


def test_answers_to_a_plan_are_draws_under_what_they_were_given():
    rows = [
        Answer("a", 100, "1", 90, 100, StopReason.NATURAL, "1", Grade.RIGHT),
        Answer("b", 900, "1", 800, 820, StopReason.NATURAL, "2", Grade.WRONG),
        Answer("c", 900, None, reference="2", error="lost"),
    ]
    profile = answered(rows, LEVELS, Provenance(model="m", model_hash="h", template="t"))
    assert profile.query_ids == ("a", "b")
    assert profile.tried_Q_B.tolist() == [[1, 0], [0, 1]]
    assert answered(rows, Menu.of([100, 900]), Provenance()).tried_Q_B.tolist() == [[1, 1], [0, 1]]
    left = [Answer("d", 150, "1", 150, 160, StopReason.BUDGET, "1", Grade.RIGHT), replace(rows[0], budget=150)]
    assert answered(left, Menu.of([100, 900]), Provenance()).tried_Q_B.tolist() == [[0, 0], [0, 1]]
    fed = train(measured(), "history").feed(profile)
    assert fed.estimator.draws_.tokens_N_B[fed.estimator.draws_.row_of["b"]].tolist() == [0, 820]
    with pytest.raises(InvalidInputError, match="none of the answers was graded"):
        answered(rows[2:], LEVELS, Provenance())
