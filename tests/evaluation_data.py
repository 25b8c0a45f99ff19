"""Profiles with known answers for the tests of evaluation, report and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forethought.control.predictions import metadata_of, table_of
from forethought.core.data import Curves, Query
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.profile import Profile
from forethought.core.prompts import PromptTemplate
from forethought.core.provenance import Provenance
from forethought.engines.fake import FakeEngine

TEMPLATE = PromptTemplate(name="test", reasoning_end="", answer_suffix="The answer is", answer_stop=".")
INFO = {"engine": "fake", "model": "fake", "model_hash": "ab" * 32, "template": "test", "simulated": True, "seed": 0}


def profile(num_right_Q_B: Any, num_tried_Q: Any, tokens_Q_B: Any, *, window: int = 10, **info: Any) -> Profile:
    """A profile of hand-written counts."""
    right_Q_B, tokens = np.asarray(num_right_Q_B, dtype=np.int64), np.asarray(tokens_Q_B, dtype=np.float64)
    num_queries, num_budgets = right_Q_B.shape
    return Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=Menu.evenly(window, window * num_budgets),
        num_right_Q_B=right_Q_B,
        num_tried_Q=np.broadcast_to(np.asarray(num_tried_Q, dtype=np.int64), (num_queries,)).copy(),
        tokens_Q_B=tokens,
        reasoning_Q_B=tokens,
        provenance=Provenance.from_json(info),
    )


def write_predictions(path: Path, curves: Curves) -> None:
    """A file of predictions, as of a program that writes them itself."""
    table = table_of(curves, pa.array(curves.query_ids, pa.string()))
    pq.write_table(table.replace_schema_metadata(metadata_of(curves.menu)), path, row_group_size=1 << 16)


def synthetic(
    num_queries: int = 200, *, num_traces: int = 4, noise: float = 0.8, seed: int = 0, **info: Any
) -> tuple[Profile, Curves, Curves]:
    """`(measured, predicted, mean train curve)` drawn from the fake engine's known curves.

    Traces are the engine's: one uniform number per trace decides every cut. Predictions are the true curves of the
    query, mixed in logits with the mean curve and noise: `noise` 0 knows the truth, a large one next to nothing.
    """
    random = np.random.default_rng(seed)
    menu = Menu.evenly(16, 256)
    engine = FakeEngine(template=TEMPLATE, seed=seed, menu=menu)
    queries = [Query(id=f"q{row}", prompt=f"question {row}") for row in range(2 * num_queries)]
    true = engine.true_curves(queries)
    assert true.tokens_Q_B is not None
    u_Q_T = random.uniform(size=(num_queries, num_traces))
    p_Q_B, tokens_Q_B = true.p_Q_B[:num_queries], true.tokens_Q_B[:num_queries]
    right_Q_B = (u_Q_T[:, :, None] < p_Q_B[:, None, :]).sum(axis=1)
    jitter_Q_B = 1.0 + 0.1 * random.standard_normal((num_queries, 1))
    ids = tuple(query.id for query in queries[:num_queries])
    measured = Profile(
        query_ids=ids,
        menu=menu,
        num_right_Q_B=right_Q_B,
        num_tried_Q=np.full(num_queries, num_traces),
        tokens_Q_B=tokens_Q_B * jitter_Q_B,
        reasoning_Q_B=np.maximum(tokens_Q_B * jitter_Q_B - 6.0, 0.0),
        provenance=Provenance.from_json({**INFO, **info}),
    )
    mean_B = true.p_Q_B[num_queries:].mean(axis=0)
    trust = 1.0 / (1.0 + noise**2)
    logits_Q_B = trust * _logit(p_Q_B) + (1.0 - trust) * _logit(mean_B)
    logits_Q_B = logits_Q_B + 0.3 * noise * random.standard_normal((num_queries, 1))
    predicted = Curves(ids, menu, 1.0 / (1.0 + np.exp(-logits_Q_B)), tokens_Q_B)
    mean_train = Curves(("mean",), menu, mean_B[None], true.tokens_Q_B[num_queries:].mean(axis=0)[None])
    return measured, predicted, mean_train


def made_up(text: str, *, num_queries: int = 120, seed: int = 0) -> tuple[Profile, Curves, Curves]:
    """`(measured, predicted, mean train curve)` on any menu: a query needs some thought, and then ends by itself."""
    menu, random = Menu.parse(text), np.random.default_rng(seed)
    caps_B = menu.budgets_B.astype(np.float64)
    need_Q_1 = menu.largest * np.exp(random.normal(-2.0, 1.0, (num_queries, 1)))
    top_Q_1 = random.uniform(0.3, 1.0, (num_queries, 1))
    p_Q_B = np.clip(top_Q_1 / (1.0 + (need_Q_1 / np.maximum(caps_B, 1e-3)) ** 3), 0.01, 0.99)
    tokens_Q_B = np.minimum(caps_B, 1.3 * need_Q_1) + 8.0
    u_Q_T = random.uniform(size=(num_queries, 4))
    measured = Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=menu,
        num_right_Q_B=(u_Q_T[:, :, None] < p_Q_B[:, None, :]).sum(axis=1),
        num_tried_Q=np.full(num_queries, 4),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B - 8.0,
        provenance=Provenance.from_json(INFO),
    )
    logits_Q_B = 0.6 * _logit(p_Q_B) + 0.4 * _logit(p_Q_B.mean(axis=0)) + 0.3 * random.normal(size=(num_queries, 1))
    predicted = Curves(measured.query_ids, menu, 1.0 / (1.0 + np.exp(-logits_Q_B)), tokens_Q_B)
    return measured, predicted, Curves(("mean",), menu, p_Q_B.mean(axis=0)[None], tokens_Q_B.mean(axis=0)[None])


OPTIONS = (
    Option("small", set={"model": "small"}, price=Price(0.1, 0.4), tokens=2000),
    Option("large-low", set={"model": "large", "effort": "low"}, price=Price(2.0, 8.0), tokens=300),
    Option("large-high", set={"model": "large", "effort": "high"}, price=Price(2.0, 8.0), tokens=900),
)


def named(
    num_queries: int = 60, *, num_traces: int = 4, seed: int = 0, options: Sequence[Option] = OPTIONS
) -> tuple[Profile, Curves, Curves]:
    """`(measured, predicted, mean train curve)` of a dear model with short thoughts beside a cheap one with long ones.

    In tokens the order of the options is large-low, large-high, small; in USD small, large-low, large-high.
    """
    menu, random = Menu.named(options), np.random.default_rng(seed)
    tokens_B = np.array([option.tokens or 0.0 for option in menu.options])
    hard_Q_1 = random.normal(size=(num_queries, 1))
    strength_B = np.array([{"small": 0.4, "large-low": 0.2, "large-high": 1.4}.get(each, 0.0) for each in menu.labels])
    p_Q_B = 1.0 / (1.0 + np.exp(2.0 * (hard_Q_1 - strength_B + 0.4 * random.normal(size=(num_queries, len(options))))))
    tokens_Q_B = tokens_B * np.exp(0.5 * hard_Q_1 + 0.3 * random.normal(size=p_Q_B.shape))
    input_Q_B = np.broadcast_to(random.integers(40, 400, (num_queries, 1)).astype(np.float64), p_Q_B.shape)
    measured = Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=menu,
        num_right_Q_B=random.binomial(num_traces, p_Q_B),
        num_tried_Q=np.full(num_queries, num_traces),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B,
        provenance=Provenance.from_json(INFO),
        input_Q_B=input_Q_B,
    )
    predicted = Curves(measured.query_ids, menu, p_Q_B, tokens_Q_B)
    return measured, predicted, Curves(("mean",), menu, p_Q_B.mean(axis=0)[None], tokens_Q_B.mean(axis=0)[None])


def _logit(p: Any) -> Any:
    p = np.clip(p, 0.01, 0.99)
    return np.log(p / (1.0 - p))
