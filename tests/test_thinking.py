"""How a model thinks is found in its chat template; what is asked, and at which caps, follows from that."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forethought.core.data import Query
from forethought.core.menu import Menu
from forethought.core.prompts import BUILT_IN, CHAT
from forethought.core.settings import EngineSettings, ProfileSettings
from forethought.engines import opening
from forethought.engines.forcing import Forcing
from forethought.models.here import Here
from forethought.models.thinking import STEPS, own_template
from forethought.runs.store import RunDirectory
from loopback import serving
from toy_server import END, ToyServer, encode

jinja2 = pytest.importorskip("jinja2", reason="chat templates need jinja2, which comes with transformers")

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
HYBRID = TURNS + (
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OPENED = "{% set c = c.split('</think>') %}" + TURNS + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
OFF = TURNS + "{% if add_generation_prompt %}<|assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}"
HARMONY = TURNS + (
    "{# <|channel|>analysis<|message|> … <|end|><|start|>assistant<|channel|>final<|message|> #}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
MISTRAL = "First draft your thinking: [THINK]…[/THINK]" + TURNS
SEED = TURNS + "{# <seed:think> </seed:think> #}{% if add_generation_prompt %}<bot>{% endif %}"
PLAIN = TURNS + "{% if add_generation_prompt %}<|assistant|>{% endif %}"


class Tokenizer:
    """A character a token, but for special tokens; chat templates are rendered as transformers does."""

    def __init__(self, chat_template: Any, special: tuple[str, ...] = ()) -> None:
        self.chat_template, self.all_special_tokens = chat_template, special

    def apply_chat_template(self, messages: Any, *, tokenize: bool, **options: Any) -> str:
        assert not tokenize
        rendered: str = jinja2.Template(self.chat_template).render(messages=messages, c="", **options)
        return rendered

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids = []
        while text:
            token = next((each for each in self.all_special_tokens if text.startswith(each)), text[0])
            ids.append(1 << 20 | self.all_special_tokens.index(token) if len(token) > 1 else ord(token))
            text = text[len(token) :]
        return ids

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(
            chr(each) if each < 1 << 20 else "" if skip_special_tokens else self.all_special_tokens[each & 0xFF]
            for each in ids
        )


CASES = {
    "Qwen3: its template can close the thought": (HYBRID, (), "<think>\n", "</think>", "\n</think>\n\nFinal answer:"),
    "R1: its template opens the thought": (OPENED, (), "", "</think>", "\n</think>\n\nFinal answer:"),
    "DeepSeek 3.1: off unless it is asked for": (OFF, (), "", "</think>", "\n</think>\n\nFinal answer:"),
    "gpt-oss: channels": (
        HARMONY,
        ("<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
        "<|channel|>analysis<|message|>",
        "<|end|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>Final answer:",
    ),
    "Magistral": (MISTRAL, (), "[THINK]\n", "[/THINK]", "\n[/THINK]\n\nFinal answer:"),
    "Seed: other words for it": (SEED, (), "<seed:think>\n", "</seed:think>", "\n</seed:think>\n\nFinal answer:"),
    "special tokens alone": (PLAIN, ("[THINK]", "[/THINK]"), "[THINK]\n", "[/THINK]", "\n[/THINK]\n\nFinal answer:"),
}


@pytest.mark.parametrize(("chat_template", "special", "prefix", "end", "suffix"), CASES.values(), ids=CASES.keys())
def test_tags_are_found_and_said(
    chat_template: str, special: tuple[str, ...], prefix: str, end: str, suffix: str
) -> None:
    tokenizer = Tokenizer(chat_template, special)
    template, how = own_template(tokenizer)
    assert (template.name, template.has_tags) == (CHAT, True)
    assert (template.assistant_prefix, template.reasoning_end) == (prefix, end)
    assert template.answer_suffix.startswith(suffix)
    assert end in how
    assert "thinks between" in how
    forcing = Forcing(tokenizer, template)
    thought, rest = (tokenizer.encode(text, add_special_tokens=False) for text in ("1+1=2", f"{end} so 2"))
    assert forcing.reasoning_length([*thought, *rest]) == len(thought)
    assert (
        forcing.decode(forcing.prompt_ids(Query("q", "1+1?")))
        .rstrip()
        .endswith(forcing.decode(tokenizer.encode("<think>", add_special_tokens=False)) if not prefix else "")
    )
    closed = tokenizer.decode(forcing.closed([]), skip_special_tokens=False)
    assert closed == template.answer_suffix.lstrip()  # no thought at all: closed and answered at once


def test_what_thinks_only_when_asked_is_asked() -> None:
    template, how = own_template(Tokenizer(OFF))
    assert template.chat_options == (("thinking", True),)
    assert how.endswith("with thinking")
    plain = own_template(Tokenizer(OPENED))[0]
    assert plain.hash != template.hash


@pytest.mark.parametrize(
    "tokenizer",
    [Tokenizer(PLAIN), Tokenizer(None), Tokenizer({"default": PLAIN}), Tokenizer("{{ raise }}{{ 1/0 }}")],
    ids=["no tags", "no chat template", "several", "broken"],
)
def test_a_model_without_tags_is_asked_to_think_step_by_step(tokenizer: Tokenizer) -> None:
    template, how = own_template(tokenizer)
    assert template == STEPS
    assert "step by step" in how


@pytest.fixture
def thinker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder whose model thinks, as far as its files say."""
    monkeypatch.setattr(Here, "tokenizer", lambda here: None if here.folder is None else Tokenizer(HYBRID))
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 8192}))
    return tmp_path


