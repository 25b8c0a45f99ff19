"""Thoughts or votes? Rules of how many samples vote, replayed on the same frozen samples, at equal spent tokens.

    OMP_NUM_THREADS=1 python benchmarks/votes.py profile [TRAIN] TEST --out DIR [--levels N,…]
    OMP_NUM_THREADS=1 python benchmarks/votes.py weights PROFILE --out DIR
    OMP_NUM_THREADS=1 python benchmarks/votes.py simulated --out DIR
    OMP_NUM_THREADS=1 python benchmarks/votes.py epoch EPOCH/dev.parquet --out DIR
    OMP_NUM_THREADS=1 python benchmarks/votes.py thoughts LONG-THOUGHTS/controls.parquet --out DIR

An option is a cap or an effort level; by each, several samples of a question may be drawn, and vote. Rules:

- `single`: one thought, by one option for all. `uniform`: one option and one number of samples for all.
- `adaptive`: Adaptive-Consistency. `early stopping`: Early-Stopping Self-Consistency. `blend`: Blend-ASC. All three by
  one option for all.
- `plan`: the option and the number of samples of each question by its predicted curves, before anything is drawn.
- `waves`: one option for all; after each sample it is decided whether another one is worth it. `plan and waves`: the
  option of the plan, and that decision, by predicted curves.
- `oracle` and `fair oracle`: as `plan`, by the measured curves, of the samples that are reported or of the others. A
  half of the samples gives votes of at most half as many.

All settings (options, thresholds, windows, tables) are chosen on training questions, at each price of a token that
which is worth most there: those of TRAIN, whose samples are as many as vote at most, or all but each fifth in turn.
What is reported is the mean over random orders of each question's samples. Intervals are 95% paired bootstrap intervals
over questions.

`weights` compares votes that count alike with votes that weigh as much as the model's own log-probability says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import votes_data
from forethought.control.sources import open_profile
from forethought.control.waves import WavePolicy, choose
from forethought.core.data import FloatArray, IntArray
from forethought.core.registry import make
from forethought.core.stopping import Standing
from forethought.evaluation.bootstrap import estimate, resampled_means
from forethought.evaluation.vote_replay import FrozenDraws
from forethought.evaluation.votes import voted
from forethought.predictors.parts.linear import RidgeProblem
from forethought.predictors.parts.wave_table import learn_waves
from votes_blending import blend_asc
from votes_data import Frozen
from votes_frontiers import PricedRule, VoteComparison, choose_settings, compare_rules
from votes_plots import VotePicture, draw_votes
from votes_replay import Replayed, replay
from votes_stopping import AdaptiveConsistency, EarlyStopping, FixedSamples

ORDERS, FOLDS, NUM_PRICES = 24, 5, 48
THRESHOLDS = (0.7, 0.8, 0.9, 0.95, 0.99)
WINDOWS = (2, 3, 4, 5)
OURS = "plan and waves"


@dataclass(frozen=True, eq=False)
class Part:
    """Some questions: their samples under each option, what each setting of each rule does, and what is predicted.

    Attributes:
        draws_O: one for each option.
        settings: rule -> what each of its settings does.
        right_Q_O_K: predicted chance that the vote of 1, … K samples is right; None where nothing is predicted.
        tokens_Q_O: predicted tokens of a sample.
    """

    draws_O: list[FrozenDraws]
    settings: Mapping[str, list[Replayed]]
    right_Q_O_K: FloatArray | None = None
    tokens_Q_O: FloatArray | None = None

    @classmethod
    def of(cls, draws_O: list[FrozenDraws], right_Q_O_K: Any = None, tokens_Q_O: Any = None) -> Part:
        """With all rules that learn nothing, replayed."""
        most = draws_O[0].num_samples
        means = sorted({1.25, 1.5, *range(2, most + 1)})
        found = {
            "single": [replay(draws, FixedSamples(1)) for draws in draws_O],
            "uniform": [replay(draws, FixedSamples(number)) for draws in draws_O for number in range(1, most + 1)],
            "adaptive": [replay(draws, AdaptiveConsistency(most, each)) for draws in draws_O for each in THRESHOLDS],
            "early stopping": [
                replay(draws, EarlyStopping(most, each)) for draws in draws_O for each in WINDOWS if each <= most
            ],
            "blend": [blend_asc(draws, each, most=most) for draws in draws_O for each in means],
        }
        for name in ("adaptive", "early stopping", "blend"):  # each may also draw a single sample for all
            found[name] = found["single"] + found[name]
        return cls(draws_O, found, right_Q_O_K, tokens_Q_O)

    @property
    def num_queries(self) -> int:
        """Q."""
        return len(self.draws_O[0].group_Q_T)

    @property
    def most(self) -> int:
        """Samples of a question, at most."""
        return self.draws_O[0].num_samples

    def select(self, rows: IntArray) -> Part:
        """The questions `rows`, with what was done to them among all."""
        settings = {
            name: [Replayed(each.right_Q[rows], each.tokens_Q[rows], each.samples_Q[rows]) for each in found]
            for name, found in self.settings.items()
        }
        right, tokens = (None if each is None else each[rows] for each in (self.right_Q_O_K, self.tokens_Q_O))
        return Part([draws.select(rows) for draws in self.draws_O], settings, right, tokens)


@dataclass(frozen=True, slots=True)
class AtPrice:
    """The rule of a policy at one price of a token, for questions in rows."""

    policy: WavePolicy
    price_Q_1: FloatArray
    predicted_Q_1: FloatArray

    @property
    def most(self) -> int:
        """Of the table."""
        return self.policy.table.most

    def draw(self, standing: Standing) -> IntArray:
        """As the policy decides."""
        return self.policy.draw(standing, price=self.price_Q_1, predicted=self.predicted_Q_1)


def prices(draws_O: Sequence[FrozenDraws]) -> FloatArray:
    """From where a sample is worth next to nothing to where it is worth everything, in right answers per token."""
    means = [draws.tokens_Q_T.mean() for draws in draws_O]
    return np.geomspace(2e-5 / max(means), 1.0 / min(means), NUM_PRICES)


def rules_on(train: Part, test: Part, price_P: FloatArray) -> list[PricedRule]:
    """All rules on the test questions; settings are chosen on the training questions."""
    rules = [_by_means(name, train, test, price_P) for name in train.settings]
    found = [waves("waves", train, test, price_P)]
    if test.right_Q_O_K is not None and test.tokens_Q_O is not None:
        numbers = np.arange(1, test.most + 1)
        shape = (test.num_queries, -1)
        tokens_Q_N = (test.tokens_Q_O[:, :, None] * numbers).reshape(shape)
        choice_Q_P = choose_settings(test.right_Q_O_K.reshape(shape), tokens_Q_N, price_P)
        found += [
            PricedRule.of("plan", test.settings["uniform"], choice_Q_P),
            waves(OURS, train, test, price_P, is_predicted=True),
        ]
    return [*rules, *found, oracle("oracle", test.draws_O, test.draws_O, price_P), fair_oracle(test, price_P)]


def _by_means(name: str, train: Part, test: Part, price_P: FloatArray) -> PricedRule:
    """A rule with one setting for all: that of the highest value on the training questions."""
    known = train.settings[name]
    right_1_N, tokens_1_N = (
        np.array([[values.mean() for values in each]])
        for each in ([setting.right_Q for setting in known], [setting.tokens_Q for setting in known])
    )
    return PricedRule.of(name, test.settings[name], choose_settings(right_1_N, tokens_1_N, price_P))


def waves(name: str, train: Part, test: Part, price_P: FloatArray, *, is_predicted: bool = False) -> PricedRule:
    """Votes in waves of one sample, at each price of a token."""
    num_queries, num_options = test.num_queries, len(test.draws_O)
    if is_predicted:
        assert train.right_Q_O_K is not None
        assert test.right_Q_O_K is not None
        assert test.tokens_Q_O is not None
        right_Q_O_K, tokens_Q_O = test.right_Q_O_K, test.tokens_Q_O
        known_O = [train.right_Q_O_K[:, column, 0] for column in range(num_options)]
    else:
        mean_O_K = np.stack([draws.right_Q_R_N.mean(axis=(0, 1))[1:] for draws in train.draws_O])
        mean_O = np.array([draws.tokens_Q_T.mean() for draws in train.draws_O])
        right_Q_O_K = np.broadcast_to(mean_O_K, (num_queries, *mean_O_K.shape))
        tokens_Q_O = np.broadcast_to(mean_O, (num_queries, num_options))
        known_O = [np.full(train.num_queries, right_K[0]) for right_K in mean_O_K]
    policies = [WavePolicy.of(learn_waves(*pair)) for pair in zip(train.draws_O, known_O, strict=True)]
    settings = []
    for price in price_P:
        choice_Q, parts = choose(right_Q_O_K, tokens_Q_O, price), []
        for column in np.unique(choice_Q):
            rows = np.flatnonzero(choice_Q == column)
            predicted_Q_1 = right_Q_O_K[rows, column, :1]
            rule = AtPrice(policies[column], price * tokens_Q_O[rows, column, None], predicted_Q_1)
            parts.append((rows, replay(test.draws_O[column].select(rows), rule)))
        settings.append(Replayed.joined(parts))
    return PricedRule.of(name, settings, np.arange(len(price_P))[None])


def oracle(
    name: str, known_O: Sequence[FrozenDraws], draws_O: Sequence[FrozenDraws], price_P: FloatArray
) -> PricedRule:
    """The option and the number of samples of each question by the curves measured on `known_O`."""
    right_Q_N, tokens_Q_N = (
        np.concatenate([getattr(draws, field).mean(axis=1)[:, 1:] for draws in known_O], axis=1)
        for field in ("right_Q_R_N", "spent_Q_R_N")
    )
    settings = [replay(draws, FixedSamples(number)) for draws in draws_O for number in range(1, draws.num_samples + 1)]
    return PricedRule.of(name, settings, choose_settings(right_Q_N, tokens_Q_N, price_P))


def fair_oracle(part: Part, price_P: FloatArray) -> PricedRule:
    """One half of each question's samples chooses and the other is reported, and the other way round."""
    each = [halves(draws) for draws in part.draws_O]
    firsts, seconds = [first for first, _ in each], [second for _, second in each]
    one, other = oracle("", firsts, seconds, price_P), oracle("", seconds, firsts, price_P)
    values = ("right_Q_P", "tokens_Q_P", "samples_Q_P")
    return PricedRule("fair oracle", *((getattr(one, name) + getattr(other, name)) / 2.0 for name in values))


