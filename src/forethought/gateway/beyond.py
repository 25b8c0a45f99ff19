"""What of a request its length does not bound: images, files and turns that only the server has, the server's tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

IMAGE_TOKENS = 16_384  # the most that one image is taken to be: Qwen2.5-VL's largest, at its default limits
IMAGES = ("image_url", "input_image", "image")
FILES = ("file", "input_file", "document", "video", "video_url", "input_video", "audio", "audio_url", "input_audio")
REFERENCES = ("file_id", "file_url", "url", "video_url", "audio_url")
PACKED = ("file", "input_file", "document", "video", "video_url", "input_video")  # may unfold to more than its bytes
PLAIN = ("text", "content")  # kinds of a document's source that are text as it is
STORED = ("previous_response_id", "conversation", "prompt_id", "preset")
CLIENTS = ("function", "custom", "local_shell")  # kinds of tools that the client runs, in a request of its own
SEARCH = "web_search_options"  # of a chat, whose tools are else all the client's
SERVERS = ("mcp_servers", "plugins")  # whose tools the server runs: of a message, of OpenRouter's chats
ONLINE = ":online"  # ends the name of a model that OpenRouter lets search
PARTS = ("content", "output")  # of a turn, where its parts lie


def beyond(body: Mapping[str, Any]) -> tuple[int, int, str]:
    """`(images, bytes of the body that are images, what else cannot be bounded)`; "" where all of it can be.

    Args:
        body: of a request for chat completions, responses or messages.
    """
    stored = next((name for name in STORED if body.get(name)), "")
    if not stored and isinstance(body.get("prompt"), Mapping):
        stored = "prompt"
    images = num_bytes = 0
    for part in _parts(body):
        if _is_of(IMAGES, part):
            images += 1
            num_bytes += sum(len(text) for _, text in _texts(part))
        elif part.get("type") == "item_reference":
            stored = stored or "item_reference"
        elif _is_of(FILES, part) and not stored:
            stored = next((name for name, text in _texts(part) if _refers(name, text)), "")
    return images, num_bytes, stored


def runs_tools(body: Mapping[str, Any]) -> bool:
    """Whether the server runs tools by itself, and thinks again on what they say, before it answers.

    What it makes of a packed file (a PDF, a video) is such a tool's too: it may have more tokens than the file bytes.
    """
    tools = body.get("tools")
    kinds = [tool.get("type") for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else []
    return (
        body.get(SEARCH) is not None
        or any(body.get(name) for name in SERVERS)
        or str(body.get("model")).endswith(ONLINE)
        or any(kind is not None and kind not in CLIENTS for kind in kinds)
        or any(_is_of(PACKED, part) and not _is_plain(part) for part in _parts(body))
    )


def _is_of(kinds: tuple[str, ...], part: Mapping[str, Any]) -> bool:
    """Whether a part is of one of these kinds, which some servers (vLLM) read off its field where it has no type."""
    return part.get("type") in kinds or any(name in part for name in kinds)


def _is_plain(part: Mapping[str, Any]) -> bool:
    source = part.get("source")
    return isinstance(source, Mapping) and source.get("type") in PLAIN


def _refers(name: str, text: str) -> bool:
    return name in REFERENCES and not text.startswith("data:")


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of all turns, and the turns themselves."""
    waiting = [body.get("messages"), body.get("input"), body.get("system")]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, Mapping):
            yield found
            waiting += [found[name] for name in PARTS if isinstance(found.get(name), list)]


def _texts(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`(name, text)` of all texts of a part, at any depth."""
    waiting: list[tuple[str, Any]] = list(part.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(name, each) for each in value]
