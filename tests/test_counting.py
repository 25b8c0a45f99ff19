"""One count of thought and answer, from usage, texts and a tokenizer: chunks are none, and no guess is called one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forethought.servers.tokens import MOST_TOKENS, Count, Usage, count_tokens, least_tokens, whole

WORDS = "tok " * 20


def usage(prompt: Any, completion: Any, total: Any = None, reasoning: Any = None) -> dict[str, Any]:
    found = {"prompt_tokens": prompt, "completion_tokens": completion}
    found |= {} if total is None else {"total_tokens": total}
    return found | ({} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}})


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        pytest.param(usage(20, 90, 110, 80), (20, 90, 80), id="openai-thought-within-completion"),
        pytest.param(usage(20, 10, 110, 80), (20, 90, 80), id="xai-thought-beside-completion"),
        pytest.param(usage(20, 80, 110, 10), (20, 90, 10), id="xai-a-short-thought"),
        pytest.param(usage(20, 10, None, 80), (20, 90, 80), id="xai-without-a-total"),
        pytest.param(usage(20, 12, 553), (20, 533, 521), id="gemini-thought-in-total-alone"),
        pytest.param(usage(20, None, 553), (20, 533, None), id="no-completion-tokens"),
        pytest.param(usage(20, 12, 5), (20, 12, None), id="a-total-that-is-too-small"),
        pytest.param({"input_tokens": 3, "output_tokens": 9}, (3, 9, None), id="other-names"),
        pytest.param(usage(20, 12, 32, 0), (20, 12, None), id="a-reported-0-tells-nothing"),
        pytest.param(usage(-1, "many", None), (None, None, None), id="no-numbers"),
        pytest.param(usage(10**18, 10**18, 10**18), (None, None, None), id="more-than-there-can-be"),
        pytest.param(usage(float("nan"), float("inf"), True), (None, None, None), id="nan"),
        pytest.param({"completion_tokens": 9, "completion_tokens_details": "y"}, (None, 9, None), id="odd-details"),
        pytest.param([1], (None, None, None), id="a-list"),
        pytest.param(None, (None, None, None), id="none"),
    ],
)
def test_usage_is_read_whatever_it_calls_things(given_, expected):
    found = Usage.read(given_)
    assert (found.prompt, found.generated, found.reasoning) == expected


@pytest.mark.parametrize(
    ("told", "options", "expected", "cap", "kept"),
    [
        pytest.param(usage(9, 90, 99, 80), {}, (80, 10), 80, True, id="reported-and-kept"),
        pytest.param(usage(9, 90, 99, 80), {}, (80, 10), 79, False, id="reported-and-not-kept"),
        pytest.param(usage(9, 10, 99, 80), {}, (80, 10), 80, True, id="beside"),
        pytest.param(usage(20, 12, 553), {"thought": ""}, (521, 12), 100, False, id="hidden-in-the-total"),
        pytest.param(usage(9, 186, 195), {"thought": WORDS * 9}, (None, None), 100, False, id="chunks-of-many"),
        pytest.param(usage(9, 186, 195), {"thought": WORDS * 9}, (None, None), 190, True, id="all-of-it-is-within"),
        pytest.param(usage(9, 186, 195), {"thought": WORDS * 9}, (None, None), 182, None, id="cannot-be-told"),
        pytest.param(usage(9, 1106), {"thought": WORDS * 60}, (None, None), 1024, False, id="text-longer-than-usage"),
        pytest.param(usage(9, 90, 99, 8), {"thought": WORDS * 2}, (None, None), 16, False, id="reported-too-little"),
        pytest.param(usage(9, 70, 79, 8), {"thought": WORDS * 2}, (None, None), 64, None, id="not-believed"),
        pytest.param(None, {}, (None, None), 10**6, None, id="nothing-was-said"),
        pytest.param(usage(9, 0, 9), {}, (None, None), 10**6, None, id="zeros-of-a-proxy"),
        pytest.param(None, {"thought_tokens": 9}, (9, None), 9, True, id="a-tokenizer-alone"),
        pytest.param(None, {"thought_tokens": 9, "answer_tokens": 3}, (9, 3), 9, True, id="a-tokenizer-for-both"),
        pytest.param(usage(9, 13), {"thought_tokens": 9}, (9, 4), 9, True, id="tokenizer-and-total"),
        pytest.param(usage(9, 532), {"thought_tokens": 4}, (None, None), 100, False, id="thought-that-does-not-show"),
        pytest.param(usage(9, 30), {"seen": 25}, (25, 5), 24, False, id="a-stream-that-says-so"),
        pytest.param(usage(9, 30), {"seen": 1, "thought": WORDS}, (None, None), 40, True, id="a-stale-stream"),
        pytest.param(usage(9, 14), {"pieces": (12, 2)}, (12, 2), 12, True, id="as-many-pieces-as-tokens"),
        pytest.param(usage(9, 44), {"pieces": (12, 2)}, (None, None), 12, False, id="pieces-of-many-tokens"),
        pytest.param(usage(9, 44), {"pieces": (12, 2)}, (None, None), 24, None, id="pieces-are-no-tokens"),
        pytest.param(usage(9, 12), {"pieces": (60, 9)}, (None, None), 12, True, id="pieces-of-less-than-a-token"),
        pytest.param(None, {"pieces": (12, 2)}, (None, None), 99, None, id="pieces-alone"),
        pytest.param(usage(9, 12), {"thought": ""}, (0, 12), 0, True, id="no-thought"),
    ],
)
def test_counts(told, options, expected, cap, kept):
    found = count_tokens(told, **{"thought": "so it is", "answer": "\\boxed{5}", **options})
    assert (found.reasoning, found.answer) == expected
    assert found.within(cap) is kept


def test_a_disagreement_is_told():
    told: list[Any] = []
    count_tokens(usage(9, 40, None, 8), thought="x", thought_tokens=24, disagree=lambda *each: told.append(each))
    count_tokens(usage(9, 40, None, 25), thought="x", thought_tokens=24, disagree=lambda *each: told.append(each))
    assert told == [(8, 24, "the tokenizer")]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens", "completion_tokens_details")


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    ODD | st.dictionaries(st.sampled_from(NAMES), ODD | st.integers(0, 500) | st.dictionaries(st.just(NAMES[3]), ODD)),
    st.text(max_size=80),
    st.text(max_size=80),
    st.none() | st.integers(0, 200),
    st.none() | st.integers(0, 200),
)
def test_no_usage_brings_a_count_below_0_or_above_what_there_can_be(told, thought, answer, thought_tokens, seen):
    found = count_tokens(told, thought=thought, answer=answer, thought_tokens=thought_tokens, seen=seen)
    assert isinstance(found, Count)
    for number in (found.reasoning, found.answer, found.total, found.least, found.most):
        assert number is None or (type(number) is int and 0 <= number <= 2 * MOST_TOKENS)
    if found.reasoning is not None:
        assert found.reasoning == found.least == found.most
        assert found.reasoning >= (thought_tokens or 0)
    if found.most is not None:
        assert found.within(found.most) in (True, False)
        assert found.most >= found.least or found.reasoning is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_a_text_has_at_most_as_many_words_as_characters(text):
    assert 0 <= least_tokens(text) <= len(text)
    assert whole(least_tokens(text)) == least_tokens(text)
