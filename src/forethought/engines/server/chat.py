"""A model's tokenizer and chat template: from local files, or as far as the server exposes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.prompts import PromptTemplate
from ...errors import EngineError, MissingExtraError
from ...models import locate
from ...models.thinking import STEPS, SWITCHES, own_template
from ...servers.detecting import Server
from ...servers.retrying import RequestError
from .vocabulary import ServerTokenizer

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked

TURNS = [{"role": "user", "content": "1 + 1?"}]


def load_tokenizer(name: str) -> Any:
    """The Hugging Face tokenizer of an alias, a folder or a hub id; raises EngineError, MissingExtraError."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "a local tokenizer needs the package 'transformers', which is not installed. Install it with: "
            "pip install transformers jinja2 (torch is not needed for this)"
        ) from error
    path = locate(name).path
    try:
        return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(f"the tokenizer in {path} did not load: {error}") from error


class ServerChat:
    """What `own_template` asks of a tokenizer, as a server has answered it.

    Args:
        rendered: what its chat template was told -> the prompt it made.
        text: the chat template itself, where the server shows it.
    """

    def __init__(self, rendered: dict[str, str], text: str = "") -> None:
        self._rendered = rendered
        self.chat_template = "\n".join([text, *rendered.values()])

    def apply_chat_template(self, turns: Any, *, add_generation_prompt: bool, tokenize: bool, **options: Any) -> str:
        """One of the prompts that were asked for."""
        return self._rendered.get(repr(options), self._rendered.get("{}", ""))


async def ask_template(client: Client, server: Server, model: str) -> tuple[PromptTemplate, str]:
    """The template for the model behind `server`, and how it was found: by the prompts that the server makes.

    A prompt that opens or closes a thought shows the tags; a server that makes none for us gets a plain question.
    """
    if not server.tokenizes:
        return STEPS, "asks to think step by step: the server does not show how its model thinks"
    rendered: dict[str, str] = {}
    tokens = ServerTokenizer(server.kind, model)
    try:
        for options in ({}, *({switch: value} for switch in SWITCHES for value in (True, False))):
            rendered[repr(options)] = await tokens.rendered(client, TURNS, options)
        props = await client.ask("GET", client.address.root("props")) if server.kind.ids == "llama.cpp" else None
    except RequestError:
        return STEPS, "asks to think step by step: the server does not show the prompts that it makes"
    template, how = own_template(ServerChat(rendered, str((props or {}).get("chat_template", ""))))
    return template, how.replace("its own chat template", "the server's chat template")
