"""Novel queries: found by calibrated p-values, warned of, and planned as predicted."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forethought.allocators import allocate
from forethought.control import sources
from forethought.control.evaluating import held_out_curves
from forethought.control.planning import forecast
from forethought.core.data import Cost, Curves
from forethought.core.features import Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.errors import InvalidFeaturesError, ModelFileError
from forethought.predictors.card import PredictorCard
from forethought.predictors.novelty import LEVEL, NoveltyScore, chance_of, kind_of, num_in_tail
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import train
from forethought.runs.profiles import read_parquet
from test_training import INFO, make_profile

pytestmark = pytest.mark.slow

READS_HIDDEN, READS_TEXT = frozenset({"hidden"}), frozenset({"text"})
MEASURED = {**INFO, "engine": "fake"}
GSM8K = "qwen2.5-coder-1.5b"
PROFILES = Path(__file__).parent.parent / "profiles"
THINGS = ("apples", "books", "marbles", "tickets", "coins", "stamps", "pencils", "cookies")
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo")


def states(num: int, *, shift: float = 0.0, scale: float = 1.0, width: int = 24, seed: int = 0) -> Features:
    """Correlated normal vectors with a few strong directions, as hidden states are."""
    mixing = np.random.default_rng(99).standard_normal((width, width)) * np.geomspace(3.0, 0.05, width)
    vectors_Q_D = np.random.default_rng(seed).standard_normal((num, width)) @ mixing.T
    return Features(num, hidden_Q_D=(scale * vectors_Q_D + shift).astype(np.float16))


def story(seed: int) -> str:
    random = np.random.default_rng(seed)
    name, other, thing, another = (*random.choice(NAMES, 2), *random.choice(THINGS, 2))
    a, b, c = random.integers(2, 99, size=3)
    return (
        f"{name} has {a} {thing} and buys {b} more. {other} gives {name} {c} {another} every day for a week. "
        f"How many {thing} and {another} does {name} have now?"
    )


def formula(seed: int) -> str:
    a, b, c = np.random.default_rng(seed).integers(2, 99, size=3)
    return rf"Find the sum of all roots of \[\frac{{x^{{{a}}}}}{{\sqrt{{x+{b}}}}} = \binom{{{c}}}{{2}}\pmod{{{a}}}.\]"


def stories(num: int, *, start: int = 0) -> Features:
    return Features(num, texts=tuple(story(seed) for seed in range(start, start + num)))


def formulas(num: int) -> Features:
    return Features(num, texts=tuple(formula(seed) for seed in range(num)))


def learned(features: Features, reads: frozenset[str]) -> NoveltyScore:
    found = NoveltyScore.fit(features, reads)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def of_states() -> NoveltyScore:
    return learned(states(400), READS_HIDDEN)


@pytest.fixture(scope="module")
def of_texts() -> NoveltyScore:
    return learned(stories(300), READS_TEXT)


class TestScore:
    @pytest.mark.parametrize("num_trained", [60, 200, 800])
    def test_p_values_of_the_same_kind_are_uniform(self, num_trained: int) -> None:
        p_values = np.concatenate(
            [
                learned(states(num_trained, seed=seed), READS_HIDDEN).judge(states(200, seed=100 + seed)).p_Q
                for seed in range(5)
            ]
        )
        for share in (0.05, 0.2, 0.5, 0.8):  # never more often small than they say, but for chance
            assert (p_values <= share).mean() < share + 0.04
        assert (p_values <= 0.5).mean() > 0.3

    def test_p_values_of_texts_of_the_same_kind_err_on_the_safe_side(self, of_texts: NoveltyScore) -> None:
        p_Q = of_texts.judge(stories(400, start=1000)).p_Q
        assert (p_Q <= 0.05).mean() < 0.1
        assert 0.4 < p_Q.mean() < 0.7  # fits that lack a fold see left-out texts as a little farther: the safe side

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"shift": 8.0}, id="moved"),
            pytest.param({"scale": 3.0}, id="stretched"),
        ],
    )
    def test_vectors_from_elsewhere_are_novel(self, of_states: NoveltyScore, changes: dict[str, float]) -> None:
        judged = of_states.judge(states(60, seed=7, **changes))  # type: ignore[arg-type]
        assert judged.is_novel
        assert judged.num_novel > 40

    def test_a_direction_that_never_varied_counts(self) -> None:
        """What a product with the strong directions alone would not see."""
        width = 64
        features = states(120, width=width)
        novelty = learned(features, READS_HIDDEN)
        assert features.hidden_Q_D is not None
        vectors_Q_D = features.hidden_Q_D.astype(np.float64)
        weakest_D = np.linalg.svd(vectors_Q_D / vectors_Q_D.std(axis=0))[2][-1]
        moved_Q_D = vectors_Q_D + 6.0 * weakest_D * vectors_Q_D.std(axis=0)
        judged = novelty.judge(Features(120, hidden_Q_D=moved_Q_D.astype(np.float32)))
        assert judged.num_novel > 100

    def test_texts_of_another_kind_are_novel(self, of_texts: NoveltyScore) -> None:
        judged = of_texts.judge(formulas(60))
        assert judged.is_novel
        assert judged.num_novel == 60

    def test_other_numbers_are_no_other_kind(self, of_texts: NoveltyScore) -> None:
        texts = stories(100, start=500).texts
        assert texts is not None
        changed = tuple(text.replace("2", "7").replace("5", "3") for text in texts)
        np.testing.assert_array_equal(
            of_texts.judge(Features(100, texts=changed)).p_Q, of_texts.judge(Features(100, texts=texts)).p_Q
        )

    def test_the_order_and_company_of_queries_do_not_change_a_p_value(self, of_states: NoveltyScore) -> None:
        features = states(50, seed=3)
        whole, part = of_states.judge(features), of_states.judge(features.select(np.array([4, 2])))
        np.testing.assert_array_equal(part.p_Q, whole.p_Q[[4, 2]])

    def test_what_cannot_be_read_is_left_as_it_is(self, of_states: NoveltyScore, of_texts: NoveltyScore) -> None:
        features = states(20, seed=3, shift=50.0)
        assert features.hidden_Q_D is not None
        features.hidden_Q_D[3] = np.nan
        judged = of_states.judge(features)
        assert np.isnan(judged.p_Q[3])
        assert not judged.is_novel_Q[3]
        assert judged.num_queries == judged.num_novel == 19
        assert np.isnan(of_texts.judge(Features(2, texts=("", story(1)))).p_Q).tolist() == [True, False]

    def test_nothing_at_all_is_not_novel(self, of_states: NoveltyScore) -> None:
        judged = of_states.judge(states(0))
        assert (judged.num_queries, judged.is_novel, judged.chance) == (0, False, 1.0)

    @pytest.mark.parametrize("text", ["?", "x", "é", "\ud800", "数学 " * 4000, " \n "], ids=repr)
    def test_any_text_has_a_distance(self, of_texts: NoveltyScore, text: str) -> None:
        (distance,) = of_texts.distances(Features(1, texts=(text,)))
        assert math.isfinite(distance) == bool(text.strip())

    @pytest.mark.parametrize(
        ("reads", "kind"),
        [
            (("hidden",), "hidden"),
            (("text",), "text"),
            (("hidden", "text"), "hidden"),
            (("difficulty",), None),
            (("text", "difficulty"), "text"),
            ((), None),
        ],
    )
    def test_it_is_judged_by_what_the_predictor_reads(self, reads: tuple[str, ...], kind: str | None) -> None:
        assert kind_of(frozenset(reads)) == kind

    def test_few_queries_leave_it_unknown(self) -> None:
        assert NoveltyScore.fit(states(39), READS_HIDDEN) is None
        assert NoveltyScore.fit(states(40), READS_HIDDEN) is not None

    def test_constant_features_and_equal_queries_do_no_harm(self) -> None:
        same = np.tile(np.arange(6, dtype=np.float32), (50, 1))
        judged = learned(Features(50, hidden_Q_D=same), READS_HIDDEN).judge(Features(5, hidden_Q_D=same[:5]))
        assert judged.num_novel == 0

    def test_it_is_small(self) -> None:
        random = np.random.default_rng(0)
        wide = learned(Features(400, hidden_Q_D=random.standard_normal((400, 1536))), READS_HIDDEN)
        assert sum(array.nbytes for array in wide.arrays().values()) < 300_000


@given(num_queries=st.integers(0, 60), num_trained=st.integers(40, 1024))
def test_the_chances_of_all_counts_add_up(num_queries: int, num_trained: int) -> None:
    rank = num_in_tail(num_trained)
    tail = [chance_of(count, num_queries, rank=rank, num_trained=num_trained) for count in range(num_queries + 1)]
    assert tail[0] == pytest.approx(1.0)
    assert all(later <= before + 1e-12 for before, later in itertools.pairwise(tail))
    mean = sum(tail[1:])  # the mean of a count is the sum of its tail
    assert mean == pytest.approx(num_queries * rank / (num_trained + 1))


def test_a_batch_of_the_training_kind_is_called_novel_as_rarely_as_promised() -> None:
    """Exact for exchangeable scores: calibration and batch drawn anew each time."""
    random, num_alarms = np.random.default_rng(0), 0
    for _ in range(2000):
        trained, new = random.standard_normal(99), random.standard_normal(300)
        num_novel = int((new > np.sort(trained)[-num_in_tail(99)]).sum())
        num_alarms += chance_of(num_novel, 300, rank=num_in_tail(99), num_trained=99) <= 0.01
    assert num_alarms / 2000 < 0.016


def card(mean_p_B: list[float], mean_tokens_B: list[float] | None) -> PredictorCard:
    made = train(make_profile()).card
    return dataclasses.replace(
        made,
        menu=Menu.evenly(16, 16 * len(mean_p_B)),
        mean_p_B=tuple(mean_p_B),
        mean_tokens_B=None if mean_tokens_B is None else tuple(mean_tokens_B),
    )


CURVES = {
    "concave": ([0.2, 0.3, 0.35, 0.36], [20, 33, 44, 53]),
    "straight": ([0.1, 0.2, 0.3, 0.4], [16, 32, 48, 64]),
    "jump": ([0.0, 0.0, 0.0, 0.9], [20, 36, 52, 68]),
    "dip": ([0.3, 0.1, 0.5, 0.4], [20, 36, 52, 68]),
    "flat": ([0.5, 0.5, 0.5, 0.5], [20, 36, 52, 68]),
    "nobody gets that far": ([0.1, 0.5, 0.6, 0.6], [20, 30, 30, 30]),
    "tokens not measured": ([0.1, 0.1, 0.6, 0.6], None),
}


@pytest.mark.parametrize(("mean_p_B", "mean_tokens_B"), CURVES.values(), ids=CURVES.keys())
@pytest.mark.parametrize("level", [16, 30, 32, 48, 61])
def test_the_concave_mean_for_all_is_planned_as_uniform(
    mean_p_B: list[float], mean_tokens_B: list[float] | None, level: float
) -> None:
    found = card(mean_p_B, mean_tokens_B)
    p_B, tokens_B = found.concave_mean
    assert (np.diff(p_B) > 0.0).all()
    assert (p_B >= 0.0).all()
    assert (p_B <= 1.0).all()
    tokens_Q_B = None if tokens_B is None else np.tile(tokens_B, (50, 1))
    same = Curves(tuple(f"q{row}" for row in range(50)), found.menu, np.tile(p_B, (50, 1)), tokens_Q_B)
    plan = allocate("envelope", same, total=level * 50)
    assert plan.budget_Q.max() - plan.budget_Q.min() <= 16
    assert plan.granted > level * 50 - 16
    if mean_tokens_B is not None and mean_tokens_B[-1] > mean_tokens_B[-2]:
        total = float(np.interp(level, found.menu.budgets_B, mean_tokens_B)) * 50
        plan = allocate("envelope", same, total=total, cost=Cost.SPENT)
        # The last tokens may be used up by a query or two that are moved apart.
        assert np.sort(np.bincount(plan.budget_Q // 16, minlength=5))[-2:].sum() >= 47


@pytest.fixture(scope="module")
def trained() -> Predictor:
    return train(make_profile())


@pytest.fixture(scope="module")
def of_many() -> Predictor:
    return train(make_profile(300), layers=[4])


def shop(random: np.random.Generator) -> str:
    boxes, pens, sold = random.integers(2, 99), random.integers(2, 60), random.integers(2, 500)
    return f"A shop has {boxes} boxes with {pens} pens each and sells {sold} pens. How many pens are left?"


def arithmetic(random: np.random.Generator) -> str:
    return "What is {} + {} * {}?".format(*random.integers(1, 1000, size=3))


def tickets(random: np.random.Generator) -> str:
    (a, b, c), (first, second) = random.integers(2, 30, size=3), random.choice(NAMES, 2)
    return f"{first} buys {a} tickets at ${b} each and {second} buys {c}. How much do they pay?"


TEMPLATES = {"shop": shop, "arithmetic": arithmetic, "tickets with names": tickets}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_new_questions_of_one_template_are_not_novel_and_others_are(
    template: Callable[[np.random.Generator], str],
) -> None:
    """Forty drawings of 200 training and 100 new questions: the false alarms are those that were promised."""
    num_novel = num_batches = 0
    for drawing in range(40):
        random = np.random.default_rng(drawing)
        novelty = learned(Features(200, texts=tuple(template(random) for _ in range(200))), READS_TEXT)
        assert novelty.is_calibrated
        judged = novelty.judge(Features(100, texts=tuple(template(random) for _ in range(100))))
        num_novel += judged.num_novel
        num_batches += judged.is_novel
        assert novelty.judge(formulas(60)).num_novel == 60
    # The threshold differs from drawing to drawing: 66 calibrate, so its share has a spread of 0.026 about its 0.045.
    assert num_novel / 4000 < 0.05 + 3.0 * 0.026 / math.sqrt(40)
    assert num_batches <= 2


def test_a_score_that_fails_its_own_calibration_is_not_used(trained: Predictor) -> None:
    novelty = trained.novelty
    assert novelty is not None
    failing = dataclasses.replace(novelty, left_out_N=np.sort(np.random.default_rng(0).random(200)))
    features = Features(3, hidden_Q_D=np.full((3, 12), 99.0, dtype=np.float32))
    for false_alarms, is_used in ((math.nan, True), (0.05, True), (0.1, True), (0.12, False), (0.2, False)):
        found = dataclasses.replace(failing, false_alarms=false_alarms)
        assert found.is_calibrated == is_used
        assert (dataclasses.replace(trained, novelty=found).judge(features) is not None) == is_used


class TestTrained:
    def test_the_card_says_how_novelty_is_found(self, trained: Predictor) -> None:
        found = trained.card.novelty
        assert found is not None
        assert (found.kind, found.num_queries, found.num_folds) == ("hidden", 40, 1)
        assert [share for share, _ in found.quantiles] == [0.5, 0.9, 0.95, 0.99]
        assert 0.0 <= found.false_alarms < 0.12
        assert "calibrated on 40 training queries" in trained.card.to_markdown()

    def test_a_loaded_score_is_the_saved_one_to_the_bit(self, trained: Predictor, tmp_path: Path) -> None:
        loaded = Predictor.load(trained.save(tmp_path / "p"))
        hidden_Q_D = np.random.default_rng(5).standard_normal((40, 12)).astype(np.float32)
        first, second = (each.judge(Features(40, hidden_Q_D=hidden_Q_D)) for each in (trained, loaded))
        assert first is not None
        assert second is not None
        np.testing.assert_array_equal(first.p_Q, second.p_Q)
        assert loaded.card == trained.card

    def test_the_counts_have_no_say(self, trained: Predictor) -> None:
        profile = make_profile()
        other = train(dataclasses.replace(profile, num_right_Q_B=4 - profile.num_right_Q_B), layers=[4])
        assert other.novelty is not None
        assert trained.novelty is not None
        for name, array in other.novelty.arrays().items():
            np.testing.assert_array_equal(array, trained.novelty.arrays()[name])

    def test_the_mean_predictor_needs_none(self, tmp_path: Path) -> None:
        trained = train(make_profile(), predictor="mean")
        assert trained.novelty is None
        assert "no novelty score" in trained.card.to_markdown()
        assert Predictor.load(trained.save(tmp_path / "p")).novelty is None

    def test_a_predictor_saved_without_it_still_loads(self, trained: Predictor, tmp_path: Path) -> None:
        bare = dataclasses.replace(trained, card=dataclasses.replace(trained.card, novelty=None), novelty=None)
        folder = bare.save(tmp_path / "old")
        content = json.loads((folder / "predictor.json").read_text())
        del content["card"]["novelty"]
        (folder / "predictor.json").write_text(json.dumps(content))
        old = Predictor.load(folder)
        hidden_Q_D = np.full((3, 12), 99.0, dtype=np.float32)
        assert old.judge(Features(3, hidden_Q_D=hidden_Q_D)) is None
        expected = forecast(["a", "b", "c"], old, Features(3, hidden_Q_D=hidden_Q_D))
        assert expected.judged is None
        assert expected.notes == ()

    def test_a_card_without_its_arrays_is_refused(self, trained: Predictor, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="is missing"):
            Predictor.load(dataclasses.replace(trained, novelty=None).save(tmp_path / "p"))

    def test_another_width_is_refused(self, trained: Predictor, tmp_path: Path) -> None:
        other = learned(states(120), READS_HIDDEN)  # as many components as the card says
        with pytest.raises(ModelFileError, match="judges 24 features"):
            Predictor.load(dataclasses.replace(trained, novelty=other).save(tmp_path / "p"))

    def test_what_it_is_judged_by_must_be_there(self, trained: Predictor) -> None:
        with pytest.raises(InvalidFeaturesError, match="hidden states"):
            trained.judge(Features(2, texts=("a", "b")))


class TestForecast:
    """The whole way, with a shift that nothing in training shows."""

    def features(self, num: int, *, shift: float) -> Features:
        hidden_Q_D = np.random.default_rng(11).standard_normal((num, 12)) + shift
        return Features(num, hidden_Q_D=hidden_Q_D.astype(np.float32))

    def ids(self, num: int) -> list[str]:
        return [f"n{row}" for row in range(num)]

    @pytest.mark.parametrize("shift", [0.0, 9.0])
    def test_every_query_has_its_curves_as_predicted(self, of_many: Predictor, shift: float) -> None:
        features = self.features(60, shift=shift)
        predicted = of_many.predict(self.ids(60), features)
        np.testing.assert_allclose(forecast(self.ids(60), of_many, features).curves.p_Q_B, predicted.p_Q_B, atol=1e-6)

    def test_the_same_kind_raises_no_warning(self, of_many: Predictor) -> None:
        expected = forecast(self.ids(60), of_many, self.features(60, shift=0.0))
        assert expected.judged is not None
        assert expected.notes == ()

    def test_another_kind_is_warned_of(self, of_many: Predictor) -> None:
        (note,) = forecast(self.ids(60), of_many, self.features(60, shift=9.0)).notes
        assert "60 of 60 questions are novel" in note
        assert "3 expected by chance" in note
        assert "forethought evaluate --on" in note

    def test_evaluation_uses_the_curves_that_a_plan_would(self, of_many: Predictor) -> None:
        profile = make_profile(80, seed=5, provenance=Provenance.from_json(MEASURED))
        assert profile.hidden_Q_L_D is not None
        elsewhere_D = np.where(np.arange(12) < 2, 0.0, 9.0)  # the two features that say how easy a query is stay
        moved = dataclasses.replace(profile, hidden_Q_L_D=(profile.hidden_Q_L_D + elsewhere_D).astype(np.float16))
        _, curves, _, notes = held_out_curves(of_many, moved)
        assert "80 of 80" in notes[0]
        assert np.ptp(curves.p_Q_B, axis=0).max() > 0.1


class TestCommonGrid:
    def coarse(self, profile: Profile) -> Profile:
        """The same traces under caps 32, 64, 96, 128: what is beyond 64 is invented."""
        columns = [1, 3, 3, 3]
        return dataclasses.replace(
            profile,
            menu=Menu.evenly(32, 128),
            num_right_Q_B=profile.num_right_Q_B[:, columns],
            tokens_Q_B=profile.tokens_Q_B[:, columns],
            reasoning_Q_B=profile.reasoning_Q_B[:, columns],
        )

    def test_everything_is_on_the_budgets_of_both_and_it_says_so(self) -> None:
        profile = make_profile(provenance=Provenance.from_json(MEASURED))
        trained = train(profile, layers=[4])
        measured, curves, mean, notes = held_out_curves(trained, self.coarse(profile))
        assert measured.menu == curves.menu == mean.menu == Menu.evenly(32, 64)
        assert any("32, 64" in note and "32, 64, … 128" in note for note in notes)
        np.testing.assert_array_equal(measured.num_right_Q_B, profile.num_right_Q_B[:, [1, 3]])
        _, whole, _, none = held_out_curves(trained, profile)
        assert none == ()
        np.testing.assert_array_equal(curves.p_Q_B, whole.p_Q_B[:, [1, 3]])


@pytest.fixture(scope="module")
def gsm8k() -> Predictor:
    return train(read_parquet(PROFILES / f"{GSM8K}-gsm8k-train.parquet"), predictor="ridge")


class TestOnMeasuredStates:
    """Layer 18 of a real model on GSM8K: train questions against test questions."""

    def test_questions_of_the_same_kind_hardly_ever_raise_an_alarm(self, gsm8k: Predictor) -> None:
        measured = sources.shipped_heldout(GSM8K)
        assert measured.hidden_Q_L_D is not None
        features = Features(400, hidden_Q_D=measured.hidden_Q_L_D[:, 0])
        judged = gsm8k.judge(features)
        assert judged is not None
        assert not judged.is_novel
        assert (judged.p_Q <= LEVEL).mean() < 0.07
        random = np.random.default_rng(0)
        batches = [gsm8k.judge(features.select(random.choice(400, 60, replace=False))) for _ in range(100)]
        assert sum(batch is not None and batch.is_novel for batch in batches) <= 1

    def test_the_shipped_predictor_works_whether_or_not_it_can_tell(self) -> None:
        shipped = sources.open_predictor(GSM8K)
        _, curves, _, _ = held_out_curves(shipped, sources.shipped_heldout(GSM8K))
        assert curves.p_Q_B.shape == (400, 16)
