"""Predicted curves of a batch, and how novel its queries are to the predictor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..core.data import Curves, IntArray
from ..core.menu import Menu
from ..predictors.novelty import LEVEL, Novelty


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Predicted curves of a batch, and what they cost.

    Attributes:
        curves: one row per query.
        unseen_Q: rows of the queries whose prompt could not be read by the model; they carry the mean training curve.
        judged: the queries' novelty; None where the predictor has no score of it.
        feature_seconds: the prompt pass that gave the features (generation needs the same pass).
        predict_seconds: the predictor's own time.
    """

    curves: Curves
    unseen_Q: IntArray
    judged: Novelty | None = None
    feature_seconds: float = 0.0
    predict_seconds: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the queries: which are too long, and that they are not of the training kind."""
        judged, found = self.judged, tuple[str, ...]()
        if len(self.unseen_Q):
            ids = ", ".join(self.curves.query_ids[row] for row in self.unseen_Q[:5])
            found = (
                f"{len(self.unseen_Q)} queries do not fit the model's context: they have the mean curve and, but for "
                f"waves, the smallest budget ({ids})",
            )
        if judged is None or not judged.is_novel:
            return found
        return (
            *found,
            f"{judged.num_novel} of {judged.num_queries} questions are novel to the predictor ({judged.expected:.0f} "
            f"expected by chance): its curves were not tested on such questions, and are used "
            f"as predicted. To test them, profile some: forethought profile, then forethought evaluate --on.",
        )

    @property
    def novelty(self) -> dict[str, Any] | None:
        """How many of the queries are novel to the predictor, as one JSON object; None where that is not known."""
        judged = self.judged
        if judged is None:
            return None
        return {
            "novel": judged.num_novel,
            "queries": judged.num_queries,
            "calibrated": judged.num_calibrated,
            "expected": judged.expected,
            "chance": judged.chance,
            "is_novel": judged.is_novel,
        }

    def row(self, row: int) -> dict[str, Any]:
        """What is predicted of one query, as one JSON object; `novelty_p` is small for a novel one."""
        curves = self.curves
        found: dict[str, Any] = {
            "p": [round(float(p), 4) for p in curves.p_Q_B[row]],
            "tokens": None if curves.tokens_Q_B is None else [round(float(t), 1) for t in curves.tokens_Q_B[row]],
        }
        if curves.input_Q_B is not None:
            found["input"] = [round(float(t), 1) for t in curves.input_Q_B[row]]
        return found | self.novelty_row(row)

    def novelty_row(self, row: int) -> dict[str, float | None]:
        """The p-value of one query's novelty; nothing where that is not known."""
        if self.judged is None:
            return {}
        p = float(self.judged.p_Q[row])
        return {"novelty_p": round(p, 4) if math.isfinite(p) else None}

    def to_json(self) -> dict[str, Any]:
        """As the part of a plan's JSON object that says what was predicted."""
        return {
            "feature_seconds": self.feature_seconds,
            "predict_seconds": self.predict_seconds,
            "novelty": self.novelty,
            "unseen": [self.curves.query_ids[row] for row in self.unseen_Q],
            "predicted": {query_id: self.row(row) for row, query_id in enumerate(self.curves.query_ids)},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], query_ids: tuple[str, ...], menu: Menu) -> Self:
        """What `to_json` wrote, checked by `core.checks.check_plan`."""
        rows = [content["predicted"][query_id] for query_id in query_ids]
        p_Q_B, tokens_Q_B, input_Q_B = (
            np.array([row[name] for row in rows], dtype=np.float64)
            if all(row.get(name) is not None for row in rows)
            else None
            for name in ("p", "tokens", "input")
        )
        assert p_Q_B is not None
        curves = Curves(query_ids, menu, p_Q_B, tokens_Q_B, input_Q_B)
        unseen = set(content.get("unseen") or ())
        novelty, judged = content.get("novelty"), None
        if novelty is not None and all("novelty_p" in row for row in rows):
            p_Q = np.array([np.nan if row["novelty_p"] is None else row["novelty_p"] for row in rows], dtype=np.float64)
            judged = Novelty(
                p_Q,
                p_Q <= LEVEL,
                int(novelty["queries"]),
                int(novelty.get("calibrated", 0)),
                float(novelty["expected"]),
                float(novelty["chance"]),
            )
        return cls(
            curves,
            np.array([row for row, query_id in enumerate(query_ids) if query_id in unseen], dtype=np.int64),
            judged,
            float(content.get("feature_seconds") or 0.0),
            float(content.get("predict_seconds") or 0.0),
        )
