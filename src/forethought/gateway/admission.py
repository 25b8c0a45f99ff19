"""Lets requests in under quotas: each reserves what it may use, and settles once to what it used."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import LedgerError
from .beyond import IMAGE_TOKENS
from .chance import random_bytes
from .decision import Decision
from .host import logger
from .law import SharedPrice
from .ledger import LEASE, Claim, Count, Full, Ledger
from .ledger.book import MOST_TOKENS
from .tenants import Tenant, Tenants
from .used import CLIENT_LEFT, DONE, REFUSED_UPSTREAM, Used
from .windows import per

GATEWAY = "gateway"  # the account in which every request counts
FIRST_RATIO = 0.3  # tokens a byte of a request's body, until prompts have been counted
MEMORY = 64_000  # bytes over which the ratio forgets
MARGIN = 256  # tokens that a chat template adds, in the bound of a prompt, until one is seen to add more
MOST_MARGIN = 4096  # that is believed of a template: one odd count must not shut out every later request
BEYOND_SHARE = 1 / 16  # of the most tokens that images and tools can be: what they are expected to be
BELIEVED = 1 << 17  # tokens beyond a request's bound that a server is believed to have added: prompts, tools, images
TICK_SECONDS = 1.0
UNLIMITED = "nothing limits how much this request may generate, and there is a quota: give it max_tokens"


@dataclass(slots=True)
class Grant:
    """A request that was let in.

    Attributes:
        id: of its claim.
        tenant: its name.
        prompt_tokens: that its prompt is taken to have.
        prompt_bytes: of its body; 0 where its tokens say nothing of those of other prompts.
        reserved: tokens that it counts as where nothing else is known.
        bound: the most that it can use.
        most: that a server is believed to have used, beside the text that it shows.
        settled: what it was counted as; None while it is open.
    """

    id: str
    tenant: str
    prompt_tokens: int
    prompt_bytes: int
    reserved: int
    bound: int
    most: int = MOST_TOKENS
    settled: int | None = None
    settling: asyncio.Future[int] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not let in.

    Attributes:
        reason: in a sentence, for the client.
        retry_after: seconds until the same request fits if nobody else comes; infinite where no wait helps.
        left: tokens that would fit now, prompt included.
    """

    reason: str
    retry_after: float
    left: int

    @property
    def may_wait(self) -> bool:
        """Whether the same request can be let in later."""
        return math.isfinite(self.retry_after)


class PromptTokens:
    """Tokens of a prompt before anybody has counted them: by the bytes of its body, and what was seen of others.

    Args:
        tokens_per_byte: the most that a byte can be.
    """

    def __init__(self, tokens_per_byte: float = 1.0) -> None:
        self._most_ratio = tokens_per_byte
        self._tokens = FIRST_RATIO * MEMORY / 16
        self._bytes = MEMORY / 16
        self._margin = MARGIN

    def expected(self, num_bytes: int) -> int:
        """Tokens of a body of so many bytes, about."""
        return min(max(1, round(num_bytes * self._tokens / self._bytes)), self.bound(num_bytes))

    def bound(self, num_bytes: int) -> int:
        """The most tokens that it can be."""
        return math.ceil(num_bytes * self._most_ratio) + self._margin

    def see(self, num_bytes: int, tokens: int) -> None:
        """Learns from a prompt that was counted."""
        of_text = math.ceil(num_bytes * self._most_ratio)
        tokens, kept = min(tokens, of_text + MOST_MARGIN), max(0.0, 1.0 - num_bytes / MEMORY)
        self._tokens = kept * self._tokens + tokens
        self._bytes = kept * self._bytes + max(1, num_bytes)
        self._margin = max(self._margin, tokens - of_text)


