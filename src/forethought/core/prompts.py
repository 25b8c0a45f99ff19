"""Builds the prompt of a query, and defines where its thought ends and how an answer is forced."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import InvalidSettingsError, UnknownNameError
from .data import Message, Query
from .files import parse_json, reaching
from .registry import unknown_name_message

CHAT = "chat"  # the model's own chat template, with its own way of thinking; made by `forethought.models.thinking`
BUILT_IN = "worked-5"  # the template of the built-in models


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    r"""The text around a query.

    Attributes:
        name: short name, for settings and cards.
        system: system turn, or "" for none (the model's own default, where its chat template has one).
        instruction: put after the question in the user turn, or "".
        shots: worked examples as (question, solution) chat turns; a solution ends like a real trace with its answer.
        assistant_prefix: opened in the assistant's turn before generation, such as "<think>\n".
        reasoning_end: text by which the model ends its thought, such as "</think>".
        answer_suffix: appended after the thought to have it answer; starts where `reasoning_end` does.
        answer_stop: text that ends the answer.
        max_answer_tokens: cap on the answer's own tokens.
        chat_options: what the model's chat template is told beside the turns, such as ("enable_thinking", True).
        choices: the only answers asked for, in order; () for any. Says nothing to the model, so the hash leaves it out.
    """

    name: str
    reasoning_end: str
    answer_suffix: str
    answer_stop: str
    system: str = ""
    instruction: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    assistant_prefix: str = ""
    max_answer_tokens: int = 12
    chat_options: tuple[tuple[str, Any], ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of every field; two templates with one hash give the same prompts."""
        values = asdict(self)
        del values["choices"]
        if not self.chat_options:  # as hashes were made before there were any
            del values["chat_options"]
        content = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def has_tags(self) -> bool:
        """Whether the thought ends in a tag, as that of a model does which was taught to think."""
        return self.reasoning_end[:1] in ("<", "[", "◁")

    @property
    def num_turns(self) -> int:
        """How many turns `messages` makes of a plain question."""
        return bool(self.system) + 2 * len(self.shots) + 1

    def messages(self, query: Query) -> tuple[Message, ...]:
        """The chat turns for `query`: system, examples as turns, then the question."""
        turns: list[Message] = []
        if self.system:
            turns.append(Message("system", self.system))
        for question, solution in self.shots:
            turns += [Message("user", self._ask(question)), Message("assistant", solution)]
        if isinstance(query.prompt, str):
            return (*turns, Message("user", self._ask(query.prompt)))
        if any(message.role == "system" for message in query.prompt):
            turns = [turn for turn in turns if turn.role != "system"]
            own = [message for message in query.prompt if message.role == "system"]
            rest = [message for message in query.prompt if message.role != "system"]
            return (*own, *turns, *rest)
        return (*turns, *query.prompt)

    def turns(self, query: Query) -> list[dict[str, str]]:
        """The same as chat templates and servers take them."""
        return [{"role": turn.role, "content": turn.content} for turn in self.messages(query)]

    def _ask(self, question: str) -> str:
        return f"{question}\n{self.instruction}" if self.instruction else question


def load_template(name: str) -> PromptTemplate:
    """The template shipped under `name`, or read from a JSON file when `name` is a path.

    `CHAT` is none of them: it depends on the model.

    Raises:
        UnknownNameError: no such template and no such file.
        InvalidSettingsError: a file that is not a template; every problem with it at once.
    """
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise UnknownNameError(
                f"there is no template file {name}; shipped templates: {', '.join(shipped_templates())}"
            )
        with reaching(path, "read"):
            content = path.read_bytes()
        return parse_template(content, place=name)
    known = shipped_templates()
    if name == CHAT:
        raise UnknownNameError(
            f"the template {CHAT!r} is the model's own, which is not known here; give one of {', '.join(known)}, or a "
            ".json file"
        )
    if name not in known:
        message = unknown_name_message("template", name, [CHAT, *known]).removesuffix(".")
        raise UnknownNameError(f"{message}, or a .json file.")
    return parse_template((_TEMPLATES / f"{name}.json").read_bytes(), place=name)


def shipped_templates() -> list[str]:
    """Names of the templates inside the package."""
    return sorted(entry.name.removesuffix(".json") for entry in _TEMPLATES.iterdir() if entry.name.endswith(".json"))


_TEMPLATES = resources.files("forethought") / "data" / "templates"
_REQUIRED = ("name", "reasoning_end", "answer_suffix", "answer_stop")


def template_to_json(template: PromptTemplate) -> dict[str, Any]:
    """A template as `parse_template` reads it, with all that its hash is made of."""
    values = asdict(template) | {"chat_options": dict(template.chat_options)}
    return {name: value for name, value in values.items() if name != "choices"}


def parse_template(content: bytes, *, place: str) -> PromptTemplate:
    """The template of a JSON file's content.

    Raises:
        InvalidSettingsError: it is not a template; every problem with it at once.
    """
    try:
        values = parse_json(content)
        json.dumps(values, ensure_ascii=False).encode()  # no half of a surrogate pair, which no file or server takes
    except ValueError as error:
        raise InvalidSettingsError(f"template {place} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidSettingsError(f"template {place} must be a JSON object, not {type(values).__name__}")
    own = {"max_answer_tokens": int, "chat_options": dict}
    kinds = {field.name: own.get(field.name, str) for field in fields(PromptTemplate) if field.name != "choices"}
    problems = [f"unknown key {key!r}" for key in values if key not in kinds]
    problems += [f"missing key {key!r}" for key in _REQUIRED if not values.get(key)]
    problems += [
        f"{key} must be {kind.__name__}, not {values[key]!r}"
        for key, kind in kinds.items()
        if key in values and key != "shots" and (not isinstance(values[key], kind) or isinstance(values[key], bool))
    ]
    shots = values.get("shots", [])
    if not isinstance(shots, list) or not all(
        isinstance(shot, list) and len(shot) == 2 and all(isinstance(part, str) for part in shot) for shot in shots
    ):
        problems.append("shots must be a list of [question, solution] pairs")
    if problems:
        raise InvalidSettingsError(f"template {place}: {'; '.join(problems)}. Keys: {', '.join(kinds)}.")
    options = tuple(sorted(values.get("chat_options", {}).items()))
    pairs = tuple((question, solution) for question, solution in shots)
    template = PromptTemplate(**{**values, "shots": pairs, "chat_options": options})
    if template.max_answer_tokens < 1:
        raise InvalidSettingsError(f"template {place}: max_answer_tokens must be at least 1")
    if not template.answer_suffix.lstrip().startswith(template.reasoning_end):
        raise InvalidSettingsError(
            f"template {place}: answer_suffix must start with reasoning_end ({template.reasoning_end!r}), "
            f"so that a forced answer continues as a natural one; it is {template.answer_suffix!r}"
        )
    return template


def answer_end(text: str, stop: str) -> int | None:
    r"""Where the answer in `text` ends: at the first `stop`, or None while there is none.

    A suffix that opens a brace (`\boxed{`) is closed by its own: braces that the answer opens itself, as `\frac{1}{2}`
    does, are closed before.
    """
    position = text.find(stop)
    if stop != "}":
        return None if position < 0 else position
    while position >= 0 and text.count("{", 0, position) > text.count("}", 0, position):
        position = text.find(stop, position + 1)
    return None if position < 0 else position
