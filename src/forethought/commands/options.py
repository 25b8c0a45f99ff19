"""Flags that several verbs share, and how a verb prints its result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.visible import to_json, visible
from ..errors import InvalidSettingsError

if TYPE_CHECKING:
    from ..control.billing import Prices
    from ..core.settings import EngineSettings

F = TypeVar("F", bound=Callable[..., Any])

json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
limit_option = click.option("--limit", type=int, metavar="N", help="Only the first N questions.")
dry_run_flag = click.option("--dry-run", is_flag=True, help="Say what would be done and what it may cost; do nothing.")
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
quiet_flag = click.option("--quiet", is_flag=True, help="No progress bar.")
retry_flag = click.option(
    "--retry-failed/--no-retry-failed", default=True, show_default=True, help="Try again what failed before, once."
)
skip_flag = click.option(
    "--skip-ungraded", is_flag=True, help="Leave out what has no reference answer that can be read, not refuse it."
)


def grader_options(default: str = "number", shown: str = "") -> Callable[[F], F]:
    """--grader and its options; `taken_options` turns them into settings."""
    kinds = "number, exact, choice or math."

    def decorate(function: F) -> F:
        function = click.option(
            "--grader-option", multiple=True, metavar="KEY=VALUE", help="Passed to the grader (repeatable)."
        )(function)
        help_text = f"{kinds}  [default: {shown}]" if shown else kinds
        return click.option("--grader", default=default, show_default=not shown, help=help_text)(function)

    return decorate


def allocator_options(what: str) -> Callable[[F], F]:
    """--allocator and its options; `taken_options` turns them into settings."""

    def decorate(function: F) -> F:
        function = click.option(
            "--allocator-option", multiple=True, metavar="KEY=VALUE", help="Passed to the allocator (repeatable)."
        )(function)
        return click.option("--allocator", default="envelope", show_default=True, help=what)(function)

    return decorate


def taken_options(values: dict[str, Any], *nouns: str) -> None:
    """Turns the pairs of --NOUN-option in `values` into the settings' NOUN_options."""
    for noun in nouns:
        values[f"{noun}_options"] = parse_pairs(f"--{noun}-option", values.pop(f"{noun}_option"))


def price_options(function: F) -> F:
    """What a million tokens cost, for the bill before a command and the one after it."""
    for name, what in (("out", "generated"), ("in", "of prompts")):
        function = click.option(
            f"--price-{name}", type=click.FloatRange(min=0), metavar="USD", help=f"Price of a million tokens {what}."
        )(function)
    return function


def take_prices(values: dict[str, Any]) -> Prices:
    """Takes these flags out of `values`."""
    from ..control.billing import Prices

    return Prices(values.pop("price_in"), values.pop("price_out"))


