"""Measures one job: all versions of a model in turn, and where their time goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

import onnx_upscale
from onnx_upscale.running import model_inputs
from quantize import quantized
from suite.jobs import Job
from zoo import input_masks

STRATEGIES = ("gather", "upscale", "auto")
PEERS = ("peerbase", "peer")
PROFILED = ("compute", "copies", "reorders", "over_bound")


def measured(job: Job, folder: Path, target: str, runs: int, tune_seconds: float) -> dict[str, Any]:
    """What a job takes.

    Args:
        job: The job.
        folder: Where models may be written.
        target: Whose costs `auto` plans for.
        runs: How often every version is timed.
        tune_seconds: How long `--tune` may take; 0 leaves it out.

    Returns:
        Milliseconds per version, whole, and in compute nodes, copies and reorders.
    """
    path = job.path
    if job.form == "int8":
        path = quantized(path, "QDQ", folder)
    if job.batch > 1:
        path = with_open_batch(path, folder / "open.onnx")
    masks = _masks(job, path)
    inputs = {
        value.name: (job.batch, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]))
        for value in model_inputs(onnx.load(path, load_external_data=False))
    }
    versions = {"unpruned": path}
    if (job.criterion, job.batch, job.form) == ("random", 1, "float32"):
        peers = {peer: job.beside(f"{peer}.onnx") for peer in PEERS}
        versions.update({peer: path for peer, path in peers.items() if path.exists()})
    for name in (*STRATEGIES, *["tune"] * (tune_seconds > 0)):
        how: dict[str, Any] = {"strategy": name}
        if name == "tune":
            how = {"tune": True, "tune_seconds": tune_seconds}
        made = onnx_upscale.optimize(path, masks, target=target, inputs=inputs, verify=False, **how)
        versions[name] = folder / f"{name}.onnx"
        made.save(versions[name])
    found = onnx_upscale.bench(
        [*versions.values()],
        names=[*versions],
        inputs=inputs,
        runs=runs,
        profile=True,
        memory=False,
    ).to_json()
    models = {
        each["name"]: {
            "ms": each["latency_ms"]["median"],
            "ratio": each["ratio"]["median"],
            **{kind: each["profile_ms"][kind] for kind in PROFILED},
        }
        for each in found["models"]
    }
    return {"job": job.name, "target": Path(target).name, "models": models}


def _masks(job: Job, path: Path) -> dict[str, Any]:
    if job.criterion == "random":
        if job.form == "int8":
            return input_masks(path.parent, path.stem, str(job.amount))
        return input_masks(job.folder, job.model, str(job.amount))
    return dict(onnx_upscale.mask(path, job.criterion, job.amount))


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
    for tensor in graph.initializer:
        if tensor.name in shapes:
            sizes = onnx.numpy_helper.to_array(tensor).copy()
            if sizes.size and sizes[0] == 1:
                sizes[0] = 0  # As many as there are.
                tensor.CopyFrom(onnx.numpy_helper.from_array(sizes, tensor.name))
    onnx.save(model, made)
    return made