def halves(draws: FrozenDraws) -> tuple[FrozenDraws, FrozenDraws]:
    """Its samples in two halves, the even and the odd ones."""
    return tuple(  # type: ignore[return-value]
        FrozenDraws.shuffled(
            draws.group_Q_T[:, start::2], draws.tokens_Q_T[:, start::2], num_orders=ORDERS, seed=7 + start
        )
        for start in (0, 1)
    )


def cross_fitted(
    part: Part, price_P: FloatArray, features_Q_F: FloatArray | None = None, *, is_rising: bool = False
) -> list[PricedRule]:
    """All rules on all questions, a fifth at a time, with the others as training questions."""
    fold_Q = np.random.default_rng(0).permutation(part.num_queries) % FOLDS
    found = []
    for fold in range(FOLDS):
        rows, others = np.flatnonzero(fold_Q == fold), np.flatnonzero(fold_Q != fold)
        train, test = part.select(others), part.select(rows)
        if features_Q_F is not None:
            known, new = features_Q_F[others], features_Q_F[rows]
            train, test = with_features(train, test, known, new, is_rising=is_rising)
        found.append((rows, rules_on(train, test, price_P)))
    return [PricedRule.joined([(rows, rules[number]) for rows, rules in found]) for number in range(len(found[0][1]))]


