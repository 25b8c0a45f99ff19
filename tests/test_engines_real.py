"""Engines with a real model. Skipped where its converted folder is not there yet: no test fetches half a gigabyte.

`forethought ls models` or a first run with the alias prepares the folder.
"""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace

import numpy as np
import pytest

from engine_contract import run
from forethought import models
from forethought.core.data import Query, Request, Sampling
from forethought.core.prompts import load_template

MODEL = "qwen2.5-coder-0.5b"
LAYERS = (0, 4, 12, 24)
QUERIES = (
    Query("apples", "Tom has 3 apples and buys 4 more. How many apples does he have?", "7"),
    Query("pens", "A pen costs $2. How many dollars do 6 pens cost?", "12"),
    Query("birds", "There were 10 birds on a tree. 4 flew away. How many birds are left?", "6"),
    Query("cookies", "Ann bakes 5 trays of 8 cookies. How many cookies does she bake?", "40"),
)

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (models.home() / "models" / MODEL / "config.json").is_file(),
        reason=f"the files of {MODEL} are not here yet",
    ),
]


@pytest.fixture
def engine():
    pytest.importorskip("transformers", reason="needs torch and transformers")
    from forethought.engines.transformers import TransformersEngine

    engine = TransformersEngine(MODEL, template=load_template("worked-5"), sampling=Sampling(temperature=0.0))
    yield engine
    engine.close()
    gc.collect()


def test_a_real_model_answers_and_probes_are_cheap(engine):
    hidden_Q_L_D = engine.hidden_states(QUERIES, LAYERS)
    assert np.isfinite(hidden_Q_L_D).all()
    requests = [Request(query, 64, probe_budgets=(16, 32, 48)) for query in QUERIES]
    decoder = engine._decoder
    before = decoder.num_tokens_run
    found = run(engine, requests)
    tokens_run = decoder.num_tokens_run - before
    answers = {query_id: done.answer for (query_id, _), done in found.items()}
    assert all(answer.replace(",", "").lstrip("-$").isdigit() for answer in answers.values()), answers
    assert sum(answers[query.id] == query.reference for query in QUERIES) >= 3, answers
    before = decoder.num_tokens_run
    plain = run(engine, [replace(request, probe_budgets=()) for request in requests])
    plain_tokens_run = decoder.num_tokens_run - before
    assert {key: done.reasoning for key, done in plain.items()} == {key: done.reasoning for key, done in found.items()}
    num_probes = sum(len(done.probes) for done in found.values())
    assert num_probes >= len(QUERIES)
    per_probe = (tokens_run - plain_tokens_run) / num_probes
    assert per_probe <= 1 + len(engine._forcing.suffix_ids) + engine.template.max_answer_tokens


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_vllm_and_transformers_see_the_same_hidden_states():
    pytest.importorskip("vllm", reason="needs vLLM")
    from forethought.engines.transformers import TransformersEngine
    from forethought.engines.vllm import VllmEngine

    template, queries = load_template("worked-5"), QUERIES[:3]
    engine = TransformersEngine(MODEL, template=template, dtype="bfloat16")
    expected_Q_L_D = engine.hidden_states(queries, LAYERS)
    engine.close()  # one copy of the weights at a time
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = VllmEngine(MODEL, template=template, kv_cache_gib=1, num_sequences=8)
    hidden_Q_L_D = other.hidden_states(queries, LAYERS)
    other.close()
    norm_Q_L = np.linalg.norm(hidden_Q_L_D, axis=-1) * np.linalg.norm(expected_Q_L_D, axis=-1)
    cosine_Q_L = (hidden_Q_L_D * expected_Q_L_D).sum(-1) / norm_Q_L
    assert cosine_Q_L.min() > 0.999, cosine_Q_L
