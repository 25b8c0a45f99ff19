"""Settings of `forethought serve`; see `settings`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from .flags import at_least, check_all, flag
from .terms import TOKEN_COSTS, Cost

ENFORCE = ("auto", "native", "two-call")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """`forethought serve`: a gateway in front of a server."""

    upstream: str = flag("", "Base URL of the server, such as http://127.0.0.1:8000/v1.", metavar="URL", is_main=True)
    predictor: str = flag("", "Predictor: its folder, a trained run, or a shipped name.", metavar="P", is_main=True)
    price: float | None = flag(None, "Price: the least gain in right answers per token.", metavar="N", is_main=True)
    mean_tokens: float | None = flag(
        None,
        "Mean tokens per question, from which the price is computed.",
        metavar="N",
        shown="the price is given",
        is_main=True,
    )
    profile: str = flag(
        "",
        "Profile of measured questions, to compute the price from the mean.",
        metavar="F",
        shown="the predictor's run",
    )
    cost: Cost = flag(Cost.GRANTED, "What the mean counts: caps (granted), or tokens expected to be generated (spent).")
    tenants: str = flag("", "TOML file of tenants with their keys and quotas.", metavar="FILE", is_main=True)
    ledger: str = flag(
        "",
        "Storage of the quota counters: sqlite:PATH, or redis://HOST for several gateways.",
        metavar="WHERE",
        shown="sqlite:forethought-ledger.db, with --tenants",
        is_main=True,
    )
    host: str = flag("127.0.0.1", "Address to listen on.", is_main=True)
    port: int = flag(8100, "Port to listen on; 0 for a free one.", is_main=True)
    upstream_key_env: str = flag(
        "",
        "Environment variable with the key of the server.",
        metavar="NAME",
        shown="the client's key is passed on; none, with --tenants",
    )
    admin_key_env: str = flag(
        "",
        "Environment variable with the key of the admin page.",
        metavar="NAME",
        shown="only this machine sees the page",
    )
    shadow: bool = flag(False, "Decide and record, but leave requests unchanged.", is_main=True)
    log: str = flag(
        "", "Folder of the journal: one line per request; `train` can read it as a profile.", metavar="FOLDER"
    )
    keep_texts: bool = flag(False, "Store the questions in the journal, instead of a hash of each.")
    journal_days: int | None = flag(
        None, "Delete files of the journal after N days.", metavar="N", shown="all are kept"
    )
    tracing: bool = flag(False, "Send a span per request, without texts, to OpenTelemetry (variables OTEL_…).")
    server: str = flag(
        "auto", "Kind of the server: vllm, sglang, llama.cpp, openai, …; auto detects it.", metavar="KIND"
    )
    served_model: str = flag(
        "", "Name of the predictor's model on the server.", metavar="NAME", shown="its own name, if known"
    )
    menu: str = flag(
        "", "Menu file with the request fields of the predictor's options.", metavar="FILE", shown="that of its card"
    )
    enforce: str = flag("auto", "How caps are enforced: auto, native, two-call.", metavar="HOW")
    cap_offset: int = flag(0, "Tokens by which the server exceeds a cap (`doctor` measures it).", metavar="N")
    answer_room: int = flag(512, "Tokens for the answer after a thought.", metavar="N")
    most_tokens: int | None = flag(
        None,
        "With quotas: token limit for requests without any other limit.",
        metavar="N",
        shown="such requests are rejected",
    )
    image_tokens: int = flag(16_384, "With quotas: most tokens of an image.", metavar="N")
    tool_tokens: int = flag(
        0, "With quotas: most tokens that tools run by the server itself add to a request.", metavar="N"
    )
    timeout_seconds: float = flag(600.0, "Longest wait for the server, in seconds.", name="--timeout")
    drain_seconds: float = flag(30.0, "Longest wait for running requests at shutdown, in seconds.", metavar="N")
    dry_run: bool = flag(False, "Show what would be served, without listening.", is_main=True)
    demo: bool = flag(
        False, "Run a demo with a scripted server, load, tenants and the page; needs no other flag.", is_main=True
    )

    def __post_init__(self) -> None:
        is_open = not is_loopback(self.host)
        names = {"--upstream-key-env": self.upstream_key_env, "--admin-key-env": self.admin_key_env}
        check_all(
            [
                None if self.demo or self.upstream else "name the server: --upstream http://127.0.0.1:8000/v1",
                "--demo starts a server of its own: leave --upstream out" if self.demo and self.upstream else None,
                None
                if self.demo or self.predictor
                else "name a predictor: --predictor FOLDER, as `forethought train` makes it",
                None
                if self.demo or (self.price is None) != (self.mean_tokens is None)
                else "give either --price N or --mean-tokens N",
                at_least("--price", self.price, 0),
                f"--price is in right answers per token, so at most 1, not {self.price:g}"
                if (self.price or 0) > 1
                else None,
                at_least("--mean-tokens", self.mean_tokens, 1),
                None if self.cost in TOKEN_COSTS else f"--cost must be granted or spent, not {self.cost}",
                *(
                    f"{name}: there is no {value}"
                    for name, value in (("--tenants", self.tenants), ("--profile", self.profile), ("--menu", self.menu))
                    if value and not Path(value).exists()
                ),
                None
                if not self.ledger or self.ledger.startswith(("sqlite:", "redis://", "rediss://", "unix://"))
                else "--ledger takes sqlite:PATH or redis://HOST",
                None if 0 <= self.port < 1 << 16 else f"--port must be from 0 to 65535, not {self.port}",
                f"--host {self.host} can be reached from elsewhere: add --tenants FILE, with keys"
                if is_open and not self.tenants
                else None,
                f"--host {self.host} can be reached from elsewhere: add --admin-key-env NAME, for the page and feedback"
                if is_open and not self.admin_key_env
                else None,
                *(
                    f"{name} takes the name of a variable, not a key"
                    for name, value in names.items()
                    if value and not VARIABLE.fullmatch(value)
                ),
                "--keep-texts needs a journal: --log FOLDER" if self.keep_texts and not self.log else None,
                at_least("--journal-days", self.journal_days, 1),
                "--journal-days needs a journal: --log FOLDER" if self.journal_days and not self.log else None,
                None if self.enforce in ENFORCE else f"--enforce: {', '.join(ENFORCE)}, not {self.enforce!r}",
                at_least("--answer-room", self.answer_room, 1),
                at_least("--most-tokens", self.most_tokens, 1),
                at_least("--image-tokens", self.image_tokens, 0),
                at_least("--tool-tokens", self.tool_tokens, 0),
                at_least("--timeout", self.timeout_seconds, 1),
                at_least("--drain-seconds", self.drain_seconds, 0),
            ]
        )