def question_options(function: F) -> F:
    """Where the questions stand in their file, shared by every command that reads questions."""
    flags = [
        click.option("--question-column", metavar="NAME", help="Column of the questions.  [default: by usual names]"),
        click.option("--answer-column", metavar="NAME", help="Column of the answers; '' for none."),
        click.option("--id-column", metavar="NAME", help="Column of the ids, or NAME,NAME; '' for none."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


QUESTION_KEYS = ("question_column", "answer_column", "id_column")


def engine_options(*, with_sampling: bool) -> Callable[[F], F]:
    """--engine and its companions; sampling flags only where no predictor fixes them."""

    def decorate(function: F) -> F:
        flags = [
            click.option(
                "--engine", default="auto", show_default=True, help="auto, transformers, vllm, openai, replay, fake."
            ),
            with_server,
            click.option(
                "--context-tokens",
                type=int,
                metavar="N",
                help="Longest prompt + thought + answer.  [default: what the caps need and the model or server takes]",
            ),
            click.option(
                "--engine-option", "engine_option", multiple=True, metavar="KEY=VALUE", help="Passed to the engine."
            ),
        ]
        if with_sampling:
            flags += [
                click.option("--template", default="worked-5", show_default=True, help="Shipped name or a .json file."),
                click.option("--temperature", type=float, default=0.6, show_default=True, help="Of the thought."),
                click.option("--top-p", type=float, default=1.0, show_default=True, help="Nucleus of the thought."),
            ]
        for flag in reversed(flags):
            function = flag(function)
        return function

    return decorate


def with_server(function: F) -> F:
    """Where a model is behind a server, and how it is made to keep budgets: flags of the openai engine."""
    flags = [
        click.option(
            "--base-url",
            default="",
            metavar="URL",
            help="A server instead of local files.  [with --engine openai: FORETHOUGHT_BASE_URL]",
        ),
        click.option("--served-model", default="", metavar="NAME", help="The model's name there.  [default: the same]"),
        click.option(
            "--enforce",
            default="",
            metavar="HOW",
            help="How it keeps budgets: auto, two-call, native, effort, max-tokens.  [default: auto]",
        ),
        click.option("--concurrency", type=int, metavar="N", help="Requests at once there.  [default: 32]"),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def server_options(values: dict[str, Any], engine: str) -> tuple[str, dict[str, Any]]:
    """Takes these flags out of `values`: `(engine, its options)`; an address by itself asks for engine openai."""
    taken = {key: values.pop(key) for key in ("base_url", "served_model", "enforce", "concurrency")}
    given = {key: value for key, value in taken.items() if value not in ("", None)}
    if engine == "auto" and "base_url" in given:
        engine = "openai"
    if engine == "openai" and (address := os.environ.get("FORETHOUGHT_BASE_URL")):
        given.setdefault("base_url", address)
    return engine, given


def engine_settings(values: dict[str, Any]) -> EngineSettings:
    """Takes the flags of `engine_options` out of `values`."""
    from ..core.settings import EngineSettings

    keys: tuple[str, ...] = ("engine", "context_tokens")
    if "temperature" in values:  # a command that samples as it is told, not as a predictor's card says
        keys += ("template", "temperature", "top_p")
    taken = {key: values.pop(key) for key in keys}
    taken["engine"], options = server_options(values, taken["engine"])
    own = parse_pairs("--engine-option", values.pop("engine_option", ()))
    return EngineSettings(**taken, options=options | own)


def parse_pairs(flag: str, pairs: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE, as often as it was given; a value is JSON where it can be read as such, else text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InvalidSettingsError(f"{flag} takes KEY=VALUE, not {pair!r}")
        try:
            options[key.replace("-", "_")] = json.loads(value)
        except ValueError:
            options[key.replace("-", "_")] = value
    return options


def listed(values: tuple[str, ...]) -> list[str]:
    """The items of a flag that is repeatable and takes commas."""
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def listed_numbers(flag: str, values: tuple[str, ...]) -> tuple[float, ...]:
    """The numbers of such a flag."""
    found = []
    for text in listed(values):
        try:
            found.append(float(text))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a number", param_hint=flag) from None
    return tuple(found)


def plan_options(function: F) -> F:
    """What to divide and how: shared by plan and run."""
    flags = [
        click.option("--mean-tokens", type=float, metavar="N", help="The total, as tokens a question."),
        click.option("--total-tokens", type=float, metavar="N", help="The total in tokens."),
        allocator_options("envelope, exact, greedy, blind, uniform."),
        click.option(
            "--cost",
            type=click.Choice(["granted", "spent"]),
            default="granted",
            show_default=True,
            help="Count the total as the sum of caps, or as tokens expected to be generated.",
        ),
        click.option("--model", default="", help="Where the predictor's model is.  [default: the name on its card]"),
        click.option("--template", default="", help="Its prompt template's file.  [default: the name on its card]"),
        click.option("--min-tokens", type=int, metavar="N", help="Least cap of any question."),
        click.option("--max-tokens", type=int, metavar="N", help="Largest cap of any question."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def emit(as_json: bool, value: Any, text: str) -> None:
    """Prints the result of a verb on stdout: `value` as JSON, or `text`."""
    click.echo(to_json(value) if as_json else visible(text))


def talk(message: str) -> None:
    """Says something beside the result, on stderr."""
    click.echo(visible(message), err=True)
