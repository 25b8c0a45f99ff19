"""Templates: the turns around a question, and files that are not templates."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forethought.core.data import Message, Query
from forethought.core.prompts import load_template, shipped_templates
from forethought.errors import InvalidSettingsError, UnknownNameError

PLAIN = {"name": "plain", "reasoning_end": "</think>", "answer_suffix": "\n</think>\nAnswer: ", "answer_stop": "\n"}


@pytest.mark.parametrize("name", shipped_templates())
def test_shipped_templates_load(name: str) -> None:
    template = load_template(name)
    assert template.name == name
    assert template.messages(Query("q", "1 + 1?"))[-1].content.startswith("1 + 1?")


def test_worked_examples_end_as_a_forced_answer_does() -> None:
    template = load_template("worked-5")
    assert len(template.shots) == 5
    assert all(template.answer_suffix in solution for _, solution in template.shots)
    assert all(solution.endswith(template.answer_stop) for _, solution in template.shots)


def test_a_chat_keeps_its_own_system_turn() -> None:
    template = load_template("worked-5")
    query = Query("q", (Message("system", "Be brief."), Message("user", "1 + 1?")))
    turns = template.messages(query)
    assert turns[0] == Message("system", "Be brief.")
    assert turns[-1] == Message("user", "1 + 1?")
    assert len(turns) == 2 + 2 * len(template.shots)


def test_the_hash_knows_every_field(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(PLAIN))
    plain = load_template(str(path))
    for key, value in {"system": "s", "instruction": "i", "max_answer_tokens": 3, "shots": [["q", "a"]]}.items():
        path.write_text(json.dumps({**PLAIN, key: value}))
        assert load_template(str(path)).hash != plain.hash


BROKEN = {
    "not JSON": ("{", "not JSON"),
    "nested without end": ("[" * 100_000, "nested too deeply"),
    "half a character": (json.dumps({**PLAIN, "system": "\ud800"}), "surrogates"),
    "a key twice": ('{"name": "a", "name": "b"}', "occurs twice"),
    "not an object": ("[]", "JSON object"),
    "unknown key": (json.dumps({**PLAIN, "sufix": "x"}), "'sufix'"),
    "missing key": (json.dumps({**PLAIN, "answer_stop": ""}), "'answer_stop'"),
    "wrong type": (json.dumps({**PLAIN, "system": 3}), "system must be str"),
    "bad shots": (json.dumps({**PLAIN, "shots": [["only a question"]]}), "shots"),
    "no answer tokens": (json.dumps({**PLAIN, "max_answer_tokens": 0}), "at least 1"),
    "suffix does not end the thought": (json.dumps({**PLAIN, "answer_suffix": "Answer: "}), "reasoning_end"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_a_template_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(InvalidSettingsError, match=message):
        load_template(str(path))


def test_unknown_templates_are_named() -> None:
    with pytest.raises(UnknownNameError, match="'worked-5'"):
        load_template("worked5")
    with pytest.raises(UnknownNameError, match=r"none\.json"):
        load_template("none.json")
    with pytest.raises(UnknownNameError, match=r"'chat' is the model's own, .*; give one of boxed, think"):
        load_template("chat")


def test_the_template_in_the_docs_is_one() -> None:
    root = Path(__file__).parents[1]
    example = root / "examples" / "extending" / "template.json"
    assert load_template(str(example)).has_tags
    assert example.read_text() in (root / "docs" / "extending.md").read_text()


def test_options_of_a_chat_template_count_and_choices_do_not(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**PLAIN, "chat_options": {"enable_thinking": True}}))
    template = load_template(str(path))
    assert template.chat_options == (("enable_thinking", True),)
    plain = replace(template, chat_options=())
    assert template.hash != plain.hash
    assert replace(plain, choices=("a", "b")).hash == plain.hash
    assert load_template("worked-5").hash == "15df6e749a3b"
