"""What a gateway does with a request: whose it is, what it gets, whether that fits the quotas, what came of it."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..errors import LedgerError
from ..questions.queries import content_id
from ..runs.journal import REFUSED, Entry
from ..servers.kinds import merged
from .asgi import App, Message, Receive, Send, parsed, path_of, read_body, replayed, send_error
from .counting import Tally
from .decision import Decision
from .failing import GatewayError
from .host import logger
from .policy import Policy
from .request import PATHS, BudgetRequest
from .reply import Reply
from .tenants import Tenant, Tenants
from .used import DONE, REFUSED_UPSTREAM, UPSTREAM_FAILED, Used

MOST_REQUEST_BYTES = 32_000_000  # of a body that gets a budget
BODY_SECONDS = 60.0  # in which it has to come
MOST_RETRY = 10**9
ROUTING = ("models", "fallbacks", "route")  # fields by which some servers take another model than the one that is named
# Routes that generate no text, and so may be asked under a quota without counting.
UNCOUNTED = ("/embeddings", "/rerank", "/score", "/tokenize", "/detokenize", "/moderations", "/classify", "/pooling")


class Quotas(Protocol):
    """What the pipeline asks of `Admission`."""

    def price(self, tenant: Tenant) -> float | None:
        """Right answers that a token of this tenant must buy; None: the policy's price holds."""

    def prompt_bound(self, num_bytes: int) -> int:
        """The most tokens that the prompt of a body of so many bytes is taken to have."""

    async def admit(self, tenant: Tenant, *, prompt_bytes: int, decision: Decision) -> Any:
        """A grant, or a refusal."""

    async def renew(self, grant: Any) -> None:
        """A new lease for a request that still goes on."""

    async def durable(self, grant: Any) -> None:
        """Returns once a loss of power cannot lose it."""

    async def settle(self, grant: Any, used: Used) -> int:
        """Counts what was used, once."""
