"""How a scripted reply goes wrong, as a header, a mark in a question, or a test's own function says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Self

HEADER = "x-scripted"
MARK = re.compile(r"\[\[(.{0,200}?)\]\]")  # in a question, for clients whose headers do not arrive


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is odd about one reply. As text: `status=429 retry_after=2`, `dies_after=3`, `is_login`.

    Attributes:
        status: other than 200: an error with this status.
        retry_after: of an error, as the header has it; "" for none.
        dies_after: pieces of the reply, a token each, after which the connection breaks; None: it does not.
        is_login: 200 with a web page, as from a proxy that wants a login.
        delay: seconds before the first byte.
        is_uncounted: no usage is told, whatever was asked for.
        keeps_no_cap: the thought is as long as the model likes.
        thought: tokens of the thought; None: as the model thinks.
        hangs: after the head nothing comes.
    """

    status: int = 200
    retry_after: str = ""
    dies_after: int | None = None
    is_login: bool = False
    delay: float = 0.0
    is_uncounted: bool = False
    keeps_no_cap: bool = False
    thought: int | None = None
    hangs: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        """Reads the text form; raises ValueError where it says anything else."""
        kinds = {field.name: str(field.type) for field in fields(cls)}
        found: dict[str, object] = {}
        for part in text.split():
            name, equals, value = part.partition("=")
            if name not in kinds:
                raise ValueError(f"no trouble is called {name!r}; there are {', '.join(kinds)}")
            kind = kinds[name]
            if kind == "bool":
                if equals:
                    raise ValueError(f"{name} takes no value")
                found[name] = True
            elif not equals:
                raise ValueError(f"{name} needs a value")
            else:
                found[name] = value if kind == "str" else float(value) if kind == "float" else int(value)
        return cls(**found)  # type: ignore[arg-type]


NO_TROUBLE = Trouble()


def trouble_in(header: str | None, question: str) -> Trouble:
    """What a request asks to go wrong."""
    if header:
        return Trouble.read(header)
    found = MARK.search(question) if "[[" in question else None
    return Trouble.read(found[1]) if found else NO_TROUBLE
