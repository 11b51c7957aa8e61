"""A command whose options may stand in a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import click

Rivals = Sequence[Collection[str]]
"""Sets of parameters of which those of one set leave no room for those of another."""

_PRINTING: Rivals = ({"as_json"}, {"as_markdown"})
"""Of every command: how its report is printed."""


class Command(click.Command):
    """A command that takes what `--config` names for options that are not typed.

    Args:
        rivals: Where one of the parameters of a set is typed, those of the others are not taken
            from the file.
        **attributes: As for any command.
    """

    def __init__(self, *, rivals: Sequence[Rivals] = (), **attributes: Any) -> None:
        super().__init__(**attributes)
        self._rivals = (*rivals, _PRINTING)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the file first, if one is named."""
        if not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            typed = {param.name for param in order if param.name is not None}
            helps = any(param.is_eager for param in order)  # Or says the version.
            if "config" in typed and not helps:
                from onnx_upscale.cli.settings import read_settings

                found = read_settings(values["config"], ctx).get(self.name or "", {})
                ctx.default_map = {
                    name: value for name, value in found.items() if not self._beaten(name, typed)
                }
        return super().parse_args(ctx, args)

    def _beaten(self, name: str, typed: set[str]) -> bool:
        """Whether a parameter has no place beside those that were typed."""
        return any(
            name in own and typed & set(other)
            for rivals in self._rivals
            for own in rivals
            for other in rivals
            if own is not other
        )


def command(**attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Makes a command of a function; takes what `Command` does."""
    return click.command(cls=Command, **attributes)
