"""Curves from a language model with a LoRA adapter that reads the raw question: slow to train, a pass to predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import TEXT, Features
from ..errors import InvalidSettingsError, MismatchError
from .difficulty import LEVELS, classes
from .inputs import MIN_QUERIES, check_counts
from .spend import SpendShape
from .success import SuccessShape

HEADS = ("curve", "classes")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Settings of the adapter and its training; the defaults are those of `LoraPredictor`.

    Attributes:
        base: the language model: a built-in alias, a folder or a hub id.
        head: "curve" for the success curve by binomial likelihood, "classes" for easy / medium / hard, as the paper.
        rank, alpha, dropout: of the adapter on the query and value projections.
        epochs: most passes over the training questions.
        patience: passes without a better held-out loss before training stops.
        batch_size: questions a step of the optimizer.
        micro_batch: questions a pass of the model; gradients of several are accumulated.
        learning_rate, weight_decay: of AdamW, with a linear warm-up and a linear decay.
        validation_share: share of the questions that are held out to stop early.
        max_tokens: a longer question is cut at its start.
        seed: the same seed and data give the same adapter on the same machine.
    """

    base: str
    head: str
    rank: int
    alpha: int
    dropout: float
    epochs: int
    patience: int
    batch_size: int
    micro_batch: int
    learning_rate: float
    weight_decay: float
    validation_share: float
    max_tokens: int
    seed: int

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1; got {getattr(self, name)}"
            for name in ("rank", "alpha", "epochs", "patience", "batch_size", "micro_batch", "max_tokens")
            if getattr(self, name) < 1
        ]
        if self.head not in HEADS:
            problems.append(f"head must be {' or '.join(HEADS)}; got {self.head!r}")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout must lie in [0, 1); got {self.dropout}")
        if not 0.0 < self.validation_share < 1.0:
            problems.append(f"validation_share must lie in (0, 1); got {self.validation_share}")
        if self.learning_rate <= 0.0 or self.weight_decay < 0.0:
            problems.append(
                f"learning_rate must be positive and weight_decay at least 0; got {self.learning_rate} and "
                f"{self.weight_decay}"
            )
        if problems:
            raise InvalidSettingsError(f"lora: {'; '.join(problems)}")


