"""Settings from a file and from the environment, both named like the flags.

The file has one TOML table per command ([bench.paper] for a command of a group); a variable is
FORETHOUGHT_COMMAND_FLAG.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..core.files import parse_toml
from ..errors import InvalidSettingsError


def read_config(path: str, commands: Mapping[str, click.Command | None]) -> dict[str, Any]:
    """Reads the file into click's default map; every unknown table and key is reported at once."""
    try:
        content = parse_toml(Path(path).read_bytes())
    except OSError as error:
        raise InvalidSettingsError(f"--config {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidSettingsError(f"--config {path} is not TOML: {error}") from error
    problems: list[str] = []
    defaults = _tables(content, commands, problems, "")
    if problems:
        raise InvalidSettingsError(f"--config {path}: {'; '.join(problems)}")
    return defaults


def _tables(
    content: Mapping[str, Any], commands: Mapping[str, click.Command | None], problems: list[str], place: str
) -> dict[str, Any]:
    """The tables of some commands as their default map; a group's table holds its commands' tables."""
    defaults: dict[str, Any] = {}
    for table, values in content.items():
        command = commands.get(table)
        if command is not None and not isinstance(values, dict):
            problems.append(f"[{place}{table}] must be a table, not {values!r:.60}")
            continue
        if command is None:
            problems.append(f"unknown table [{place}{table}]{_hint(table, list(commands))}")
            continue
        if isinstance(command, click.Group):
            defaults[table] = _tables(values, command.commands, problems, f"{table}.")
            continue
        known = {key_of(parameter): parameter for parameter in command.params if parameter.name}
        for key, value in values.items():
            parameter = known.get(key.replace("_", "-"))
            if parameter is None:
                problems.append(f"unknown key {key!r} in [{place}{table}]{_hint(key, list(known))}")
            elif isinstance(value, bool) and not (isinstance(parameter, click.Option) and parameter.is_flag):
                problems.append(f"{key!r} in [{place}{table}] takes a value, not {str(value).lower()}")
            else:
                defaults.setdefault(table, {})[parameter.name] = value
    return defaults


def name_variables(command: click.Command, prefix: str) -> None:
    """Gives every flag of a command, or of each command of a group, its environment variable."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            parameter.envvar = f"{prefix}_{key_of(parameter)}".upper().replace("-", "_")
    if isinstance(command, click.Group):
        for name, own in command.commands.items():
            name_variables(own, f"{prefix}_{name}")


def key_of(parameter: click.Parameter) -> str:
    """The flag's long name without its dashes; an argument's own name."""
    longest = max(parameter.opts, key=len)
    return longest.lstrip("-").lower()


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