class Admission:
    """Quotas in front of an upstream.

    Args:
        tenants: with their quotas and the gateway's.
        ledger: where claims and counts lie; closed with this.
        price: follows the quotas; None where no law runs, and the policy's fixed price holds.
        lease: seconds until a claim that was neither renewed nor settled counts as its reservation.
        image_tokens: the most that an image is taken to be.
        tool_tokens: the most that a request with tools of the server's is taken to use more.

    Attributes:
        shared_price: what follows the quotas; None where no law runs.
    """

    def __init__(
        self,
        tenants: Tenants,
        ledger: Ledger,
        *,
        price: SharedPrice | None = None,
        lease: float = LEASE,
        image_tokens: int = IMAGE_TOKENS,
        tool_tokens: int = 0,
    ) -> None:
        self.tenants = tenants
        self.ledger = ledger
        self.lease = lease
        self._image_tokens, self._tool_tokens = image_tokens, tool_tokens
        self.shared_price = price
        self._prompts = PromptTokens(tenants.tokens_per_byte)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._open: dict[str, Grant] = {}
        self._next_renewal = 0.0

    def price(self, tenant: Tenant) -> float | None:
        """Right answers that a token of this tenant must buy; None where no law runs."""
        return None if self.shared_price is None else self.shared_price.value / tenant.weight

    def prompt_bound(self, num_bytes: int, beyond: int = 0) -> int:
        """The most tokens that a prompt is taken to have, by the bytes of its body and what is beyond them."""
        return self._prompts.bound(num_bytes) + beyond

    def beyond(self, images: int, *, has_tools: bool) -> int:
        """The most tokens of a request's images, and of tools that the server runs for it."""
        return images * self._image_tokens + (self._tool_tokens if has_tools else 0)

    async def admit(self, tenant: Tenant, *, prompt_bytes: int, decision: Decision, beyond: int = 0) -> Grant | Refusal:
        """Reserves what a request may use; once this returns a grant, a kill cannot lose it.

        Args:
            tenant: whose request it is.
            prompt_bytes: of its body, images left out.
            decision: what it gets.
            beyond: the most tokens that it may use beyond text and answers: see `beyond`.

        Raises:
            LedgerError: the ledger cannot be reached; nothing may be sent.
        """
        accounts = {GATEWAY: self.tenants.quotas, account_of(tenant): tenant.quotas}
        thoughts = max(1, decision.num_thoughts)
        prompt = self._prompts.expected(prompt_bytes) + round(beyond * BEYOND_SHARE)
        most = decision.most_tokens
        if most is None and (self.tenants.quotas or tenant.quotas):
            left = await self._left(accounts)
            return Refusal(UNLIMITED, math.inf, left)
        high = decision.high_tokens if decision.high_tokens is not None else decision.budget
        thought = (most or 0) if high is None else high + decision.answer_tokens
        thought = thought if most is None else min(thought, most)
        bound = self.prompt_bound(prompt_bytes, beyond) + thoughts * (thought if most is None else most)
        bound = min(bound, MOST_TOKENS)
        reserved = min(prompt + thoughts * thought, bound)
        claim = Claim(random_bytes(12).hex(), accounts, reserved, bound, self.lease)
        try:
            full = await self.ledger.reserve(claim)
        except asyncio.CancelledError:  # the client left; nothing was sent
            self._spawn(self._release(claim.id))
            raise
        if full is not None:
            if self.shared_price is not None and full.account == GATEWAY and bound <= full.quota:
                self.shared_price.refused(full.window)
            return _refusal(full, bound)
        believed = MOST_TOKENS if most is None else bound + BELIEVED
        grant = Grant(claim.id, tenant.name, prompt, 0 if beyond else prompt_bytes, reserved, bound, believed)
        self._open[grant.id] = grant
        return grant

    async def durable(self, grant: Grant) -> None:
        """Returns once a loss of power cannot lose the grant: before the first byte of the reply goes out.

        Raises:
            LedgerError: it cannot be written.
        """
        await self.ledger.durable(grant.id)

    async def renew(self, grant: Grant) -> None:
        """Gives a request that still goes on a new lease."""
        if grant.settled is None:
            with suppress(LedgerError):  # there are two more before the lease runs out
                await self.ledger.renew(grant.id, self.lease)

    async def settle(self, grant: Grant, used: Used) -> int:
        """Counts what a request used, once; a second call returns what the first counted.

        Where the ledger cannot be written it tries again by itself, and at the latest the lease settles the claim.
        """
        if grant.settling is None:
            self._open.pop(grant.id, None)
            tokens = tokens_of(grant, used)
            if used.prompt_tokens is not None and grant.prompt_bytes:
                self._prompts.see(grant.prompt_bytes, used.prompt_tokens)
            grant.settling = self._spawn(self._settle(grant, tokens))
        return await asyncio.shield(grant.settling)

    async def _settle(self, grant: Grant, tokens: int) -> int:
        counted: int | None = tokens
        try:
            counted = await self.ledger.settle(grant.id, tokens)
        except LedgerError as error:
            logger.warning("a settlement waits: %s", error)
        grant.settled = grant.reserved if counted is None else counted  # None: the lease ran out long ago
        return grant.settled

    async def counts(self) -> list[Count]:
        """Of the gateway and of each tenant, in all present windows."""
        return await self.ledger.counts([GATEWAY, *(account_of(tenant) for tenant in self.tenants.all)])

    def start(self) -> None:
        """Begins to renew leases, to sweep and to steer the price, every second."""
        if self._ticking is None:
            self._ticking = asyncio.ensure_future(self._tick_for_ever())

    async def tick(self) -> None:
        """Renews the leases of what goes on, settles what has run out and takes a step of the price."""
        if (now := time.monotonic()) >= self._next_renewal:
            self._next_renewal = now + self.lease / 3.0
            await asyncio.gather(*map(self.renew, self._open.values()))  # together: one call of Redis for many
        await self.ledger.sweep()
        if self.shared_price is not None:
            await self.shared_price.step(self.ledger, GATEWAY)

    async def close(self) -> None:
        """Ends what runs, and closes the ledger."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.ledger.close()

    async def _tick_for_ever(self) -> None:
        while True:
            try:
                await self.tick()
            except LedgerError as error:
                logger.warning("the ledger cannot be swept: %s", error)
            except Exception:  # without the next tick no lease would be renewed
                logger.exception("a tick of the quotas failed")
            await asyncio.sleep(TICK_SECONDS)

    async def _release(self, claim_id: str) -> None:
        with suppress(LedgerError):
            await self.ledger.settle(claim_id, 0)

    async def _left(self, accounts: dict[str, Any]) -> int:
        counts = await self.ledger.counts(accounts)
        rooms = [
            accounts[count.account][count.window] - count.settled - count.bound
            for count in counts
            if count.window in accounts[count.account]
        ]
        return max(0, min(rooms, default=MOST_TOKENS))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def account_of(tenant: Tenant) -> str:
    """The account in which a tenant's requests count."""
    return f"tenant:{tenant.name}"


