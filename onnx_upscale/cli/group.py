"""The commands, each in a module of its name, which is imported when somebody asks for it."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from onnx_upscale.cli.console import BAD_INPUT, fail, one_line
from onnx_upscale.cli.signals import interrupted_by_signals

_OURS = {"prog_name": "onnx-upscale", "standalone_mode": False}


class Commands(click.Group):
    """A group of commands, one of which needs no name: `onnx-upscale IN MASKS OUT`.

    Args:
        helps: What the commands are called, and the first sentence of what each says of itself.
        default: The one that needs no name.
        **attributes: As for any group.
    """

    def __init__(
        self, *, helps: Mapping[str, str] | None = None, default: str = "", **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self.helps, self._default = dict(helps or {}), default

    def list_commands(self, ctx: click.Context) -> list[str]:
        """What the commands are called."""
        return list(self.helps)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in self.helps:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands, each on a line."""
        room = formatter.width - 6 - max(map(len, self.helps))  # As click has it.
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._short_help(name, room)) for name in self.helps])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the name there that may be left out."""
        first = args[0] if args else None
        unfinished = first is None and ctx.resilient_parsing  # It may become any command's name.
        if not unfinished and first not in (*self.helps, "--help", "-h", "--version"):
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a first word may become: a command, or what the one without a name takes."""
        found = [
            CompletionItem(name, help=self._short_help(name))
            for name in self.helps
            if name.startswith(incomplete)
        ]
        found += click.Command.shell_complete(self, ctx, incomplete)  # Options of the group.
        default = self.get_command(ctx, self._default)
        assert default is not None
        with default.make_context(self._default, [], ctx, resilient_parsing=True) as inner:
            known = {item.value for item in found}
            items = default.shell_complete(inner, incomplete) if incomplete[:1] == "-" else []
        return [*found, *(item for item in items if item.value not in known)] or [
            CompletionItem(incomplete, type="file")
        ]

    def _short_help(self, name: str, limit: int = 45) -> str:
        """What stands beside a command in a list, without importing it."""
        return click.Command(name, help=self.helps[name]).get_short_help_str(limit)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs the command line; what click would say in several lines is said in one."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # File names are not always text.
                stream.reconfigure(errors="backslashreplace")
        try:
            with interrupted_by_signals():
                status = super().main(*args, **{**extra, **_OURS})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "onnx-upscale"
            message = one_line(error.format_message()).rstrip(".")
            fail(f"{message} (see '{command} --help')", BAD_INPUT)
        except click.ClickException as error:
            fail(one_line(error.format_message()), error.exit_code)
        except click.Abort:
            fail("interrupted")
        sys.exit(status)
