"""Whether a torch module computes what an ONNX model computes, and where it fails if it does."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from onnx_upscale.declared import shape_of
from onnx_upscale.errors import UsageError
from onnx_upscale.exporter.call import Call, Tensors, random_like
from onnx_upscale.exporter.witness import isolated, reason
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.verify import Tolerance, difference
from onnx_upscale.result import Result
from onnx_upscale.running import Session, input_sizes, model_inputs, random_inputs
from onnx_upscale.torch.seen import Seen, watching

_BATCH = 2


@dataclass(frozen=True)
class Failure:
    """Why a module does not compute what it should.

    Attributes:
        reason: What happened.
        paths: The modules in which it happened, the outermost first; none where it ran.
    """

    reason: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Inputs, and what the result makes of them.

    Attributes:
        call: How the module is called.
        samples: Inputs, and the outputs of the ONNX model in their order.
        tolerance: How much may differ.
    """

    call: Call
    samples: tuple[tuple[Tensors, tuple[Array, ...]], ...]
    tolerance: Tolerance

    @classmethod
    def of(
        cls,
        module: Any,
        result: Result,
        args: Any,
        kwargs: Mapping[str, Any] | None,
        seed: int,
        tolerance: Tolerance,
    ) -> Comparison:
        """Runs a result in onnxruntime.

        Args:
            module: The module, for how it is called.
            result: The result.
            args: As for `slim`.
            kwargs: As for `slim`.
            seed: As for `slim`.
            tolerance: As for `slim`.

        Raises:
            UsageError: The module does not take the inputs of the model.
            VerifySetupError: onnxruntime does not run the model.
        """
        if not isinstance(module, nn.Module):
            raise UsageError(f"expected a torch.nn.Module to slim, found {type(module).__name__}")
        module = getattr(module, "_orig_mod", module)  # What torch.compile wraps.
        if args is None and not kwargs:
            args = _made_up(result, seed)
        try:
            call = Call.of(module, () if args is None else args, kwargs)
        except UsageError as error:
            raise UsageError(f"{error}; give `args` as to export") from None
        names = [value.name for value in model_inputs(result.model)]
        if not set(names) <= set(call.names):
            wanted, given = ", ".join(names), ", ".join(call.names)
            raise UsageError(
                f"the result reads {wanted}, and the module {given}: is it the module that was "
                "exported?"
            )
        session = Session(result.emitted)
        sizes = [call.batch] if call.has_batch else []
        if call.has_batch and _is_open(result):
            sizes.append(call.batch + 1)
        inputs = [call.tensors, *(call.with_batch(size) for size in sizes)]
        inputs[1:] = [random_like(each, seed + at) for at, each in enumerate(inputs[1:])]
        samples = []
        for tensors in inputs:
            given_arrays = dict(zip(call.names, (each.numpy() for each in tensors), strict=True))
            found = session.run({name: given_arrays[name] for name in names})
            samples.append((tensors, tuple(found.values())))
        return cls(call, tuple(samples), tolerance)

    def watch(self, module: nn.Module) -> Seen:
        """What the modules in a module do.

        Args:
            module: The module, in evaluation mode on the CPU.

        Raises:
            UsageError: It does not run.
        """
        with isolated(), watching(module) as (seen, _):
            try:
                self.call.run(module, self.samples[0][0])
            except Exception as error:  # `forward` is the user's: it may raise anything.
                raise UsageError(
                    f"the module does not run on the inputs of the result: {reason(error)}; "
                    "is it the module that was exported? if so, give `args` as to export"
                ) from None
        return seen

    def failure(self, module: nn.Module) -> Failure | None:
        """Why a module computes something else; None if it does not.

        Args:
            module: The module, in evaluation mode on the CPU.
        """
        for tensors, wanted in self.samples:
            with isolated():
                # Without hooks: there are modules that compute otherwise where they see some.
                try:
                    made = self.call.run(module, tensors)
                except Exception as error:  # As above, where it counts channels.
                    return Failure(reason(error), self._where(module, tensors))
            leaves: list[Any] = pytree.tree_leaves(made)
            got = [leaf.detach().numpy() for leaf in leaves if isinstance(leaf, Tensor)]
            if len(got) != len(wanted):
                many = f"{len(got)} outputs where the result gives {len(wanted)}"
                return Failure(f"the module has {many}")
            for at, (expected, array) in enumerate(zip(wanted, got, strict=True)):
                found = difference(str(at), expected, array, self.tolerance)
                if found.failure is not None:
                    return Failure(found.failure)
        return None

    def _where(self, module: nn.Module, tensors: Tensors) -> tuple[str, ...]:
        """The modules in which a module fails."""
        with watching(module) as (_, stack), contextlib.suppress(Exception):
            self.call.run(module, tensors)
        return tuple(stack.paths)


def _made_up(result: Result, seed: int) -> dict[str, Tensor]:
    """Named arguments of the shapes that the model declares."""
    batch = _BATCH if _is_open(result) else None
    sizes = input_sizes(result.model, batch=batch)
    values = random_inputs(result.model, sizes, seed)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}


def _is_open(result: Result) -> bool:
    """Whether the model takes any batch size."""
    shapes = [shape_of(value) for value in model_inputs(result.model)]
    return any(shape and not isinstance(shape[0], int) for shape in shapes)
