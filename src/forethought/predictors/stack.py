"""Several estimators combined: a weighted sum of their curves, with weights fitted on left-out predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import KINDS, MIN_QUERIES, Counts, Features, HeldOut
from ..core.protocols import Estimator, EstimatorBase
from ..core.registry import available
from ..core.showing import Progress, part, silent
from ..errors import InvalidSettingsError
from .parts.checks import usable
from .parts.making import estimator_class, make_estimator
from .parts.shape import CurveShape

MEMBERS = ("ridge", "text")


class StackPredictor(EstimatorBase):
    """A weighted sum of other estimators' curves around the mean curve.

    Stacked regression (Wolpert, 1992; Breiman, "Stacked regressions", 1996): each member is fitted on all folds but
    one and predicts that one, and the weights are those of the least squared error of the sum on these left-out
    predictions, none of them negative. What is summed is each member's difference from the mean training curve, so that
    weights that sum to less than one shrink to the mean. Then every member is fitted on all rows.

    Args:
        members: registered names, as a list or separated by commas.
        options: member -> its own options.
        num_folds: folds for the left-out predictions; rows go to folds in turns, in the order they are given in.
        seed: of members that draw at random.
        checkpoint: folder for the state of members' trainings; "" for none.

    Attributes:
        weights_: member -> its weight, for "p" and, when fitted with them, "tokens".
        held_out_: what the stack says of each row by members that did not see it; None after loading.
    """

    takes = ("seed", "progress", "checkpoint")
    weights_: dict[str, dict[str, float]]

    _members: dict[str, Estimator]
    _mean_p_B: FloatArray
    _mean_tokens_B: FloatArray | None
    _shape: CurveShape

    def __init__(
        self,
        *,
        members: Sequence[str] | str = MEMBERS,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        num_folds: int = 5,
        seed: int = 0,
        progress: Progress = silent,
        checkpoint: str = "",
    ) -> None:
        self._progress = progress
        names = [each.strip() for each in members.split(",")] if isinstance(members, str) else list(members)
        self.member_options = {name: dict(values) for name, values in (options or {}).items()}
        known = set(available("predictors")) - {"stack", "history"}
        wrong = [name for name in (*names, *self.member_options) if name not in known]
        if wrong or len(set(names)) != len(names) or not names:
            raise InvalidSettingsError(
                f"stack option members must be different predictors among {', '.join(sorted(known))}; got "
                f"{', '.join(wrong or names) or 'none'}"
            )
        if num_folds < 2:
            raise InvalidSettingsError(f"stack option num_folds must be at least 2; got {num_folds}")
        self.members, self.num_folds, self.seed, self._checkpoint = names, num_folds, seed, checkpoint
        unfitted = [self._make(name) for name in names]
        self.reads = tuple(kind for kind in KINDS if any(kind in each.reads for each in unfitted))
        self.num_examples = max(each.num_examples for each in unfitted)
        self.is_costly = any(each.is_costly for each in unfitted)

    def _make(self, name: str, progress: Progress = silent) -> Estimator:
        options = self.member_options.get(name)
        return make_estimator(name, options, seed=self.seed, progress=progress, checkpoint=self._checkpoint)

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`; reads what its members read."""
        rows, features, counts = usable(features, counts)
        features.check(self.reads)
        share_Q, tokens_Q_B = counts.weight_Q / counts.weight_Q.sum(), counts.tokens_Q_B
        self._mean_p_B = share_Q @ counts.rate_Q_B
        self._mean_tokens_B = None if tokens_Q_B is None else share_Q @ tokens_Q_B.astype(np.float64)
        fold_Q = np.arange(len(rows)) % min(self.num_folds, max(2, len(rows) // MIN_QUERIES))
        num_fits = len(self.members) * (int(fold_Q.max()) + 2)  # on all folds but one, then on all rows
        left_p_M_Q_B, left_tokens_M_Q_B = self._left_out(features, counts, fold_Q, num_fits)
        share_Q_B = share_Q[:, None] * counts.width_B
        self.weights_ = {"p": self._weights(left_p_M_Q_B, counts.rate_Q_B, self._mean_p_B, share_Q_B)}
        left_tokens_Q_B = None
        if tokens_Q_B is not None and left_tokens_M_Q_B is not None and self._mean_tokens_B is not None:
            self.weights_["tokens"] = self._weights(left_tokens_M_Q_B, tokens_Q_B, self._mean_tokens_B, share_Q_B)
            left_tokens_Q_B = self._sum("tokens", left_tokens_M_Q_B, self._mean_tokens_B)
        self._members = {}
        for place, name in enumerate(self.members, start=num_fits - len(self.members)):
            within = part(self._progress, f"fit {name}", place, num_fits)
            self._members[name] = self._make(name, within).fit(features, counts)
        left_p_Q_B = self._sum("p", left_p_M_Q_B, self._mean_p_B)
        self._shape = CurveShape.fit(counts, left_p_Q_B)
        self.held_out_ = HeldOut(rows, fold_Q, self._shape.accuracy(left_p_Q_B), self._shape.usage(left_tokens_Q_B))
        return self

    def _weights(
        self, left_M_Q_B: FloatArray, target_Q_B: FloatArray, mean_B: FloatArray, share_Q_B: FloatArray
    ) -> dict[str, float]:
        weight_M = non_negative_weights(left_M_Q_B - mean_B, target_Q_B - mean_B, share_Q_B)
        return dict(zip(self.members, weight_M.tolist(), strict=True))

    def _left_out(
        self, features: Features, counts: Counts, fold_Q: IntArray, num_fits: int
    ) -> tuple[FloatArray, FloatArray | None]:
        """Every member's predictions of every row by a fit that did not see it, shape (M, Q, B) each."""
        shape = (len(self.members), len(counts), 1)
        p_M_Q_B = np.tile(self._mean_p_B, shape)
        tokens_M_Q_B = None if self._mean_tokens_B is None else np.tile(self._mean_tokens_B, shape)
        for fold in range(int(fold_Q.max()) + 1):
            held, kept = np.flatnonzero(fold_Q == fold), np.flatnonzero(fold_Q != fold)
            if len(kept) < MIN_QUERIES:
                continue  # two or three rows: the mean curve stands for what cannot be left out
            for place, name in enumerate(self.members):
                within = part(self._progress, f"fit {name}", fold * len(self.members) + place, num_fits)
                fitted = self._make(name, within).fit(features.select(kept), counts.select(kept))
                p_M_Q_B[place, held], tokens_H_B = fitted.predict(features.select(held))
                if tokens_M_Q_B is not None and tokens_H_B is not None:
                    tokens_M_Q_B[place, held] = tokens_H_B
        return p_M_Q_B, tokens_M_Q_B

    def _sum(self, what: str, level_M_Q_B: FloatArray, mean_B: FloatArray) -> FloatArray:
        """The weighted sum of the members' differences from the mean curve, and the mean curve."""
        weight_M = np.array([self.weights_[what][name] for name in self.members])
        summed_Q_B: FloatArray = mean_B + np.tensordot(weight_M, level_M_Q_B - mean_B, axes=1)
        return summed_Q_B

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`."""
        predicted = [self._members[name].predict(features) for name in self.members]
        p_Q_B = self._shape.accuracy(self._sum("p", np.stack([p for p, _ in predicted]), self._mean_p_B))
        if self._mean_tokens_B is None:
            return p_Q_B, None
        mean_Q_B = np.tile(self._mean_tokens_B, (len(features), 1))
        levels = np.stack([mean_Q_B if tokens is None else tokens for _, tokens in predicted])
        return p_Q_B, self._shape.usage(self._sum("tokens", levels, self._mean_tokens_B))

    def model_pass(self, features: Features) -> tuple[int, float] | None:
        """Of the first member that runs a language model itself."""
        passes = (each.model_pass(features) for each in self._members.values())
        return next((each for each in passes if each is not None), None)

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
        arrays = {"stack_mean_p": self._mean_p_B, **self._shape.arrays()}
        if self._mean_tokens_B is not None:
            arrays["stack_mean_tokens"] = self._mean_tokens_B
        for name, member in self._members.items():
            settings["member_settings"][name], own = member.state()
            arrays |= {f"{name}.{key}": array for key, array in own.items()}
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls(**{key: settings[key] for key in ("members", "options", "num_folds", "seed")})
        made.weights_ = settings["weights"]
        made._mean_p_B, made._mean_tokens_B = arrays["stack_mean_p"], arrays.get("stack_mean_tokens")
        made._shape = CurveShape.from_arrays(arrays)
        made._members = {}
        for name in made.members:
            own = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
            made._members[name] = estimator_class(name).from_state(settings["member_settings"][name], own)
        return made


def non_negative_weights(level_M_Q_B: FloatArray, target_Q_B: FloatArray, share_Q_B: FloatArray) -> FloatArray:
    """Weights of at least 0 under which the sum of `level_M_Q_B` is nearest to the target in least squares, shape (M,).

    Exact: the best of the unconstrained solutions over all subsets of members that has no negative weight (a handful of
    members makes a few dozen subsets). `share_Q_B` weighs the errors.
    """
    num_members = len(level_M_Q_B)
    root_Q_B = np.sqrt(share_Q_B)
    flat_M_N = (level_M_Q_B * root_Q_B).reshape(num_members, -1)
    flat_N = (target_Q_B * root_Q_B).ravel()
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
