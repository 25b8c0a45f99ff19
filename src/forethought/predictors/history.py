"""Earlier samples of the same queries: counts, shrunk to another predictor's curves with an estimated strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np

from ..core.data import FloatArray
from ..core.features import ID, KINDS, MIN_QUERIES, Counts, Features, Float64Array, HeldOut
from ..core.menu import Menu
from ..core.profile import RIGHT, UNREADABLE, UNTRIED, WRONG
from ..core.protocols import Estimator, EstimatorBase
from ..core.records import MOST_SAMPLES
from ..core.registry import available
from ..core.showing import Progress, part, silent
from ..core.votes import chance_right
from ..errors import InvalidSettingsError
from .mean import mean_curve
from .parts.checks import usable
from .parts.draws import PREFIX, Draws
from .parts.making import estimator_class, make_estimator
from .shrinkage import LeftOut, Shrinkage

USUAL_STRENGTH = 2.0  # pseudo-draws where nothing says better
SPREAD = 1.0  # of the logarithm of the strength around the usual one, before anything is seen
STRENGTHS = np.geomspace(1 / 16, 64, 81)  # that are tried: steps of 9%
LEAST, MOST = 1 / 16, 64.0
NEVER = 0.01  # a curve of 0 or 1 says that the other never happens: as a prior it is taken for this
BASE = "base."


class HistoryPredictor(EstimatorBase):
    """A query's own counts under each option, combined with pseudo-samples of another predictor's curve.

    Success is beta-binomial: a chance is beta-distributed around the base predictor's curve, with a strength that is
    worth so many draws; its mean given the counts is (strength * base + right) / (strength + tried). The strength is
    the one under which the training counts are most likely around what the base said of them when it had not seen them
    (empirical Bayes; Griffiths, "Maximum likelihood estimation for the beta-binomial distribution", 1973). Tokens are
    drawn to the base's curve in the same way, by the moments: the variance within a query over that between queries. A
    query never seen gets the base's curve, shrunk as far as left-out queries ask for; its history takes it from there.

    Only single samples are counted. What a vote of several would have answered follows from how often a query got each
    answer, on whatever night (`core.votes.chance_right`, one vote each). T answers count as T // k votes of k samples.

    Args:
        base: registered name of the predictor whose curves are a query's before its first draw.
        base_options: what that takes.
        half_life: feedings after which an earlier draw counts half; None: all draws count alike.
        num_folds: folds for the base's left-out curves.
        seed: of a base that draws at random.
        checkpoint: folder for the state of the base's training; "" for none.

    Attributes:
        draws_: the counts, by query.
        strength_: pseudo-draws that the base's accuracy is worth.
        token_strength_: the same for expected usage; None when fitted without tokens.
        shrinkage_: how far the base's curves are shrunk to the mean curve; None for a base that reads nothing.
        held_out_: the base's curves of each row by a fit that did not see it, shrunk; None after loading.
    """

    takes: ClassVar[tuple[str, ...]] = ("seed", "progress", "checkpoint")
    is_shrunk = True
    draws_: Draws
    strength_: float
    token_strength_: float | None
    shrinkage_: Shrinkage | None

    _base: Estimator
    _mean_p_B: FloatArray
    _mean_tokens_B: FloatArray | None
    _is_ordered: bool
    _votes: tuple[tuple[int, int, int], ...]

    def __init__(
        self,
        *,
        base: str = "mean",
        base_options: Mapping[str, Any] | None = None,
        half_life: float | None = None,
        num_folds: int = 5,
        seed: int = 0,
        progress: Progress = silent,
        checkpoint: str = "",
    ) -> None:
        self._progress = progress
        known = sorted(set(available("predictors")) - {"history"})
        if base not in known:
            raise InvalidSettingsError(f"history option base must be one of {', '.join(known)}; got {base!r}")
        if half_life is not None and not half_life > 0:
            raise InvalidSettingsError(f"history option half_life must be above 0 updates; got {half_life}")
        if num_folds < 2:
            raise InvalidSettingsError(f"history option num_folds must be at least 2; got {num_folds}")
        self.base, self.base_options, self.half_life = base, dict(base_options or {}), half_life
        self.num_folds, self.seed, self._checkpoint = num_folds, seed, checkpoint
        unfitted = self._make()
        self.reads = tuple(kind for kind in KINDS if kind in unfitted.reads or kind == ID)
        self.num_examples, self.is_costly = unfitted.num_examples, unfitted.is_costly

    def _make(self, progress: Progress = silent) -> Estimator:
        how: dict[str, Any] = {"seed": self.seed, "progress": progress, "checkpoint": self._checkpoint}
        return make_estimator(self.base, self.base_options, **how)

    @property
    def keep(self) -> float:
        """What an earlier draw counts after another feeding."""
        return 1.0 if self.half_life is None else float(0.5 ** (1.0 / self.half_life))

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`; the base learns from queries tried under every option, the counts are everyone's."""
        features.check(self.reads)
        rows, known, complete = usable(features, counts)
        self._mean_p_B, self._mean_tokens_B = mean_curve(complete)
        self._is_ordered, self._votes = not counts.menu.is_named, votes_of(counts.menu)
        self._base = self._make(self._progress).fit(known, complete)
        left = LeftOut.of(complete, self._left_out(known, complete))
        reads_nothing = not self._base.reads
        self.shrinkage_ = None if reads_nothing else Shrinkage.fit(left)
        p_N_B, tokens_N_B = left.p_N_B, left.tokens_N_B
        if self.shrinkage_ is not None:
            p_N_B, tokens_N_B = self.shrinkage_.apply(
                p_N_B, tokens_N_B, left.mean_p_N_B, left.mean_tokens_N_B, any_order=not self._is_ordered
            )
        held = left.rows
        self.held_out_ = HeldOut(rows[held], left.fold_N, p_N_B, tokens_N_B)
        self.strength_ = learn_strength(p_N_B, complete.select(held))
        self.token_strength_ = None
        if self._mean_tokens_B is not None:
            own = np.broadcast_to(self._mean_tokens_B, p_N_B.shape) if tokens_N_B is None else tokens_N_B
            self.token_strength_ = learn_token_strength(own, complete.select(held))
        self.draws_ = Draws.of_counts(features.known_ids, counts)
        return self

    def _left_out(self, features: Features, counts: Counts) -> HeldOut:
        """The base's curves of rows by fits that had not seen them; of two or three rows, its own."""
        if (held_out := self._base.held_out_) is not None and len(held_out.rows) >= MIN_QUERIES:
            return held_out
        fold_Q = np.arange(len(counts)) % min(self.num_folds, max(2, len(counts) // MIN_QUERIES))
        p_Q_B, tokens_Q_B = (np.empty(counts.num_right_Q_B.shape) for _ in range(2))
        has_tokens = True
        num_folds = int(fold_Q.max()) + 1
        for fold in range(num_folds):
            held, kept = np.flatnonzero(fold_Q == fold), np.flatnonzero(fold_Q != fold)
            within, fitted = part(self._progress, "fold", fold, num_folds), self._base
            if len(kept) >= MIN_QUERIES:
                fitted = self._make(within).fit(features.select(kept), counts.select(kept))
            p_Q_B[held], tokens_H_B = fitted.predict(features.select(held))
            has_tokens = has_tokens and tokens_H_B is not None
            if tokens_H_B is not None:
                tokens_Q_B[held] = tokens_H_B
        return HeldOut(np.arange(len(counts)), fold_Q, p_Q_B, tokens_Q_B if has_tokens else None)

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; reads the ids, and what the base reads."""
        p_Q_B, tokens_Q_B = self._base.predict(features)
        p_Q_B = np.array(p_Q_B, dtype=np.float64)
        if tokens_Q_B is None and self._mean_tokens_B is not None:
            tokens_Q_B = np.tile(self._mean_tokens_B, (len(features), 1))
        tokens_Q_B = None if tokens_Q_B is None else np.array(tokens_Q_B, dtype=np.float64)
        if self.shrinkage_ is not None:
            p_Q_B, tokens_Q_B = self.shrinkage_.apply(
                p_Q_B, tokens_Q_B, self._mean_p_B, self._mean_tokens_B, any_order=not self._is_ordered
            )
        row_of = self.draws_.row_of
        pairs = [(place, row_of[each]) for place, each in enumerate(features.known_ids) if each in row_of]
        if pairs:
            places, rows = (list(each) for each in zip(*pairs, strict=True))
            own = self.draws_
            p_Q_B[places] = posterior(p_Q_B[places], self.strength_, *self._known(rows))
            if tokens_Q_B is not None and self.token_strength_ is not None:
                held = (own.tokens_N_B[rows], own.counted_N_B[rows])
                tokens_Q_B[places] = posterior(tokens_Q_B[places], self.token_strength_, *held)
                for column, single, samples in self._votes:
                    tokens_Q_B[places, column] = samples * tokens_Q_B[places, single]
                if self._is_ordered:
                    tokens_Q_B = np.maximum.accumulate(tokens_Q_B, axis=1)
        return p_Q_B, tokens_Q_B

    def _known(self, rows: Sequence[int]) -> tuple[Float64Array, Float64Array]:
        """How many draws of some rows were right, and how many there are, votes among them, shape (N, B) each."""
        own = self.draws_
        right_N_B, tried_N_B = own.right_N_B[rows], own.tried_N_B[rows]
        answers_of: dict[int, list[int]] = {}
        for place, (row, _) in enumerate(own.answers if self._votes else ()):
            answers_of.setdefault(row, []).append(place)
        for number, row in enumerate(rows):
            held = np.array(answers_of.get(row, []), dtype=np.int64)
            for column, single, samples in self._votes:
                count_A = np.rint(own.answered_M_B[held, single]).astype(np.int64)
                grade_A, num_votes = own.grade_M[held], int(count_A.sum()) // samples
                if not num_votes or (grade_A == UNTRIED).any():
                    continue
                num_right, num_abstained = (int(count_A[grade_A == grade].sum()) for grade in (RIGHT, UNREADABLE))
                chance = chance_right(num_right, count_A[grade_A == WRONG].tolist(), num_abstained, samples)
                right_N_B[number, column], tried_N_B[number, column] = num_votes * chance, num_votes
        return right_N_B, tried_N_B

    def with_draws(self, draws: Draws) -> Self:
        """The same with other counts; what was learnt of the base and the strengths stays."""
        settings, arrays = self.state()
        kept = {name: array for name, array in arrays.items() if not name.startswith(PREFIX)}
        own, counted = draws.state()
        return type(self).from_state({**settings, "draws": own}, {**kept, **counted})

    def model_pass(self, features: Features) -> tuple[int, float] | None:
        """Of its base."""
        return self._base.model_pass(features)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        own, base_arrays = self._base.state()
        draws, counted = self.draws_.state()
        settings = {
            "base": self.base,
            "base_options": self.base_options,
            "half_life": self.half_life,
            "num_folds": self.num_folds,
            "seed": self.seed,
            "strength": self.strength_,
            "token_strength": self.token_strength_,
            "is_ordered": self._is_ordered,
            "votes": [list(each) for each in self._votes],
            "shrinkage": None if self.shrinkage_ is None else asdict(self.shrinkage_),
            "base_settings": own,
            "draws": draws,
        }
        arrays = {f"{BASE}{name}": array for name, array in base_arrays.items()} | counted
        arrays["history_mean_p"] = self._mean_p_B
        if self._mean_tokens_B is not None:
            arrays["history_mean_tokens"] = self._mean_tokens_B
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls(**{key: settings[key] for key in ("base", "base_options", "half_life", "num_folds", "seed")})
        made.strength_, tokens = _strength(settings["strength"]), settings["token_strength"]
        made.token_strength_ = None if tokens is None else _strength(tokens)
        made._is_ordered = bool(settings["is_ordered"])
        made.shrinkage_ = None if settings["shrinkage"] is None else Shrinkage(**settings["shrinkage"])
        own = {name.removeprefix(BASE): array for name, array in arrays.items() if name.startswith(BASE)}
        made._base = estimator_class(made.base).from_state(settings["base_settings"], own)
        made.draws_ = Draws.from_state(settings["draws"], arrays)
        num_options = made.draws_.tried_N_B.shape[1]
        made._votes = tuple(_vote(each, num_options) for each in settings.get("votes", ()))
        made._mean_p_B, made._mean_tokens_B = arrays["history_mean_p"], arrays.get("history_mean_tokens")
        return made


def votes_of(menu: Menu) -> tuple[tuple[int, int, int], ...]:
    """Column of each vote of several samples, column of the option of a single one, and how many there are."""
    labels = menu.labels
    pairs = [(column, option) for column, option in enumerate(menu.options) if option.samples > 1]
    return tuple(
        (column, labels.index(option.single.label), option.samples)
        for column, option in pairs
        if option.single.label in labels
    )


def _strength(value: Any) -> float:
    if not 0 < (strength := float(value)) < np.inf:
        raise ValueError(f"a strength must be above 0 pseudo-draws, not {strength}")
    return strength


def _vote(value: Any, num_options: int) -> tuple[int, int, int]:
    column, single, samples = map(int, value)
    if not (0 <= column < num_options and 0 <= single < num_options and 1 < samples <= MOST_SAMPLES):
        raise ValueError(f"a vote of {samples} samples in column {column} by column {single} is not on its menu")
    return column, single, samples


def posterior(prior_Q_B: FloatArray, strength: float, sum_Q_B: Float64Array, count_Q_B: Float64Array) -> Float64Array:
    """The mean of `strength` pseudo-samples of the prior and of the samples, shape (Q, B)."""
    mean_Q_B: Float64Array = (strength * prior_Q_B + sum_Q_B) / (strength + count_Q_B)
    return mean_Q_B


def learn_strength(prior_Q_B: FloatArray, counts: Counts) -> float:
    """Pseudo-samples that maximise the likelihood of the counts around `prior_Q_B`, shape (Q, B).

    The logarithm of the strength has a normal prior around that of the usual one, which decides where nothing else
    does: single draws say nothing of it. A query's options weigh as one, by the tokens they stand for, since their
    draws may be cuts of the same trace.
    """
    p_Q_B = np.clip(np.asarray(prior_Q_B, dtype=np.float64), NEVER, 1.0 - NEVER)
    right_Q_B, tried_Q_B = counts.num_right_Q_B.astype(np.float64), counts.tries_Q_B.astype(np.float64)
    share_B = counts.width_B / counts.width_B.sum()

    def likelihood(strength: float) -> float:
        right, wrong = strength * p_Q_B, strength * (1.0 - p_Q_B)
        rises = log_rise(right, right_Q_B) + log_rise(wrong, tried_Q_B - right_Q_B)
        level_Q_B = rises - log_rise(np.full_like(p_Q_B, strength), tried_Q_B)
        distance = float(np.log(strength / USUAL_STRENGTH)) / SPREAD
        return float((level_Q_B @ share_B).sum()) - distance**2 / 2

    return float(max(STRENGTHS, key=likelihood))


def log_rise(start_N: Float64Array, steps_N: Float64Array) -> Float64Array:
    """Log of Gamma(start + steps) / Gamma(start): of start * (start + 1) * … where steps is whole."""
    return log_gamma(start_N + steps_N) - log_gamma(start_N)


def log_gamma(x_N: Float64Array) -> Float64Array:
    """Log Gamma of numbers above 0, to 1e-9: Stirling's series from 8 on (Abramowitz and Stegun, 6.1.41)."""
    product_N = np.ones_like(x_N)
    for step in range(8):
        product_N = product_N * (x_N + step)
    far_N = x_N + 8.0
    series_N = 1 / (12 * far_N) - 1 / (360 * far_N**3) + 1 / (1260 * far_N**5)
    log_N: Float64Array = (far_N - 0.5) * np.log(far_N) - far_N + 0.5 * np.log(2 * np.pi) + series_N - np.log(product_N)
    return log_N


def learn_token_strength(prior_Q_B: FloatArray, counts: Counts) -> float:
    """Pseudo-draws that a base's usage is worth: variance within queries over that between them, in units of the base.

    By moments: the variance of a query's mean is that between queries and a share of that within. The usual strength
    where the variance within is not known (counts without traces, single draws).
    """
    if counts.tokens_Q_B is None or counts.token_variance_Q_B is None:
        return USUAL_STRENGTH
    unit_Q_B = np.maximum(np.asarray(prior_Q_B, dtype=np.float64), 1.0)
    within_Q_B = counts.token_variance_Q_B / unit_Q_B**2
    is_known_Q_B = np.isfinite(within_Q_B)
    if not is_known_Q_B.any():
        return USUAL_STRENGTH
    within = float(within_Q_B[is_known_Q_B].mean())
    square_Q_B = (counts.tokens_Q_B / unit_Q_B - 1.0) ** 2 - within / counts.tries_Q_B
    between = float(square_Q_B[is_known_Q_B].mean())
    return float(np.clip(within / between if between > 0 else MOST, LEAST, MOST))
