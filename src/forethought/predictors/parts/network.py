"""A network of one hidden layer: its probabilities, its gradients, and Adam. In NumPy, since torch takes longer."""

from __future__ import annotations

import numpy as np

from ...core.data import FloatArray

MOMENTUM, SQUARES, TINY = 0.9, 0.999, 1e-8  # Adam's usual (Kingma and Ba, 2015)
FLUSH_EVERY, FLUSH_BELOW = 100, 1e-25  # steps; what a silent unit leaves decays to numbers that processors are slow at
NAMES = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")

Weights = dict[str, FloatArray]  # of one network, by NAMES, float32


def forward(weights: Weights, x_Q_N: FloatArray, keep_Q_H: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """The hidden layer, times `keep_Q_H`, and the probabilities; the logistic function is a tanh: no overflow."""
    hidden_Q_H = x_Q_N @ weights["hidden_weights"]
    hidden_Q_H += weights["hidden_bias"]
    np.maximum(hidden_Q_H, 0.0, out=hidden_Q_H)
    if keep_Q_H is not None:
        hidden_Q_H *= keep_Q_H
    logit_Q_B = hidden_Q_H @ weights["output_weights"] + weights["output_bias"]
    return hidden_Q_H, 0.5 * (1.0 + np.tanh(0.5 * logit_Q_B))


def gradients(
    weights: Weights,
    x_Q_N: FloatArray,
    hidden_Q_H: FloatArray,
    by_logit_Q_B: FloatArray,
    keep_Q_H: FloatArray | None = None,
) -> Weights:
    """Of a loss whose gradient by the logits is `by_logit_Q_B`; the others as `forward` had and gave them."""
    by_hidden_Q_H = by_logit_Q_B @ weights["output_weights"].T
    by_hidden_Q_H *= hidden_Q_H > 0.0
    if keep_Q_H is not None:
        by_hidden_Q_H *= keep_Q_H
    return {
        "hidden_weights": x_Q_N.T @ by_hidden_Q_H,
        "hidden_bias": by_hidden_Q_H.sum(axis=0),
        "output_weights": hidden_Q_H.T @ by_logit_Q_B,
        "output_bias": by_logit_Q_B.sum(axis=0),
    }


class Adam:
    """Running means of the gradients and of their squares, and weight decay beside them (Loshchilov and Hutter, 2019).

    Args:
        weights: changed in place.
        weight_decay: of the weights. Biases are not decayed: the mean curve is no complexity.
    """

    def __init__(self, weights: Weights, *, weight_decay: float = 0.0) -> None:
        self._weights, self._weight_decay, self._num_steps = weights, weight_decay, 0
        self._mean = {name: np.zeros_like(array) for name, array in weights.items()}
        self._square = {name: np.zeros_like(array) for name, array in weights.items()}
        self._scratch = {name: np.empty_like(array) for name, array in weights.items()}

    def step(self, gradients: Weights, learning_rate: float) -> None:
        """Moves the weights; the gradients are overwritten."""
        self._num_steps += 1
        rate = np.float32(learning_rate / (1.0 - MOMENTUM**self._num_steps))
        root = np.float32((1.0 - SQUARES**self._num_steps) ** -0.5)
        for name, gradient in gradients.items():
            mean, square = self._mean[name], self._square[name]
            scale = np.multiply(np.float32(1.0 - MOMENTUM), gradient, out=self._scratch[name])
            mean *= np.float32(MOMENTUM)
            mean += scale
            gradient *= gradient
            square *= np.float32(SQUARES)
            square += np.multiply(np.float32(1.0 - SQUARES), gradient, out=scale)
            np.sqrt(square, out=scale)
            scale *= root
            scale += np.float32(TINY)
            np.divide(mean, scale, out=scale)
            scale *= rate
            if self._weight_decay and not name.endswith("bias"):
                self._weights[name] *= np.float32(1.0 - learning_rate * self._weight_decay)
            self._weights[name] -= scale
            if self._num_steps % FLUSH_EVERY == 0:
                mean[np.abs(mean) < FLUSH_BELOW] = 0.0
                square[square < FLUSH_BELOW] = 0.0
