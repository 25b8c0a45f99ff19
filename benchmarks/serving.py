"""Measures what the plug-in of vLLM's server adds to a request: the same requests with and without it, by turns.

    python benchmarks/serving.py --with http://127.0.0.1:8000 --without http://127.0.0.1:8001 --served-model NAME

Both servers run the same model with the same flags; only one has the plug-in. One token is generated a request, so that
nearly all of what is measured is what comes before generation. Every question is asked once unmeasured, so that its
prompt lies in both prefix caches; --fresh asks each question once, measured, so that prompts are computed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    """Measures, prints and writes JSON."""
    arguments = parse()
    from forethought.core.prompts import load_template
    from forethought.questions.queries import load_queries

    template = load_template(arguments.template) if arguments.template else None
    queries = load_queries(arguments.data, limit=arguments.questions)
    bodies = []
    for query in queries:
        turns = [(turn.role, turn.content) for turn in template.messages(query)] if template else [("user", query.text)]
        messages = [{"role": role, "content": content} for role, content in turns]
        bodies.append(
            json.dumps(
                {"model": arguments.served_model, "messages": messages, "max_tokens": 1, "temperature": 0}
            ).encode()
        )
    connections = [http.client.HTTPConnection(urlsplit(url).netloc) for url in (arguments.with_, arguments.without)]
    reasons: dict[str, int] = {}
    seconds: list[tuple[float, float]] = []
    rounds = arguments.rounds if not arguments.fresh else 1
    for number in range(0 if arguments.fresh else -1, rounds):
        for row, body in enumerate(bodies):
            order = (0, 1) if (row + number) % 2 else (1, 0)
            took = [0.0, 0.0]
            for side in order:
                took[side], reason = ask(connections[side], body)
                if side == 0 and number >= 0:
                    reasons[reason] = reasons.get(reason, 0) + 1
            if number >= 0:
                seconds.append((took[0], took[1]))
    added = sorted(1000 * (plugged - plain) for plugged, plain in seconds)
    result = {
        "settings": {name: value for name, value in vars(arguments).items() if name not in ("out", "with_", "without")},
        "pairs": len(seconds),
        "with_ms": quartiles([1000 * plugged for plugged, _ in seconds]),
        "without_ms": quartiles([1000 * plain for _, plain in seconds]),
        "added_ms": quartiles(added),
        "decided": reasons,
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, str]:
    """Seconds of one request, and the first word of why its budget is what it is."""
    connection.close()  # the server drops one that was idle for a while
    connection.connect()
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    seconds = time.perf_counter() - started
    if response.status != 200:
        raise SystemExit(f"status {response.status}: {content[:300]!r}")
    return seconds, (response.getheader("x-forethought-reason") or "none").partition(" ")[0].rstrip(";:")


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles, in the unit given."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"lower_quartile": round(low, 2), "median": round(median, 2), "upper_quartile": round(high, 2)}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="with_", required=True, help="address of the server that has the plug-in")
    parser.add_argument("--without", required=True, help="address of the server that has none")
    parser.add_argument("--served-model", required=True)
    parser.add_argument("--data", default="gsm8k-demo")
    parser.add_argument("--template", default="", help="ask in this template's words; default: the question alone")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="ask each question once, its prompt in no cache")
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