def tokens_of(grant: Grant, used: Used) -> int:
    """Tokens that a request counts as: what it is known to have used, else its reservation, never less than 1.

    0 only where the server did not take it. A reply that broke off may have cost more than was seen of it, and so may
    one of which nobody counted the tokens: these count as the reservation at least. What a server says is believed as
    far as it is possible: one wrong number must not use up a quota.
    """
    if used.ending == REFUSED_UPSTREAM:
        return 0
    prompt = grant.prompt_tokens if used.prompt_tokens is None else used.prompt_tokens
    seen = max(used.reasoning_tokens or 0, used.at_least)
    if used.output_tokens is not None and used.ending in (DONE, CLIENT_LEFT):
        tokens = prompt + used.output_tokens
    else:
        tokens = max(grant.reserved, prompt + max(seen, used.output_tokens or 0))
    return min(max(1, tokens), grant.most + used.shown)


def _refusal(full: Full, bound: int) -> Refusal:
    whose = "the gateway" if full.account == GATEWAY else f"tenant {full.account.removeprefix('tenant:')}"
    quota = f"{whose} has {full.quota:,} {per(full.window)}"
    asked = f"this request may use up to {bound:,}"
    if bound > full.quota:
        reason = f"{quota}, and {asked}: it never fits; ask for fewer tokens"
    elif math.isinf(full.retry_after):
        reason = f"{quota}, and they are used up: {asked}, and {full.left:,} are left"
    else:
        reason = f"{quota}: {asked}, and {full.left:,} are left for now"
    return Refusal(reason, full.retry_after, full.left)
