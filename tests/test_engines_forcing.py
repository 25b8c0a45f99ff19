"""Ends of thought and forced suffixes, in token ids; with a tokenizer of one byte a token and some longer ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forethought.core.data import Query
from forethought.core.prompts import PromptTemplate
from forethought.engines.forcing import Forcing, answer_end
from forethought.errors import InvalidInputError

MARKER = "Final answer:"
TEMPLATE = PromptTemplate(
    name="forcing", reasoning_end=MARKER, answer_suffix="\n\nFinal answer: {", answer_stop="}", assistant_prefix="<go>"
)


class PieceTokenizer:
    """Pieces of several characters first, else one character a token: like BPE, and invertible."""

    PIECES = (" Final answer:", "\n\n", ". Fin", "al ans", "Final", " answer", "er:")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        ids = []
        while text:
            piece = next((piece for piece in self.PIECES if text.startswith(piece)), text[0])
            ids.append(self.PIECES.index(piece) if piece in self.PIECES else 100 + ord(piece))
            text = text[len(piece) :]
        return ids

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(self.PIECES[token] if token < 100 else chr(token - 100) for token in ids)

    def apply_chat_template(self, messages, *, add_generation_prompt: bool, tokenize: bool) -> str:
        assert add_generation_prompt
        assert not tokenize
        if any("refuse" in message["content"] for message in messages):
            raise RuntimeError("after an assistant message comes a user message")
        return "".join(f"[{message['role']}]{message['content']}" for message in messages) + "[assistant]"


@pytest.fixture(scope="module")
def forcing():
    return Forcing(PieceTokenizer(), TEMPLATE)


def ids_of(text: str) -> list[int]:
    return PieceTokenizer().encode(text, add_special_tokens=False)


thoughts = st.lists(
    st.sampled_from(["F", "Fi", "Final", "a", "1", "\n", "\n\n", " ", ". Fin", "al ans", "w", "er", "é"]), max_size=8
).map("".join)


def test_a_prompt_ends_with_the_opened_turn(forcing):
    assert forcing.decode(forcing.prompt_ids(Query("q", "1+1?"))) == "[user]1+1?[assistant]<go>"


def test_turns_that_the_chat_template_refuses_are_named(forcing):
    refused = Query("q", "refuse this")
    with pytest.raises(InvalidInputError, match="after an assistant message"):
        forcing.prompt_ids(refused)
    assert [ids is None for ids in forcing.prompts([refused, Query("p", "fine")])] == [True, False]


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        pytest.param("1+1=2\n\nFinal answer: {2}", "1+1=2\n\n", id="marker-in-several-tokens"),
        pytest.param("Final answer:", "", id="nothing-before-it"),
        pytest.param("so. Final answer: 2", "so", id="marker-begins-inside-a-token"),
        pytest.param("a Final answer: 1 Final answer: 2", "a", id="the-first-of-two"),
        pytest.param("Final answer", None, id="one-character-short"),
        pytest.param("", None, id="empty"),
    ],
)
def test_the_natural_end_lies_before_the_marker(forcing, text, thought):
    length = forcing.reasoning_length(ids_of(text))
    assert (None if length is None else forcing.decode(ids_of(text)[:length])) == thought


@given(thoughts, thoughts)
def test_the_newest_tokens_show_the_end_as_soon_as_it_is_there(before, after):
    forcing = Forcing(PieceTokenizer(), TEMPLATE)
    ids = ids_of(before) + ids_of(MARKER) + ids_of(after)
    first = next(n for n in range(len(ids) + 1) if MARKER in forcing.decode(ids[:n]))
    assert forcing.has_ended(ids[:first])
    assert forcing.reasoning_length(ids[:first]) is not None
    assert not any(forcing.has_ended(ids[:n]) for n in range(first))


@pytest.mark.parametrize(
    ("thought", "closed"),
    [
        pytest.param("", "Final answer: {", id="empty"),
        pytest.param("1+1=2", "1+1=2\n\nFinal answer: {", id="in-the-middle-of-a-line"),
        pytest.param("1+1=2\n", "1+1=2\nFinal answer: {", id="at-the-end-of-a-line"),
        pytest.param("1+1=2\n\nFinal ans", "1+1=2\n\nFinal answer: {", id="inside-the-marker"),
        pytest.param("so. Fin", "so\n\nFinal answer: {", id="inside-a-token-that-opens-the-marker"),
        pytest.param("FFFFinal", "\n\nFinal answer: {".lstrip(), id="beginnings-of-the-marker-in-a-row"),
    ],
)
def test_a_cut_is_closed_once(forcing, thought, closed):
    assert forcing.decode(forcing.closed(ids_of(thought))) == closed


@given(thoughts)
def test_a_cap_inside_the_marker_closes_as_the_natural_end_does(before):
    forcing = Forcing(PieceTokenizer(), TEMPLATE)
    ids = ids_of(before) + ids_of(MARKER)
    length = forcing.reasoning_length(ids)
    natural = forcing.closed(ids[:length])
    for cap in range(length, len(ids)):
        if MARKER not in forcing.decode(ids[:cap]):
            assert forcing.closed(ids[:cap]) == natural


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12}", "12"),
        (" 12 ", "12"),
        ("1}2}", "1"),
        ("", ""),
        ("}", ""),
        (r"\frac{1}{2}} and", r"\frac{1}{2}"),
        (r"\frac{1}{2", r"\frac{1}{2"),
        (r"{a}}", "{a}"),
    ],
    ids=["stopped", "spaces", "two-stops", "empty", "only-the-stop", "own-braces", "cut-short", "braces-alone"],
)
def test_an_answer_ends_at_its_stop(forcing, text, answer):
    assert forcing.clean_answer(text) == answer


def test_only_braces_are_balanced():
    assert answer_end("f(x)) = 1", ")") == 3
    assert answer_end(r"\frac{1}{2}", "}") is None
    assert answer_end(r"\frac{1}{2}} }", "}") == 11
