"""The command that is running, as a line for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource


def command_line(context: click.Context, changed: Mapping[str, str | None]) -> str:
    """The command that is running, or one that differs a little.

    Args:
        context: Its context.
        changed: Other values, by parameter; None leaves one out.

    Returns:
        A line that a shell reads as that command.
    """
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name not in changed and not given:
            continue
        value = changed.get(name, context.params.get(name))
        if isinstance(parameter, click.Option):
            options += _option(parameter, value)
        elif value is not None:
            arguments += [value] if isinstance(value, str) else value
    return shlex.join([*context.command_path.split(), *arguments, *options])


def _option(option: click.Option, value: Any) -> Iterator[str]:
    name = option.opts[-1]
    if option.is_flag:
        if value:
            yield name
        elif option.secondary_opts and value is not None:
            yield option.secondary_opts[0]
    elif value is not None:
        for each in _texts(value, option.multiple):
            yield from (name, each)


def _texts(value: Any, several: bool) -> Iterator[str]:
    """What was typed for a value, once per time that it was given."""
    if isinstance(value, Mapping):  # Sizes by name.
        for name, sizes in value.items():
            yield f"{name}={'x'.join(map(str, sizes))}"
    elif several:
        yield from map(str, value)
    else:
        yield ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
