"""Linear maps in closed form: ridge regression whose penalty is chosen by exact leave-one-out.

One eigendecomposition of the features is used for every penalty, every target and every left-out row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...core.data import FloatArray, IntArray
from ...core.features import Counts, chunks
from .shape import CurveShape

Float64Array = NDArray[np.float64]

# Penalties tried, in units of the mean eigenvalue, strongest first so that a tie goes to the simpler map.
# Infinity leaves a component at its mean. The menu is wide on purpose: the best values seen lie at 0.3 to 1000.
PENALTIES = (np.inf, *(10.0**power for power in np.arange(4.0, -3.5, -0.5)))

# A feature that hardly varies (as float16 rounding makes them) must not be blown up to unit spread.
SPREAD_FLOOR = 1e-3  # of the median spread


@dataclass(frozen=True, slots=True, eq=False)
class Standardizer:
    """Shift and scale that give each feature mean 0 and spread 1; both float32, shape (D,)."""

    centre_D: FloatArray
    scale_D: FloatArray

    @classmethod
    def fit(cls, features_Q_D: FloatArray, weight_Q: FloatArray) -> Self:
        """Weighted mean and standard deviation; a constant feature gets scale infinity, which silences it."""
        x_Q_D = features_Q_D.astype(np.float64)  # a copy, worked on in place: memory costs more than arithmetic here
        share_Q = weight_Q / weight_Q.sum()
        centre_D = share_Q @ x_Q_D
        x_Q_D -= centre_D
        spread_D = np.sqrt(share_Q @ np.square(x_Q_D, out=x_Q_D))
        return cls(centre_D.astype(np.float32), scale_of(centre_D, spread_D).astype(np.float32))

    def apply(self, features_Q_D: FloatArray) -> Float64Array:
        """Standardised features in float64, shape (Q, D)."""
        x_Q_D = features_Q_D.astype(np.float64)
        x_Q_D -= self.centre_D
        x_Q_D /= self.scale_D
        return x_Q_D


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A solved ridge problem for N targets.

    Attributes:
        weights_D_N: on standardised features.
        intercept_N: the targets' weighted means.
        penalty_N: chosen for each principal component of the targets, in mean eigenvalues; infinity: left at the mean.
        left_out_Q_N: what the same map says of each row when that row is left out.
    """

    weights_D_N: Float64Array
    intercept_N: Float64Array
    penalty_N: Float64Array
    left_out_Q_N: Float64Array


