"""Settings: options from a TOML file, and the options in force as one."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import click

from onnx_upscale.cli.options import LISTED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NEVER = frozenset(("config", "dry_run", "help", "version"))
"""What no file says."""
_PRINTING = frozenset(("as_json", "as_markdown", "quiet", "verbose"))
"""What says how results are printed, and not what they are."""


class _WrongError(Exception):
    """A value that an option cannot have; says what it can be."""


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that a file may set, by what they are called there."""
    return {
        _key(each): each
        for each in command.params
        if isinstance(each, click.Option) and each.name not in _NEVER
    }


def read_settings(path: str, context: click.Context) -> dict[str, dict[str, Any]]:
    """Reads a file of settings, all of which must be ones.

    Args:
        path: The file.
        context: Of the command that is running.

    Returns:
        By command, what each of its parameters is set to, as if it had been typed.

    Raises:
        UsageError: It cannot be read, or something in it is no setting.
    """
    root = context.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    names = group.list_commands(root)
    found: dict[str, dict[str, Any]] = {}
    for name, table in _content(path, context).items():
        command = group.get_command(root, name)
        if not isinstance(table, dict):
            below = f"[{name if command else context.command.name}]"
            why = f"stands in no table: settings stand below their command, such as {below}"
            raise click.UsageError(f"{path}: '{name}': {why}", context)
        if command is None:
            why = f"is no command; {_closest(name, names)}"
            raise click.UsageError(f"{path}: [{name}]: {why}", context)
        found[name] = dict(_settings(path, name, command, table, context))
    return found


def _content(path: str, context: click.Context) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        why = "no such file"
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
    except UnicodeDecodeError:
        why = "is no text in UTF-8"
    except tomllib.TOMLDecodeError as error:
        why = f"bad TOML: {error}"
    except RecursionError:
        why = "bad TOML: too many brackets in each other"
    raise click.UsageError(f"{path}: {why}", context)


def _settings(
    path: str, name: str, command: click.Command, table: Mapping[str, Any], context: click.Context
) -> Iterator[tuple[str, Any]]:
    known = options_of(command)
    for key, value in table.items():
        where = f"{path}: [{name}] '{key}'"
        option = known.get(key)
        if option is None:
            raise click.UsageError(f"{where}: no such setting; {_closest(key, known)}", context)
        try:
            typed = _typed(option, value)
            # Refuses what the option refuses, and says where it stands.
            option.process_value(context, typed)
        except _WrongError as error:
            raise click.UsageError(f"{where}: must be {error}", context) from None
        except click.BadParameter as error:
            raise click.UsageError(f"{where}: {error.message.rstrip('.')}", context) from None
        assert option.name is not None
        yield option.name, typed


def _closest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    close = close or difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return f"closest: {', '.join(close)}"


def _typed(option: click.Option, value: Any) -> Any:
    """What somebody would type for a value, as click takes it."""
    if "\0" in "".join(map(str, value if isinstance(value, list) else [value])):
        raise _WrongError("a text that can be typed")
    if option.multiple or option.nargs > 1:
        many = "texts" if option.nargs == 1 else f"{option.nargs} texts"
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not fits or (option.nargs > 1 and len(value) != option.nargs):
            raise _WrongError(f"a list of {many}")
        return tuple(value)
    if option.is_flag:
        return _fitting(value, bool, "true or false")
    if option.type is LISTED:
        several = value if isinstance(value, list) and value else [value]
        if not all(isinstance(each, str) or _is_number(each) for each in several):
            raise _WrongError("a text, a number, or a list of these")
        return ",".join(map(str, several))
    if isinstance(option.type, click.types.FloatParamType):
        if not _is_number(value):
            raise _WrongError("a number")
        return value
    if isinstance(option.type, click.types.IntParamType):
        return _fitting(value, int, "a whole number")
    return _fitting(value, str, "a text")


def _fitting(value: Any, kind: type, expected: str) -> Any:
    if type(value) is not kind:  # True is an int, and no number.
        raise _WrongError(expected)
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def in_force(context: click.Context) -> dict[str, Any]:
    """What the options of the running command are set to, as a file of settings has it."""
    settings = {}
    for key, option in options_of(context.command).items():
        value = _plain(context.params.get(option.name or ""))
        if value is not None and value != [] and option.name not in _PRINTING:
            settings[key] = value
    return settings


def toml(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as the lines of a file.

    Args:
        name: The command that they are for.
        settings: Texts, numbers, flags, and lists of them.
    """
    return [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in settings.items())]


def _key(option: click.Option) -> str:
    longest: str = max(option.opts, key=len)
    return longest.lstrip("-")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # Sizes by name.
        return [f"{name}={'x'.join(map(str, sizes))}" for name, sizes in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    """A basic string: what does not show as itself is a code, and so are quotes."""

    def code(found: re.Match[str]) -> str:
        character = found[0]
        return f"\\{character}" if character in '"\\' else f"\\U{ord(character):08X}"

    return '"' + re.sub(r'["\\]|[^\S ]|[^\w\s!-~]|[\x00-\x1f\x7f]', code, text) + '"'