class LoraPredictor:
    """A causal model with a LoRA adapter and a linear head on the last token of the raw question.

    The text predictor of arXiv 2602.01237 (LoRA after Hu et al., 2021), with two heads. `classes` predicts the paper's
    easy / medium / hard and gives each query the mean curves of the classes, weighted by their probabilities. `curve`
    predicts the success curve itself by the binomial likelihood of the counts; the paper's own regression head
    collapsed to the mean, so the card states how far the predictions correlate with what was measured.

    A part of the training questions is held out to stop early; what the card says of quality is measured on it, with
    the epoch picked there. Training goes on where it stopped when `checkpoint` names a folder.

    Args:
        base, head, rank, alpha, dropout, epochs, patience, batch_size, micro_batch, learning_rate, weight_decay,
            validation_share, max_tokens, seed: see `LoraOptions`.
        checkpoint: folder for the state of the training; "" for none.
        progress: called with what is being done, steps done and steps in all.

    Attributes:
        held_rows_: rows of the training questions that were held out to stop early; None after loading.
        held_fold_Q_: 0 for each: one part was held out.
        held_p_Q_B_, held_tokens_Q_B_: what the adapter says of them.
        losses_: training and held-out loss of every epoch, in nats.
    """

    reads = (TEXT,)
    is_costly = True

    held_rows_: IntArray | None
    held_fold_Q_: IntArray | None
    held_p_Q_B_: FloatArray | None
    held_tokens_Q_B_: FloatArray | None
    losses_: list[tuple[float, float]]

    _arrays: dict[str, FloatArray]
    _base_hash: str
    _num_budgets: int
    _class_p_C_B: FloatArray | None
    _class_tokens_C_B: FloatArray | None
    _success: SuccessShape
    _spend: SpendShape | None

    def __init__(
        self,
        *,
        base: str = "qwen2.5-coder-0.5b",
        head: str = "curve",
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.05,
        epochs: int = 4,
        patience: int = 1,
        batch_size: int = 16,
        micro_batch: int = 4,
        learning_rate: float = 2e-4,
        weight_decay: float = 0.01,
        validation_share: float = 0.15,
        max_tokens: int = 512,
        seed: int = 0,
        checkpoint: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.options = LoraOptions(
            base=base,
            head=head,
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            micro_batch=micro_batch,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            validation_share=validation_share,
            max_tokens=max_tokens,
            seed=seed,
        )
        self._checkpoint = checkpoint
        self._progress = progress or (lambda what, done, total: None)
        self._model: Any = None

    def fit(
        self,
        features: Features,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """See `Estimator.fit`; reads the texts of `features`."""
        from .adapter import Adapter, train_adapter

        features.check(frozenset({TEXT}))
        assert features.texts is not None
        rows = check_counts(num_right_Q_B, num_tried_Q, tokens_Q_B)
        texts = [features.texts[row] for row in rows]
        tried_Q = num_tried_Q[rows].astype(np.float64)
        rate_Q_B = num_right_Q_B[rows] / tried_Q[:, None]
        self._num_budgets = num_right_Q_B.shape[1]
        self._spend = None if tokens_Q_B is None else SpendShape.fit(tokens_Q_B[rows])
        target_Q_N = self._targets(rate_Q_B, tried_Q, None if tokens_Q_B is None else tokens_Q_B[rows])
        order = np.random.default_rng(self.options.seed).permutation(len(rows))
        num_held = min(max(MIN_QUERIES, round(self.options.validation_share * len(rows))), len(rows) - 1)
        held, kept = np.sort(order[:num_held]), np.sort(order[num_held:])
        self._model = Adapter.load(self.options, num_outputs=target_Q_N.shape[1])
        self._base_hash = self._model.base_hash
        trained = train_adapter(
            self._model,
            texts,
            target_Q_N,
            tried_Q / tried_Q.mean(),
            kept=kept,
            held=held,
            checkpoint=self._checkpoint,
            progress=self._progress,
        )
        self._arrays, self.losses_ = trained.arrays, trained.losses
        self._success = SuccessShape(None)
        level_H_B, tokens_H_B = self._levels(trained.held_outputs)
        self._success = SuccessShape.fit(rate_Q_B[held], tried_Q[held], level_H_B)
        self.held_rows_, self.held_fold_Q_ = rows[held], np.zeros(num_held, dtype=np.int64)
        self.held_p_Q_B_ = self._success.apply(level_H_B)
        self.held_tokens_Q_B_ = None if tokens_H_B is None or self._spend is None else self._spend.apply(tokens_H_B)
        return self

    def _targets(self, rate_Q_B: FloatArray, tried_Q: FloatArray, tokens_Q_B: FloatArray | None) -> FloatArray:
        """What the head learns, in [0, 1]: rates and, within the range seen, tokens; or one of three classes."""
        self._class_p_C_B = self._class_tokens_C_B = None
        if self.options.head == "classes":
            level_Q = classes(rate_Q_B)
            one_hot_Q_C = np.eye(len(LEVELS))[level_Q]
            weight_C = one_hot_Q_C.T @ tried_Q
            mean_B = tried_Q @ rate_Q_B / tried_Q.sum()
            share_C_Q = (one_hot_Q_C * tried_Q[:, None]).T / np.maximum(weight_C, 1e-12)[:, None]
            is_seen_C_1 = weight_C[:, None] > 0
            self._class_p_C_B = np.where(is_seen_C_1, share_C_Q @ rate_Q_B, mean_B).astype(np.float32)
            if tokens_Q_B is not None:
                mean_tokens_B = tried_Q @ tokens_Q_B / tried_Q.sum()
                self._class_tokens_C_B = np.where(is_seen_C_1, share_C_Q @ tokens_Q_B, mean_tokens_B).astype(np.float32)
            return one_hot_Q_C
        if tokens_Q_B is None or self._spend is None:
            return rate_Q_B
        low_B, high_B = self._spend.lowest_B, self._spend.highest_B
        return np.concatenate([rate_Q_B, (tokens_Q_B - low_B) / np.maximum(high_B - low_B, 1e-6)], axis=1)

    def _levels(self, output_Q_N: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Success curves, before falls are taken out, and tokens, from what the head says (in [0, 1])."""
        if self._class_p_C_B is not None:
            tokens = self._class_tokens_C_B
            return output_Q_N @ self._class_p_C_B, None if tokens is None else output_Q_N @ tokens
        level_Q_B = output_Q_N[:, : self._num_budgets]
        if self._spend is None:
            return level_Q_B, None
        low_B, high_B = self._spend.lowest_B, self._spend.highest_B
        return level_Q_B, low_B + output_Q_N[:, self._num_budgets :] * (high_B - low_B)

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; loads the base model at the first call.

        Raises:
            MismatchError: the base model found here is not the one the adapter was trained on.
        """
        features.check(frozenset({TEXT}))
        assert features.texts is not None
        if self._model is None:
            from .adapter import Adapter

            model = Adapter.load(self.options, num_outputs=len(self._arrays["head.bias"]))
            if model.base_hash != self._base_hash:
                raise MismatchError(
                    f"the adapter was trained on {self.options.base} with hash {self._base_hash}; the model found here "
                    f"under that name has {model.base_hash}. Get that model, or train again."
                )
            model.restore(self._arrays)
            self._model = model
        p_Q_B, tokens_Q_B = self._levels(self._model.outputs(list(features.texts)))
        return self._success.apply(p_Q_B), None if tokens_Q_B is None or self._spend is None else self._spend.apply(
            tokens_Q_B
        )

    def model_pass(self, features: Features) -> tuple[int, float]:
        """Parameters of the base model that work on each token, and the mean tokens of a question."""
        if self._model is None:
            self.predict(features.select(np.arange(min(1, len(features)))))
        lengths = [len(ids) for ids in self._model.token_ids(list(features.texts or ()))]
        return self._model.num_parameters, float(np.mean(lengths))

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = {**self._arrays, **self._success.arrays()}
        for name, array in (("class_p", self._class_p_C_B), ("class_tokens", self._class_tokens_C_B)):
            if array is not None:
                arrays[name] = array
        if self._spend is not None:
            arrays |= {"spend_lowest": self._spend.lowest_B, "spend_highest": self._spend.highest_B}
        settings = {
            "options": asdict(self.options),
            "base_hash": self._base_hash,
            "num_budgets": self._num_budgets,
            "losses": [list(pair) for pair in self.losses_],
        }
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`; the base model is loaded at the first prediction."""
        predictor = cls(**settings["options"])
        predictor._base_hash = str(settings["base_hash"])
        predictor._num_budgets = int(settings["num_budgets"])
        predictor.losses_ = [(float(train), float(held)) for train, held in settings["losses"]]
        predictor.held_rows_ = predictor.held_fold_Q_ = None
        predictor.held_p_Q_B_ = predictor.held_tokens_Q_B_ = None
        predictor._class_p_C_B, predictor._class_tokens_C_B = arrays.get("class_p"), arrays.get("class_tokens")
        predictor._success = SuccessShape.from_arrays(arrays)
        has_spend = "spend_lowest" in arrays
        predictor._spend = SpendShape(arrays["spend_lowest"], arrays["spend_highest"]) if has_spend else None
        predictor._arrays = {name: array for name, array in arrays.items() if name.startswith(("adapter.", "head."))}
        return predictor
