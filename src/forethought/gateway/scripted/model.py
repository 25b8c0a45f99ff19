"""What the scripted server's model thinks of a question: how long, and what it answers; known curves, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...core.data import Curves, Query, Request
from ...core.menu import Menu
from ...core.options import Option
from ...core.profile import Profile
from ...core.prompts import load_template
from ...engines.fake import WORDS, FakeEngine
from ...engines.latent import LEVELS

MOST_THOUGHT = 1 << 15  # tokens of a thought that nothing caps
PLAIN = "medium"  # the effort of a request that names none


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought and its answer.

    Attributes:
        words: of the thought, one a token.
        answer: the text after it; one token a word.
        prompt_tokens: of the question, with what a template puts around it.
    """

    words: Sequence[str]
    answer: str
    prompt_tokens: int


class ThoughtModel(Protocol):
    """What a scripted server answers with; the same question, effort and sample give the same trace under any cap."""

    def think(self, question: str, *, cap: int | None = None, effort: str = PLAIN, sample: int = 0) -> Thought:
        """Thinks at most `cap` tokens (None: as long as it likes), then answers."""
        ...

    def right_answer(self, question: str) -> str:
        """The answer that is right."""
        ...


class DrawnModel:
    """The fake engine behind a server's routes: lengths and answers from a hash of the question and a seed.

    Args:
        seed: another seed is another model.
        menu: the scale of its thoughts: a jump in accuracy lies within the largest cap.
    """

    def __init__(self, seed: int = 0, menu: Menu | str = "16:256:16") -> None:
        self.engine = FakeEngine(template=load_template("think"), seed=seed, menu=menu)
        self._options = {level: Option(level, set={"reasoning_effort": level}) for level in LEVELS}

    def think(self, question: str, *, cap: int | None = None, effort: str = PLAIN, sample: int = 0) -> Thought:
        """See `ThoughtModel.think`."""
        budget = MOST_THOUGHT if cap is None else min(cap, MOST_THOUGHT)
        done = self.engine.run(Request(query_of(question), budget, sample, option=self._options[effort]))
        return Thought(done.reasoning.split(), done.answer, done.prompt_tokens)

    def right_answer(self, question: str) -> str:
        """See `ThoughtModel.right_answer`."""
        return self.engine.right_answer(query_of(question))

    def true_curves(self, questions: Sequence[str], menu: Menu | None = None) -> Curves:
        """The exact curves of some questions, Q of them; ids are the questions. See `FakeEngine.true_curves`."""
        return self.engine.true_curves([query_of(question) for question in questions], menu)


class MeasuredModel:
    """Answers as a measured model did: each question's own accuracy and usage curve; others as `DrawnModel` does.

    With N the length of a thought and r(b) the mean reasoning tokens under cap b, P(N > k) midway between two caps is
    the slope of r between them, made to fall. A trace is right under a cap when one uniform number is below the
    measured accuracy there, so its answers agree from cap to cap as far as they can.

    Args:
        profile: by caps, with its questions' texts.
        seed: of the draws.
    """

    def __init__(self, profile: Profile, seed: int = 0) -> None:
        self._drawn = DrawnModel(seed, profile.menu)
        self._seed = seed
        self._caps_B = np.array(profile.menu.caps, dtype=np.float64)
        self._right_Q_B = profile.curves.p_Q_B
        self._row = {text: row for row, text in enumerate(profile.texts)}
        rise_Q_B = np.diff(profile.reasoning_Q_B, axis=1, prepend=0.0)
        slope_Q_B = rise_Q_B / np.diff(self._caps_B, prepend=0.0)
        ended_Q_B = 1.0 - np.minimum.accumulate(np.clip(slope_Q_B, 0.0, 1.0), axis=1)
        self._ended_Q_S = np.pad(ended_Q_B, ((0, 0), (1, 0)))  # chance to have ended by `_at_S`
        self._at_S = np.concatenate(([0.0], self._caps_B - 0.5 * np.diff(self._caps_B, prepend=0.0)))

    def think(self, question: str, *, cap: int | None = None, effort: str = PLAIN, sample: int = 0) -> Thought:
        """See `ThoughtModel.think`; the effort multiplies the length alone."""
        row = self._row.get(question)
        if row is None:
            return self._drawn.think(question, cap=cap, effort=effort, sample=sample)
        u_length, u_right = np.random.default_rng([self._seed, row, sample]).random(2).tolist()
        cap = MOST_THOUGHT if cap is None else cap
        length = min(round(LEVELS[effort] * self._length(row, u_length)), cap)
        column = min(int(np.searchsorted(self._caps_B, cap)), len(self._caps_B) - 1)
        right = self.right_answer(question)
        is_right = u_right < self._right_Q_B[row, column]
        words = [WORDS[(row + place) % len(WORDS)] for place in range(length)]
        return Thought(words, right if is_right else f"{right}0", 4 + len(question.split()))

    def right_answer(self, question: str) -> str:
        """See `ThoughtModel.right_answer`; made up, for a profile keeps no answers."""
        return self._drawn.right_answer(question)

    def _length(self, row: int, u: float) -> float:
        """The `u`-quantile of a thought's length; one longer than every cap is half as long again as the largest."""
        if u > self._ended_Q_S[row, -1]:
            return 1.5 * float(self._caps_B[-1])
        return max(1.0, float(np.interp(u, self._ended_Q_S[row], self._at_S)))


def query_of(question: str) -> Query:
    """The query by which the fake engine knows a question."""
    return Query(question, question)