class RidgeProblem:
    """Ridge regression on fixed features, ready to be solved for any targets.

    Minimises `sum_q w_q |y_q - c - x_q W|^2 + penalty |W|^2` over standardised features x with the intercept c free.

    The targets of one query (accuracy at each budget) move together, and each budget's counts are noisy. So they are
    turned into their principal components first and each component gets its own penalty, chosen by leave-one-out: the
    strong ones are kept, the noise is shrunk to the mean (the shrinkage of Breiman and Friedman, "Predicting
    multivariate responses in multiple linear regression", 1997). The components are orthogonal, so choosing each
    penalty on its own minimises the total left-out squared error; the value of a plan is linear in what it sums.

    Args:
        features_Q_D: finite features, shape (Q, D).
        weight_Q: positive weights, shape (Q,): traces tried.
        is_scaled: the features' spreads mean something: they are centred, and left as large as they are.
    """

    def __init__(self, features_Q_D: FloatArray, weight_Q: FloatArray, *, is_scaled: bool = False) -> None:
        self._weight_Q = weight_Q / weight_Q.mean()
        self._root_Q = np.sqrt(self._weight_Q)
        self.standardizer = Standardizer.fit(features_Q_D, self._weight_Q)
        if is_scaled:
            ones_D = np.ones_like(self.standardizer.scale_D)
            self.standardizer = Standardizer(self.standardizer.centre_D, ones_D)
        self._x_Q_D = self.standardizer.apply(features_Q_D)
        # Exact centring: the scaled features are then orthogonal to the intercept, which leverages rely on.
        self._x_Q_D -= (self._weight_Q @ self._x_Q_D) / self._weight_Q.sum()
        self._x_Q_D *= self._root_Q[:, None]
        self._u_Q_R, self._eigenvalue_R = left_singular(self._x_Q_D)
        self._mean_eigenvalue = float(self._eigenvalue_R.mean()) if len(self._eigenvalue_R) else 1.0

    def solve(self, target_Q_N: FloatArray, width_N: FloatArray) -> Solution:
        """The best map to `target_Q_N`, with its left-out predictions; errors of a target weigh by `width_N`."""
        intercept_N = self._weight_Q @ target_Q_N / self._weight_Q.sum()
        width_N = np.sqrt(width_N)
        scaled_Q_N = (target_Q_N - intercept_N) * self._root_Q[:, None] * width_N
        basis_N_N = np.linalg.eigh(scaled_Q_N.T @ scaled_Q_N)[1]
        component_Q_N = scaled_Q_N @ basis_N_N
        projected_R_N = self._u_Q_R.T @ component_Q_N

        penalty_P, eigenvalue_R_1 = np.array(PENALTIES), self._eigenvalue_R[:, None]
        shrink_R_P = eigenvalue_R_1 / (eigenvalue_R_1 + self._mean_eigenvalue * penalty_P)
        leverage_Q_P = (self._weight_Q / self._weight_Q.sum())[:, None] + self._u_Q_R**2 @ shrink_R_P
        left_Q_P = np.maximum(1.0 - leverage_Q_P, 1e-9)
        chosen_N = self._left_out_errors(component_Q_N, projected_R_N, shrink_R_P, left_Q_P).argmin(axis=0)
        penalty_N = penalty_P[chosen_N]

        # Residuals when each row is left out: (y - fitted) / (1 - leverage), exact for ridge.
        fitted_Q_N = self._u_Q_R @ (shrink_R_P[:, chosen_N] * projected_R_N)
        residual_Q_N = (component_Q_N - fitted_Q_N) / left_Q_P[:, chosen_N]
        dual_R_N = projected_R_N / (eigenvalue_R_1 + self._mean_eigenvalue * penalty_N)
        return Solution(
            weights_D_N=self._x_Q_D.T @ (self._u_Q_R @ dual_R_N) @ basis_N_N.T / width_N,
            intercept_N=intercept_N,
            penalty_N=penalty_N[::-1],  # strongest component first
            left_out_Q_N=target_Q_N - residual_Q_N @ basis_N_N.T / self._root_Q[:, None] / width_N,
        )

    def _left_out_errors(
        self, component_Q_N: Float64Array, projected_R_N: Float64Array, shrink_R_P: Float64Array, left_Q_P: Float64Array
    ) -> Float64Array:
        """Sum of the squared left-out residuals under every penalty, shape (P, N).

        All penalties in one product a chunk of rows: many columns at once run several times faster than one by one.
        """
        num_penalties, num_targets = left_Q_P.shape[1], component_Q_N.shape[1]
        dual_R_PN = (shrink_R_P[:, :, None] * projected_R_N[:, None, :]).reshape(-1, num_penalties * num_targets)
        error_P_N = np.zeros((num_penalties, num_targets))
        for rows in chunks(len(component_Q_N)):
            residual_C_P_N = (self._u_Q_R[rows] @ dual_R_PN).reshape(-1, num_penalties, num_targets)
            np.subtract(component_Q_N[rows, None, :], residual_C_P_N, out=residual_C_P_N)
            residual_C_P_N /= left_Q_P[rows, :, None]
            error_P_N += np.square(residual_C_P_N, out=residual_C_P_N).sum(axis=0)
        return error_P_N


def scale_of(centre_D: FloatArray, spread_D: FloatArray) -> Float64Array:
    """What features are divided by: their spreads, at least a part of the median; infinity for a constant one."""
    is_varying_D = spread_D > 1e-12 * (np.abs(centre_D) + 1e-12)
    floor = SPREAD_FLOOR * float(np.median(spread_D[is_varying_D])) if is_varying_D.any() else 0.0
    return np.where(is_varying_D, np.maximum(spread_D, floor), np.inf)


