"""Builds the command line of a settings class, its help and its output."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.codec import MOST
from ..core.files import parse_json
from ..core.flags import KEY, Flag
from ..core.settings import EngineSettings, QuestionColumns
from ..core.visible import to_json, visible
from ..errors import InvalidSettingsError
from ..servers.address import without_secrets

if TYPE_CHECKING:
    from ..control.billing import Prices
    from ..report import Page

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")


class Option(click.Option):
    """A flag; `is_main` as in `Flag`."""

    def __init__(self, *args: Any, is_main: bool = False, **how: Any) -> None:
        super().__init__(*args, **how)
        self.is_main = is_main

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Its value; refuses a number that no file of ours could keep."""
        found = super().type_cast_value(ctx, value)
        for each in found if isinstance(found, tuple) else (found,):
            if isinstance(each, int | float) and (problem := _not_kept(each)):
                raise click.BadParameter(problem, ctx, self)
        return found


option = partial(click.option, cls=Option)


class Verb(click.Command):
    """A command whose `--help` shows the flags that matter to most, and whose `--help-all` shows every one."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the main flags, and under `--help-all` the others below them; of few flags, all."""
        if not self._has_more(self.params):
            super().format_options(ctx, formatter)
            return
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        shown = [(each, record) for each in options if (record := each.get_help_record(ctx)) is not None]
        others = [record for each, record in shown if not _is_main(each)]
        is_all = ctx.meta.get(HELP_ALL, False)
        with formatter.section("Main options" if is_all else "Options"):
            formatter.write_dl([record for each, record in shown if _is_main(each)])
        if is_all:
            with formatter.section("Other options"):
                formatter.write_dl(others)
        else:
            formatter.write_paragraph()
            formatter.write_text(f"{len(others)} more: {ctx.command_path} --help-all")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Adds to click's words on an argument too many what was probably meant."""
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            what = WHAT_IT_IS.get(str(error.param.name if error.param else ""), error.message)
            raise click.MissingParameter(what, ctx, error.param) from None
        except click.NoSuchOption as error:
            by_place = {str(each.name): each for each in self.params if isinstance(each, click.Argument)}
            name = error.option_name.lstrip("-").replace("-", "_")
            if name in by_place or f"{name}_id" in by_place or f"query_{name}" in by_place:
                how = " ".join([ctx.command_path, *self.collect_usage_pieces(ctx)])
                raise click.UsageError(f"{error.message} It is a positional argument: {how}", ctx) from None
            raise
        except click.BadParameter as error:
            words = error.message.replace("a valid float", "a number").replace("a valid integer", "a whole number")
            raise click.BadParameter(words, ctx, error.param, error.param_hint) from None
        except click.UsageError as error:
            if "unexpected extra" not in error.message:
                raise
            message = without_secrets(error.message)
            raise click.UsageError(f"{message}. {self._meant(ctx, message)}", ctx) from None

    def _meant(self, ctx: click.Context, message: str) -> str:
        """What an argument too many, the one in brackets at the end, was probably meant for."""
        extra = message.rpartition("(")[2].rstrip(").").split(" ")[0]
        flags = [flag for each in self.params for flag in each.opts]
        if "--base-url" in flags and ("://" in extra or ADDRESS.fullmatch(extra)):
            return f"An address is given as --base-url {extra if '://' in extra else f'http://{extra}/v1'}"
        if extra.replace(".", "", 1).isdecimal() and "--mean-tokens" in flags:
            return f"A total is given as --mean-tokens {extra}"
        return f"It takes {' '.join(self.collect_usage_pieces(ctx))}"

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its parameters, with `--help-all` where there is more than `--help` shows."""
        found = super().get_params(ctx)
        return [*found[:-1], _help_all, *found[-1:]] if self._has_more(self.params) else found

    @staticmethod
    def _has_more(parameters: Sequence[click.Parameter]) -> bool:
        options = [each for each in parameters if isinstance(each, click.Option)]
        return len(options) > FEW and any(map(_is_main, options))


def _is_main(parameter: click.Parameter) -> bool:
    return isinstance(parameter, Option) and parameter.is_main


def _show_all(ctx: click.Context, parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        ctx.meta[HELP_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


ADDRESS = re.compile(r"[\w.-]+:\d{2,5}(/v1)?/?")  # without its http://
WHAT_IT_IS = {
    "questions": "It is a file of questions, - for standard input, or gsm8k-demo, and comes second.",
    "model": "It is an alias, a folder or a hub id.",
    "run": "It is a run, a profile or a predictor; `forethought ls` lists those in this folder.",
    "predictors": "Each is a trained run, a predictor folder or a shipped name.",
}
FEW = 8  # flags that need no choice
HELP_ALL = "forethought.help_all"
_help_all = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show every option and exit.",
)

verb = partial(click.command, cls=Verb)

json_flag = option("--json", "as_json", is_flag=True, is_main=True, help="Print one JSON object instead of text.")
dry_run_flag = option(
    "--dry-run", is_flag=True, is_main=True, help="Show what would be done and what it may cost, without doing it."
)
quiet_flag = option("--quiet", is_flag=True, help="Show no progress.")
SERVER = {
    "base_url": Flag(
        "Address of a model server, instead of local files.  [with --engine openai: FORETHOUGHT_BASE_URL]",
        metavar="URL",
        is_main=True,
    ),
    "served_model": Flag("Name of the model on the server.  [default: the same]", metavar="NAME"),
    "enforce": Flag("How the cap is enforced: auto, two-call, native, max-tokens.  [default: auto]", metavar="HOW"),
    "concurrency": Flag("Concurrent requests to the server.  [default: 32]", metavar="N"),
}


def takes(settings: type, *, with_sampling: bool = False, is_asked: bool = True) -> Callable[[F], F]:
    """Gives a verb the arguments and flags of `settings`, in the order of its fields.

    `filled` makes the settings of what click hands to the verb.

    Args:
        settings: a settings class, whose fields may be settings themselves.
        with_sampling: how traces are sampled is asked for; else a predictor's card says so.
        is_asked: most who type it name a server; else that is no main flag.
    """

    def decorate(function: F) -> F:
        for parameter in reversed(list(_parameters(settings, with_sampling, is_asked))):
            function = parameter(function)
        return function

    return decorate


def filled(settings: type[S], values: dict[str, Any], **beside: Any) -> S:
    """The settings of what was given on the command line; takes its own out of `values`.

    Args:
        settings: the class whose flags the verb has.
        values: name of a parameter -> value, as click gives them.
        beside: fields that are no flags.
    """
    hints = typing.get_type_hints(settings)
    made: dict[str, Any] = {}
    for each in dataclasses.fields(settings):  # type: ignore[arg-type]
        if each.name in beside:
            made[each.name] = beside[each.name]
        elif dataclasses.is_dataclass(hints[each.name]):
            inner = hints[each.name]
            made[each.name] = engine_settings(values) if inner is EngineSettings else filled(inner, values)
        elif (flag := each.metadata.get(KEY)) is not None and _parameter_name(each.name, flag) in values:
            made[each.name] = _taken(values.pop(_parameter_name(each.name, flag)), each.name, flag, hints[each.name])
    return settings(**made)


def _parameters(settings: type, with_sampling: bool, is_asked: bool) -> Iterator[Callable[[F], F]]:
    hints = typing.get_type_hints(settings)
    last = QuestionColumns.__slots__ if issubclass(settings, QuestionColumns) else ()
    for each in sorted(dataclasses.fields(settings), key=lambda each: each.name in last):
        hint, flag = hints[each.name], each.metadata.get(KEY)
        if hint is EngineSettings:
            yield from _engine_parameters(with_sampling, is_asked)
        elif dataclasses.is_dataclass(hint):
            yield from _parameters(typing.cast(type, hint), with_sampling, is_asked)
        elif flag is not None:
            yield _parameter(each, hint, flag)


def _engine_parameters(with_sampling: bool, is_asked: bool) -> Iterator[Callable[[F], F]]:
    hints = typing.get_type_hints(EngineSettings)
    for each in dataclasses.fields(EngineSettings):
        if with_sampling or each.name not in EngineSettings.SAMPLED:
            yield _parameter(each, hints[each.name], each.metadata[KEY])
        if each.name == "engine":
            yield partial(server_flags, is_main=is_asked)


def _parameter(each: dataclasses.Field[Any], hint: Any, flag: Flag) -> Callable[[F], F]:
    """The click argument or option of one field."""
    name, default = _parameter_name(each.name, flag), each.default
    is_many = typing.get_origin(hint) is tuple
    if flag.is_argument:
        is_needed = default is dataclasses.MISSING
        how: dict[str, Any] = {"metavar": flag.metavar} if flag.metavar else {}
        how |= {"nargs": -1, "required": is_needed} if is_many else {} if is_needed else {"default": default}
        return click.argument(name, **how)
    spelled = _spelled(each.name, flag)
    text = f"{flag.help}  [default: {flag.shown}]" if flag.shown else flag.help
    told: dict[str, Any] = {"help": text, "is_main": flag.is_main}
    if flag.is_pairs:
        return option(spelled, name, multiple=True, metavar=flag.metavar, **told)
    if hint is bool:
        if default:  # it is said how to turn it off
            return option(f"{spelled}/--no-{spelled[2:]}", name, default=True, show_default=True, **told)
        return option(spelled, name, is_flag=True, **told)
    if is_many:
        shown = (",".join(map(str, typing.cast("tuple[object, ...]", default))),) if default else ()
        return option(
            spelled, name, multiple=True, default=shown, show_default=bool(shown), metavar=flag.metavar, **told
        )
    if flag.bare:
        told |= {"is_flag": False, "flag_value": flag.bare}
    kind = _kind(hint)
    choices = flag.choices or (tuple(kind) if issubclass(kind, StrEnum) else ())
    return option(
        spelled,
        name,
        type=click.Choice([str(choice) for choice in choices]) if choices else kind,
        default=str(default) if isinstance(default, StrEnum) else default,
        show_default=not flag.shown and default not in (None, ""),
        metavar=flag.metavar,
        **told,
    )


def _parameter_name(name: str, flag: Flag) -> str:
    """The name of a field's parameter; pairs go by their flag's, since they stand for one pair each."""
    return flag.name.lstrip("-").replace("-", "_") if flag.is_pairs else name


def _spelled(name: str, flag: Flag) -> str:
    return flag.name or f"--{name.replace('_', '-')}"


def _kind(hint: Any) -> type:
    """The type of one value: X of X and of X | None."""
    if isinstance(hint, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    assert isinstance(hint, type)
    return hint


def _taken(value: Any, name: str, flag: Flag, hint: Any) -> Any:
    """A parameter's value as its field has it."""
    if flag.is_pairs:
        return parse_pairs(flag.name, value)
    if typing.get_origin(hint) is tuple and not flag.is_argument:
        item, spelled = typing.get_args(hint)[0], _spelled(name, flag)
        listed = [part for text in value for part in _parts(spelled, text)] if "," in (flag.metavar or "") else value
        return tuple(_number(spelled, each, item) for each in listed) if item in (float, int) else tuple(listed)
    kind = _kind(hint) if not typing.get_origin(hint) else hint
    return kind(value) if isinstance(kind, type) and issubclass(kind, StrEnum) and value is not None else value


