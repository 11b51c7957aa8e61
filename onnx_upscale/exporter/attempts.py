"""The ways to export a module, tried in turn until one gives an equal model.

1. A symbolic batch comes before fixed sizes, where the torch model takes other batch sizes.
2. Torch's newer exporter (`dynamo`) comes before the older one (`torchscript`).
3. An attempt counts only if its model equals torch on every sample, another batch size included:
   the older exporter turns into constants what it did not see to be symbolic.
4. Every attempt that does not count leaves a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from torch import nn

from onnx_upscale.errors import ModelError, UpscaleError, VerifyError, VerifySetupError
from onnx_upscale.exporter.call import Call, Tensors
from onnx_upscale.exporter.torch_exporters import EXPORTERS, Request
from onnx_upscale.exporter.weights import name_weights
from onnx_upscale.exporter.witness import Witness, check, isolated, reason
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.verify import Difference, Tolerance


@dataclass(frozen=True)
class Options:
    """What is asked of an export, as of `onnx_upscale.export`."""

    batch: str | None
    opset: int | None
    verify: bool
    tolerance: Tolerance


@dataclass(frozen=True)
class Found:
    """The model that counts, and how it was made, as in `onnx_upscale.exporter.Exported`."""

    model: onnx.ModelProto
    exporter: str
    batch: str | None
    samples: int
    max_abs: float
    max_rel: float
    warnings: tuple[str, ...]


def first_good(model: nn.Module, call: Call, witness: Witness, options: Options) -> Found:
    """Exports a module in the first way that works.

    Args:
        model: The module, in evaluation mode and without pruning hooks.
        call: Its example arguments.
        witness: What the export must equal.
        options: What is asked for.

    Returns:
        The model and how it was made.

    Raises:
        ModelError: No exporter can export it.
        VerifyError: What they export computes something else.
        VerifySetupError: onnxruntime cannot run what they export.
    """
    parameters = _parameters(model)
    failures: dict[str, UpscaleError] = {}
    for exporter, request in _requests(model, call, witness, options):
        try:
            proto = _exported(exporter, request)
            name_weights(proto, parameters)
            found = _compared(proto, request, witness, options)
        except UpscaleError as error:
            failures[_what(exporter, request)] = error
            continue
        return Found(
            model=proto,
            exporter=exporter,
            batch=request.batch,
            samples=len(found),
            max_abs=max((each.absolute for each in found), default=0.0),
            max_rel=max((each.relative for each in found), default=0.0),
            warnings=_warnings(exporter, request, failures),
        )
    raise _all_failed(failures)


def _requests(
    model: nn.Module, call: Call, witness: Witness, options: Options
) -> Iterator[tuple[str, Request]]:
    ways: list[tuple[Tensors, str | None]] = [(call.tensors, None)]
    if options.batch is not None and witness.symbolic is not None:
        ways.insert(0, (witness.symbolic, options.batch))
    for tensors, batch in ways:
        for exporter in EXPORTERS:
            yield exporter, Request(model, call, tensors, witness.names, batch, options.opset)


def _exported(exporter: str, request: Request) -> onnx.ModelProto:
    try:
        with isolated():
            return EXPORTERS[exporter](request)
    except UpscaleError:
        raise
    except Exception as error:  # Exporters raise whatever the code they run does.
        raise ModelError(reason(error)) from None


def _compared(
    model: onnx.ModelProto, request: Request, witness: Witness, options: Options
) -> list[Difference]:
    if not options.verify:
        return []
    samples = list(witness.samples)
    if request.batch is not None and witness.other_batch is not None:
        samples.append(witness.other_batch)
    found = [check(model, request.call, sample, options.tolerance) for sample in samples]
    failure = next((each.failure for each in found if each.failure), None)
    if failure is not None:
        raise VerifyError(failure)
    return found


def _all_failed(failures: Mapping[str, UpscaleError]) -> UpscaleError:
    """What to say if nothing counted: the worst that happened."""
    for what, error in failures.items():
        if isinstance(error, VerifyError):
            return VerifyError(f"the exported model differs from the torch model: {error} ({what})")
    for error in failures.values():
        if isinstance(error, VerifySetupError):
            return VerifySetupError(f"exported, but {error}; `verify=False` does without the check")
    return ModelError(f"the model cannot be exported: {_reasons(failures)}")


def _warnings(
    exporter: str, request: Request, failures: Mapping[str, UpscaleError]
) -> tuple[str, ...]:
    if not failures:
        return ()
    return (f"exported by the {_what(exporter, request)}, after failures: {_reasons(failures)}",)


def _reasons(failures: Mapping[str, UpscaleError]) -> str:
    said: dict[str, str] = {}  # An exporter often fails alike with either batch.
    for what, error in failures.items():
        said.setdefault(str(error), what)
    return "; ".join(f"{what}: {error}" for error, what in said.items())


def _what(exporter: str, request: Request) -> str:
    return f"{exporter} exporter with {'symbolic' if request.batch else 'fixed'} batch"


def _parameters(model: nn.Module) -> dict[str, Array]:
    """The parameters of a type that numpy has; others keep the names that exporters give."""
    arrays = {}
    for name, parameter in model.named_parameters():
        try:
            arrays[name] = parameter.detach().numpy()
        except TypeError:
            continue
    return arrays
