"""What the modules in a module were seen to do in one run of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

LAYERS = (_ConvNd, nn.Linear)
"""The modules that lose channels: their `forward` asks nobody how many there are."""


@dataclass(frozen=True)
class Seen:
    """One run of a module.

    Attributes:
        calls: How often each module was called, by path.
        norms: By the path of a layer, that of the BatchNormalization that reads what it makes.
        named: Paths of layers that were called with their input as a named argument.
    """

    calls: Counter[str]
    norms: dict[str, str]
    named: set[str]


@dataclass
class Stack:
    """The modules that are running.

    Attributes:
        paths: Their paths, the outermost first; after a failure, those in which it happened.
    """

    paths: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watching(module: nn.Module) -> Iterator[tuple[Seen, Stack]]:
    """Watches the modules in a module while it runs.

    Args:
        module: The module; hooks that it gets go again.

    Yields:
        What is seen, and the modules that are running.
    """
    seen, stack = Seen(Counter(), {}, set()), Stack()
    made: dict[int, tuple[str, Tensor]] = {}  # Held, so that no other gets the same id.
    handles = []
    for path, part in module.named_modules():

        def before(part: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            stack.paths.append(path)
            seen.calls[path] += 1
            if isinstance(part, LAYERS) and not args:
                seen.named.add(path)
            for each in args:
                source = made.get(id(each))
                if source is not None and isinstance(part, _BatchNorm):
                    seen.norms[source[0]] = path

        def behind(part: nn.Module, args: Any, output: Any, path: str = path) -> None:
            stack.paths.pop()
            if isinstance(part, LAYERS) and isinstance(output, Tensor):
                made[id(output)] = path, output

        handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(part.register_forward_hook(behind))
    try:
        yield seen, stack
    finally:
        for handle in handles:
            handle.remove()
