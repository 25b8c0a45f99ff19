"""Settings of the predictor `lora`: its adapter and how it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import InvalidSettingsError
from .making import too_small

HEADS = ("curve", "classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Settings of the adapter and its training.

    Attributes:
        base: the language model: a built-in alias, a folder or a hub id.
        head: "curve" for the accuracy curve by binomial likelihood, "classes" for easy / medium / hard, as the paper.
        rank, alpha, dropout: of the adapter on the query and value projections.
        epochs: most passes over the training questions.
        patience: passes without a better held-out loss before training stops.
        batch_size: questions per step of the optimizer.
        micro_batch: questions a pass of the model; gradients of several are accumulated.
        learning_rate, weight_decay: of AdamW, with a linear warm-up and a linear decay.
        validation_share: share of the questions that are held out to stop early.
        max_tokens: a longer question is cut at its start.
        seed: the same seed and data give the same adapter on the same machine.
    """

    base: str = "qwen2.5-coder-0.5b"
    head: str = "curve"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    epochs: int = 4
    patience: int = 1
    batch_size: int = 16
    micro_batch: int = 4
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    validation_share: float = 0.15
    max_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        counted = ("rank", "alpha", "epochs", "patience", "batch_size", "micro_batch", "max_tokens")
        problems = too_small(self, dict.fromkeys(counted, 1) | {"weight_decay": 0.0})
        if self.head not in HEADS:
            problems.append(f"head must be {' or '.join(HEADS)}; got {self.head!r}")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout must lie in [0, 1); got {self.dropout}")
        if not 0.0 < self.validation_share < 1.0:
            problems.append(f"validation_share must lie in (0, 1); got {self.validation_share}")
        if not 0.0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate must be positive; got {self.learning_rate}")
        if problems:
            raise InvalidSettingsError(f"lora: {'; '.join(problems)}")