def with_features(
    train: Part, test: Part, train_Q_F: FloatArray, test_Q_F: FloatArray, *, is_rising: bool = False
) -> tuple[Part, Part]:
    """Both parts with predicted curves, by ridge regression on the training questions.

    Those of the training questions are left-out predictions, as tables of waves need them. Where curves are rising, no
    option of more tokens is predicted to be right less often.
    """
    num_options, most = len(train.draws_O), train.most
    right_Q_N = np.concatenate([draws.right_Q_R_N.mean(axis=1)[:, 1:] for draws in train.draws_O], axis=1)
    tokens_Q_O = np.stack([draws.tokens_Q_T.mean(axis=1) for draws in train.draws_O], axis=1)
    problem, found = RidgeProblem(train_Q_F, np.ones(train.num_queries)), []
    for target_Q_N in (right_Q_N, tokens_Q_O):
        solution = problem.solve(target_Q_N, np.ones(target_Q_N.shape[1]))
        applied_Q_N = problem.standardizer.apply(test_Q_F) @ solution.weights_D_N + solution.intercept_N
        found.append((solution.left_out_Q_N, applied_Q_N))
    least = 0.25 * tokens_Q_O.mean(axis=0)
    made = []
    for part, right, tokens in zip((train, test), found[0], found[1], strict=True):
        right_Q_O_K = np.clip(right, 0.0, 1.0).reshape(-1, num_options, most)
        right_Q_O_K = np.maximum.accumulate(right_Q_O_K, axis=1) if is_rising else right_Q_O_K
        made.append(replace(part, right_Q_O_K=right_Q_O_K, tokens_Q_O=np.maximum(tokens, least)))
    return made[0], made[1]


