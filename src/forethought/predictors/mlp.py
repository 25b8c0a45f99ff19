"""A small ensemble of one-hidden-layer networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray
from ..core.features import HIDDEN, MIN_QUERIES, TEXT, Counts, Features, HeldOut, chunks
from ..core.protocols import EstimatorBase
from ..errors import InvalidSettingsError
from .parts.checks import check_features, usable
from .parts.lexical import Lexical
from .parts.linear import LinearMap, RidgeProblem, Standardizer, left_out_of_folds
from .parts.making import Progress, options_signature, silent, too_small
from .parts.network import NAMES, Adam, Weights, forward, gradients
from .parts.shape import CurveShape

STEPS_PER_REPORT = 10
RATE_FLOOR = 1e-3  # keeps the starting bias, a logit of the mean rate, finite
WARMUP_SHARE = 0.05
LEVEL_SPREAD = math.sqrt((256**2 - 1) / 12)  # of 256 even levels
PENALTY_RANGE = (0.1, 4.0)  # in mean eigenvalues; beyond it a network of noise alone, or none
READS = {HIDDEN: (HIDDEN,), TEXT: (TEXT,), f"{HIDDEN}+{TEXT}": (HIDDEN, TEXT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpOptions:
    """Settings of the networks and their training.

    Attributes:
        reads: "hidden", "text" or "hidden+text".
        hidden_width: units of the hidden layer.
        num_members: networks in the ensemble; each leaves out its own share of the rows.
        num_components: principal components of the hidden states that the networks see.
        steps: steps of the optimizer, by a cosine schedule.
        batch_size: rows per step.
        learning_rate, weight_decay: of AdamW.
        dropout: share of hidden units silenced at each step.
        noise: spread of the noise added to every input at each step; the inputs' own mean spread is about 1. None takes
            it from the data: what ridge regression's left-out error asks for.
        seed: the same seed and data give the same ensemble.
    """

    reads: str = f"{HIDDEN}+{TEXT}"
    hidden_width: int = 128
    num_members: int = 8
    num_components: int = 768
    steps: int = 800
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    dropout: float = 0.2
    noise: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"hidden_width": 1, "num_components": 1, "steps": 1, "batch_size": 1, "num_members": 2}
        problems = too_small(self, {**least, "weight_decay": 0.0, "noise": 0.0})
        if self.reads not in READS:
            problems.append(f"reads must be {', '.join(READS)}; got {self.reads!r}")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout must lie in [0, 1); got {self.dropout}")
        if not 0.0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate must be positive; got {self.learning_rate}")
        if problems:
            raise InvalidSettingsError(f"mlp: {'; '.join(problems)}")


class MlpPredictor(EstimatorBase):
    """Accuracy curves from an ensemble of small networks; expected usage is ridge regression's.

    The networks see the principal components of the hidden states, and the question's lexical features beside them.
    Noise on every input is their main regularisation, as ridge regression's penalty is (Bishop, "Training with noise is
    equivalent to Tikhonov regularization", 1995); how much is taken from ridge regression, whose penalty for the
    strongest component of the curves exact leave-one-out picks. Each network minimises the binomial likelihood of the
    counts on its own share of the rows, so many steps long; what it says of the rows it left out is what the shape of
    the curves and the card's calibration are learned on. The probabilities of all are averaged. Weights are rounded to
    float16 at fit, so that a saved ensemble says what the fitted one said.

    Args:
        progress: called with what is being done, steps done and steps in all.
        options: see `MlpOptions`.

    Attributes:
        held_out_: what each row's network said of it, and ridge regression on the same rows of its usage; None after
            loading.
        noise_: spread of the noise that was added.
    """

    __signature__ = options_signature(MlpOptions, progress=silent)
    takes = ("seed", "progress")

    noise_: float
    held_out_: HeldOut | None = None

    _components: _Components
    _lexical: Lexical
    _members: dict[str, FloatArray]
    _shape: CurveShape
    _tokens_map: LinearMap | None

    def __init__(self, *, progress: Progress = silent, **options: Any) -> None:
        self.options, self._progress = MlpOptions(**options), progress
        self.reads = READS[self.options.reads]

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`. Rows without a trace are left aside; hidden states must be finite."""
        rows, features, counts = usable(features, counts)
        weight_Q = counts.weight_Q
        features.check(self.reads)
        prepared = partial(self._progress, "prepare features")
        prepared(0, 4)
        if HIDDEN in self.reads:
            self._components = _Components.fit(features.hidden, weight_Q, self.options.num_components)
        prepared(1, 4)
        if TEXT in self.reads:
            self._lexical = Lexical.fit(features.questions, seed=self.options.seed)
        prepared(2, 4)
        x_Q_N = self._vectors(features)
        rate_Q_B = counts.rate_Q_B.astype(np.float32)
        # An outcome weighs by the traces behind it and the tokens its budget stands for.
        share_Q_B = ((weight_Q / weight_Q.mean())[:, None] * counts.width_B).astype(np.float32)
        problem = RidgeProblem(x_Q_N, weight_Q, is_scaled=True)
        prepared(3, 4)
        self.noise_ = self.options.noise if self.options.noise is not None else _noise(problem, x_Q_N, counts)
        prepared(4, 4)
        num_members = min(self.options.num_members, max(2, len(rows) // MIN_QUERIES))
        fold_Q = np.arange(len(rows)) % num_members
        held_p_Q_B = np.empty(rate_Q_B.shape, dtype=np.float32)
        members: list[Weights] = []
        for member in range(num_members):
            held, kept = fold_Q == member, fold_Q != member
            if not kept.any():
                kept = held
            seed = self.options.seed * 1000 + member
            done = partial(self._report, member, num_members)
            data = (x_Q_N[kept], rate_Q_B[kept], share_Q_B[kept])
            weights = _train(*data, self.options, noise=self.noise_, seed=seed, done=done)
            members.append(weights)
            held_p_Q_B[held] = forward(weights, x_Q_N[held])[1]
        self._shape = CurveShape.fit(counts, held_p_Q_B)
        self._members = {
            name: np.stack([weights[name] for weights in members]).astype(
                np.float32 if name.endswith("bias") else np.float16
            )
            for name in NAMES
        }
        self._tokens_map, held_tokens_Q_B = None, None
        if counts.tokens_Q_B is not None:
            tokens_Q_B = counts.tokens_Q_B.astype(np.float64)
            self._tokens_map = LinearMap.from_solutions(problem, problem.solve(tokens_Q_B, counts.width_B))
            held_tokens_Q_B = left_out_of_folds(x_Q_N, weight_Q, tokens_Q_B, fold_Q, counts.width_B)
        held_p_Q_B = self._shape.accuracy(held_p_Q_B)
        self.held_out_ = HeldOut(rows, fold_Q, held_p_Q_B, self._shape.usage(held_tokens_Q_B))
        return self

    def _report(self, member: int, num_members: int, step: int) -> None:
        """Reports every `STEPS_PER_REPORT` steps, and the last one."""
        step, total = member * self.options.steps + step, num_members * self.options.steps
        if step % STEPS_PER_REPORT == 0 or step == total:
            self._progress("train networks", step, total)

    def _vectors(self, features: Features) -> FloatArray:
        """What the networks see of each query, float32, shape (Q, N)."""
        parts: list[FloatArray] = []
        if HIDDEN in self.reads:
            parts.append(self._components.apply(features.hidden))
        if TEXT in self.reads:
            parts.append(self._lexical.apply(features.questions))
        return np.concatenate(parts, axis=1)

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; raises InvalidFeaturesError on NaN or a wrong width."""
        features.check(self.reads)
        if HIDDEN in self.reads:
            check_features(features.hidden, width=len(self._components.standardizer.centre_D))
        members = {name: array.astype(np.float32) for name, array in self._members.items()}
        num_members, num_options = members["output_bias"].shape
        p_Q_B = np.zeros((len(features), num_options), dtype=np.float32)
        level_Q_B = None if self._tokens_map is None else np.empty_like(p_Q_B)
        for rows in chunks(len(features)):
            x_Q_N = self._vectors(features.select(np.arange(rows.start, rows.stop)))
            for m in range(num_members):
                p_Q_B[rows] += forward({name: array[m] for name, array in members.items()}, x_Q_N)[1]
            if self._tokens_map is not None and level_Q_B is not None:
                level_Q_B[rows] = self._tokens_map.apply(x_Q_N)
        return self._shape.accuracy(p_Q_B / num_members), self._shape.usage(level_Q_B)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = {**self._members, **self._shape.arrays()}
        arrays |= self._components.arrays() if HIDDEN in self.reads else {}
        arrays |= self._lexical.arrays() if TEXT in self.reads else {}
        if self._tokens_map is not None:
            arrays |= self._tokens_map.arrays("tokens_")
        return {"options": asdict(self.options), "noise": self.noise_}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls(**settings["options"])
        made.noise_ = float(settings["noise"])
        if HIDDEN in made.reads:
            made._components = _Components.from_arrays(arrays)
        if TEXT in made.reads:
            made._lexical = Lexical.from_arrays(arrays)
        made._members = {name: arrays[name] for name in NAMES}
        made._shape = CurveShape.from_arrays(arrays)
        made._tokens_map = None if made._shape.lowest_B is None else LinearMap.from_arrays(arrays, "tokens_")
        return made


@dataclass(frozen=True, slots=True, eq=False)
class _Components:
    """Principal components of the hidden states, scaled so that their mean spread is 1.

    Attributes:
        standardizer: of the hidden states.
        basis_D_K: the components, strongest first, float16.
    """

    standardizer: Standardizer
    basis_D_K: FloatArray

    @classmethod
    def fit(cls, hidden_Q_D: FloatArray, weight_Q: FloatArray, num_components: int) -> _Components:
        check_features(hidden_Q_D)
        standardizer = Standardizer.fit(hidden_Q_D, weight_Q)
        x_Q_D = standardizer.apply(hidden_Q_D).astype(np.float32)
        eigenvalue_D, vector_D_D = np.linalg.eigh((x_Q_D.T @ x_Q_D / np.float32(len(x_Q_D))).astype(np.float64))
        num_kept = min(num_components, len(x_Q_D), len(eigenvalue_D))
        kept = slice(None, -num_kept - 1, -1)
        # No eigenvalue is above 0 where all states are alike; what is divided by it has to fit float16 all the same.
        spread = np.sqrt(max(float(eigenvalue_D[kept].mean()), 1e-8))
        largest_K = np.abs(vector_D_D[:, kept]).argmax(axis=0)
        signs_K = np.sign(vector_D_D[:, kept][largest_K, np.arange(num_kept)])  # the same on every machine
        return cls(standardizer, (vector_D_D[:, kept] * signs_K / spread).astype(np.float16))

    def apply(self, hidden_Q_D: FloatArray) -> FloatArray:
        x_Q_D = self.standardizer.apply(hidden_Q_D).astype(np.float32)
        return x_Q_D @ self.basis_D_K.astype(np.float32)

    def arrays(self) -> dict[str, FloatArray]:
        found = {"feature_centre": self.standardizer.centre_D, "feature_scale": self.standardizer.scale_D}
        return {**found, "feature_basis": self.basis_D_K}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> _Components:
        return cls(Standardizer(arrays["feature_centre"], arrays["feature_scale"]), arrays["feature_basis"])


def _train(
    x_Q_N: FloatArray,
    rate_Q_B: FloatArray,
    share_Q_B: FloatArray,
    options: MlpOptions,
    *,
    noise: float,
    seed: int,
    done: Callable[[int], None],
) -> Weights:
    """One network, trained for `options.steps` steps; `done` is called with their number so far."""
    random = np.random.default_rng(seed)
    weights = _initial_weights(rate_Q_B, share_Q_B, x_Q_N.shape[1], options, random)
    adam = Adam(weights, weight_decay=options.weight_decay)
    batch_size = min(options.batch_size, len(x_Q_N))
    noisy_Q_N = np.empty((batch_size, x_Q_N.shape[1]), dtype=np.float32)
    waiting = np.empty(0, dtype=np.int64)
    for step in range(options.steps):
        if len(waiting) < batch_size:
            waiting = np.concatenate([waiting, random.permutation(len(x_Q_N))])
        batch, waiting = waiting[:batch_size], waiting[batch_size:]
        is_kept_Q_H = random.random((batch_size, options.hidden_width), dtype=np.float32) >= options.dropout
        keep_Q_H = is_kept_Q_H * np.float32(1.0 / (1.0 - options.dropout))
        # Even noise of 256 levels: a hidden unit sums hundreds of inputs, and drawing normal noise took half the time.
        level_Q_N = random.integers(-128, 128, size=noisy_Q_N.shape, dtype=np.int8)
        np.add(level_Q_N, np.float32(0.5), out=noisy_Q_N)
        noisy_Q_N *= np.float32(noise / LEVEL_SPREAD)
        noisy_Q_N += x_Q_N[batch]
        hidden_Q_H, p_Q_B = forward(weights, noisy_Q_N, keep_Q_H)
        # Of the binomial negative log likelihood of the counts, a trace and budget.
        by_logit_Q_B = (p_Q_B - rate_Q_B[batch]) * share_Q_B[batch] / np.float32(p_Q_B.size)
        moved = gradients(weights, noisy_Q_N, hidden_Q_H, by_logit_Q_B, keep_Q_H)
        adam.step(moved, options.learning_rate * _rate(step, options.steps))
        done(step + 1)
    return weights


def _noise(problem: RidgeProblem, x_Q_N: FloatArray, counts: Counts) -> float:
    """Spread of the noise that amounts to ridge regression's penalty for the strongest component of the curves.

    Noise of variance v on Q rows adds Q v to every eigenvalue, as a penalty of that size does.
    """
    penalty = float(problem.solve(counts.rate_Q_B, counts.width_B).penalty_N[0])
    return float(np.sqrt(np.clip(penalty, *PENALTY_RANGE) * float(x_Q_N.var(axis=0).mean())))


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a short linear warm-up, then half a cosine down to nothing."""
    warmup = min(1.0, (step + 1) / (WARMUP_SHARE * steps + 1))
    return float(warmup * 0.5 * (1.0 + np.cos(np.pi * step / steps)))


def _initial_weights(
    rate_Q_B: FloatArray, share_Q_B: FloatArray, width: int, options: MlpOptions, random: np.random.Generator
) -> Weights:
    """He initialisation, and output weights near zero around the mean curve: an untrained network is the blind one."""
    mean_B = np.clip(np.average(rate_Q_B, axis=0, weights=share_Q_B[:, 0]), RATE_FLOOR, 1.0 - RATE_FLOOR)
    hidden = random.standard_normal((width, options.hidden_width)) * np.sqrt(2.0 / width)
    output = random.standard_normal((options.hidden_width, len(mean_B))) * 0.1 / np.sqrt(options.hidden_width)
    arrays = (hidden, np.zeros(options.hidden_width), output, np.log(mean_B / (1.0 - mean_B)))
    return {name: array.astype(np.float32) for name, array in zip(NAMES, arrays, strict=True)}
