"""Several predictors together: their curves in a weighted sum whose weights are learned on left-out predictions."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import KINDS, Features, reads_of
from ..core.protocols import Estimator
from ..core.registry import available, resolve
from ..errors import InvalidSettingsError
from .inputs import MIN_QUERIES, check_counts
from .spend import SpendShape
from .success import SuccessShape

MEMBERS = ("ridge", "text")


class StackPredictor:
    """A weighted sum of other predictors' curves around the mean curve.

    Stacked regression (Wolpert, 1992; Breiman, "Stacked regressions", 1996): each member is fitted on all folds but
    one and predicts that one, and the weights are those of the least squared error of the sum on these left-out
    predictions, none of them negative. What is summed is each member's difference from the mean training curve, so that
    weights that sum to less than one draw the predictions to the mean. Then every member is fitted on all rows.
    `SuccessShape` takes out of the sum what no training query shows.

    Args:
        members: registered names, as a list or separated by commas.
        options: member -> its own options.
        num_folds: folds for the left-out predictions; rows go to folds in turns, in the order they are given in.
        seed: of members that draw at random.
        checkpoint: folder for the state of members' trainings; "" for none.

    Attributes:
        weights_: member -> its weight, for "p" and, when fitted with them, "tokens".
        held_rows_: rows fitted on; None after loading.
        held_fold_Q_: fold of each; None after loading.
        held_p_Q_B_, held_tokens_Q_B_: what the stack says of them by members that did not see them; None after loading.
    """

    reads: tuple[str, ...]
    weights_: dict[str, dict[str, float]]
    held_rows_: IntArray | None
    held_fold_Q_: IntArray | None
    held_p_Q_B_: FloatArray | None
    held_tokens_Q_B_: FloatArray | None

    _members: dict[str, Estimator]
    _mean_p_B: FloatArray
    _mean_tokens_B: FloatArray | None
    _success: SuccessShape
    _spend: SpendShape | None

    def __init__(
        self,
        *,
        members: Sequence[str] | str = MEMBERS,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        num_folds: int = 5,
        seed: int = 0,
        checkpoint: str = "",
    ) -> None:
        names = [each.strip() for each in members.split(",")] if isinstance(members, str) else list(members)
        self.member_options = {name: dict(values) for name, values in (options or {}).items()}
        known = set(available("predictors")) - {"stack"}
        wrong = [name for name in (*names, *self.member_options) if name not in known]
        if wrong or len(set(names)) != len(names) or not names:
            raise InvalidSettingsError(
                f"stack option members must be different predictors among {', '.join(sorted(known))}; got "
                f"{', '.join(wrong or names) or 'none'}"
            )
        if num_folds < 2:
            raise InvalidSettingsError(f"stack option num_folds must be at least 2; got {num_folds}")
        self.members, self.num_folds, self.seed, self._checkpoint = names, num_folds, seed, checkpoint
        kinds = {kind for name in names for kind in reads_of(self._new(name))}
        self.reads = tuple(kind for kind in KINDS if kind in kinds)

    @property
    def num_examples(self) -> int:
        """Worked examples a level, when a member asks the model."""
        return max(int(getattr(self._new(name), "num_examples", 0)) for name in self.members)

    @property
    def is_costly(self) -> bool:
        """Whether a member is: then nothing is predicted merely to check a loaded folder."""
        return any(bool(getattr(self._new(name), "is_costly", False)) for name in self.members)

    def _new(self, name: str) -> Estimator:
        kind = resolve("predictors", name)
        options = dict(self.member_options.get(name, {}))
        taken = () if kind.__init__ is object.__init__ else inspect.signature(kind).parameters
        for option, value in {"seed": self.seed, "checkpoint": self._checkpoint}.items():
            if option in taken:
                options.setdefault(option, value)
        made: Estimator = kind(**options)
        return made

    def fit(
        self,
        features: Features | FloatArray,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """See `Estimator.fit`; reads what its members read."""
        rows = check_counts(num_right_Q_B, num_tried_Q, tokens_Q_B)
        read = Features.of(features).select(rows)
        tried_Q = num_tried_Q[rows].astype(np.float64)
        share_Q = tried_Q / tried_Q.sum()
        rate_Q_B = num_right_Q_B[rows] / tried_Q[:, None]
        tokens = None if tokens_Q_B is None else tokens_Q_B[rows].astype(np.float64)
        self._mean_p_B = share_Q @ rate_Q_B
        self._mean_tokens_B = None if tokens is None else share_Q @ tokens
        fold_Q = np.arange(len(rows)) % min(self.num_folds, max(2, len(rows) // MIN_QUERIES))
        counts = (num_right_Q_B[rows], num_tried_Q[rows])
        left_p_M_Q_B, left_tokens_M_Q_B = self._left_out(read, *counts, tokens, fold_Q)
        weight_M = non_negative_weights(left_p_M_Q_B - self._mean_p_B, rate_Q_B - self._mean_p_B, share_Q)
        self.weights_ = {"p": dict(zip(self.members, weight_M.tolist(), strict=True))}
        self._spend = self.held_tokens_Q_B_ = None
        if tokens is not None and left_tokens_M_Q_B is not None and self._mean_tokens_B is not None:
            centred = left_tokens_M_Q_B - self._mean_tokens_B
            weight_M = non_negative_weights(centred, tokens - self._mean_tokens_B, share_Q)
            self.weights_["tokens"] = dict(zip(self.members, weight_M.tolist(), strict=True))
            self._spend = SpendShape.fit(tokens)
            self.held_tokens_Q_B_ = self._spend.apply(self._sum("tokens", left_tokens_M_Q_B, self._mean_tokens_B))
        self._members = {name: _fit(self._new(name), read, *counts, tokens) for name in self.members}
        summed_Q_B = self._sum("p", left_p_M_Q_B, self._mean_p_B)
        self._success = SuccessShape.fit(rate_Q_B, tried_Q, summed_Q_B)
        self.held_rows_, self.held_fold_Q_, self.held_p_Q_B_ = rows, fold_Q, self._success.apply(summed_Q_B)
        return self

    def _left_out(
        self,
        read: Features,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None,
        fold_Q: IntArray,
    ) -> tuple[FloatArray, FloatArray | None]:
        """Every member's predictions of every row by a fit that did not see it, shape (M, Q, B) each."""
        shape = (len(self.members), *num_right_Q_B.shape)
        p_M_Q_B = np.tile(self._mean_p_B, (*shape[:2], 1))
        tokens_M_Q_B = None if self._mean_tokens_B is None else np.tile(self._mean_tokens_B, (*shape[:2], 1))
        for fold in range(int(fold_Q.max()) + 1):
            held, kept = np.flatnonzero(fold_Q == fold), np.flatnonzero(fold_Q != fold)
            if len(kept) < MIN_QUERIES:
                continue  # two or three rows: the mean curve stands for what cannot be left out
            spend = None if tokens_Q_B is None else tokens_Q_B[kept]
            for place, name in enumerate(self.members):
                fitted = _fit(self._new(name), read.select(kept), num_right_Q_B[kept], num_tried_Q[kept], spend)
                p_M_Q_B[place, held], found = _predict(fitted, read.select(held))
                if tokens_M_Q_B is not None and found is not None:
                    tokens_M_Q_B[place, held] = found
        return p_M_Q_B, tokens_M_Q_B

    def _sum(self, what: str, level_M_Q_B: FloatArray, mean_B: FloatArray) -> FloatArray:
        """The weighted sum of the members' differences from the mean curve, and the mean curve."""
        weight_M = np.array([self.weights_[what][name] for name in self.members])
        summed_Q_B: FloatArray = mean_B + np.tensordot(weight_M, level_M_Q_B - mean_B, axes=1)
        return summed_Q_B

    def predict(self, features: Features | FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`."""
        read = Features.of(features)
        found = [_predict(self._members[name], read) for name in self.members]
        p_Q_B = self._success.apply(self._sum("p", np.stack([p for p, _ in found]), self._mean_p_B))
        if self._spend is None or self._mean_tokens_B is None:
            return p_Q_B, None
        levels = [np.tile(self._mean_tokens_B, (len(read), 1)) if tokens is None else tokens for _, tokens in found]
        return p_Q_B, self._spend.apply(self._sum("tokens", np.stack(levels), self._mean_tokens_B))

    def model_pass(self, features: Features) -> tuple[int, float] | None:
        """`(parameters, tokens)` of a language model that a member runs itself; None without one."""
        passes = [each.model_pass(features) for each in self._members.values() if hasattr(each, "model_pass")]
        return passes[0] if passes else None

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        settings: dict[str, Any] = {
            "members": self.members,
            "options": self.member_options,
            "num_folds": self.num_folds,
            "seed": self.seed,
            "weights": self.weights_,
            "member_settings": {},
        }
        arrays = {"stack_mean_p": self._mean_p_B, **self._success.arrays()}
        if self._mean_tokens_B is not None and self._spend is not None:
            arrays["stack_mean_tokens"] = self._mean_tokens_B
            arrays |= {"spend_lowest": self._spend.lowest_B, "spend_highest": self._spend.highest_B}
        for name, member in self._members.items():
            settings["member_settings"][name], own = member.state()
            arrays |= {f"{name}.{key}": array for key, array in own.items()}
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        predictor = cls(
            members=settings["members"],
            options=settings["options"],
            num_folds=int(settings["num_folds"]),
            seed=int(settings["seed"]),
        )
        predictor.weights_ = settings["weights"]
        predictor.held_rows_ = predictor.held_fold_Q_ = None
        predictor.held_p_Q_B_ = predictor.held_tokens_Q_B_ = None
        predictor._mean_p_B, predictor._mean_tokens_B = arrays["stack_mean_p"], arrays.get("stack_mean_tokens")
        predictor._success = SuccessShape.from_arrays(arrays)
        has_spend = "spend_lowest" in arrays
        predictor._spend = SpendShape(arrays["spend_lowest"], arrays["spend_highest"]) if has_spend else None
        predictor._members = {}
        for name in predictor.members:
            own = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
            kind = resolve("predictors", name)
            predictor._members[name] = kind.from_state(settings["member_settings"][name], own)
        return predictor


def non_negative_weights(level_M_Q_B: FloatArray, target_Q_B: FloatArray, share_Q: FloatArray) -> FloatArray:
    """Weights of at least 0 under which the sum of `level_M_Q_B` is nearest to the target in least squares, shape (M,).

    Exact: the best of the unconstrained solutions over all subsets of members that has no negative weight (a handful of
    members makes a few dozen subsets).
    """
    num_members = len(level_M_Q_B)
    flat_M_N = (level_M_Q_B * np.sqrt(share_Q)[:, None]).reshape(num_members, -1)
    flat_N = (target_Q_B * np.sqrt(share_Q)[:, None]).ravel()
    gram_M_M, product_M = flat_M_N @ flat_M_N.T, flat_M_N @ flat_N
    best, best_gain = np.zeros(num_members), 0.0
    for size in range(1, num_members + 1):
        for subset in itertools.combinations(range(num_members), size):
            chosen = list(subset)
            part = gram_M_M[np.ix_(chosen, chosen)]
            weight = np.linalg.lstsq(part, product_M[chosen], rcond=1e-10)[0]
            gain = float(2 * weight @ product_M[chosen] - weight @ part @ weight)
            if (weight >= 0).all() and gain > best_gain + 1e-12 * float(flat_N @ flat_N):
                best, best_gain = np.zeros(num_members), gain
                best[chosen] = weight
    return best


def _fit(
    predictor: Estimator, read: Features, num_right_Q_B: IntArray, num_tried_Q: IntArray, tokens_Q_B: FloatArray | None
) -> Estimator:
    given = read.given_to(predictor)
    return predictor.fit(given, num_right_Q_B, num_tried_Q, tokens_Q_B)  # type: ignore[arg-type]


def _predict(predictor: Estimator, read: Features) -> tuple[FloatArray, FloatArray | None]:
    return predictor.predict(read.given_to(predictor))  # type: ignore[arg-type]
