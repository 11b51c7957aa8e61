"""The example arguments: which of them are tensors, what they are called, how they vary."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from onnx_upscale.errors import UsageError

Tensors = tuple[Tensor, ...]

# Whole numbers are often indices, so small ones are most likely to be in range.
_LARGEST_NUMBER = 9


@dataclass(frozen=True)
class Call:
    """A call of a module: its tensors, and everything else about it.

    Attributes:
        names: What each tensor is called, after the parameter of `forward` it belongs to.
        tensors: The tensors, in the order in which exporters list them as inputs.
        batched: Which of them have the batch as their first axis.
    """

    names: tuple[str, ...]
    tensors: Tensors
    batched: tuple[bool, ...]
    _leaves: tuple[Any, ...]
    _spec: pytree.TreeSpec
    _signature: inspect.Signature

    @classmethod
    def of(cls, model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None) -> Call:
        """Binds arguments to the parameters of a module's `forward`.

        Args:
            model: The module.
            args: A tensor, a tuple or list of positional arguments, or a dictionary of named ones.
            kwargs: Named arguments in addition.

        Returns:
            The call.

        Raises:
            UsageError: There are no tensors among them, or `forward` has other parameters.
        """
        named = dict(kwargs or {})
        if isinstance(args, Mapping):
            args, named = (), {**args, **named}
        elif not isinstance(args, (tuple, list)):
            args = (args,)
        signature = inspect.signature(model.forward)
        if not args and not named:
            raise UsageError(
                f"no example arguments: give `args`; forward takes {_parameters(signature)}"
            )
        try:
            bound = signature.bind(*args, **named)
        except TypeError as error:
            raise UsageError(
                f"the model does not take these arguments: {error}; "
                f"forward takes {_parameters(signature)}"
            ) from None
        return cls._of(bound)

    @classmethod
    def _of(cls, bound: inspect.BoundArguments) -> Call:
        paths, spec = pytree.tree_flatten_with_path((bound.args, bound.kwargs))
        leaves = tuple(
            leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf for _, leaf in paths
        )
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        if not tensors:
            raise UsageError("the example arguments hold no tensor, so the model has no inputs")
        named_paths, _ = pytree.tree_flatten_with_path(dict(bound.arguments))
        names = unique([path_name(path) for path, leaf in named_paths if isinstance(leaf, Tensor)])
        size = next((each.shape[0] for each in tensors if each.ndim), None)
        batched = tuple(each.ndim > 0 and each.shape[0] == size for each in tensors)
        return cls(names, tensors, batched, leaves, spec, bound.signature)

    def with_defaults(self) -> Call:
        """The same call with every parameter given, as the older exporter makes it."""
        args, kwargs = self.arguments(self.tensors)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self._of(bound)

    @property
    def batch(self) -> int:
        """The batch size of the example."""
        return int(self.tensors[self.batched.index(True)].shape[0])

    @property
    def has_batch(self) -> bool:
        """Whether any tensor has a batch."""
        return any(self.batched)

    @property
    def constants(self) -> dict[str, bool | int | float]:
        """Numbers among the arguments: no inputs, though the older exporter makes them some."""
        numbers = (leaf for leaf in self._leaves if isinstance(leaf, (bool, int, float)))
        return {f"constant_{count}": number for count, number in enumerate(numbers)}

    @property
    def all_names(self) -> tuple[str, ...]:
        """Names of tensors and numbers, in the order of the arguments."""
        tensors, numbers = iter(self.names), iter(self.constants)
        kinds = ((Tensor, tensors), ((bool, int, float), numbers))
        return tuple(
            next(names) for leaf in self._leaves for kind, names in kinds if isinstance(leaf, kind)
        )

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments with other tensors in place of the example's."""
        left = iter(tensors)
        leaves = [next(left) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return args, kwargs

    def run(self, model: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """What a module gives for other tensors."""
        args, kwargs = self.arguments([each.clone() for each in tensors])
        with torch.no_grad():
            return model(*args, **kwargs)

    def with_batch(self, size: int) -> Tensors:
        """The example's tensors, repeated or cut to another batch size."""
        return tuple(
            each.index_select(0, torch.arange(size) % each.shape[0]) if batched else each
            for each, batched in zip(self.tensors, self.batched, strict=True)
        )

    def dynamic_shapes(self, batch: str) -> dict[str, Any]:
        """Which axes are symbolic, in the form that torch.export takes."""
        dim = torch.export.Dim(batch)
        shapes = iter([{0: dim} if batched else None for batched in self.batched])
        leaves = [next(shapes) if isinstance(leaf, Tensor) else None for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return dict(self._signature.bind(*args, **kwargs).arguments)

    def dynamic_axes(self, batch: str) -> dict[str, dict[int, str]]:
        """Which axes are symbolic, in the form that the older exporter takes."""
        named = zip(self.names, self.batched, strict=True)
        return {name: {0: batch} for name, batched in named if batched}


def random_like(tensors: Sequence[Tensor], seed: int) -> Tensors:
    """Random tensors of the same shapes, in the range of the values of the given ones.

    Args:
        tensors: Examples.
        seed: The same seed gives the same values.

    Returns:
        For floats, normal numbers with the mean, spread and limits of the example, or standard ones
        where it has no spread; for whole numbers and flags, a draw from the example's own values.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(_random(each, generator) for each in tensors)


def made_up(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    """An example of which only the shape and the type are known.

    Args:
        shape: Its shape.
        dtype: Its type.
        seed: The same seed gives the same values.

    Returns:
        Standard normal numbers, whole numbers from 0 to 9, or flags.
    """
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, tuple(shape), generator=generator).bool()
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    return torch.randint(0, _LARGEST_NUMBER + 1, tuple(shape), generator=generator).to(dtype)


def _random(example: Tensor, generator: torch.Generator) -> Tensor:
    if not example.numel():
        return example
    if not example.is_floating_point():
        values = example.flatten()
        draw = torch.randint(0, len(values), example.shape, generator=generator)
        return values[draw]
    normal = torch.randn(example.shape, generator=generator)
    values = example.float()
    low, high = values.min(), values.max()
    if low == high:
        return normal.to(example.dtype)
    spread = normal * values.std() + values.mean()
    return spread.clamp(low, high).to(example.dtype)


def path_name(path: Sequence[Any]) -> str:
    """Such as `image`, or `features_0` for the first in a list."""
    return "_".join(
        str(value)
        for key in path
        for attribute in ("key", "idx", "name")
        if (value := getattr(key, attribute, None)) is not None
    )


def unique(names: Sequence[str], taken: Iterable[str] = ()) -> tuple[str, ...]:
    """The names, with a number behind each that is taken already."""
    seen = set(taken)
    result = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        fresh = next(each for each in itertools.chain([name], numbered) if each not in seen)
        seen.add(fresh)
        result.append(fresh)
    return tuple(result)


def _parameters(signature: inspect.Signature) -> str:
    return ", ".join(str(each) for each in signature.parameters.values()) or "no arguments"
