"""What a request used, once it has ended: the one value that quotas, records and counts are settled by."""

from __future__ import annotations

from dataclasses import dataclass

from ..runs.journal import CLIENT_LEFT, DONE, REFUSED_UPSTREAM, UPSTREAM_FAILED

__all__ = ["CLIENT_LEFT", "DONE", "REFUSED_UPSTREAM", "REFUSING", "UPSTREAM_FAILED", "Used"]

REFUSING = 300  # the least status of a reply for which nothing was generated: a redirect, or an error


@dataclass(frozen=True, slots=True)
class Used:
    """What came of one request.

    Attributes:
        prompt_tokens: of the prompt; None where the server did not say.
        reasoning_tokens: of all its thoughts; None where they were not counted.
        output_tokens: all that was generated, thoughts included; None where they were not counted.
        status: of the reply; 0 where none came.
        ending: DONE, CLIENT_LEFT, UPSTREAM_FAILED or REFUSED_UPSTREAM: all of the reply went out; the client went away
            before; the server's reply broke off after the request was sent; the server did not take the request (no
            connection, or a status of 300 and more before any token), and generated nothing.
        at_least: tokens that are known to have been generated, by the texts that came, where `output_tokens` is None.
        shown: bytes of these texts, and so the most tokens that they can be.
    """

    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_tokens: int | None = None
    status: int = 0
    ending: str = DONE
    at_least: int = 0
    shown: int = 0
