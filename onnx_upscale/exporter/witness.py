"""What the torch model gives, hooks active: what any export of it must equal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.exporter.call import Call, Tensors, path_name, random_like, unique
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.verify import Difference, Tolerance, difference
from onnx_upscale.running import Session

# The batch size to export a symbolic batch with: exporters take 1 for a constant.
_SMALLEST_SYMBOLIC = 2


@dataclass(frozen=True)
class Sample:
    """Inputs and what torch makes of them."""

    tensors: Tensors
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Witness:
    """What a torch model was seen to give.

    Attributes:
        names: What its outputs are called.
        samples: Inputs of the example's batch size: the example itself, and random ones.
        other_batch: Inputs of another batch size, or None where the batch is to stay fixed.
        symbolic: An example to export a symbolic batch with, or None where it is to stay fixed.
        warnings: Why the batch stays fixed where it should not.
    """

    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    other_batch: Sample | None
    symbolic: Tensors | None
    warnings: tuple[str, ...]


def observe(model: nn.Module, call: Call, symbolic: bool, seed: int) -> Witness:
    """Runs a torch model on its example arguments, on random ones, and on another batch size.

    Args:
        model: The module, in evaluation mode.
        call: Its example arguments.
        symbolic: Whether a symbolic batch is wanted.
        seed: Seed of the random arguments.

    Returns:
        What it gave.

    Raises:
        UsageError: It fails on the example arguments, or gives no tensors.
    """
    with isolated():
        try:
            result = call.run(model, call.tensors)
        except Exception as error:  # Whatever the user's model raises.
            raise UsageError(
                f"the model fails on the example arguments ({describe(call)}): {reason(error)}"
            ) from None
        paths, _ = pytree.tree_flatten_with_path(result)
        named = [(path_name(path), leaf) for path, leaf in paths if isinstance(leaf, Tensor)]
        if not named:
            raise UsageError(f"the model returns {type(result).__name__} without any tensor in it")
        names = [_output_name(name, len(named)) for name, _ in named]
        samples, doubts = [Sample(call.tensors, tuple(leaf for _, leaf in named))], []
        try:
            samples.append(_sample(model, call, random_like(call.tensors, seed)))
        except Exception as error:  # Not every model takes just any values.
            doubts.append(
                "only the example arguments are compared, as the torch model fails on "
                f"random ones ({reason(error)})"
            )
        other, example = None, None
        if symbolic and call.has_batch:
            try:
                example = call.with_batch(max(call.batch, _SMALLEST_SYMBOLIC))
                _sample(model, call, example)
                larger = call.with_batch(max(call.batch, _SMALLEST_SYMBOLIC) + 1)
                other = _sample(model, call, random_like(larger, seed + 1))
            except Exception as error:  # As above.
                example = None
                doubts.append(
                    f"the batch size is fixed at {call.batch}: "
                    f"the torch model takes no other ({reason(error)})"
                )
    return Witness(unique(names, call.names), tuple(samples), other, example, tuple(doubts))


def check(model: onnx.ModelProto, call: Call, sample: Sample, tolerance: Tolerance) -> Difference:
    """Compares an exported model with what torch gave.

    Args:
        model: The exported model.
        call: The example arguments, for the names of the inputs.
        sample: Inputs and outputs of torch.
        tolerance: How much they may differ.

    Returns:
        The largest difference, or the first failure.

    Raises:
        VerifySetupError: onnxruntime cannot run the model.
    """
    session = Session(model)
    wanted = {value.name for value in model.graph.input}
    inputs = dict(zip(call.names, map(_array, sample.tensors), strict=True))
    found = session.run({name: value for name, value in inputs.items() if name in wanted})
    if len(found) != len(sample.outputs):
        many = f"{len(found)} outputs where torch gives {len(sample.outputs)}"
        return Difference(failure=f"the exported model has {many}")
    differences = [
        difference(name, _array(expected), got, tolerance)
        for expected, (name, got) in zip(sample.outputs, found.items(), strict=True)
    ]
    failed = next((each for each in differences if each.failure), None)
    return failed or Difference(
        max(each.absolute for each in differences), max(each.relative for each in differences)
    )


def describe(call: Call) -> str:
    """The tensors of a call, such as `x: 1x3x224x224 float32`."""
    return ", ".join(
        f"{name}: {'x'.join(map(str, each.shape)) or 'scalar'} {str(each.dtype).split('.')[-1]}"
        for name, each in zip(call.names, call.tensors, strict=True)
    )


def reason(error: BaseException) -> str:
    """The first line that says what went wrong, of an error or of what it was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {first}"[:200].rstrip(": ")


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Keeps torch and its exporters from printing, warning, logging and drawing random numbers.

    Those that a model draws do not move the generator of whoever called.
    """
    disabled = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def _sample(model: nn.Module, call: Call, tensors: Tensors) -> Sample:
    leaves: list[Any] = pytree.tree_leaves(call.run(model, tensors))
    return Sample(tensors, tuple(leaf for leaf in leaves if isinstance(leaf, Tensor)))


def _output_name(name: str, count: int) -> str:
    """Keys of a dictionary are names already; places in a tuple are not."""
    if count == 1 and not name:
        return "output"
    return f"output_{name}" if name[:1].isdigit() else name


def _array(tensor: Tensor) -> Array:
    try:
        return np.asarray(tensor.detach().cpu().numpy())
    except TypeError:
        kind = str(tensor.dtype).split(".")[-1]
        raise VerifySetupError(f"{kind} tensors cannot be compared here") from None
