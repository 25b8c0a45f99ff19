"""Classes that others might write: nothing of forethought but the values that they are handed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np

from forethought.core.data import EngineInfo, Generation, Grade, Probe, Request, Sampling, StopReason
from forethought.core.prompts import PromptTemplate


class Parrot:
    """An engine that thinks by counting up, and answers with how far it came."""

    def __init__(
        self,
        model: str,
        *,
        template: PromptTemplate,
        sampling: Sampling = Sampling(),
        context_tokens: int | None = None,
        length: int = 20,
    ) -> None:
        self.template, self.context_tokens, self.length = template, context_tokens or 4096, length
        self.info = EngineInfo(
            "parrot", model, template=template.name, template_hash=template.hash, sampling=sampling, simulated=True
        )

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        for request in requests:
            yield self._run(request)

    def _run(self, request: Request) -> Generation:
        query, budget = request.query, request.budget
        natural = self.length + (len(query.text) + request.seed) % 30
        length = min(natural, budget)
        prompt = len(query.text.split()) + 1
        if budget < 0 or prompt + max(budget, 0) + 8 > self.context_tokens:
            return Generation(
                *(query.id, request.sample, budget, "", 0, "", 0, 0, prompt, StopReason.ERROR, (), "it does not fit"),
                option=request.label,
            )
        cuts = [cut for cut in sorted(set(request.probe_budgets)) if cut < length]
        ended = natural < budget
        return Generation(
            query.id,
            request.sample,
            budget,
            " ".join(map(str, range(request.seed % 7, request.seed % 7 + length))),
            length,
            self._answer(request, length),
            2,
            1,
            prompt,
            StopReason.NATURAL if ended else StopReason.BUDGET,
            tuple(Probe(cut, self._answer(request, cut), 2) for cut in cuts),
            option=request.label,
        )

    def _answer(self, request: Request, length: int) -> str:
        reference = request.query.reference
        return reference if reference is not None and length >= 12 + len(request.query.text) % 9 else str(length)

    def close(self) -> None:
        pass


class Longer:
    """An estimator that reads texts: a question of many words is answered right less often."""

    reads = ("text",)

    def fit(self, features: Any, counts: Any) -> Longer:
        tried_Q = counts.num_tried_Q
        seen_Q = tried_Q > 0
        self.p_B_ = counts.num_right_Q_B[seen_Q].sum(axis=0) / tried_Q[seen_Q].sum()
        tokens_Q_B = counts.tokens_Q_B
        self.tokens_B_ = None if tokens_Q_B is None else np.maximum.accumulate(tokens_Q_B[seen_Q].mean(axis=0))
        self.usual_ = float(
            np.mean([len(text.split()) for text, seen in zip(features.texts, seen_Q, strict=True) if seen])
        )
        return self

    def predict(self, features: Any) -> tuple[Any, Any]:
        words_Q = np.array([max(1, len(text.split())) for text in features.texts], dtype=np.float64)
        p_Q_B = np.clip(self.p_B_[None] * (self.usual_ / words_Q)[:, None], 0.0, 1.0)
        tokens_Q_B = None if self.tokens_B_ is None else np.tile(self.tokens_B_, (len(words_Q), 1))
        return p_Q_B, tokens_Q_B

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays = {"p_B": self.p_B_} | ({} if self.tokens_B_ is None else {"tokens_B": self.tokens_B_})
        return {"usual": self.usual_}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, Any]) -> Longer:
        made = cls()
        made.usual_, made.p_B_, made.tokens_B_ = settings["usual"], arrays["p_B"], arrays.get("tokens_B")
        return made


class Least:
    """An allocator that gives everyone the least."""

    def solve(self, problem: Any) -> Any:
        from forethought.allocators import Solution

        return Solution(problem.ends()[0])


class Ends:
    """A grader that looks at the last word."""

    version = "1"

    def grade(self, *, answer: str, reference: str) -> Grade:
        if not answer.split():
            return Grade.UNREADABLE
        return Grade.RIGHT if answer.split()[-1:] == reference.split()[-1:] else Grade.WRONG