def frozen_part(frozen: Frozen, *, most: int, seed: int) -> Part:
    """All samples of each question, of which at most so many vote."""
    pairs = zip(frozen.group_O_Q_T, frozen.tokens_O_Q_T, strict=True)
    return Part.of([FrozenDraws.shuffled(*pair, num_orders=ORDERS, seed=seed, most=most) for pair in pairs])


def with_history(frozen: Frozen, number: int, *, num_splits: int) -> list[PricedRule]:
    """All rules where `number` samples of each question were seen before, with their grades, and the others vote.

    What is known of a question then: under each option, the share of its earlier samples that were right, how far their
    answers agreed, and their mean tokens (logarithms). Means over random splits of each question's samples.
    """
    _, num_queries, num_samples = frozen.group_O_Q_T.shape
    price_P, found = None, []
    for split in range(num_splits):
        keys = np.random.default_rng([split, 3]).random((num_queries, num_samples)).argsort(axis=1)
        seen, rest = (keys[None, :, :number], keys[None, :, number:])
        group_O_Q_S = np.take_along_axis(frozen.group_O_Q_T, seen, axis=2)
        tokens_O_Q_S = np.take_along_axis(frozen.tokens_O_Q_T, seen, axis=2)
        agreed_O_Q = np.max([(group_O_Q_S == group).mean(axis=2) for group in range(group_O_Q_S.max() + 1)], axis=0)
        features_Q_F = np.concatenate(
            [(group_O_Q_S == 0).mean(axis=2).T, agreed_O_Q.T, np.log(tokens_O_Q_S.mean(axis=2)).T], axis=1
        )
        later = replace(
            frozen,
            group_O_Q_T=np.take_along_axis(frozen.group_O_Q_T, rest, axis=2),
            tokens_O_Q_T=np.take_along_axis(frozen.tokens_O_Q_T, rest, axis=2),
            features_Q_F=features_Q_F,
        )
        part = frozen_part(later, most=num_samples - number, seed=split)
        price_P = prices(part.draws_O) if price_P is None else price_P
        found.append(cross_fitted(part, price_P, features_Q_F))
    return [mean_rule([rules[number] for rules in found]) for number in range(len(found[0]))]


def mean_rule(rules: Sequence[PricedRule]) -> PricedRule:
    """The mean of one rule over replays of the same questions at the same prices."""
    values = [(rule.right_Q_P, rule.tokens_Q_P, rule.samples_Q_P) for rule in rules]
    return PricedRule(rules[0].name, *(np.mean(each, axis=0) for each in zip(*values, strict=True)))


