"""Curves from a language model with a LoRA adapter that reads the raw question: slow training, one pass to predict."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.data import FloatArray
from ..core.features import MIN_QUERIES, TEXT, Counts, Features, HeldOut
from ..core.protocols import EstimatorBase
from ..errors import MismatchError
from .difficulty import LEVELS, classes
from .parts.checks import usable
from .parts.lora_options import LoraOptions
from .parts.making import Progress, options_signature, silent
from .parts.shape import CurveShape

if TYPE_CHECKING:
    from .parts.adapter import Adapter


class LoraPredictor(EstimatorBase):
    """A causal model with a LoRA adapter and a linear head on the last token of the raw question.

    The text predictor of arXiv 2602.01237 (LoRA after Hu et al., 2021), with two heads. `classes` predicts the paper's
    easy / medium / hard and gives each query the mean curves of the classes, weighted by their probabilities. `curve`
    predicts the accuracy curve itself by the binomial likelihood of the counts; the paper's own regression head
    collapsed to the mean, so the card states how far the predictions correlate with what was measured.

    A part of the training questions is held out to stop early; what the card says of quality is measured on it, with
    the epoch picked there. Training goes on where it stopped when `checkpoint` names a folder.

    Args:
        checkpoint: folder for the state of the training; "" for none.
        progress: called with what is being done, steps done and steps in all.
        options: see `LoraOptions`.

    Attributes:
        held_out_: the training questions that were held out to stop early, in one fold; None after loading.
        losses_: training and held-out loss of every epoch, in nats.
    """

    takes = ("seed", "progress", "checkpoint")
    reads = (TEXT,)
    is_costly = True

    losses_: list[tuple[float, float]]

    _arrays: dict[str, FloatArray]
    _base_hash: str
    _num_options: int
    _class_p_C_B: FloatArray | None
    _class_tokens_C_B: FloatArray | None
    _shape: CurveShape
    _model: Adapter | None = None

    __signature__ = options_signature(LoraOptions, checkpoint="", progress=silent)

    def __init__(self, *, checkpoint: str = "", progress: Progress = silent, **options: Any) -> None:
        self.options = LoraOptions(**options)
        self._checkpoint, self._progress = checkpoint, progress

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`; reads the texts."""
        from .parts.adapter import Adapter, train_adapter

        features.check({TEXT})
        rows, features, counts = usable(features, counts)
        self._num_options = counts.menu.num_options
        self._shape = CurveShape.fit(counts, None)
        target_Q_N, width_N = self._targets(counts)
        order = np.random.default_rng(self.options.seed).permutation(len(rows))
        num_held = min(max(MIN_QUERIES, round(self.options.validation_share * len(rows))), len(rows) - 1)
        held, kept = np.sort(order[:num_held]), np.sort(order[num_held:])
        self._model = Adapter.load(self.options, num_outputs=target_Q_N.shape[1])
        self._base_hash = self._model.base_hash
        trained = train_adapter(
            self._model,
            features.questions,
            target_Q_N,
            counts.weight_Q / counts.weight_Q.mean(),
            width_N,
            kept=kept,
            held=held,
            checkpoint=self._checkpoint,
            progress=self._progress,
        )
        self._arrays, self.losses_ = trained.arrays, trained.losses
        level_H_B, tokens_H_B = self._levels(trained.held_outputs)
        self._shape = replace(self._shape, fall_B=CurveShape.fit(counts.select(held), level_H_B).fall_B)
        p_H_B, tokens_H_B = self._shape.accuracy(level_H_B), self._shape.usage(tokens_H_B)
        self.held_out_ = HeldOut(rows[held], np.zeros(num_held, dtype=np.int64), p_H_B, tokens_H_B)
        return self

    def _targets(self, counts: Counts) -> tuple[FloatArray, FloatArray]:
        """What the head learns, in [0, 1], and its weights: rates and, within the range seen, tokens; or classes."""
        rate_Q_B, tokens_Q_B, tried_Q = counts.rate_Q_B, counts.tokens_Q_B, counts.weight_Q
        self._class_p_C_B = self._class_tokens_C_B = None
        if self.options.head == "classes":
            one_hot_Q_C = np.eye(len(LEVELS))[classes(rate_Q_B, counts.width_B)]

            def class_means(value_Q_B: FloatArray) -> FloatArray:
                weight_C_1 = (one_hot_Q_C.T @ tried_Q)[:, None]
                mean_C_B = (one_hot_Q_C * tried_Q[:, None]).T @ value_Q_B / np.maximum(weight_C_1, 1e-12)
                return np.where(weight_C_1 > 0, mean_C_B, tried_Q @ value_Q_B / tried_Q.sum()).astype(np.float32)

            self._class_p_C_B = class_means(rate_Q_B)
            self._class_tokens_C_B = None if tokens_Q_B is None else class_means(tokens_Q_B)
            return one_hot_Q_C, np.ones(len(LEVELS))
        if tokens_Q_B is None or self._shape.lowest_B is None or self._shape.highest_B is None:
            return rate_Q_B, counts.width_B
        low_B, high_B = self._shape.lowest_B, self._shape.highest_B
        share_Q_B = (tokens_Q_B - low_B) / np.maximum(high_B - low_B, 1e-6)
        return np.concatenate([rate_Q_B, share_Q_B], axis=1), np.tile(counts.width_B, 2)

    def _levels(self, output_Q_N: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Levels of accuracy and of usage from what the head says (in [0, 1])."""
        if self._class_p_C_B is not None:
            tokens_C_B = self._class_tokens_C_B
            return output_Q_N @ self._class_p_C_B, None if tokens_C_B is None else output_Q_N @ tokens_C_B
        level_Q_B = output_Q_N[:, : self._num_options]
        low_B, high_B = self._shape.lowest_B, self._shape.highest_B
        if low_B is None or high_B is None:
            return level_Q_B, None
        return level_Q_B, low_B + output_Q_N[:, self._num_options :] * (high_B - low_B)

    def _loaded(self) -> Adapter:
        """The base model with the adapter, read when first needed."""
        if self._model is None:
            from .parts.adapter import Adapter

            model = Adapter.load(self.options, num_outputs=len(self._arrays["head.bias"]))
            if model.base_hash != self._base_hash:
                raise MismatchError(
                    f"the adapter was trained on {self.options.base} with hash {self._base_hash}; the model found here "
                    f"under that name has {model.base_hash}. Get that model, or train again."
                )
            model.restore(self._arrays)
            self._model = model
        return self._model

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; loads the base model at the first call.

        Raises:
            MismatchError: the base model found here is not the one the adapter was trained on.
        """
        questions = features.questions
        p_Q_B, tokens_Q_B = self._levels(self._loaded().outputs(questions))
        return self._shape.accuracy(p_Q_B), self._shape.usage(tokens_Q_B)

    def model_pass(self, features: Features) -> tuple[int, float]:
        """Parameters of the base model that work on each token, and the mean tokens of a question."""
        model = self._loaded()
        return model.num_parameters, float(np.mean([len(ids) for ids in model.token_ids(features.questions)]))

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        named = {"class_p": self._class_p_C_B, "class_tokens": self._class_tokens_C_B}
        arrays = {name: array for name, array in named.items() if array is not None}
        settings = {
            "options": asdict(self.options),
            "base_hash": self._base_hash,
            "num_budgets": self._num_options,
            "losses": [list(pair) for pair in self.losses_],
        }
        return settings, {**self._arrays, **self._shape.arrays(), **arrays}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`; the base model is loaded at the first prediction."""
        made = cls(**settings["options"])
        made._base_hash = str(settings["base_hash"])
        made._num_options = int(settings["num_budgets"])
        made.losses_ = [(float(train), float(held)) for train, held in settings["losses"]]
        made._class_p_C_B, made._class_tokens_C_B = arrays.get("class_p"), arrays.get("class_tokens")
        made._shape = CurveShape.from_arrays(arrays)
        made._arrays = {name: array for name, array in arrays.items() if name.startswith(("adapter.", "head."))}
        return made
