"""How far a vector lies from those seen in training, in the training vectors' own spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray
from ..core.features import chunks

MAX_COMPONENTS = 32  # directions whose variance is learned one by one: 100 KB of float16 at a width of 1536
ROWS_PER_COMPONENT = 10  # fewer vectors than that say next to nothing about a direction's variance
SPREAD_FLOOR = 1e-3  # of the median spread: rounding is no spread
VARIANCE_FLOOR = 0.01  # of a standardised feature's: a direction that hardly varied in training says next to nothing


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """Distance under probabilistic principal components: the strongest directions, and one variance for all others.

    `sqrt(sum_k z_k² / variance_k + |rest|² / variance_rest)`, over the root of the number of dimensions, so that a
    training vector lies at about 1: the Mahalanobis distance of Tipping and Bishop, "Probabilistic Principal Component
    Analysis" (1999), on standardised features. A vector can be far by an unusual amount of what varies in training, and
    by a direction in which nothing did.

    Attributes:
        centre_D, scale_D: mean and spread of each feature, float32; a constant feature has scale infinity.
        basis_D_K: orthonormal directions, float32.
        variance_K: along each of them, float32.
        rest: variance along every other direction; 0 where there is none.
    """

    centre_D: FloatArray
    scale_D: FloatArray
    basis_D_K: FloatArray
    variance_K: FloatArray
    rest: float

    @classmethod
    def fit(cls, vectors_Q_D: FloatArray, *, least_spread: float = 0.0) -> Self:
        """Learns centre, spread and directions from finite vectors, shape (Q, D); closed form.

        Args:
            vectors_Q_D: to learn from.
            least_spread: in the features' own units; one that varies less, or not at all, is taken to vary so much. At
                0 a constant feature is left out.
        """
        vectors_Q_D = vectors_Q_D.astype(np.float64)
        centre_D, spread_D = vectors_Q_D.mean(axis=0), vectors_Q_D.std(axis=0)
        spread_D = np.maximum(spread_D, least_spread)
        varying_D = spread_D > 1e-12 * (np.abs(centre_D) + 1e-12)
        floor = SPREAD_FLOOR * float(np.median(spread_D[varying_D])) if varying_D.any() else 0.0
        scale_D = np.where(varying_D, np.maximum(spread_D, floor), np.inf)
        x_Q_D = (vectors_Q_D - centre_D) / scale_D
        variance_R, basis_D_R = _principal(x_Q_D)
        num_kept = min(MAX_COMPONENTS, max(1, len(x_Q_D) // ROWS_PER_COMPONENT), len(variance_R))
        num_other = int(varying_D.sum()) - num_kept
        rest = max(VARIANCE_FLOOR, float(variance_R[num_kept:].sum()) / num_other) if num_other > 0 else 0.0
        return cls(
            centre_D.astype(np.float32),
            scale_D.astype(np.float32),
            basis_D_R[:, :num_kept].astype(np.float32),
            np.maximum(variance_R[:num_kept], VARIANCE_FLOOR).astype(np.float32),
            float(np.float32(rest)),
        )

    @property
    def width(self) -> int:
        """D, the number of features."""
        return len(self.centre_D)

    def apply(self, vectors_Q_D: FloatArray) -> NDArray[np.float64]:
        """The distance of each vector, shape (Q,)."""
        squared_Q = np.empty(len(vectors_Q_D))
        basis_D_K = self.basis_D_K.astype(np.float64)
        for rows in chunks(len(vectors_Q_D)):
            x_C_D = (vectors_Q_D[rows].astype(np.float64) - self.centre_D) / self.scale_D.astype(np.float64)
            z_C_K = x_C_D @ basis_D_K
            squared_Q[rows] = (z_C_K**2 / self.variance_K).sum(axis=1)
            if self.rest > 0.0:
                squared_Q[rows] += ((x_C_D - z_C_K @ basis_D_K.T) ** 2).sum(axis=1) / self.rest
        num_dimensions = max(1, int(np.isfinite(self.scale_D).sum()) if self.rest > 0.0 else len(self.variance_K))
        distance_Q: NDArray[np.float64] = np.sqrt(squared_Q / num_dimensions)
        return distance_Q

    def arrays(self) -> dict[str, FloatArray]:
        """Everything learned, by name."""
        return {
            "centre": self.centre_D,
            "scale": self.scale_D,
            "basis": self.basis_D_K,
            "variance": self.variance_K,
            "rest": np.array([self.rest], dtype=np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray]) -> Self:
        """The distance that `arrays` described."""
        rest = float(arrays["rest"][0])
        return cls(arrays["centre"], arrays["scale"], arrays["basis"], arrays["variance"], rest)


def _principal(x_Q_D: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances, strongest first, and directions of centred vectors, from whichever Gram matrix is the smaller."""
    num_rows, width = x_Q_D.shape
    if num_rows <= width:
        eigenvalue_R, u_Q_R = np.linalg.eigh(x_Q_D @ x_Q_D.T)
    else:
        eigenvalue_R, v_D_R = np.linalg.eigh(x_Q_D.T @ x_Q_D)
    keep_R = np.flatnonzero(eigenvalue_R > 1e-10 * max(float(eigenvalue_R[-1]), 1e-300))[::-1]
    if num_rows <= width:
        v_D_R = (x_Q_D.T @ u_Q_R[:, keep_R]) / np.sqrt(eigenvalue_R[keep_R])
        return eigenvalue_R[keep_R] / num_rows, v_D_R
    return eigenvalue_R[keep_R] / num_rows, v_D_R[:, keep_R]