def levels_of(rules: Sequence[PricedRule], number: int = 10) -> list[float]:
    """Levels in even steps of their logarithm, between what all rules can be made to spend and uniform's most."""
    least = max(float(rule.tokens_Q_P.mean(axis=0).min()) for rule in rules)
    most = next(float(rule.tokens_Q_P.mean(axis=0).max()) for rule in rules if rule.name == "uniform")
    return np.round(np.geomspace(1.01 * least, most, number)).tolist()


@dataclass(frozen=True, eq=False)
class Case:
    """One comparison, ready to be written.

    Attributes:
        name: of its folder.
        title: for a reader.
        facts: what was measured, line by line.
        rules: what each rule did.
        levels: at which they are compared.
        ours: the rule compared with each other one.
        part: the questions that were reported.
        simulated: whether a made-up model gave them.
        with_accuracy: False where questions were chosen so that only differences mean something.
    """

    name: str
    title: str
    facts: tuple[str, ...]
    rules: Sequence[PricedRule]
    levels: Sequence[float]
    ours: str
    part: Part
    simulated: bool = False
    with_accuracy: bool = True

    def write(self, out: Path) -> None:
        """Writes the comparison as JSON and Markdown, and its picture."""
        folder = out / self.name
        folder.mkdir(parents=True, exist_ok=True)
        found = compare_rules(self.rules, self.levels, ours=self.ours)
        rules = [rule for rule in self.rules if rule.name != self.ours]
        rules += [rule for rule in self.rules if rule.name == self.ours]
        kept: dict[str, Any] = {"title": self.title, "simulated": self.simulated, "facts": self.facts}
        kept |= found.to_json()
        if not self.with_accuracy:
            for row in kept["rows"]:
                for name in ("accuracy", "accuracy_low", "accuracy_high"):
                    del row[name]
        (folder / "votes.json").write_text(json.dumps(_rounded(kept), indent=1) + "\n", "utf-8")
        (folder / "votes.md").write_text(self.text(found), "utf-8")
        uniform = self.part.settings["uniform"]
        means = (
            np.array([getattr(each, field).mean() for each in uniform])
            for field in ("tokens_Q", "right_Q", "samples_Q")
        )
        share_Q = np.mean([(draws.group_Q_T == 0).mean(axis=1) for draws in self.part.draws_O], axis=0)
        draw_votes(
            VotePicture(found, rules, self.facts[:2], self.simulated, *means, share_Q, self.with_accuracy), folder
        )

    def text(self, found: VoteComparison) -> str:
        """The tables, for a reader."""
        names = [rule.name for rule in self.rules]
        lines = [f"# {self.title}", "", *(f"- {fact}" for fact in self.facts), ""]
        if self.simulated:
            lines[2:2] = ["**SIMULATED**: a made-up model, which says nothing of a real one.", ""]
        lines += [
            f"{found.num_queries:,} questions; 95% paired bootstrap intervals over questions ({found.num_resamples:,} "
            "resamples). Points of accuracy; `~`: the interval includes 0. A mean over levels weights each level by "
            "the tokens around it.",
            "",
            "| rule | mean gain over uniform | " + f"{self.ours} over it |",
            "| --- | ---: | ---: |",
        ]
        gains = {(each.rule, each.over): each.gain for each in found.means}
        for name in names:
            over, ours = gains.get((name, "uniform")), gains.get((self.ours, name))
            lines.append(f"| {name} | {_points(over)} | {_points(ours)} |")
        shown = [name for name in names if name != "oracle"]
        lines += [
            "",
            "Accuracy at equal spent tokens, in points over uniform:"
            if self.with_accuracy
            else "Points over uniform at equal spent tokens:",
            "",
        ]
        lines += ["| tokens | " + " | ".join(shown) + " |", "| ---: |" + " ---: |" * len(shown)]
        for level in found.levels:
            cells = []
            for name in shown:
                row = next(row for row in found.rows if row.rule == name and row.level == level)
                if row.gain is None:
                    cells.append(f"{100 * row.accuracy.value:.1f}%" if self.with_accuracy else "0")
                else:
                    cells.append(_points(row.gain))
            lines.append(f"| {level:,.0f} | " + " | ".join(cells) + " |")
        lines += ["", "Tokens that reach uniform's accuracy at a level, as a share of it (∞: never):", ""]
        shown = [name for name in shown if name != "uniform"]
        lines += ["| tokens | " + " | ".join(shown) + " |", "| ---: |" + " ---: |" * len(shown)]
        for level in found.levels:
            rows = [next(row for row in found.rows if row.rule == name and row.level == level) for name in shown]
            cells = [_share(row.needed, level) for row in rows]
            lines.append(f"| {level:,.0f} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def _points(found: Any) -> str:
    if found is None:
        return ""
    signed = [f"{100 * each:+.1f}".replace("-", "−") for each in (found.value, found.low, found.high)]
    return f"{signed[0]} [{signed[1]}, {signed[2]}]" + (" ~" if found.low <= 0.0 <= found.high else "")


def _share(found: Any, level: float) -> str:
    return " ".join(
        form.format("∞" if not np.isfinite(each) else f"{each / level:.2f}")
        for form, each in (("{}", found.value), ("[{},", found.low), ("{}]", found.high))
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


def pair_case(
    name: str, title: str, known: Frozen, new: Frozen, levels: Sequence[float] | None = None, *, is_rising: bool = True
) -> Case:
    """One comparison on questions of their own; as many samples vote as the training questions have."""
    most = min(known.group_O_Q_T.shape[2], new.group_O_Q_T.shape[2])
    train, test = (frozen_part(each, most=most, seed=number) for number, each in enumerate((known, new)))
    has_features = known.features_Q_F is not None and new.features_Q_F is not None
    if known.features_Q_F is not None and new.features_Q_F is not None:
        train, test = with_features(train, test, known.features_Q_F, new.features_Q_F, is_rising=is_rising)
    rules = rules_on(train, test, prices(train.draws_O))
    facts = (
        f"{new.name}, options {', '.join(new.labels)}",
        f"{train.num_queries} questions with {known.group_O_Q_T.shape[2]} samples choose; {test.num_queries} others "
        f"with {new.group_O_Q_T.shape[2]} are reported, up to {most} vote",
    )
    ours = OURS if has_features else "waves"
    return Case(name, title, facts, rules, levels or levels_of(rules), ours, test, new.simulated)


def simulated_case() -> Case:
    """600 training questions with 8 samples and 400 with 16; the rules were designed on other seeds."""
    known, new = votes_data.simulated(600, 8, seed=3), votes_data.simulated(400, 16, seed=4)
    return pair_case("simulated", "SIMULATED: thoughts or votes", known, new)


def profile_case(sources: Sequence[str], grader: str, name: str, levels: Sequence[float] | None) -> Case:
    """Profiles with answers and the same options: of training questions and of those that are reported, or of both."""
    *others, new = (votes_data.from_profile(source, grader=grader) for source in sources)
    title = f"Thoughts or votes: {new.name}"
    is_rising = all(label.isdigit() for label in new.labels)  # caps
    if others:
        if others[0].labels != new.labels:
            raise SystemExit(f"the profiles have other options: {others[0].labels} and {new.labels}")
        return pair_case(name, title, others[0], new, levels, is_rising=is_rising)
    num_questions, num_samples = new.group_O_Q_T.shape[1:]
    part = frozen_part(new, most=num_samples, seed=0)
    rules = cross_fitted(part, prices(part.draws_O), new.features_Q_F, is_rising=is_rising)
    facts = (
        f"{new.name}, options {new.labels[0]} to {new.labels[-1]}",
        f"{num_questions} questions with {num_samples} samples, which vote; settings from the other four fifths",
    )
    ours = "waves" if new.features_Q_F is None else OURS
    return Case(name, title, facts, rules, levels or levels_of(rules), ours, part, new.simulated)


def epoch_cases(path: Path) -> list[Case]:
    """GPQA Diamond by effort levels: without and with earlier samples of the same question."""
    cases = []
    for model in ("gpt-5.2", "claude-opus-4-5"):
        frozen = votes_data.epoch(path, model)
        num_questions, num_samples = frozen.group_O_Q_T.shape[1:]
        source = (
            f"{frozen.name}, levels {', '.join(frozen.labels)}",
            f"{num_questions} questions with {num_samples} samples at each level",
        )
        credit = "Epoch AI, “Benchmarking data”, CC-BY-4.0"
        part = frozen_part(frozen, most=num_samples, seed=3)
        rules = cross_fitted(part, prices(part.draws_O))
        facts = (*source, f"up to {num_samples} vote; nothing is known of a question beforehand", credit)
        cases.append(
            Case(f"{model}", f"Thoughts or votes: {frozen.name}", facts, rules, levels_of(rules), "waves", part)
        )
        rules = with_history(frozen, num_samples // 2, num_splits=2)
        facts = (
            *source,
            f"{num_samples // 2} samples under each level were seen before, with grades; up to {num_samples // 2} "
            "others vote, and are reported; means over 2 splits",
            credit,
        )
        title = f"Thoughts or votes, with history: {frozen.name}"
        cases.append(Case(f"{model}-history", title, facts, rules, levels_of(rules), OURS, part))
    return cases


def thoughts_case(path: Path) -> Case:
    """Long thoughts under caps; differences alone, since the questions were chosen."""
    frozen = votes_data.thoughts(path)
    num_questions, num_samples = frozen.group_O_Q_T.shape[1:]
    part = frozen_part(frozen, most=num_samples, seed=4)
    rules = cross_fitted(part, prices(part.draws_O))
    facts = (
        f"thoughts of Gemma-4-12B-it, caps {', '.join(frozen.labels)}",
        f"{num_questions} questions with {num_samples} samples, of which up to {num_samples} vote",
        "the questions were chosen by their authors: differences between rules mean something, accuracies do not",
    )
    title = "Thoughts or votes: long thoughts"
    return Case("long-thoughts", title, facts, rules, levels_of(rules), "waves", part, with_accuracy=False)


def write_weights(source: str, grader: str, folder: Path) -> None:
    """How often votes are right that count alike, and the points that weights add; over all subsets of the traces."""
    profile, voting = open_profile(source), make("graders", grader, {})
    most = int(profile.num_tried_Q.min())
    samples = [number for number in (2, 3, 4, 8, 16) if number <= most]
    votes = [voted(profile, samples, voting, by) for by in ("", "answer", "thought")]
    menu, right = votes[0].menu, [each.num_right_Q_B / each.tried_Q_B for each in votes]
    means_R_N = resampled_means(np.concatenate(right, axis=1), num_resamples=2_000, seed=0)
    alike_R_V, *weighted = np.split(means_R_N, len(votes), axis=1)
    lines = [
        f"# Do weights help a vote? {profile.provenance.model}",
        "",
        f"- {profile.num_queries:,} questions with {most} samples; 95% paired bootstrap intervals over questions",
        "",
        "| option | one vote each | by the answer's log-probability | by the thought's |",
        "| --- | ---: | ---: | ---: |",
    ]
    for column in np.argsort(menu.samples_B, kind="stable"):
        gains = [_points(estimate(each[:, column] - alike_R_V[:, column])) for each in weighted]
        cells = [menu.labels[column], f"{100 * alike_R_V[0, column]:.1f}%", *gains]
        lines.append(f"| {' | '.join(cells)} |")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.md").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    """Replays the rules on one kind of data, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("profile", "weights", "simulated", "epoch", "thoughts"))
    parser.add_argument("data", nargs="*", help="one profile or two, TRAIN and TEST; or one Parquet file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="profile", help="of the folder, for profiles")
    parser.add_argument("--grader", default="number", help="says which answers of a profile are the same")
    parser.add_argument("--levels", help="spent tokens per question, with commas between them")
    options = parser.parse_args()
    levels = [float(each) for each in options.levels.split(",")] if options.levels else None
    if options.kind == "weights":
        write_weights(options.data[0], options.grader, options.out / options.name)
        return
    if options.kind == "simulated":
        cases = [simulated_case()]
    elif options.kind == "profile":
        cases = [profile_case(options.data, options.grader, options.name, levels)]
    elif options.kind == "epoch":
        cases = epoch_cases(Path(options.data[0]))
    else:
        cases = [thoughts_case(Path(options.data[0]))]
    for case in cases:
        case.write(options.out)
        print((options.out / case.name / "votes.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
