"""Queries the model for the difficulty of a question, before it reasons: easy, medium or hard.

After the prompted baseline of "Predictive Scheduling for Efficient Inference-Time Reasoning in LLMs" (arXiv
2602.01237). It costs one prompt and one generated word per question, which are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..core.codec import encode
from ..core.data import FloatArray, IntArray, Query, Request
from ..core.profile import Profile
from ..core.prompts import PromptTemplate
from ..core.protocols import Engine, TemplateEngine
from ..core.provenance import Provenance
from ..core.records import Opinion
from ..core.showing import Progress, silent, told
from ..core.waiting import finish
from ..errors import InvalidFeaturesError
from ..runs.store import RunDirectory

LEVELS = ("easy", "medium", "hard")
PERCENTILES = (20.0, 80.0)  # hard below the first, easy above the second, as the paper cuts
# Before the question, so that all prompts begin alike and a prefix cache serves it.
INSTRUCTION = (
    "You are shown a question. Do not answer it. Judge only how much reasoning it takes you to answer it correctly: "
    "say easy, medium or hard."
)
MARKER = "Difficulty:"
QUERIES_PER_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Asking:
    """How the model is asked.

    Attributes:
        shots: worked examples, (question, level) each; none for zero-shot.
        tokens: mean tokens that asking costs a query, prompt and answer, where it was measured; else None.
    """

    shots: tuple[tuple[str, str], ...] = ()
    tokens: float | None = None

    @property
    def template(self) -> PromptTemplate:
        """The prompt: the instruction, then the question; the answer is forced after the marker at once."""
        return PromptTemplate(
            name="difficulty",
            system=INSTRUCTION,
            shots=tuple((question, f"{MARKER} {level}") for question, level in self.shots),
            reasoning_end=MARKER,
            answer_suffix=f"{MARKER} ",
            answer_stop="\n",
            max_answer_tokens=3,
            choices=LEVELS,
        )


def read_level(text: str) -> str | None:
    """The level that `text` states: one of the three words, in any case and with any punctuation; else None."""
    word = text.strip().strip("*.!\"'`").lower()
    return word if word in LEVELS else None


def ask(engine: Engine, queries: Sequence[Query], asking: Asking, progress: Progress = silent) -> list[Opinion]:
    """Asks the engine's model about every query, without any thought; in the order of `queries`.

    Args:
        engine: of the model.
        queries: to ask about.
        asking: the prompt and its examples.
        progress: called with "ask", answers so far and queries in all.

    Raises:
        InvalidFeaturesError: the engine cannot be asked with another prompt than its own.
    """
    if not isinstance(engine, TemplateEngine):
        raise InvalidFeaturesError(
            f"engine {engine.info.engine!r} cannot be asked how hard a question is: it has one prompt template only; "
            f"use another engine, or a predictor that reads the text: forethought train RUN --predictor text"
        )
    plain = [replace(query, prompt=query.text) for query in queries]
    return finish(_ask(engine.with_template(asking.template), plain, progress))


async def _ask(engine: Engine, queries: Sequence[Query], progress: Progress) -> list[Opinion]:
    found: dict[str, Opinion] = {}
    requests = [Request(query, budget=0) for query in queries]
    async for done in told(engine.generate(requests), progress, "ask", len(queries)):
        if (outcome := done.at(0)) is None:
            found[done.query_id] = Opinion(done.query_id, 0, None, "", 0, done.error)
        else:
            tokens = done.prompt_tokens + (outcome.tokens or 0)
            found[done.query_id] = Opinion(done.query_id, 0, read_level(done.answer), done.answer, tokens, None)
    return [found[query.id] for query in queries]


def _continued(progress: Progress, num_before: int, total: int, what: str, done: int, _: int) -> None:
    """Reports steps of a part as steps of the whole."""
    progress(what, num_before + done, total)


def classes(rate_Q_B: FloatArray, width_B: FloatArray) -> IntArray:
    """The class of each query by its measured rate at the largest budget: index into `LEVELS`, shape (Q,).

    The bottom fifth is hard and the top fifth easy, by rank, so that ties still leave three classes; equal rates at the
    largest budget go by the mean over all budgets, by their tokens.
    """
    order = np.lexsort(((rate_Q_B * width_B).mean(axis=1), rate_Q_B[:, -1]))
    rank_Q = np.empty(len(order))
    rank_Q[order] = (np.arange(len(order)) + 0.5) / len(order) * 100
    return 1 + (rank_Q < PERCENTILES[0]) - (rank_Q > PERCENTILES[1])


def pick_examples(profile: Profile, *, num_each: int, order: IntArray) -> tuple[tuple[str, str], ...]:
    """Worked examples from a profile with texts: the clearest `num_each` of every level, in turns; ties by `order`."""
    rate_Q = profile.curves.p_Q_B @ profile.menu.width_B
    ranked = order[np.argsort(-rate_Q[order], kind="stable")]
    num = len(ranked)
    middle = max(0, num // 2 - num_each // 2)
    rows = {"easy": ranked[:num_each], "medium": ranked[middle : middle + num_each], "hard": ranked[num - num_each :]}
    return tuple((profile.texts[int(rows[level][turn])], level) for turn in range(num_each) for level in LEVELS)


def with_difficulties(profile: Profile, engine: Engine, asking: Asking, folder: Path, *, progress: Progress) -> Profile:
    """The profile with what the model says of its questions; the examples that it is shown are left out.

    What was said is kept in `folder` as it comes, and asked again only where it is not there.

    Raises:
        InvalidFeaturesError: the profile holds no texts, or the engine cannot be asked.
        RunError: `folder` holds answers to another prompt, or of another model.
    """
    if not profile.texts:
        raise InvalidFeaturesError("the profile does not hold its questions' texts, so the model cannot be asked")
    shown = {question for question, _ in asking.shots}
    kept = profile.select(np.array([text not in shown for text in profile.texts], dtype=bool))
    queries = [Query(query_id, text) for query_id, text in zip(kept.query_ids, kept.texts, strict=True)]
    run = RunDirectory.create(
        folder,
        kind="asked",
        provenance=Provenance(
            model=engine.info.model, model_hash=engine.info.model_hash, template_hash=asking.template.hash
        ),
        settings=asdict(asking),
    )
    with run.locked(), run.appender() as records:
        said = {each.query_id: each for each in run.opinions() if not each.is_failed}
        missing = [query for query in queries if query.id not in said]
        for start in range(0, len(missing), QUERIES_PER_CHUNK):
            before = len(queries) - len(missing) + start
            within = partial(_continued, progress, before, len(queries))
            opinions = ask(engine, missing[start : start + QUERIES_PER_CHUNK], asking, within)
            records.append(each.to_json() for each in opinions)
            said.update({each.query_id: each for each in opinions})
        progress("ask", len(queries), len(queries))
    tokens = float(np.mean([said[query.id].tokens for query in queries]))
    return replace(
        kept,
        difficulties=tuple(said[query.id].level for query in queries),
        provenance=replace(profile.provenance, asking=encode(replace(asking, tokens=tokens))),
    )
