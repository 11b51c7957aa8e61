"""Messages of the library in the words of the command line.

The library knows no options. Its messages name parameters as its docstrings do, in backticks:
`verify_at`, `verify=False`. Here, and nowhere else, they become --verify-at and --no-verify.
"""

from __future__ import annotations

import re

import click

_PARAMETER = re.compile(r"`(\w+(?:=False)?)`")
# What stands for parameters that are no options.
_OTHER_WORDS = {"args": "--input 1x3x224x224, or let FACTORY return (module, arguments)"}


def as_options(message: str) -> str:
    """A message of the library with options in place of parameters.

    Args:
        message: The message; what is in backticks and no parameter of a command stays.

    Returns:
        The message for the user of the command that is running.
    """
    words = _options()
    return _PARAMETER.sub(lambda found: words.get(found[1], found[0]), message)


def _options() -> dict[str, str]:
    """The options of all commands by their parameters; those of the running command come first."""
    context = click.get_current_context()
    root = context.find_root()
    group, others = root.command, list[click.Command | None]()
    if isinstance(group, click.Group):
        others = [group.get_command(root, name) for name in group.list_commands(root)]
    words = dict(_OTHER_WORDS)
    for command in (*others, context.command):
        for option in command.params if command is not None else ():
            if isinstance(option, click.Option) and option.name:
                words[option.name] = option.opts[-1]
                words.update({f"{option.name}=False": each for each in option.secondary_opts[:1]})
    return words
