"""The command line: thin commands over `forethought.commands.pipeline`. Results go to stdout, messages to stderr."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from ..core.files import refused
from ..core.visible import one_line, visible
from ..errors import FileError, ForethoughtError
from .config import name_variables, read_config

COMMANDS = (
    "profile",
    "import",
    "train",
    "layers",
    "plan",
    "run",
    "collect",
    "evaluate",
    "compare",
    "grade",
    "regrade",
    "show",
    "ls",
    "doctor",
    "serve",
    "demo",
    "bench",
)
RESUMABLE = ("profile", "run", "collect", "layers")  # these keep what they have, and go on
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13  # what a shell reports of a command that SIGPIPE ended
TERMINATED = 128 + 15  # the same of SIGTERM
PREFIX = "FORETHOUGHT"  # of environment variables
EXIT_CODES = {
    0: "done",
    1: "the input cannot be used; one line gives the reason and the next command",
    2: "a flag or an argument is unknown or missing",
    3: "finished, but some questions failed; their records give the reason",
    INTERRUPTED: "interrupted (Ctrl-C); the same command resumes `profile`, `run`, `collect` and `layers`",
    BROKEN_PIPE: "the reader of the output closed it, as in `forethought ls | head`",
    TERMINATED: "ended by SIGTERM (`kill`, the time limit of a batch system); the same command resumes as after 130",
}
MODULES = {"import": "importing"}  # where a verb's name cannot be a module's


class Verbs(click.Group):
    """A group whose verbs are loaded when used: `forethought --help` imports no library that computes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb `cmd_name`, loaded."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f".{MODULES.get(cmd_name, cmd_name)}", __package__).command
        assert isinstance(command, click.Command)
        name_variables(command, f"{PREFIX}_{cmd_name.upper()}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Adds the nearest verb to click's message about an unknown one."""
        import difflib

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if args[0] == "help":
                close = ["--help"]
            suggestion = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"no such command {args[0]!r}.{suggestion} Commands: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Verbs,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": PREFIX,
        "max_content_width": 110,
    },
)
@click.option(
    "--config", type=click.Path(dir_okay=False), help="TOML file with one table per command, such as [profile]."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="forethought", message="%(prog)s %(version)s")
@click.pass_context
def verbs(ctx: click.Context, config: str | None, debug: bool) -> None:
    """Predicts how much reasoning each query needs, and divides a fixed token budget so that accuracy is highest."""
    _talk_on_stderr(debug)
    ctx.default_map = read_config(config, {name: verbs.get_command(ctx, name) for name in COMMANDS}) if config else None


def _talk_on_stderr(debug: bool) -> None:
    """What the library logs (a model being fetched, an engine's choice) is for the user to see."""
    logger = logging.getLogger("forethought")
    if not any(isinstance(handler, _Talk) for handler in logger.handlers):
        logger.addHandler(_Talk())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


class _Talk(logging.Handler):
    """Prints on what is standard error at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        click.echo(visible(record.getMessage()), err=True)


def main(args: list[str] | None = None) -> None:
    """Entry point of the `forethought` command; exits with one of `EXIT_CODES`."""
    is_ended = False

    def end(number: int, frame: FrameType | None) -> None:
        """Does what Ctrl-C would do at this moment; where a shell has that ignored, interrupts all the same."""
        nonlocal is_ended
        is_ended, interrupt = True, signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, end)
    code = _exit_code(sys.argv[1:] if args is None else args)
    _end_silently()
    sys.exit(TERMINATED if is_ended and code == INTERRUPTED else code)


def _end_silently() -> None:
    """From now on a signal ends the process at once: all is said, and a traceback would tell nothing more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _exit_code(args: list[str]) -> int:
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `forethought.__main__`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        result: Any = verbs.main(args, prog_name="forethought", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say(_stopped(args))
        return INTERRUPTED
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        _say(shown.getvalue().rstrip())
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except ForethoughtError as error:
        return _refuse(error, error, args)
    except (BrokenPipeError, SystemExit):  # nobody reads what is printed; in a verb, click makes it a SystemExit
        _discard(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        return _refuse(_named(error), error, args)
    except MemoryError as error:
        words = ": ".join(filter(None, ("the memory is too small for this", str(error))))
        return _refuse(ForethoughtError(words), error, args)


def _stopped(args: list[str]) -> str:
    """What an interrupt left, by the command that was given."""
    command = next((arg for arg in args if arg in COMMANDS), "")
    if command in RESUMABLE:
        return "stopped; finished work is saved, and the same command resumes"
    return "stopped; the same command starts again"


def _refuse(error: ForethoughtError, cause: Exception, args: list[str]) -> int:
    """Says what was wrong in one line; where `--debug` is given, where it happened as well."""
    if "--debug" in args:
        _say("".join(traceback.format_exception(cause)).rstrip())
    _say(f"error: {one_line(error)}")
    return 1


def _named(error: OSError) -> FileError:
    """An error of the system that no writer or reader has given a path, with the best that is known of it."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    if error.filename is not None:
        is_written = is_full or error.errno == errno.EROFS
        return refused(error, os.fsdecode(error.filename), "written" if is_written else "read")
    if is_full:  # every writer names its file: what is left is what is printed
        _discard(sys.stdout)
        return refused(error, "standard output", "written")
    return FileError(error.strerror or str(error))


def _discard(stream: Any) -> None:
    """Sends what is left to print, also at the interpreter's end, nowhere."""
    with suppress(OSError, io.UnsupportedOperation, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _say(line: str) -> None:
    """Says it on standard error, if that can be written."""
    try:
        click.echo(visible(line), err=True)
    except OSError:
        _discard(sys.stderr)
