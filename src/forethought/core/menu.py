"""The menu: the options that a plan may choose from. All arithmetic on budgets is here."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InvalidMenuError
from .arguments import is_whole
from .codec import UnfitError
from .options import EXAMPLES, Option, check_count, parse_caps, read_options
from .showing import Shown

SHOWN_AT_MOST = 9  # options that are named one by one

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, repr=False)
class Menu(Shown):
    """The options to choose from, ascending by cost. An option is a cap on reasoning tokens; 0 is "no thinking".

    Or it is a named one: an effort level, another model, anything that a request can set. Such an option goes by a
    whole number too, its budget: what an answer by it is known to take. Arrays over options have one column per option,
    in this order; their last axis goes by the suffix B.

    Attributes:
        caps: the caps in tokens, strictly ascending, at least one; of named options their budgets.
        options: the named options, one per budget; empty where options are caps and nothing else.
    """

    caps: tuple[int, ...]
    options: tuple[Option, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.caps, tuple) or not all(map(is_whole, self.caps)):
            raise InvalidMenuError(f"a menu's caps are a tuple of whole numbers, not {self.caps!r:.60}")
        if not self.caps:
            raise InvalidMenuError(f"a menu needs at least one budget; try {EXAMPLES}")
        check_count(len(self.caps))
        if self.caps[0] < 0 or any(high <= low for low, high in zip(self.caps, self.caps[1:], strict=False)):
            raise InvalidMenuError(f"budgets must ascend from 0 or more, each once; got {_listed(self.caps)}")
        if self.caps[-1] < 1 or self.caps[-1] >= 1 << 53:
            raise InvalidMenuError(f"the largest budget must be from 1 to 2^53 tokens, not {self.caps[-1]}")
        if self.options and len(self.options) != len(self.caps):
            raise InvalidMenuError(f"{len(self.caps)} budgets need as many options, not {len(self.options)}")
        if len({option.label for option in self.options}) < len(self.options):
            raise InvalidMenuError("a menu names each option once")
        for option in self.options:
            if (single := self.singles[option.single.label]).asks != option.single.asks:
                raise InvalidMenuError(f"the samples of {option.label!r} are by {single.label!r}, which asks otherwise")

    @classmethod
    def named(cls, options: Iterable[Option]) -> Menu:
        """The menu of named options, ascending by the tokens that an answer takes; see `Option.tokens`.

        One that was not measured stands at its cap; without a cap it stands just behind the one given before it. Two
        that take the same stand a token apart.
        """
        known: list[tuple[float, Option]] = []
        for option in options if isinstance(options, Iterable) else [options]:
            if not isinstance(option, Option):
                raise InvalidMenuError(f"a menu's named options are of the class Option, not {option!r:.60}")
            tokens = option.tokens if option.tokens is not None else option.cap
            known.append((tokens if tokens is not None else known[-1][0] if known else 0.0, option))
        known.sort(key=lambda each: each[0])
        budgets: list[int] = []
        for tokens, _ in known:
            budgets.append(max(round(tokens), budgets[-1] + 1 if budgets else 0))
        if len(budgets) == 1 and budgets[0] == 0:
            budgets = [1]
        return cls(tuple(budgets), tuple(option for _, option in known))

    @classmethod
    def read(cls, path: str | Path) -> Menu:
        """The menu of a TOML file with one table `[[option]]` each; raises InvalidMenuError, see `read_options`."""
        return cls.named(read_options(path))

    @classmethod
    def of(cls, budgets: Iterable[int]) -> Menu:
        """The menu of these caps, in any order; one that is given twice counts once.

        Raises:
            InvalidMenuError: what is given holds something else than whole numbers.
        """
        caps = list(budgets)
        if wrong := [cap for cap in caps if not is_whole(cap)]:
            raise InvalidMenuError(f"a menu's budgets are whole numbers of tokens, not {wrong[0]!r}")
        return cls(tuple(sorted({int(cap) for cap in caps})))

    @classmethod
    def evenly(cls, step: int, largest: int) -> Menu:
        """The caps `step, 2 * step, ..., largest`; raises InvalidMenuError where `largest` is no multiple of `step`."""
        if not is_whole(step) or not is_whole(largest) or step < 1 or largest < step or largest % step:
            raise InvalidMenuError(
                f"evenly spaced budgets need a step of at least 1 token and a largest budget that is a multiple of it; "
                f"got step {step}, largest {largest}. Try --budgets 16:256:16."
            )
        check_count(largest // step)
        return cls(tuple(range(step, largest + 1, step)))

    @classmethod
    def parse(cls, text: str) -> Menu:
        """The menu that `text` names.

        `512,1024,4096` lists caps; `16:256:16` goes from the first to the second by the third; `geometric:256:32768`
        doubles from the first to the second (a fourth part is the factor: `geometric:100:10000:10`). Parts may be
        joined by commas, and ascend: `0,16:256:16`.

        Raises:
            InvalidMenuError: anything else, naming the part that cannot be read.
        """
        return cls.of(parse_caps(text))

    @property
    def num_options(self) -> int:
        """B."""
        return len(self.caps)

    @property
    def is_named(self) -> bool:
        """Whether options have names; their costs may then be in another order for each query."""
        return bool(self.options)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each option is called: its name, or its cap."""
        return tuple(option.label for option in self.options) or tuple(map(str, self.caps))

    @property
    def is_priced(self) -> bool:
        """Whether every option says what its tokens cost in money."""
        return self.is_named and all(option.price is not None for option in self.options)

    @property
    def price_2_B(self) -> NDArray[np.float64]:
        """USD per million input and output tokens of each option, shape (2, B); raises InvalidMenuError without."""
        if not self.is_priced:
            lacking = [option.label for option in self.options if option.price is None][:1]
            raise InvalidMenuError(
                f"money needs a price for every option{f'; {lacking[0]!r} has none' if lacking else ''}: a menu file "
                "says usd_per_million = { input = …, output = … } for each"
            )
        prices = [option.price for option in self.options if option.price is not None]
        return np.array([[price.input for price in prices], [price.output for price in prices]])

    def option(self, budget: int) -> Option:
        """The option with the budget `budget`; raises InvalidMenuError if there is none."""
        column = self.index(budget)
        return self.options[column] if self.options else Option(str(self.caps[column]), cap=self.caps[column])

    def label(self, budget: int) -> str:
        """The name of the option with the budget `budget`."""
        return self.option(budget).label

    def asked(self, budget: int, ceiling: int) -> tuple[int, Option | None]:
        """The cap of a request under the option with the budget `budget`, and what one sample is asked by, if named.

        Args:
            budget: on this menu.
            ceiling: most reasoning tokens of an option that names no cap.
        """
        if not self.is_named:
            return budget, None
        option = self.option(budget).single
        return ceiling if option.cap is None else option.cap, option

    def times(self, samples: Iterable[int], tokens_B: Iterable[float]) -> Menu:
        """The menu of each option with each number of samples; the answer by several is their vote.

        Args:
            samples: numbers of samples, each at least 1, in any order.
            tokens_B: what one sample by each option is known to take.

        Raises:
            InvalidMenuError: options that are votes already; a number of samples that no option has.
        """
        if (self.samples_B > 1).any():
            raise InvalidMenuError(f"the menu {self} already has votes of several samples")
        pairs = zip(self.caps, tokens_B, strict=True)
        each = [replace(self.option(budget), tokens=round(float(tokens), 1)) for budget, tokens in pairs]
        return Menu.named(option.times(number) for option in each for number in sorted(set(samples)))

    @property
    def singles(self) -> dict[str, Option]:
        """The options by which single samples are drawn, by name; several votes may share one."""
        return {option.single.label: option.single for option in self.options}

    def check_singles(self) -> None:
        """Refuses votes of several samples where single ones are to be measured; raises InvalidMenuError."""
        for option in self.options:
            if option.samples > 1:
                raise InvalidMenuError(
                    f"option {option.label!r} has {option.samples} samples, and a profile measures single ones: leave "
                    "samples out, and combine them afterwards: forethought train RUN --samples 1,2,4"
                )

    @property
    def samples_B(self) -> IntArray:
        """Samples of each option, shape (B,)."""
        return np.array([option.samples for option in self.options] or [1] * self.num_options, dtype=np.int64)

    @property
    def largest_cap(self) -> int:
        """The largest cap that any option names, tokens; 0 where none names one."""
        return max((option.cap or 0 for option in self.options), default=self.largest)

    def column_of(self, label: str) -> int:
        """Column of the option of that name; raises InvalidMenuError where there is none."""
        if label not in self.labels:
            raise InvalidMenuError(f"there is no option {label!r}; there is {', '.join(self.labels)}")
        return self.labels.index(label)

    def select(self, columns: Iterable[int]) -> Menu:
        """The menu of some columns, ascending."""
        kept = sorted({int(column) for column in columns})
        options = tuple(self.options[column] for column in kept) if self.options else ()
        return Menu(tuple(self.caps[column] for column in kept), options)

    @property
    def budgets_B(self) -> IntArray:
        """The caps in tokens, shape (B,)."""
        return np.array(self.caps, dtype=np.int64)

    @property
    def smallest(self) -> int:
        """The smallest cap, tokens."""
        return self.caps[0]

    @property
    def largest(self) -> int:
        """The largest cap, tokens."""
        return self.caps[-1]

    @property
    def unit(self) -> int:
        """The most tokens that every cap is a whole number of."""
        return int(np.gcd.reduce(self.budgets_B))

    @property
    def units_B(self) -> IntArray:
        """The caps in whole `unit`s, shape (B,)."""
        return self.budgets_B // self.unit

    @property
    def width_B(self) -> NDArray[np.float64]:
        """Share of the range of tokens of each option in a mean over costs, shape (B,), summing to 1.

        An option stands for the tokens that lie nearest to it; the smallest reaches down half of its own size, the
        largest up as far as down. So all weigh exactly alike on evenly spaced caps, and a mean is that over columns.
        """
        if self.num_options == 1:
            return np.ones(1)
        edges = np.concatenate([self.budgets_B[:1] * 0.5, (self.budgets_B[1:] + self.budgets_B[:-1]) / 2.0])
        edges = np.append(edges, 1.5 * self.caps[-1] - 0.5 * self.caps[-2])
        width_B: NDArray[np.float64] = np.diff(edges) / (edges[-1] - edges[0])
        return width_B

    @property
    def is_even(self) -> bool:
        """Whether all steps between neighbours are the same."""
        return len(set(np.diff(self.budgets_B).tolist())) <= 1

    @property
    def is_geometric(self) -> bool:
        """Whether a logarithmic axis shows it better: the steps grow with the caps."""
        positive = [cap for cap in self.caps if cap]
        if len(positive) < 3:
            return False
        return (positive[-1] - positive[-2]) >= 4 * (positive[1] - positive[0])

    def __contains__(self, budget: object) -> bool:
        return isinstance(budget, int | np.integer) and self._find(int(budget)) >= 0

    def _find(self, budget: int) -> int:
        """Column of `budget`, or -1."""
        column = bisect_left(self.caps, budget)
        return column if column < self.num_options and self.caps[column] == budget else -1

    def index(self, budget: int) -> int:
        """Column of `budget`; raises InvalidMenuError when it is no option."""
        column = self._find(int(budget))
        if column < 0:
            raise InvalidMenuError(f"budget {budget} is not one of {self}; the nearest below is {self.floor(budget)}")
        return column

    def columns(self, budget_N: ArrayLike) -> IntArray:
        """Column of each budget, shape (N,); raises InvalidMenuError for the first that is no option."""
        wanted_N = np.asarray(budget_N, dtype=np.int64)
        column_N = np.searchsorted(self.budgets_B, wanted_N)
        wrong_N = np.flatnonzero(self.budgets_B[np.minimum(column_N, self.num_options - 1)] != wanted_N)
        if wrong_N.size:
            self.index(int(wanted_N.ravel()[wrong_N[0]]))
        return column_N

    def at(self, column_N: ArrayLike) -> IntArray:
        """The caps in some columns, in the shape of `column_N`."""
        found_N: IntArray = self.budgets_B[np.asarray(column_N, dtype=np.int64)]
        return found_N

    def last_at_most(self, tokens_N: ArrayLike) -> IntArray:
        """Column of the largest cap that is at most each of `tokens_N`; -1 where there is none. Same shape."""
        column_N: IntArray = np.searchsorted(self.budgets_B, tokens_N, side="right") - 1
        return column_N

    def first_at_least(self, tokens_N: ArrayLike) -> IntArray:
        """Column of the smallest cap that is at least each of `tokens_N`; B where there is none. Same shape."""
        column_N: IntArray = np.asarray(np.searchsorted(self.budgets_B, tokens_N, side="left"))
        return column_N

    def floor(self, tokens: float) -> int | None:
        """The largest cap that is at most `tokens`; None where there is none."""
        column = bisect_right(self.caps, tokens)
        return self.caps[column - 1] if column else None

    def common(self, other: Menu) -> Menu | None:
        """The menu of every option that both have; None where they share none (or none above 0).

        Named options are the same where their names are; they stand as in this menu.
        """
        if self.is_named or other.is_named:
            columns = [column for column, label in enumerate(self.labels) if label in other.labels]
            return self.select(columns) if columns and self.is_named and other.is_named else None
        shared = set(self.caps) & set(other.caps)
        return Menu.of(shared) if max(shared, default=0) > 0 else None

    def is_same(self, other: Menu) -> bool:
        """Whether both have the same options in any order; named ones by name and by the fields they set."""
        if not (self.is_named and other.is_named):
            return self == other
        return set(self.labels) == set(other.labels) and not self.unlike(other)

    def unlike(self, other: Menu) -> list[str]:
        """Names of options that two menus share though they set other things: fields, a cap; not where one is bare."""
        there = {option.label: option for option in other.options}
        pairs = [(mine, there[mine.label]) for mine in self.options if mine.label in there]
        told = [(mine, theirs) for mine, theirs in pairs if all(each.set or each.cap for each in (mine, theirs))]
        return [mine.label for mine, theirs in told if mine.asks != theirs.asks]

    def to_json(self) -> list[Any]:
        """The caps, as stored on disk; for named options one object each, with its budget."""
        if not self.options:
            return list(self.caps)
        pairs = zip(self.caps, self.options, strict=True)
        return [{"budget": budget, **option.to_json()} for budget, option in pairs]

    @classmethod
    def from_json(cls, found: Any) -> Menu:
        """The menu that `to_json` wrote; raises InvalidMenuError where it is none."""
        if isinstance(found, list | tuple) and all(type(each) is int for each in found):
            return cls(tuple(found))
        if not isinstance(found, list) or not all(type(each) is dict for each in found):
            raise InvalidMenuError("a menu must be a list of budgets in tokens, or of options")
        budgets = [each.get("budget") for each in found]
        if not all(type(budget) is int for budget in budgets):
            raise InvalidMenuError("an option of a menu lacks its budget, a whole number of tokens")
        try:
            options = [Option.from_json({key: each[key] for key in each if key != "budget"}) for each in found]
        except UnfitError as error:
            raise InvalidMenuError(f"an option of a menu: {error}") from error
        return cls(tuple(budgets), tuple(options))

    def __repr__(self) -> str:
        return f"Menu({self})"

    def __str__(self) -> str:
        return ", ".join(self.labels) if self.options else _listed(self.caps)


def with_menu(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was read from disk with its menu under `menu`: schema 1 had `window` and `maximum` in its place.

    Raises:
        InvalidMenuError: these two are no menu.
    """
    if "menu" in found or not ("window" in found and "maximum" in found):
        return dict(found)
    rest = {key: value for key, value in found.items() if key not in ("window", "maximum")}
    if type(found["window"]) is not int or type(found["maximum"]) is not int:
        raise InvalidMenuError("'window' and 'maximum' must be whole numbers")
    return {**rest, "menu": Menu.evenly(found["window"], found["maximum"]).to_json()}


def _listed(caps: Sequence[int]) -> str:
    """The caps in words: all of a few, else the first two and the last."""
    is_even = len(set(np.diff(caps))) == 1
    if len(caps) <= (3 if is_even else SHOWN_AT_MOST):
        return ", ".join(map(str, caps))
    return f"{caps[0]}, {caps[1]}, … {caps[-1]}"