def test_built_in_models_keep_their_examples_and_caps() -> None:
    for model in ("fake", "qwen2.5-coder-1.5b"):
        settings, lines = opening.settle(ProfileSettings(model=model, questions="q"))
        assert (settings.engine.template, settings.menu) == (BUILT_IN, Menu.evenly(16, 256))
        assert len(lines) == 2
    named = EngineSettings(template="boxed")
    assert opening.prompting("fake", named).template.name == "boxed"


@pytest.mark.parametrize(
    ("context", "caps"),
    [
        (None, (256, 512, 1024, 2048, 4096)),
        (40960, (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)),
        (1024, (16, 32, 64, 128, 256)),
        (300, (9, 18, 36, 72, 144, 150)),
    ],
)
def test_a_model_that_thinks_is_measured_up_to_its_context(thinker: Path, context: int | None, caps: tuple) -> None:
    asked = ProfileSettings(model=str(thinker), questions="q", engine=EngineSettings(context_tokens=context))
    settings, lines = opening.settle(asked)
    assert settings.engine.template == CHAT
    assert settings.menu.caps == caps
    assert lines[0] == "template chat: thinks between <think> and </think>, as its own chat template says"
    assert "the model thinks, and its context is" in lines[1]
    assert opening.settle(settings) == (settings, lines[:1])
    own = opening.settle(ProfileSettings(model=str(thinker), questions="q", budgets="0,512"))[0]
    assert own.menu.caps == (0, 512)


def test_an_unknown_server_gets_a_plain_question_and_is_said(thinker: Path) -> None:
    asked = EngineSettings(engine="openai", options={"base_url": "http://127.0.0.1:1/v1"})
    found = opening.prompting("anything", asked)
    assert (found.template, found.is_settled) == (STEPS, False)
    assert "tokenizer=NAME" in found.reason
    assert opening.settle(ProfileSettings(model="anything", questions="q", engine=asked))[0].engine.template == ""
    known = EngineSettings(engine="openai", options={"tokenizer": str(thinker)})
    assert opening.prompting("anything", known).template.has_tags
    assert opening.settle(ProfileSettings(model="anything", questions="q", engine=known))[0].menu.largest == 4096


def test_a_folders_own_chat_template_is_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    before = opening.prompting(str(folder), EngineSettings())
    assert before.template == STEPS
    (folder / "chat_template.jinja").write_text(HYBRID)
    after = opening.prompting(str(folder), EngineSettings())
    assert after.template.has_tags
    assert after.is_settled


class ThinkingServer(ToyServer):
    """A server whose chat template closes the thought when it is told to, and shows that in the prompts it makes."""

    def __call__(self, asked: Any) -> Any:
        """Its vocabulary has no tags: three ends of turn stand for them."""
        reply = super().__call__(asked)
        if asked.path == "/detokenize":
            shown = reply.body["prompt"].replace(3 * END, "<think>\n\n</think>\n\n")
            return replace(reply, body={"prompt": shown})
        return reply

    def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        found = super()._tokenize(body)
        closed = body.get("chat_template_kwargs", {}).get("enable_thinking") is False
        return {**found, "tokens": found["tokens"] + encode(3 * END)} if closed else found


@pytest.mark.parametrize(
    ("server", "thinks", "how"),
    [
        pytest.param(
            ThinkingServer("vllm", context_tokens=8192), True, "thinks between <think> and </think>", id="thinks"
        ),
        pytest.param(ToyServer("vllm"), False, "has no thinking tags", id="does not"),
        pytest.param(ToyServer("openai"), False, "does not show how", id="shows nothing"),
    ],
)
def test_a_server_is_asked_how_its_model_thinks(server: ToyServer, thinks: bool, how: str) -> None:
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    with serving(server) as url:
        asked = ProfileSettings(
            model="toy", questions="q", engine=EngineSettings(engine="openai", options={"base_url": url})
        )
        settings, lines = opening.settle(asked, asks=True)
        assert how in lines[0]
        assert settings.engine.template == CHAT
        assert settings.menu.is_geometric == thinks
        with opening.opened(None, "toy", settings.engine) as engine:
            assert engine.template.has_tags == thinks
            assert engine.info.template == CHAT
        assert not any("completions" in request for request in map(str, server.bodies))  # nothing that costs


@pytest.mark.slow
def test_a_profile_at_a_server_takes_what_the_server_shows(call: Any, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "1+1", "answer": "2"}) + "\n")
    with serving(ThinkingServer("vllm", context_tokens=8192)) as url:
        said = call("profile", "toy", "q.jsonl", "--base-url", url, "--traces", 1, "--quiet", "--json")
        again = call("profile", "toy", "q.jsonl", "--base-url", url, "--traces", 1, "--quiet", "--json")
    assert said.code == again.code == 0, said.err
    assert "template chat: thinks between <think> and </think>, as the server's chat template says" in said.err
    assert "the model thinks, and its context is 8,192 tokens" in said.err
    made = RunDirectory.open(Path("runs/toy-q")).header.provenance
    assert (made.template, made.menu) == ("chat", Menu.parse("geometric:256:4096"))