def left_singular(x_Q_D: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Left singular vectors and squared singular values, ascending, from whichever Gram matrix is the smaller."""
    is_wide = x_Q_D.shape[0] <= x_Q_D.shape[1]
    eigenvalue_R, vector_N_R = np.linalg.eigh(x_Q_D @ x_Q_D.T if is_wide else x_Q_D.T @ x_Q_D)
    keep_R = eigenvalue_R > 1e-10 * max(float(eigenvalue_R[-1]), 1e-300)
    eigenvalue_R, vector_N_R = eigenvalue_R[keep_R], vector_N_R[:, keep_R]
    return vector_N_R if is_wide else x_Q_D @ vector_N_R / np.sqrt(eigenvalue_R), eigenvalue_R


class LinearMap:
    """Features to N numbers by one float32 product, with weights kept as float16.

    The weights are rounded here, before first use, so that a saved map says exactly what the fitted one said.

    Args:
        standardizer: shift and scale of the features.
        weights_D_N: on standardised features.
        intercept_N: the answer for mean features.

    Attributes:
        product_D_N, offset_N: what features as they are get multiplied with, and what is added, float32.
    """

    def __init__(self, standardizer: Standardizer, weights_D_N: FloatArray, intercept_N: FloatArray) -> None:
        self._standardizer = standardizer
        self._weights_D_N = weights_D_N.astype(np.float16)
        self._intercept_N = intercept_N.astype(np.float32)
        # Folded in float64 from the rounded weights: their rounding then cancels at the centre.
        scaled_D_N = self._weights_D_N.astype(np.float64) / standardizer.scale_D.astype(np.float64)[:, None]
        self.product_D_N = scaled_D_N.astype(np.float32)
        self.offset_N = (self._intercept_N - standardizer.centre_D.astype(np.float64) @ scaled_D_N).astype(np.float32)

    @classmethod
    def from_solutions(cls, problem: RidgeProblem, *solutions: Solution) -> Self:
        """One map whose outputs are those of the solutions, side by side."""
        return cls(
            problem.standardizer,
            np.concatenate([solution.weights_D_N for solution in solutions], axis=1),
            np.concatenate([solution.intercept_N for solution in solutions]),
        )

    @property
    def width(self) -> int:
        """D, the number of features."""
        return len(self.product_D_N)

    def apply(self, features_Q_D: FloatArray) -> NDArray[np.float32]:
        """The map's outputs, float32, shape (Q, N)."""
        output_Q_N = np.empty((len(features_Q_D), len(self.offset_N)), dtype=np.float32)
        for rows in chunks(len(features_Q_D)):
            np.matmul(features_Q_D[rows].astype(np.float32, copy=False), self.product_D_N, out=output_Q_N[rows])
        output_Q_N += self.offset_N
        return output_Q_N

    def arrays(self, prefix: str = "") -> dict[str, FloatArray]:
        """Everything learned, by name."""
        centre, scale = self._standardizer.centre_D, self._standardizer.scale_D
        named = {"centre": centre, "scale": scale, "weights": self._weights_D_N, "intercept": self._intercept_N}
        return {prefix + name: array for name, array in named.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], prefix: str = "") -> Self:
        """The map that `arrays` described."""
        centre, scale, weights, intercept = (
            arrays[prefix + name] for name in ("centre", "scale", "weights", "intercept")
        )
        return cls(Standardizer(centre, scale), weights, intercept)


def left_out_of_folds(
    x_Q_N: FloatArray, weight_Q: FloatArray, target_Q_N: FloatArray, fold_Q: IntArray, width_N: FloatArray
) -> NDArray[np.float32]:
    """What ridge regression on the other folds, penalty and all, says of each fold; features keep their spreads."""
    left_out_Q_N = np.empty(target_Q_N.shape, dtype=np.float32)
    for fold in np.unique(fold_Q):
        held, kept = fold_Q == fold, fold_Q != fold
        kept = kept if kept.any() else held
        problem = RidgeProblem(x_Q_N[kept], weight_Q[kept], is_scaled=True)
        solution = problem.solve(target_Q_N[kept], width_N)
        left_out_Q_N[held] = LinearMap.from_solutions(problem, solution).apply(x_Q_N[held])
    return left_out_Q_N


@dataclass(frozen=True, slots=True, eq=False)
class LinearCurves:
    """Accuracy curves and expected usage as a linear function of vectors, by ridge regression.

    Targets are the shares of traces right and the mean tokens; each trace weighs the same.

    Attributes:
        map: from vectors to the levels of accuracy and, where learned, usage, side by side.
        shape: what the curves may look like.
        num_options: B.
        penalties: chosen for "p" and "tokens", strongest component first, in mean eigenvalues; None stands for
            infinity: that component was left at its mean.
        left_out_p_Q_B: leave-one-out predictions of the rows fitted on; None after loading.
    """

    map: LinearMap
    shape: CurveShape
    num_options: int
    penalties: dict[str, list[float | None]]
    left_out_p_Q_B: FloatArray | None = None

    @classmethod
    def fit(cls, problem: RidgeProblem, counts: Counts) -> Self:
        """Solves the problem for the curves of the same rows."""
        accuracy = problem.solve(counts.rate_Q_B, counts.width_B)
        solutions = {"p": accuracy}
        if counts.tokens_Q_B is not None:
            solutions["tokens"] = problem.solve(counts.tokens_Q_B.astype(np.float64), counts.width_B)
        shape = CurveShape.fit(counts, accuracy.left_out_Q_N)
        penalties = {
            name: [float(penalty) if np.isfinite(penalty) else None for penalty in solution.penalty_N]
            for name, solution in solutions.items()
        }
        made = LinearMap.from_solutions(problem, *solutions.values())
        return cls(made, shape, counts.menu.num_options, penalties, shape.accuracy(accuracy.left_out_Q_N))

    def curves(self, level_Q_N: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Curves from what the map says."""
        p_Q_B = self.shape.accuracy(level_Q_N[:, : self.num_options])
        return p_Q_B, self.shape.usage(level_Q_N[:, self.num_options :])

    def arrays(self) -> dict[str, FloatArray]:
        """Everything learned, by name."""
        return self.map.arrays() | self.shape.arrays()

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """What settings `num_budgets` and `penalties`, and `arrays`, described."""
        made, shape = LinearMap.from_arrays(arrays), CurveShape.from_arrays(arrays)
        return cls(made, shape, int(settings["num_budgets"]), settings.get("penalties", {}))
