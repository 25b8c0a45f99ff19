"""Conclusions for one pooling: the best layer, its equals, and whether middle layers are better than late ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.data import FloatArray
from ...evaluation.bootstrap import CONFIDENCE, estimate
from .results import FAILS, HOLDS, IN_PART, PAPER_RANGE, UNDECIDED, UNTESTED, Contrast, Verdict

PAPER, LATER = "the paper's range", "the layers after it"
THIRDS = ("first third", "middle third", "last third")


def judge(
    pooling: str, layers: Sequence[int], loss_R_L: FloatArray, accuracy_R_L: FloatArray, depth: int | None
) -> Verdict:
    """Compares layers, and groups of layers, on the sample (row 0) and on each resample.

    Args:
        pooling: what they are called.
        layers: length L.
        loss_R_L: log loss, shape (R + 1, L).
        accuracy_R_L: accuracy, mean over the levels, shape (R + 1, L).
        depth: decoder layers of the model, or None.
    """
    groups = _groups(layers, depth)

    def contrast(name: str, other: str) -> Contrast | None:
        if not groups.get(name) or not groups.get(other):
            return None
        columns, others = ([layers.index(layer) for layer in groups[group]] for group in (name, other))
        return Contrast(
            name,
            other,
            groups[name],
            groups[other],
            log_loss=estimate(loss_R_L[:, columns].mean(axis=1) - loss_R_L[:, others].mean(axis=1)),
            accuracy=estimate(accuracy_R_L[:, columns].mean(axis=1) - accuracy_R_L[:, others].mean(axis=1)),
        )

    best = int(loss_R_L[0].argmin())
    paper_columns = [layers.index(layer) for layer in groups.get(PAPER, ())]
    paper_best = min(paper_columns, key=lambda column: loss_R_L[0, column], default=None)
    behind = None if paper_best is None else estimate(loss_R_L[:, paper_best] - loss_R_L[:, best])
    against_later = contrast(PAPER, LATER)
    may_be_best = [layers[column] for column in _may_be_best(loss_R_L)]
    if behind is None or against_later is None:
        verdict = UNTESTED
    elif not set(may_be_best) & set(groups[PAPER]) or against_later.log_loss.low > 0.0:
        verdict = FAILS
    elif against_later.log_loss.high < 0.0:
        verdict = HOLDS if best in paper_columns else IN_PART
    else:
        verdict = UNDECIDED
    pairs = ((THIRDS[1], THIRDS[2]), (THIRDS[1], THIRDS[0]), (PAPER, LATER))
    return Verdict(
        pooling=pooling,
        best=layers[best],
        equal=tuple(
            layer for column, layer in enumerate(layers) if estimate(loss_R_L[:, column] - loss_R_L[:, best]).low <= 0.0
        ),
        may_be_best=tuple(may_be_best),
        contrasts=tuple(found for pair in pairs if (found := contrast(*pair)) is not None),
        paper_layers=groups.get(PAPER, ()),
        paper_wins=sum(float((loss_R_L[1:].argmin(axis=1) == column).mean()) for column in paper_columns),
        paper_best=None if paper_best is None else layers[paper_best],
        paper_behind=behind,
        verdict=verdict,
    )


def _may_be_best(loss_R_L: FloatArray) -> list[int]:
    """Columns of the layers that may be the best of all: a confidence set that knows the best was picked.

    The layer that comes out lowest is lower by luck too, so its paired differences look surer than they are. So each
    layer is held against all others at once: it stays in unless how far it lies behind any of them, in standard errors,
    is more than 95% of resamples show by chance. Source: multiple comparisons with the best (Hsu, "Multiple
    Comparisons", 1996, ch. 4), with the bootstrap's distribution in place of the t.
    """
    kept = []
    for column in range(loss_R_L.shape[1]):
        behind_R_L = loss_R_L[:, column, None] - loss_R_L
        error_L = behind_R_L[1:].std(axis=0)
        others = np.flatnonzero(error_L > 1e-12)  # itself, and layers that say the same
        if not len(others):
            kept.append(column)
            continue
        chance_R = ((behind_R_L[1:, others] - behind_R_L[0, others]) / error_L[others]).max(axis=1)
        if (behind_R_L[0, others] / error_L[others]).max() <= np.quantile(chance_R, CONFIDENCE):
            kept.append(column)
    return kept


def _groups(layers: Sequence[int], depth: int | None) -> dict[str, tuple[int, ...]]:
    """Thirds of the depth and the paper's range, by share of the depth; the embeddings (layer 0) are in none."""
    if depth is None:
        return {}
    first, last, whole = PAPER_RANGE
    decoders = [layer for layer in layers if layer > 0]
    return {
        THIRDS[0]: tuple(layer for layer in decoders if 3 * layer <= depth),
        THIRDS[1]: tuple(layer for layer in decoders if depth < 3 * layer <= 2 * depth),
        THIRDS[2]: tuple(layer for layer in decoders if 3 * layer > 2 * depth),
        PAPER: tuple(layer for layer in decoders if first * depth <= layer * whole <= last * depth),
        LATER: tuple(layer for layer in decoders if layer * whole > last * depth),
    }
