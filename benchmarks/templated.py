"""Templated questions with known true curves: a made-up model whose difficulty lies in the numbers of a question.

All questions are of one template and differ in their numbers; larger numbers take longer thoughts. A SIMULATION, by
forethought's fake engine: it tests rules, and says nothing of a real model.
"""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import replace

import numpy as np

from forethought.core.data import FloatArray, Grade, Query, Request
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.prompts import load_template
from forethought.core.provenance import Provenance
from forethought.engines.fake import FakeEngine
from forethought.engines.latent import Latent
from forethought.graders import NumberGrader

TEMPLATE = "A shop has {} boxes with {} pens each and sells {} pens. How many pens are left?"
MENU = Menu.evenly(16, 256)


class TemplatedModel(FakeEngine):
    """The fake model with the place of its jump set by the numbers, and thoughts `longer` times as long."""

    longer = 1.0

    def _latent(self, query: Query) -> Latent:
        latent = super()._latent(query)
        digits = sum(len(number) for number in re.findall(r"\d+", query.text))
        hardness = 0.9 * (digits - 7.0) + 0.5 * latent.z[0]
        jump = self.longer * self.menu.largest * (0.06 + 0.5 / (1.0 + math.exp(-hardness)))
        median = 1.3 * jump + 4.0
        return replace(latent, jump=jump, decay=0.6 * jump, plateau=0.9, guess=0.1, median_length=median)


def questions(num: int, *, seed: int) -> list[Query]:
    """`num` of them, drawn at random, with references."""
    random = np.random.default_rng(seed)
    found = []
    for row in range(num):
        boxes, pens, sold = (int(10 ** random.uniform(0.3, 4.0)) + 1 for _ in range(3))
        found.append(Query(f"{seed}-{row}", TEMPLATE.format(boxes, pens, sold), str(boxes * pens - sold)))
    return found


def measured(queries: list[Query], *, num_traces: int, longer: float = 1.0) -> Profile:
    """A profile of sampled traces, as `forethought profile` would measure it."""
    return asyncio.run(_measured(queries, num_traces, _model(longer)))


def truth(queries: list[Query], *, longer: float = 1.0) -> Profile:
    """The true curves as a profile: success in millionths, and exact expected tokens."""
    curves = _model(longer).true_curves(queries, MENU)
    assert curves.tokens_Q_B is not None
    num_right_Q_B = np.round(curves.p_Q_B * 1e6).astype(np.int64)
    texts = tuple(query.text for query in queries)
    num_tried_Q = np.full(len(queries), 1_000_000)
    tokens_Q_B = np.asarray(curves.tokens_Q_B)
    return Profile(
        curves.query_ids,
        MENU,
        num_right_Q_B,
        num_tried_Q,
        tokens_Q_B,
        tokens_Q_B,
        texts=texts,
        provenance=_made(),
    )


def _model(longer: float) -> TemplatedModel:
    model = TemplatedModel(template=load_template("worked-5"), menu=MENU)
    model.longer = longer
    return model


def _made() -> Provenance:
    return Provenance(engine="fake", model="templated", template="worked-5", simulated=True, name="templated")


async def _measured(queries: list[Query], num_traces: int, model: TemplatedModel) -> Profile:
    shape = (len(queries), MENU.num_options)
    row_of, grader = {query.id: row for row, query in enumerate(queries)}, NumberGrader()
    num_right_Q_B = np.zeros(shape, dtype=np.int64)
    tokens_Q_B: FloatArray = np.zeros(shape)
    cuts = tuple(MENU.budgets_B[:-1].tolist())
    requests = [Request(query, MENU.largest, trace, trace, cuts) for query in queries for trace in range(num_traces)]
    async for generation in model.generate(requests):
        row = row_of[generation.query_id]
        for column, budget in enumerate(MENU.budgets_B.tolist()):
            outcome, reference = generation.at(budget), queries[row].reference
            assert outcome is not None
            assert reference is not None
            num_right_Q_B[row, column] += grader.grade(answer=outcome.answer, reference=reference) is Grade.RIGHT
            tokens_Q_B[row, column] += (outcome.tokens or 0) / num_traces
    texts, num_tried_Q = tuple(query.text for query in queries), np.full(len(queries), num_traces)
    ids = tuple(query.id for query in queries)
    return Profile(
        ids,
        MENU,
        num_right_Q_B,
        num_tried_Q,
        tokens_Q_B,
        tokens_Q_B,
        texts=texts,
        provenance=_made(),
    )
