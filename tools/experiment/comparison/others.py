"""Other people's pruners: onnxsim on the ONNX file, Torch-Pruning on the torch network."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import onnx
import torch
from torch import nn

import onnx_upscale
from experiment.comparison.jobs import FOREIGN, Job
from experiment.comparison.matching import OVER
from experiment.comparison.rows import Row
from experiment.comparison.setting import NAN, Clock, Setting, quiet

NEEDED = {"onnxsim": "onnxsim==0.8.1", "torch-pruning": "torch-pruning==1.6.1"}
_SHARES = tuple(each / 20 for each in range(1, 19))
_TRIES = 4  # Of those that were fast enough among all.
_ROUNDED = 8  # Torch-Pruning keeps multiples of this many channels: kernels are slow at others.
_BATCH = 64
_OPSET = 17

Make = Callable[[float], onnx.ModelProto]


def missing(methods: Any) -> list[str]:
    """What must be installed for these methods."""
    return [
        NEEDED[method]
        for method in FOREIGN
        if method in methods and find_spec(method.replace("-", "_")) is None
    ]


def onnxsim_rows(job: Job, setting: Setting) -> Iterator[Row]:
    """`apply_structured_pruning`, then `apply_pruning_finetune` on the same samples."""
    import onnxsim

    @functools.cache
    def pruned(share: float) -> onnx.ModelProto:
        return onnxsim.apply_structured_pruning(setting.model, sparsity=share)

    def tuned(share: float) -> onnx.ModelProto:
        ((name, images),) = setting.samples.items()
        batches = [{name: images[at : at + _BATCH]} for at in range(0, len(images), _BATCH)]
        return onnxsim.apply_pruning_finetune(setting.model, pruned(share), batches)

    yield from _rows(job, setting, pruned, tuned)


def torch_pruning_rows(job: Job, setting: Setting) -> Iterator[Row]:
    """The group magnitude pruner, the same share everywhere, without training.

    While shares are tried, torch's older exporter writes the networks, which takes a tenth of the
    time; those that count come from `onnx_upscale.export`.
    """
    model = setting.source.model(setting.network, setting.seed)
    export: Any = torch.onnx.export
    example = torch.from_numpy(setting.images[:2])

    @functools.cache
    def tried(share: float) -> onnx.ModelProto:
        file = io.BytesIO()
        with quiet():
            export(
                without_channels(model, example, share),
                (example[:1],),
                file,
                dynamo=False,
                input_names=[setting.model.graph.input[0].name],
                dynamic_axes={setting.model.graph.input[0].name: {0: "batch"}},
                opset_version=_OPSET,
            )
        return onnx.load_from_string(file.getvalue())

    def final(share: float) -> onnx.ModelProto:
        with quiet():
            pruned = without_channels(model, example, share)
            return onnx_upscale.export(pruned, (example,), None).model

    yield from _rows(job, setting, tried, final)


def without_channels(model: nn.Module, example: torch.Tensor, share: float) -> nn.Module:
    """A copy of a network that Torch-Pruning took a share of the channels from.

    The last layer keeps its outputs, and attention the sizes of its heads. Positions of tokens are
    a parameter of no layer, which Torch-Pruning must be told of.
    """
    import torch_pruning

    pruned = copy.deepcopy(model)
    layers = [each for each in pruned.modules() if isinstance(each, nn.Linear)]
    attention = [each.qkv for each in pruned.modules() if hasattr(each, "qkv")]
    places = [(each.place, 1) for each in pruned.modules() if hasattr(each, "place")]
    torch_pruning.pruner.BasePruner(
        pruned,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=[layers[-1], *attention],
        round_to=_ROUNDED,
        unwrapped_parameters=places or None,
    ).step()
    return pruned


def _rows(job: Job, setting: Setting, tried: Make, final: Make) -> Iterator[Row]:
    """The least share that is fast enough; all are timed, for more removed can be slower."""
    clock = Clock()
    rough = setting.ratios([tried(share) for share in _SHARES])
    alone = functools.cache(lambda share: setting.ratio(tried(share)))
    for wanted in job.wanted:
        (cell,) = job.cells(wanted)
        fit = [share for share, ratio in zip(_SHARES, rough, strict=True) if ratio <= OVER * wanted]
        share = next((each for each in fit[:_TRIES] if alone(each) <= OVER * wanted), None)
        if share is None:
            yield setting.nothing(cell, f"at best {min(rough):.2f} of the latency is left")
            continue
        emitted = final(share)
        ratio = setting.ratio(emitted)
        yield setting.row(cell, emitted, NAN, ratio, clock.lap())
        clock.lap()
