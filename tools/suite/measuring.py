"""Measures one job: all versions of a model in turn, and where their time goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

import onnx_upscale
from onnx_upscale.running import model_inputs
from quantize import quantized
from suite.jobs import Job
from zoo import input_masks

STRATEGIES = ("gather", "upscale", "auto")
PEERS = ("peerbase", "peer")
PROFILED = ("compute", "copies", "reorders", "over_bound")


def versions(job: Job, folder: Path, target: str, tune_seconds: float = 0) -> dict[str, Path]:
    """Makes all versions of a model that are compared.

    Args:
        job: The job.
        folder: Where models may be written.
        target: Whose costs `auto` plans for.
        tune_seconds: How long `--tune` may take; 0 leaves it out.

    Returns:
        The file of each version, the unpruned one first.
    """
    path = _as_measured(job, job.path, folder)
    masks, inputs = _masks(job, path), inputs_of(job, path)
    found = {"unpruned": path}
    has_peers = job.kind.provider == "cuda" or (job.kind.batch, job.kind.form) == (1, "float32")
    if job.criterion == "random" and has_peers:
        peers = {peer: job.beside(f"{peer}.onnx") for peer in PEERS}
        for peer, exported in peers.items():
            if exported.exists():
                found[peer] = _as_measured(job, exported, folder)
    for name in (*STRATEGIES, *["tune"] * (tune_seconds > 0)):
        how: dict[str, Any] = {"strategy": name}
        if name == "tune":
            how = {"tune": True, "tune_seconds": tune_seconds}
        made = onnx_upscale.optimize(path, masks, target=target, inputs=inputs, verify=False, **how)
        found[name] = folder / f"{name}.onnx"
        made.save(found[name])
    return found


def measured(job: Job, folder: Path, target: str, runs: int, tune_seconds: float) -> dict[str, Any]:
    """What a job takes.

    Args:
        job: The job.
        folder: Where models may be written.
        target: Whose costs `auto` plans for.
        runs: How often every version is timed.
        tune_seconds: How long `--tune` may take; 0 leaves it out.

    Returns:
        Milliseconds per version, whole, and on CPUs in compute nodes, copies and reorders.
    """
    made = versions(job, folder, target, tune_seconds)
    return timed(job, made, target, runs)


def timed(job: Job, made: Mapping[str, Path], target: str, runs: int) -> dict[str, Any]:
    """What the versions of a job take, as `measured` gives it."""
    found = onnx_upscale.bench(
        [*made.values()],
        provider=job.kind.provider,
        names=[*made],
        inputs=inputs_of(job, made["unpruned"]),
        runs=runs,
        profile=job.kind.provider == "cpu",
        memory=False,
    ).to_json()
    models = {
        each["name"]: {
            "ms": each["latency_ms"]["median"],
            "ratio": each["ratio"]["median"],
            **{kind: each["profile_ms"][kind] for kind in PROFILED if each["profile_ms"]},
        }
        for each in found["models"]
    }
    return {"job": job.name, "target": Path(target).name, "models": models}


def inputs_of(job: Job, path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs of a model as a job runs it."""
    return {
        value.name: (job.kind.batch, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))
        for value in model_inputs(onnx.load(path, load_external_data=False))
    }


def _as_measured(job: Job, path: Path, folder: Path) -> Path:
    """A model in the numbers and for the batch of a job."""
    if job.kind.form == "int8":
        path = quantized(path, "QDQ", folder)
    if job.kind.batch > 1:
        path = with_open_batch(path, folder / f"{path.stem}.open.onnx")
    if job.kind.form == "float16":
        path = in_float16(path, folder / f"{path.stem}.float16.onnx")
    return path


def _masks(job: Job, path: Path) -> dict[str, Any]:
    if job.criterion == "random":
        if job.kind.form == "int8":
            return input_masks(path.parent, path.stem, str(job.amount))
        return input_masks(job.folder, job.model, str(job.amount))
    return dict(onnx_upscale.mask(path, job.criterion, job.amount))


def in_float16(path: Path, made: Path) -> Path:
    """A model whose real numbers are of half precision."""
    onnx.save(convert_float_to_float16(onnx.load(path)), made)
    return made


def with_open_batch(path: Path, made: Path) -> Path:
    """A model that was exported for one image, for any number of them."""
    model = onnx.load(path)
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    views = [node for node in graph.node if node.op_type == "Reshape"]
    for node in views:  # There, 0 would be 0.
        kept = [each for each in node.attribute if each.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    shapes = {node.input[1] for node in views}
    for tensor in _constants(graph):
        if tensor.name in shapes:
            sizes = onnx.numpy_helper.to_array(tensor).copy()
            if sizes.size and sizes[0] == 1:
                sizes[0] = 0  # As many as there are.
                tensor.CopyFrom(onnx.numpy_helper.from_array(sizes, tensor.name))
    onnx.save(model, made)
    return made


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers, and what Constant nodes hold, by the name under which it is read."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            node.attribute[0].t.name = node.output[0]
            yield node.attribute[0].t
