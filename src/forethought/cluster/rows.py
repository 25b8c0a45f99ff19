"""The requests of one stream: which worker has which, what is left, and what becomes of those of a lost worker."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from ..core.data import Generation, Request

AHEAD = 64  # requests that lie ready in a worker's queue
MOST_LOST = 3  # times that a request may be lost with its worker; the last time it runs alone


def key_of(each: Request | Generation) -> Hashable:
    """The identity of a trace in its run: query, sample and option."""
    if isinstance(each, Request):
        return each.query.id, each.sample, each.label
    return each.query_id, each.sample, each.option


@dataclass(slots=True)
class Hands:
    """What one worker holds.

    Attributes:
        held: its requests that have not come back, by identity; a stream may ask for the same trace more than once.
        num_waiting: those of them that its engine has not taken.
        is_alone: it holds one request that was lost before, and gets no other until that has come back.
    """

    held: dict[Hashable, list[Request]] = field(default_factory=dict)
    num_waiting: int = 0
    is_alone: bool = False

    @property
    def num_held(self) -> int:
        """How many requests it holds."""
        return sum(map(len, self.held.values()))


class Rows:
    """The requests of a stream, handed out to workers.

    While more requests follow, a worker gets as many as its engine takes. Once the last are known, none holds more than
    its equal share of what is unfinished, so that all end together (guided self-scheduling, Polychronopoulos and Kuck,
    1987). A request that was lost with a worker is given to another; one that was lost twice then runs alone on a
    worker, at the end, so that it takes no others with it if it is what kills them.

    Args:
        requests: the stream; read a bounded number ahead.
        num_workers: that share it.
    """

    def __init__(self, requests: Iterable[Request], num_workers: int) -> None:
        self.num_workers = num_workers
        self._source = iter(requests)
        self._is_exhausted = False
        self._ready: deque[Request] = deque()
        self._suspects: deque[Request] = deque()
        self._lost = Counter[Hashable]()
        self._num_held = self._most_held = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left and nobody holds anything."""
        self._read()
        return self._is_exhausted and not (self._ready or self._suspects or self._num_held)

    @property
    def ahead(self) -> int:
        """Twice what a worker holds, for each: enough to share the last requests evenly, and bounded."""
        return max(AHEAD, 2 * self._most_held) * max(1, self.num_workers)

    def take(self, hands: Hands) -> tuple[list[Request], bool]:
        """`(requests for a worker, whether it will get more as soon as it needs them)`."""
        self._read()
        if hands.is_alone and hands.held:
            return [], False
        hands.is_alone = False
        wanted = room = AHEAD - hands.num_waiting
        if self._is_exhausted:
            num_open = len(self._ready) + self._num_held
            share = -(-num_open // max(1, self.num_workers))
            room = min(wanted, share - hands.num_held)
        given = [self._ready.popleft() for _ in range(min(room, len(self._ready)))]
        if not given and not hands.held and not self._ready and self._suspects:
            given, hands.is_alone, room = [self._suspects.popleft()], True, 0
        for request in given:
            hands.held.setdefault(key_of(request), []).append(request)
        hands.num_waiting += len(given)
        self._num_held += len(given)
        self._most_held = max(self._most_held, hands.num_held)
        return given, len(given) == wanted

    def done(self, hands: Hands, finished: Sequence[Generation]) -> None:
        """Takes in what came back."""
        for each in finished:
            if (alike := hands.held.get(key := key_of(each))) is not None:
                alike.pop()
                self._num_held -= 1
                if not alike:
                    del hands.held[key]

    def lost(self, hands: Hands, *, retries: bool) -> list[Request]:
        """Takes back what a lost worker holds; those that are not tried again.

        Args:
            hands: of the worker; empty afterwards.
            retries: whether they are given to another worker, as often as allowed.
        """
        given_up = []
        self._num_held -= hands.num_held
        for key, alike in hands.held.items():
            self._lost[key] += 1
            if not retries or self._lost[key] >= MOST_LOST:
                given_up += alike
            elif self._lost[key] == MOST_LOST - 1:
                self._suspects += alike
            else:
                self._ready.extendleft(alike)
        hands.held, hands.num_waiting, hands.is_alone = {}, 0, False
        return given_up

    def rest(self) -> Iterable[Request]:
        """Everything that nobody holds, for want of workers."""
        while self._ready or self._suspects:
            yield (self._ready or self._suspects).popleft()
        if not self._is_exhausted:
            yield from self._source
            self._is_exhausted = True

    def _read(self) -> None:
        while not self._is_exhausted and len(self._ready) < self.ahead:
            request = next(self._source, None)
            if request is None:
                self._is_exhausted = True
            else:
                self._ready.append(request)