def _parts(spelled: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(parts):
        raise click.BadParameter(f"{text!r} lacks a value before or after a comma", param_hint=spelled)
    return parts


def _number(spelled: str, text: str, kind: type[float | int]) -> float:
    try:
        found = kind(text)
        problem = _not_kept(found)
    except ValueError:
        problem = f"{text!r} is not {'a whole number' if kind is int else 'a number'}"
    if problem:
        raise click.BadParameter(problem, param_hint=spelled)
    return found


def _not_kept(number: float) -> str:
    """Why a number can be no setting, "" where it can."""
    if number != number:
        return "'nan' is not a number"
    return f"it is too large: at most {MOST:,}" if abs(number) > MOST else ""


def price_options(function: F) -> F:
    """Prices per million tokens and tokens per second, for the estimate before a command and the bill after it."""
    function = option(
        "--tokens-per-second",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="Generated tokens per second of the server; a dry run then shows hours.",
    )(function)
    for name, what in (("out", "generated"), ("in", "prompt")):
        function = option(
            f"--price-{name}", type=click.FloatRange(min=0), metavar="USD", help=f"Price per million {what} tokens."
        )(function)
    return function


def take_prices(values: dict[str, Any]) -> Prices:
    """Takes these flags out of `values`."""
    from ..control.billing import Prices

    return Prices(values.pop("price_in"), values.pop("price_out"), values.pop("tokens_per_second"))


def server_flags(function: F, *, is_main: bool = True) -> F:
    """Where a model is behind a server, and how it is made to keep budgets: flags of the openai engine."""
    for name, flag in reversed(SERVER.items()):
        kind = int if name == "concurrency" else str
        default = None if kind is int else ""
        told: dict[str, Any] = {"metavar": flag.metavar, "help": flag.help, "is_main": flag.is_main and is_main}
        function = option(f"--{name.replace('_', '-')}", name, type=kind, default=default, **told)(function)
    return function


def server_options(values: dict[str, Any], engine: str) -> tuple[str, dict[str, Any]]:
    """Takes these flags out of `values`: `(engine, its options)`; an address by itself asks for engine openai."""
    given = {key: value for key in SERVER if (value := values.pop(key)) not in ("", None)}
    if engine == "auto" and "base_url" in given:
        engine = "openai"
    if engine == "openai" and (address := os.environ.get("FORETHOUGHT_BASE_URL")):
        given.setdefault("base_url", address)
    return engine, given


def engine_settings(values: dict[str, Any]) -> EngineSettings:
    """Takes the flags of an engine out of `values`."""
    keys = ("context_tokens", *(EngineSettings.SAMPLED if "temperature" in values else ()))
    taken = {key: values.pop(key) for key in keys}
    engine, options = server_options(values, values.pop("engine"))
    own = parse_pairs("--engine-option", values.pop("engine_option"))
    return EngineSettings(engine=engine, options=options | own, **taken)


def parse_pairs(flag: str, given: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE, as often as it was given; a value is JSON where it can be read as such, else text."""
    options: dict[str, Any] = {}
    for pair in given:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InvalidSettingsError(f"{flag} takes KEY=VALUE, not {pair!r}")
        try:
            options[key.replace("-", "_")] = parse_json(value)
        except ValueError:
            options[key.replace("-", "_")] = value
    return options


def emit(as_json: bool, value: Any, text: str) -> None:
    """Prints the result of a verb on stdout: `value` as JSON, or `text`."""
    click.echo(to_json(value) if as_json else visible(text))


def talk(message: str) -> None:
    """Prints a message on stderr."""
    click.echo(visible(message), err=True)


def emit_report(as_json: bool, page: Page, files: list[Any]) -> None:
    """Prints a result, and on stderr which files hold it."""
    emit(as_json, {**page.to_json(), "files": [str(file) for file in files]}, page.text())
    for file in files:
        talk(f"wrote {file}")
