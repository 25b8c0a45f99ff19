"""The scripted server as a process of its own: `python -m forethought.gateway.scripted --help`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from dataclasses import replace
from typing import Any

from ...servers.kinds import KINDS
from .model import DrawnModel
from .server import ScriptedServer
from .troubles import HEADER, trouble_in


async def _serve(options: dict[str, Any]) -> None:
    model = DrawnModel(options.pop("seed"), options.pop("menu"))
    thought = options.pop("thought")
    script = (
        None if thought is None else lambda seen: replace(trouble_in(seen.headers.get(HEADER), ""), thought=thought)
    )
    async with ScriptedServer(model, KINDS[options.pop("kind")], script=script, **options) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serves until it is interrupted; its first line names its address."""
    parser = argparse.ArgumentParser(prog="python -m forethought.gateway.scripted", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, default="vllm")
    parser.add_argument("--name", default="scripted", help="of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--menu", default="16:256:16", help="the scale of its thoughts")
    parser.add_argument("--thought", type=int, help="tokens of every thought, whatever was asked for")
    parser.add_argument("--tokens-per-second", type=float, help="of each reply; without it, at once")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before the first token")
    parser.add_argument("--key", default="", help="that requests must carry")
    options = vars(parser.parse_args())
    try:
        import uvloop
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    with contextlib.suppress(KeyboardInterrupt):
        run(_serve(options))


if __name__ == "__main__":
    main()
