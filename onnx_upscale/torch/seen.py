"""What the modules in a module were seen to do in one run of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

LAYERS = (_ConvNd, nn.Linear)
"""The modules that lose channels: their `forward` asks nobody how many there are."""


@dataclass(frozen=True)
class Seen:
    """One run of a module.

    Attributes:
        calls: How often each module was called, by path.
        read: How often a BatchNormalization read what a layer had made, as it was made, by the
            paths of both, that of the layer first.
        named: Paths of layers that were called with their input as a named argument.
        channels: By the path of a normalization without weights and statistics, which does not
            tell, how many channels it read.
    """

    calls: Counter[str]
    read: Counter[tuple[str, str]]
    named: set[str]
    channels: dict[str, int]

    @property
    def norms(self) -> dict[str, str]:
        """By the path of a layer, that of the BatchNormalization that reads all that it makes."""
        return {
            layer: norm for (layer, norm), count in self.read.items() if count == self.calls[layer]
        }


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
    seen, stack = Seen(Counter(), Counter(), set(), {}), Stack()
    # By id, and held, so that no other gets it. The version tells what changed in place since.
    made: dict[int, tuple[str, Tensor, int]] = {}
    handles = []
    for path, part in module.named_modules():

        def before(part: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            stack.paths.append(path)
            seen.calls[path] += 1
            if isinstance(part, LAYERS) and not args:
                seen.named.add(path)
            if isinstance(part, _NormBase) and args and not part.state_dict():
                axis = -part._get_no_batch_dim() if isinstance(part, _InstanceNorm) else 1
                seen.channels[path] = args[0].shape[axis]
            for each in args if isinstance(part, _BatchNorm) else ():
                source, tensor, version = made.get(id(each), ("", None, 0))
                if tensor is not None and tensor._version == version:
                    seen.read[source, path] += 1

        def behind(part: nn.Module, args: Any, output: Any, path: str = path) -> None:
            stack.paths.pop()
            if isinstance(part, LAYERS) and isinstance(output, Tensor):
                made[id(output)] = path, output, output._version

        handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(part.register_forward_hook(behind))
    try:
        yield seen, stack
    finally:
        for handle in handles:
            handle.remove()
